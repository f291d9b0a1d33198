"""Built-in kinds, namespaces and definitions: what is admitted, what a real server adds, what goes with what."""

from __future__ import annotations

from typing import Any

import pytest

from support.local_api import (
    WIDGETS,
    Broom,
    Clock,
    make_api,
    make_client,
    make_definition,
    make_pod,
    make_widget,
    refused,
)
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import DEFINITIONS, Api
from swarm_deploy.local.store import Store

Object = dict[str, Any]
POLICIES = "networkpolicies.networking.k8s.io"


async def test_a_pod_is_admitted_with_what_a_real_server_adds(client: LocalClient) -> None:
    pod = await client.create("pods", make_pod(), namespace="default")
    spec = pod["spec"]
    assert pod["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert (spec["serviceAccountName"], spec["priority"]) == ("default", 0)
    assert [t["key"] for t in spec["tolerations"]] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert spec["containers"][0]["volumeMounts"][0]["name"] == spec["volumes"][0]["name"]
    without = await client.create("pods", make_pod("q", automountServiceAccountToken=False), namespace="default")
    assert "volumes" not in without["spec"]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
    ],
)
async def test_a_pods_quality_of_service(client: LocalClient, resources: Object, expected: str) -> None:
    pod = make_pod(containers=[{"name": "c", "image": "x", "resources": resources}])
    assert (await client.create("pods", pod, namespace="default"))["status"]["qosClass"] == expected


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [{"name": "C!", "image": "x"}]}, "spec.containers[0].name: Invalid value"),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        (
            {"containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "lots"}}}]},
            "quantities must match the regular expression",
        ),
        (
            {
                "containers": [
                    {"name": "c", "image": "x", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}
                ]
            },
            "must be less than or equal to cpu limit of 1",
        ),
        ({"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Perhaps"}, 'Unsupported value: "Perhaps"'),
        ({"containers": [{"name": "c", "image": "x", "livenessProbe": {}}]}, "must specify a handler type"),
        ({"containers": [{"name": "c", "image": "x"}, {"name": "c", "image": "x"}]}, 'Duplicate value: "c"'),
    ],
)
async def test_a_bad_pod_is_refused(client: LocalClient, spec: Object, text: str) -> None:
    error = await refused(client.create("pods", {"metadata": {"name": "p"}, "spec": spec}, namespace="default"))
    assert error.code == 422
    assert text in error.message


async def test_admission_refuses_what_a_pod_refers_to_in_vain(client: LocalClient) -> None:
    error = await refused(client.create("pods", make_pod(serviceAccountName="nobody"), namespace="default"))
    assert error.code == 403
    assert 'serviceaccount "nobody" not found' in error.message
    error = await refused(client.create("pods", make_pod(priorityClassName="urgent"), namespace="default"))
    assert "no PriorityClass with name urgent was found" in error.message
    await client.create("priorityclasses.scheduling.k8s.io", {"metadata": {"name": "urgent"}, "value": 7})
    assert (await client.create("pods", make_pod(priorityClassName="urgent"), namespace="default"))["spec"][
        "priority"
    ] == 7


async def test_a_pod_is_placed_once(client: LocalClient) -> None:
    await client.create("pods", make_pod(), namespace="default")
    await client.subresource("pods", "p", "binding", {"target": {"name": "n"}}, "default")
    pod = await client.get("pods", "p", "default")
    assert pod["spec"]["nodeName"] == "n"
    assert pod["status"]["conditions"][0]["type"] == "PodScheduled"
    error = await refused(client.subresource("pods", "p", "binding", {"target": {"name": "m"}}, "default"))
    assert 'pod p is already assigned to node "n"' in error.message


async def test_an_eviction_waits_for_the_disruption_budget(client: LocalClient) -> None:
    pod = make_pod()
    pod["metadata"]["labels"] = {"a": "b"}
    await client.create("pods", pod, namespace="default")
    await client.subresource("pods", "p", "binding", {"target": {"name": "n"}}, "default")
    await client.patch_status("pods", "p", {"phase": "Running"}, "default")
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
    await client.create("poddisruptionbudgets.policy", budget, namespace="default")
    numbers = {"observedGeneration": 1, "desiredHealthy": 1, "currentHealthy": 1, "expectedPods": 1}
    await client.patch_status("poddisruptionbudgets.policy", "b", {**numbers, "disruptionsAllowed": 0}, "default")
    error = await refused(client.subresource("pods", "p", "eviction", {}, "default"))
    assert error.code == 429
    assert error.headers["Retry-After"] == "10"
    (cause,) = error.status["details"]["causes"]
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"
    await client.patch_status("poddisruptionbudgets.policy", "b", {**numbers, "disruptionsAllowed": 1}, "default")
    assert (await client.subresource("pods", "p", "eviction", {}, "default"))["status"] == "Success"
    assert (await client.get("pods", "p", "default"))["metadata"]["deletionTimestamp"]
    held = await client.get("poddisruptionbudgets.policy", "b", "default")
    assert held["status"]["disruptionsAllowed"] == 0


async def test_secrets_take_plain_text_and_keep_it_encoded(client: LocalClient) -> None:
    made = await client.create("secrets", {"metadata": {"name": "s"}, "stringData": {"k": "v"}}, namespace="default")
    assert made["data"] == {"k": "dg=="}
    assert made["type"] == "Opaque"
    assert "stringData" not in made
    error = await refused(client.patch("secrets", "s", {"type": "other"}, "default"))
    assert "field is immutable" in error.message
    await client.patch("secrets", "s", {"immutable": True}, "default")
    error = await refused(client.patch("secrets", "s", {"data": {"k": "eA=="}}, "default"))
    assert "field is immutable when `immutable` is set" in error.message


async def test_a_service_gets_an_address_of_its_own_and_keeps_it(client: LocalClient) -> None:
    spec = {"ports": [{"port": 80}]}
    first = await client.create("services", {"metadata": {"name": "a"}, "spec": spec}, namespace="default")
    second = await client.create("services", {"metadata": {"name": "b"}, "spec": spec}, namespace="default")
    assert first["spec"]["clusterIP"] != second["spec"]["clusterIP"]
    changed = await client.patch("services", "a", {"spec": {"selector": {"x": "y"}}}, "default")
    assert changed["spec"]["clusterIP"] == first["spec"]["clusterIP"]
    error = await refused(client.patch("services", "a", {"spec": {"clusterIP": "10.96.9.9"}}, "default"))
    assert "may not change once set" in error.message
    error = await refused(
        client.create(
            "services", {"metadata": {"name": "c"}, "spec": {**spec, "type": "LoadBalancer"}}, namespace="default"
        )
    )
    assert "needs a real cluster" in error.message


async def test_an_event_is_one_object_with_two_faces(client: LocalClient) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R",
        "message": "m",
        "count": 2,
    }
    await client.create("events", event, namespace="default")
    other = await client.get("events.events.k8s.io", "e", "default")
    assert (other["apiVersion"], other["note"], other["regarding"]["name"]) == ("events.k8s.io/v1", "m", "p")
    assert other["deprecatedCount"] == 2
    event["metadata"] = {"name": "f"}
    event["involvedObject"] = {"kind": "Pod", "name": "p", "namespace": "elsewhere"}
    assert (
        "does not match event.namespace" in (await refused(client.create("events", event, namespace="default"))).message
    )


async def test_events_go_after_an_hour(client: LocalClient, api: Api) -> None:
    about = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}}
    await client.create("events", {"metadata": {"name": "old"}, **about}, namespace="default")
    api.clock.now += 3000  # type: ignore[attr-defined]
    await client.create("events", {"metadata": {"name": "new"}, **about}, namespace="default")
    api.clock.now += 1000  # type: ignore[attr-defined]
    Broom(api).expire()
    assert [o["metadata"]["name"] for o in (await client.list("events")).items] == ["new"]


async def test_a_namespace_is_furnished_closed_emptied_and_removed(client: LocalClient, api: Api) -> None:
    made = await client.create("namespaces", {"metadata": {"name": "team"}})
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert made["status"] == {"phase": "Active"}
    assert await client.get("serviceaccounts", "default", "team")
    assert await client.get("configmaps", "kube-root-ca.crt", "team")
    held = make_widget()
    held["metadata"]["finalizers"] = ["example.test/wait"]
    await client.create(WIDGETS, held, namespace="team")
    going = await client.delete("namespaces", "team")
    assert going["status"]["phase"] == "Terminating"
    error = await refused(client.create(WIDGETS, make_widget("late"), namespace="team"))
    assert error.code == 403
    assert error.status["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    broom = Broom(api)
    assert broom.sweep() is True
    conditions = {c["type"]: c for c in (await client.get("namespaces", "team"))["status"]["conditions"]}
    assert "widgets.example.test has 1 resource instances" in conditions["NamespaceContentRemaining"]["message"]
    assert "example.test/wait" in conditions["NamespaceFinalizersRemaining"]["message"]
    await client.patch(WIDGETS, "w", {"metadata": {"finalizers": None}}, "team")
    assert broom.sweep() is False
    assert (await refused(client.get("namespaces", "team"))).code == 404


async def test_the_first_namespaces_stay(client: LocalClient) -> None:
    error = await refused(client.delete("namespaces", "default"))
    assert (error.code, "this namespace may not be deleted" in error.message) == (403, True)


async def test_what_a_namespace_was_furnished_with_comes_back(client: LocalClient) -> None:
    before = (await client.get("serviceaccounts", "default", "default"))["metadata"]["uid"]
    await client.delete("serviceaccounts", "default", "default")
    assert (await client.get("serviceaccounts", "default", "default"))["metadata"]["uid"] != before


async def test_a_definition_is_served_at_once_and_taken_away_with_what_it_held(client: LocalClient, api: Api) -> None:
    definition = await client.get(DEFINITIONS, WIDGETS)
    conditions = {c["type"]: c["status"] for c in definition["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    await client.create(WIDGETS, make_widget(), namespace="default")
    going = await client.delete(DEFINITIONS, WIDGETS)
    assert going["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    broom = Broom(api)
    while broom.sweep():
        pass
    assert (await refused(client.get(DEFINITIONS, WIDGETS))).code == 404
    assert (await refused(client.list(WIDGETS))).code == 404
    assert api.store.list(WIDGETS) == []


async def test_names_that_are_taken_are_not_accepted(client: LocalClient) -> None:
    other = make_definition()
    other["metadata"]["name"] = "gadgets.example.test"
    other["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget", "shortNames": ["wg"]}
    await client.create(DEFINITIONS, other)
    conditions = (await client.get(DEFINITIONS, "gadgets.example.test"))["status"]["conditions"]
    found = {c["type"]: (c["status"], c["reason"]) for c in conditions}
    assert found == {"NamesAccepted": ("False", "ShortNamesConflict"), "Established": ("False", "NotAccepted")}
    assert (await refused(client.list("gadgets.example.test"))).code == 404


async def test_every_version_of_a_definition_shows_the_same_objects(client: LocalClient, api: Api) -> None:
    definition = await client.get(DEFINITIONS, WIDGETS)
    older = {**definition["spec"]["versions"][0], "name": "v1beta1", "storage": False}
    definition["spec"]["versions"].append(older)
    await client.update(DEFINITIONS, definition)
    await client.create(WIDGETS, make_widget(), namespace="default")
    assert api.catalog.versions("example.test") == ["v1", "v1beta1"]
    beta = api.at("example.test", "v1beta1", "widgets")
    assert api.read(beta, "default", "w")["apiVersion"] == "example.test/v1beta1"


async def test_objects_and_definitions_are_there_after_a_restart() -> None:
    store = Store(None)
    first = make_client(make_api(store))
    made = await first.create(WIDGETS, make_widget(), namespace="default")
    again = make_client(make_api(store, definition=False, clock=Clock(1_900_000_000.0)))
    assert await again.get(WIDGETS, "w", "default") == made
    assert (await again.get("services", "kubernetes", "default"))["spec"]["clusterIP"] == "10.96.0.1"


async def test_a_service_accounts_token_opens_the_door_until_it_ends(client: LocalClient, api: Api) -> None:
    answer = await client.subresource(
        "serviceaccounts", "default", "token", {"spec": {"expirationSeconds": 600}}, "default"
    )
    token = answer["status"]["token"]
    assert api.tokens.subject(token, api.clock()) == "system:serviceaccount:default:default"
    assert api.tokens.subject(token, api.clock() + 601) is None
    assert api.tokens.subject(token[:-2] + "xx", api.clock()) is None
    assert api.tokens.subject("nonsense", api.clock()) is None
    assert (await refused(client.subresource("serviceaccounts", "nobody", "token", {}, "default"))).code == 404


async def test_too_many_events_are_cut_from_the_old_end(
    client: LocalClient, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swarm_deploy.local.api import lifecycle

    monkeypatch.setattr(lifecycle, "_MOST_EVENTS", 2)
    about = {"involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}}
    for number in range(4):
        await client.create("events", {"metadata": {"name": f"e{number}"}, **about}, namespace="default")
        api.clock.now += 1  # type: ignore[attr-defined]
    Broom(api).expire()
    assert [o["metadata"]["name"] for o in (await client.list("events")).items] == ["e2", "e3"]


async def test_a_network_policy_is_completed_and_kept(client: LocalClient) -> None:
    rule = {"ports": [{"port": "hub"}], "from": [{"podSelector": {}}]}
    policy = {"metadata": {"name": "n"}, "spec": {"ingress": [rule], "egress": [{}]}}
    made = await client.create(POLICIES, policy, namespace="default")
    assert made["spec"]["podSelector"] == {}
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["ingress"][0]["ports"] == [{"port": "hub", "protocol": "TCP"}]
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"from": [{}]}, "spec.ingress[0].from[0]"),
        ({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}, "spec.ingress[0].from[0]"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0/8"}}]}, "spec.ingress[0].from[0].ipBlock.cidr"),
        ({"from": [{"podSelector": {"matchLabels": {"a b": "c"}}}]}, "spec.ingress[0].from[0].podSelector.matchLabels"),
        ({"ports": [{"port": 0}]}, "spec.ingress[0].ports[0].port"),
        ({"ports": [{"port": "Not-A-Name"}]}, "spec.ingress[0].ports[0].port"),
        ({"ports": [{"port": 1, "protocol": "ICMP"}]}, "spec.ingress[0].ports[0].protocol"),
    ],
)
async def test_a_network_policy_that_could_not_be_carried_out_is_refused(
    client: LocalClient, rule: dict[str, Any], field: str
) -> None:
    policy = {"metadata": {"name": "n"}, "spec": {"ingress": [rule]}}
    error = await refused(client.create(POLICIES, policy, namespace="default"))
    assert error.code == 422
    assert {cause["field"] for cause in error.status["details"]["causes"]} == {field}
