"""The API's verbs, as the cluster's own parts call them: versions, deletion, lists, watches, namespaces and more."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
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
)
from swarm_deploy.local.api.client import LocalClient, WatchEvent
from swarm_deploy.local.api.core import DEFINITIONS, Api
from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.store import Store

Object = dict[str, Any]


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        await call
    return error.value


# -- create


async def test_a_new_object_gets_what_only_the_server_sets(client: LocalClient) -> None:
    widget = make_widget()
    widget["metadata"] |= {"uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z", "generation": 7}
    made = await client.create(WIDGETS, {**widget, "status": {"ready": 3}}, namespace="default")
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    assert made["metadata"]["generation"] == 1
    assert made["spec"] == {"size": 3, "spare": 1, "colour": "red"}
    assert "status" not in made, "a status is written through its subresource"


async def test_what_is_returned_is_the_callers_own(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    made["spec"]["size"] = 99
    assert (await client.get(WIDGETS, "w", "default"))["spec"]["size"] == 3


async def test_a_generated_name_is_made_until_it_is_free(client: LocalClient) -> None:
    names = set()
    for _ in range(20):
        made = await client.create(WIDGETS, {**make_widget(), "metadata": {"generateName": "w-"}}, namespace="default")
        names.add(made["metadata"]["name"])
    assert len(names) == 20
    assert all(n.startswith("w-") and len(n) == 7 for n in names)


async def test_a_create_is_refused_with_the_status_that_says_why(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    assert (await refused(client.create(WIDGETS, make_widget(), namespace="default"))).reason == "AlreadyExists"
    error = await refused(client.create(WIDGETS, make_widget("x"), namespace="nowhere"))
    assert error.status["message"] == 'namespaces "nowhere" not found'
    error = await refused(client.create(WIDGETS, make_widget("y", size=-1, colour="blue"), namespace="default"))
    assert error.status["details"]["causes"] == [
        {
            "reason": "FieldValueNotSupported",
            "message": 'Unsupported value: "blue": supported values: "red", "green"',
            "field": "spec.colour",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: spec.size in body should be greater than or equal to 0",
            "field": "spec.size",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: should be a non-negative integer",
            "field": ".spec.size",
        },
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: null: some validation rules were not checked because the object was invalid;"
            " correct the existing errors to complete validation",
            "field": "<nil>",
        },
    ]
    error = await refused(client.create(WIDGETS, {**make_widget(), "apiVersion": "other/v1"}, namespace="default"))
    assert error.code == 400
    error = await refused(
        client.create(WIDGETS, {**make_widget(), "metadata": {"name": "a", "labels": 3}}, namespace="default")
    )
    assert error.code == 400
    error = await refused(client.create("nothing", {}, namespace="default"))
    assert (error.code, error.message) == (404, "the server could not find the requested resource")


async def test_a_dry_run_answers_as_if_and_keeps_nothing(client: LocalClient, api: Api) -> None:
    before = api.store.revision
    made = await client.create(WIDGETS, make_widget(), namespace="default", dry_run=True)
    assert made["metadata"]["uid"]
    assert api.store.revision == before
    assert (await refused(client.get(WIDGETS, "w", "default"))).code == 404


@pytest.mark.parametrize(
    "kind", ["deployments.apps", "jobs.batch", "persistentvolumeclaims", "networkpolicies.networking.k8s.io"]
)
async def test_a_kind_that_nothing_here_acts_on_is_refused_rather_than_kept(client: LocalClient, kind: str) -> None:
    error = await refused(client.create(kind, {"metadata": {"name": "x"}}, namespace="default"))
    assert error.code == 403
    assert "the embedded cluster" in error.message
    assert (await client.list(kind)).items == []


# -- update and patch


async def test_an_update_under_an_old_version_is_a_conflict(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    await client.patch(WIDGETS, "w", {"spec": {"size": 5}}, "default")
    made["spec"]["size"] = 7
    error = await refused(client.update(WIDGETS, made))
    assert (error.code, error.reason) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in error.message
    del made["metadata"]["resourceVersion"]
    error = await refused(client.update(WIDGETS, made))
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in error.message
    configuration = await client.create("configmaps", {"metadata": {"name": "c"}}, namespace="default")
    del configuration["metadata"]["resourceVersion"]
    await client.update("configmaps", {**configuration, "data": {"a": "1"}})


async def test_a_change_that_changes_nothing_is_not_stored(client: LocalClient, api: Api) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    before = api.store.revision
    api.clock.now += 60  # type: ignore[attr-defined]
    assert await client.update(WIDGETS, made) == made
    assert await client.patch(WIDGETS, "w", {"spec": {"size": 3}}, "default") == made
    assert api.store.revision == before


async def test_the_generation_counts_changes_of_the_spec_alone(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")

    async def generation(patch: Object, **how: Any) -> int:
        return int((await client.patch(WIDGETS, "w", patch, "default", **how))["metadata"]["generation"])

    assert await generation({"metadata": {"labels": {"a": "b"}}}) == 1
    assert await generation({"status": {"ready": 1}}, subresource="status") == 1
    assert await generation({"spec": {"size": 4}}) == 2
    assert await generation({"spec": {"size": 5}}, dry_run=True) == 3
    assert await generation({"spec": {"size": 6}}) == 3


async def test_spec_and_status_are_written_through_their_own_paths(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    both = {"spec": {"size": 9}, "status": {"ready": 2}, "metadata": {"labels": {"a": "b"}}}
    through_status = await client.patch(WIDGETS, "w", both, "default", subresource="status")
    assert through_status["spec"]["size"] == 3
    assert through_status["status"] == {"ready": 2}
    assert "labels" not in through_status["metadata"]
    through_spec = await client.patch(WIDGETS, "w", {**both, "status": {"ready": 7}}, "default")
    assert through_spec["spec"]["size"] == 9
    assert through_spec["status"] == {"ready": 2}


async def test_what_is_immutable_stays(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(serial="a"), namespace="default")
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"serial": "b"}}, "default"))
    assert error.message == 'Widget.example.test "w" is invalid: spec.serial: Invalid value: "b": serial may not change'
    uid = (await client.get(WIDGETS, "w", "default"))["metadata"]["uid"]
    await client.patch(WIDGETS, "w", {"metadata": {"creationTimestamp": "1999-01-01T00:00:00Z"}}, "default")
    held = await client.get(WIDGETS, "w", "default")
    assert held["metadata"]["creationTimestamp"] == "2027-01-15T08:00:00Z"
    error = await refused(client.patch(WIDGETS, "w", {"metadata": {"uid": "other"}}, "default"))
    assert f"UID in object meta: {uid}" in error.message


async def test_scale_reads_and_writes_the_count(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    await client.patch_status(WIDGETS, "w", {"ready": 2, "selector": "a=b"}, "default")
    scale = await client.get(WIDGETS, "w", "default", subresource="scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 3},
        {"replicas": 2, "selector": "a=b"},
    )
    await client.patch(WIDGETS, "w", {"spec": {"replicas": 8}}, "default", subresource="scale")
    held = await client.get(WIDGETS, "w", "default")
    assert held["spec"]["size"] == 8
    assert held["metadata"]["generation"] == 2
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"replicas": 101}}, "default", subresource="scale"))
    assert "should be less than or equal to 100" in error.message
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"replicas": -1}}, "default", subresource="scale"))
    assert error.code == 422


async def test_an_invalid_object_from_before_a_stricter_schema_may_still_be_changed(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(size=90), namespace="default")
    definition = await client.get(DEFINITIONS, WIDGETS)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"]["maximum"] = 50
    await client.update(DEFINITIONS, definition)
    changed = await client.patch(WIDGETS, "w", {"spec": {"colour": "green"}}, "default")
    assert changed["spec"]["size"] == 90
    error = await refused(client.patch(WIDGETS, "w", {"spec": {"size": 80}}, "default"))
    assert "should be less than or equal to 50" in error.message


async def test_an_older_object_is_read_with_the_defaults_of_a_newer_schema(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    definition = await client.get(DEFINITIONS, WIDGETS)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["novel"] = {"type": "string", "default": "yes"}
    await client.update(DEFINITIONS, definition)
    assert (await client.get(WIDGETS, "w", "default"))["spec"]["novel"] == "yes"


async def test_an_apply_creates_and_then_owns(client: LocalClient) -> None:
    config = {"apiVersion": "example.test/v1", "kind": "Widget", **make_widget()}
    made = await client.patch(WIDGETS, "w", config, "default", type="apply")
    (entry,) = made["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("test", "Apply")
    assert entry["fieldsV1"] == {"f:spec": {"f:size": {}}}, "defaults belong to nobody"
    error = await refused(
        client.patch(WIDGETS, "w", {**config, "metadata": {"name": "other"}}, "default", type="apply")
    )
    assert error.code == 400
    error = await refused(client.patch(WIDGETS, "w", config, "default", type="apply", subresource="nothing"))
    assert error.code == 404


async def test_a_strategic_patch_is_for_built_in_kinds(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    assert (await refused(client.patch(WIDGETS, "w", {}, "default", type="strategic"))).code == 415
    await client.create("pods", make_pod(), namespace="default")
    patch = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "y:2"}]}}
    patched = await client.patch("pods", "p", patch, "default", type="strategic")
    assert patched["spec"]["containers"][0]["image"] == "y:2"
    error = await refused(client.patch("pods", "p", {"spec": {"hostNetwork": True}}, "default", type="strategic"))
    assert "pod updates may not change fields other than" in error.message


# -- delete


async def test_a_delete_takes_effect_at_once_or_waits_for_finalizers(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    status = await client.delete(WIDGETS, "w", "default")
    assert (status["status"], status["details"]["kind"]) == ("Success", "widgets")
    held = make_widget("h")
    held["metadata"]["finalizers"] = ["example.test/wait"]
    await client.create(WIDGETS, held, namespace="default")
    going = await client.delete(WIDGETS, "h", "default")
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["generation"] == 2
    assert await client.delete(WIDGETS, "h", "default") == going, "once more changes nothing"
    error = await refused(
        client.patch(WIDGETS, "h", {"metadata": {"finalizers": ["example.test/wait", "x.test/y"]}}, "default")
    )
    assert "no new finalizers can be added if the object is being deleted" in error.message
    await client.patch(WIDGETS, "h", {"metadata": {"finalizers": None}}, "default")
    assert (await refused(client.get(WIDGETS, "h", "default"))).code == 404


async def test_a_delete_with_a_precondition_that_does_not_hold_is_a_conflict(client: LocalClient) -> None:
    made = await client.create(WIDGETS, make_widget(), namespace="default")
    error = await refused(client.delete(WIDGETS, "w", "default", uid="other"))
    assert "Precondition failed: UID in precondition: other" in error.message
    await client.patch(WIDGETS, "w", {"spec": {"size": 4}}, "default")
    old = made["metadata"]["resourceVersion"]
    assert (await refused(client.delete(WIDGETS, "w", "default", resource_version=old))).code == 409
    await client.delete(WIDGETS, "w", "default", uid=made["metadata"]["uid"])


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_the_propagation_policy_leaves_a_finalizer_for_the_garbage_collector(
    client: LocalClient, policy: Any, finalizer: str
) -> None:
    await client.create(WIDGETS, make_widget(), namespace="default")
    going = await client.delete(WIDGETS, "w", "default", propagation=policy)
    assert going["metadata"]["finalizers"] == [finalizer]
    error = await refused(client.delete(WIDGETS, "w", "default", propagation="Sideways"))  # type: ignore[arg-type]
    assert "propagationPolicy" in error.message


async def test_a_pod_is_given_its_grace_period_once_it_runs(client: LocalClient, api: Api) -> None:
    await client.create("pods", make_pod(terminationGracePeriodSeconds=20), namespace="default")
    await client.create("pods", make_pod("never-placed"), namespace="default")
    gone = await client.delete("pods", "never-placed", "default")
    assert gone["kind"] == "Pod"
    assert (await refused(client.get("pods", "never-placed", "default"))).code == 404
    await client.subresource("pods", "p", "binding", {"target": {"name": "n"}}, "default")
    going = await client.delete("pods", "p", "default")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 20
    assert going["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:20Z"
    later = await client.delete("pods", "p", "default", grace_period=60)
    assert later["metadata"]["deletionGracePeriodSeconds"] == 20, "a later request may only hurry"
    hurried = await client.delete("pods", "p", "default", grace_period=5)
    assert hurried["metadata"]["deletionTimestamp"] == "2027-01-15T08:00:05Z"
    revision = api.store.revision
    await client.delete("pods", "p", "default", grace_period=0)
    assert [e.type for e in api.store.watcher("pods", revision).drain()] == ["MODIFIED", "DELETED"]


# -- lists


async def test_the_pages_of_a_list_show_one_moment(client: LocalClient, api: Api) -> None:
    for number in range(5):
        await client.create(WIDGETS, make_widget(f"w{number}"), namespace="default")
    kind = api.resource(WIDGETS)
    first = api.page(kind, "default", limit=2)
    assert (len(first.items), first.remaining) == (2, 3)
    await client.delete(WIDGETS, "w3", "default")
    await client.create(WIDGETS, make_widget("w9"), namespace="default")
    second = api.page(kind, "default", limit=2, resume=first.resume)
    third = api.page(kind, "default", limit=2, resume=second.resume)
    names = [o["metadata"]["name"] for p in (first, second, third) for o in p.items]
    assert names == ["w0", "w1", "w2", "w3", "w4"]
    assert third.resume == ""
    assert {p.revision for p in (first, second, third)} == {first.revision}


async def test_a_page_that_is_no_longer_held_is_gone_and_nonsense_is_refused(client: LocalClient, api: Api) -> None:
    kind = api.resource(WIDGETS)
    for number in range(3):
        await client.create(WIDGETS, make_widget(f"w{number}"), namespace="default")
    token = api.page(kind, "default", limit=1).resume
    for number in range(70):
        await client.patch(WIDGETS, "w0", {"metadata": {"labels": {"n": str(number)}}}, "default")
        api.page(kind, "default", limit=1)
    with pytest.raises(ApiError) as error:
        api.page(kind, "default", limit=1, resume=token)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    with pytest.raises(ApiError) as error:
        api.page(kind, "default", limit=1, resume="nonsense!")
    assert error.value.code == 400


def test_a_list_of_a_moment_that_has_not_come_yet_is_refused(api: Api) -> None:
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, resource_version=str(api.store.revision + 1))
    assert (error.value.code, error.value.reason) == (504, "Timeout")
    assert error.value.status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, resource_version="1", match="Exact")
    assert error.value.code == 410
    with pytest.raises(ApiError) as error:
        api.page(api.resource("pods"), None, match="Exact")
    assert error.value.code == 422


async def test_selectors_choose_by_labels_and_fields(client: LocalClient) -> None:
    for name in ("a", "b"):
        pod = make_pod(name)
        pod["metadata"]["labels"] = {"name": name}
        await client.create("pods", pod, namespace="default")
    await client.subresource("pods", "b", "binding", {"target": {"name": "n"}}, "default")
    assert [o["metadata"]["name"] for o in (await client.list("pods", label_selector="name in (a)")).items] == ["a"]
    assert [o["metadata"]["name"] for o in (await client.list("pods", field_selector="spec.nodeName=n")).items] == ["b"]
    assert (await client.list("pods", "kube-system")).items == []


# -- watches


async def watched(client: LocalClient, count: int, *arguments: Any, **options: Any) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    async with aclosing(client.watch(*arguments, **options)) as stream:
        async with asyncio.timeout(5):
            async for event in stream:
                events.append(event)
                if len(events) == count:
                    break
    return events


def short(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(e.type, e.object["metadata"]["name"]) for e in events]


async def test_a_watch_without_a_version_begins_with_what_there_is(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    await client.create(WIDGETS, make_widget("b"), namespace="default")
    watching = asyncio.create_task(watched(client, 3, WIDGETS))
    await asyncio.sleep(0)
    await client.delete(WIDGETS, "a", "default")
    assert short(await watching) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_a_watch_from_a_list_misses_nothing(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    version = (await client.list(WIDGETS)).resource_version
    await client.patch(WIDGETS, "a", {"spec": {"size": 4}}, "default")
    await client.create(WIDGETS, make_widget("b"), namespace="default")
    assert short(await watched(client, 2, WIDGETS, version)) == [("MODIFIED", "a"), ("ADDED", "b")]


async def test_an_object_enters_and_leaves_a_selected_watch(client: LocalClient) -> None:
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    version = (await client.list(WIDGETS)).resource_version
    for labels in ({"x": "1"}, {"y": "1"}, {"x": None}, {"x": "1"}):
        await client.patch(WIDGETS, "a", {"metadata": {"labels": labels}}, "default")
    await client.delete(WIDGETS, "a", "default")
    events = await watched(client, 5, WIDGETS, version, label_selector="x=1")
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions), "also what has left is shown under the revision at which it left"
    assert events[2].object["metadata"]["labels"] == {"x": "1", "y": "1"}, "in its last state that fitted"


async def test_a_watch_sees_its_own_namespace_only(client: LocalClient) -> None:
    version = (await client.list("configmaps")).resource_version
    await client.create("configmaps", {"metadata": {"name": "a"}}, namespace="kube-system")
    await client.create("configmaps", {"metadata": {"name": "b"}}, namespace="default")
    assert short(await watched(client, 1, "configmaps", version, "default")) == [("ADDED", "b")]


async def test_a_watch_from_a_forgotten_version_is_gone(client: LocalClient, api: Api) -> None:
    version = (await client.list(WIDGETS)).resource_version
    await client.create(WIDGETS, make_widget("a"), namespace="default")
    api.store.compact(api.store.revision)
    with pytest.raises(ApiError) as error:
        await watched(client, 1, WIDGETS, version)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    assert error.value.message.startswith("too old resource version: ")


async def test_a_watch_list_ends_its_beginning_with_a_bookmark(client: LocalClient, api: Api) -> None:
    await client.create("pods", make_pod(), namespace="default")
    events = []
    stream = api.watch(api.resource("pods"), "default", bookmarks=True, initial=True)
    async with aclosing(stream):
        async for event in stream:
            events.append(event)
            if event[0] == "BOOKMARK":
                break
    assert [e[0] for e in events] == ["ADDED", "BOOKMARK"]
    assert events[1][1] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "resourceVersion": str(api.store.revision),
            "annotations": {"k8s.io/initial-events-end": "true"},
        },
        "spec": {"containers": None},
        "status": {},
    }


# -- built-in kinds


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


# -- namespaces and definitions


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
