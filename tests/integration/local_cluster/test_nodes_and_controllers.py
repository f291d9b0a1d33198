"""Nodes that come, fail and go, and the controllers: garbage, endpoints, disruption budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.localnode import InProcess, in_process, make_config_map, make_pod
from swarm_deploy.local.api.client import ApiError
from swarm_deploy.local.kubelet.kubelet import POWER

pytestmark = pytest.mark.embedded

Object = dict[str, Any]


def condition(obj: Object | None, kind: str) -> str:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in conditions if c["type"] == kind), "")


def taints(node: Object | None) -> set[str]:
    return {f"{t['key']}:{t['effect']}" for t in (node or {}).get("spec", {}).get("taints") or ()}


async def switch(cluster: InProcess, node: str, value: str | None) -> None:
    await cluster.client.patch("nodes", node, {"metadata": {"annotations": {POWER: value}}})


# -- nodes ------------------------------------------------------------------------------------------------------------


async def test_nodes_report_what_they_have_and_keep_their_leases(pair: InProcess) -> None:
    for name in ("node-1", "node-2"):
        node = pair.get("nodes", name, "")
        assert node is not None
        assert condition(node, "Ready") == "True"
        assert node["status"]["allocatable"]["cpu"] == "4"
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == name
    first = pair.get("leases.coordination.k8s.io", "node-1", "kube-node-lease")
    assert first is not None
    await pair.until(
        lambda: (
            pair.get("leases.coordination.k8s.io", "node-1", "kube-node-lease")["spec"]["renewTime"]  # type: ignore[index]
            != first["spec"]["renewTime"]
        )
    )


async def test_a_node_without_power_is_held_for_dead_its_pods_move_and_it_comes_back(pair: InProcess) -> None:
    soon = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
        for what in ("unreachable", "not-ready")
    ]
    loyal = [{"operator": "Exists"}]
    await pair.create(make_pod("goes", "exec sleep 600", nodeName="node-2", tolerations=soon))
    await pair.create(make_pod("stays", "exec sleep 600", nodeName="node-2", tolerations=loyal))
    await pair.until(lambda: pair.ready("goes") and pair.ready("stays"))
    await switch(pair, "node-2", "off")
    await pair.until(lambda: condition(pair.get("nodes", "node-2", ""), "Ready") == "Unknown")
    await pair.until(lambda: "node.kubernetes.io/unreachable:NoExecute" in taints(pair.get("nodes", "node-2", "")))
    assert not pair.ready("stays")
    await pair.until(lambda: "deletionTimestamp" in pair.get("pods", "goes")["metadata"])  # type: ignore[index]
    assert "deletionTimestamp" not in pair.get("pods", "stays")["metadata"]  # type: ignore[index]
    await pair.create(make_pod("new"))
    await pair.until(lambda: pair.ready("new"))
    assert pair.get("pods", "new")["spec"]["nodeName"] == "node-1"  # type: ignore[index]
    await switch(pair, "node-2", None)
    await pair.until(lambda: condition(pair.get("nodes", "node-2", ""), "Ready") == "True")
    await pair.until(lambda: not taints(pair.get("nodes", "node-2", "")))
    await pair.until(lambda: pair.get("pods", "goes") is None)
    await pair.until(lambda: pair.ready("stays"))
    assert pair.container("stays")["restartCount"] == 1


async def test_a_cordoned_node_takes_no_pods_until_it_is_opened_again(small: InProcess) -> None:
    await small.client.patch("nodes", "node-1", {"spec": {"unschedulable": True}})
    await small.create(make_pod("p"))
    await small.until(lambda: small.said("p", "FailedScheduling"))
    await small.client.patch("nodes", "node-1", {"spec": {"unschedulable": None}})
    await small.until(lambda: small.ready("p"))


async def test_a_pod_that_waits_for_room_starts_when_another_ends(small: InProcess) -> None:
    most = {"resources": {"requests": {"cpu": "3"}}}
    await small.create(make_pod("first", container=most))
    await small.until(lambda: small.ready("first"))
    await small.create(make_pod("second", container=most))
    await small.until(lambda: small.said("second", "FailedScheduling", "1 Insufficient cpu"))
    assert condition(small.get("pods", "second"), "PodScheduled") == "False"
    await small.delete("pods", "first")
    await small.until(lambda: small.ready("second"))


async def test_a_burst_of_pods_is_spread_over_the_nodes(pair: InProcess) -> None:
    for number in range(6):
        await pair.create(make_pod(f"p{number}", container={"resources": {"requests": {"cpu": "500m"}}}))
    await pair.until(lambda: all(pair.ready(f"p{n}") for n in range(6)))
    nodes = [pair.get("pods", f"p{n}")["spec"]["nodeName"] for n in range(6)]  # type: ignore[index]
    assert sorted(nodes) == ["node-1"] * 3 + ["node-2"] * 3


async def test_pods_of_a_node_that_is_deleted_are_removed(pair: InProcess) -> None:
    await pair.create(make_pod("p", nodeName="node-2"))
    await pair.until(lambda: pair.ready("p"))
    await pair.delete("nodes", "node-2", "")
    await pair.gone("pods", "p")


# -- garbage ----------------------------------------------------------------------------------------------------------


def owned_by(owner: Object, obj: Object, **more: Any) -> Object:
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }
    obj["metadata"].setdefault("ownerReferences", []).append(reference)
    return obj


async def test_dependents_of_a_deleted_owner_go_to_the_last_generation(small: InProcess) -> None:
    top = await small.create(make_config_map("top"))
    middle = await small.create(owned_by(top, make_config_map("middle")))
    await small.create(owned_by(middle, make_config_map("bottom")))
    await small.create(owned_by(middle, make_pod("pod")))
    await small.until(lambda: small.ready("pod"))
    await small.delete("configmaps", "top")
    for name in ("middle", "bottom"):
        await small.gone("configmaps", name)
    await small.gone("pods", "pod")


async def test_what_has_another_owner_stays_and_loses_the_reference(small: InProcess) -> None:
    one, two = await small.create(make_config_map("one")), await small.create(make_config_map("two"))
    await small.create(owned_by(two, owned_by(one, make_config_map("child"))))
    await small.delete("configmaps", "one")

    def references() -> list[str]:
        return [r["name"] for r in small.get("configmaps", "child")["metadata"]["ownerReferences"]]  # type: ignore[index]

    await small.until(lambda: references() == ["two"])


async def test_an_owner_of_the_same_name_but_another_uid_is_no_owner(small: InProcess) -> None:
    old = await small.create(make_config_map("owner"))
    old["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    await small.create(owned_by(old, make_config_map("child")))
    await small.gone("configmaps", "child")
    assert small.get("configmaps", "owner") is not None


async def test_deleting_in_the_foreground_waits_for_what_blocks(small: InProcess) -> None:
    owner = await small.create(make_config_map("owner"))
    child = owned_by(owner, make_config_map("child"), blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["example.test/wait"]
    await small.create(child)
    await small.create(owned_by(owner, make_config_map("free")))
    await small.delete("configmaps", "owner", propagation="Foreground")
    await small.gone("configmaps", "free")
    await small.until(lambda: "deletionTimestamp" in small.get("configmaps", "child")["metadata"])  # type: ignore[index]
    assert small.get("configmaps", "owner") is not None
    await small.client.patch("configmaps", "child", {"metadata": {"finalizers": None}}, "default")
    await small.gone("configmaps", "child")
    await small.gone("configmaps", "owner")


async def test_orphans_lose_the_reference_and_stay(small: InProcess) -> None:
    owner = await small.create(make_config_map("owner"))
    await small.create(owned_by(owner, make_config_map("child")))
    await small.delete("configmaps", "owner", propagation="Orphan")
    await small.gone("configmaps", "owner")
    await small.until(lambda: not small.get("configmaps", "child")["metadata"].get("ownerReferences"))  # type: ignore[index]


async def test_a_namespace_takes_its_pods_with_it(small: InProcess) -> None:
    await small.client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "room"}})
    pod = make_pod("p")
    pod["metadata"]["namespace"] = "room"
    await small.create(pod)
    ready = "Ready"
    await small.until(lambda: condition(small.get("pods", "p", "room"), ready) == "True")
    await small.delete("namespaces", "room", "")
    await small.gone("pods", "p", "room")
    await small.gone("namespaces", "room", "")


# -- services and budgets ---------------------------------------------------------------------------------------------


def make_service(name: str, **spec: Any) -> Object:
    body = {"selector": {"tier": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


def web(name: str, **container: Any) -> Object:
    ports = {"ports": [{"name": "http", "containerPort": 8080}], **container}
    return make_pod(name, container=ports, metadata={"labels": {"tier": "web"}})


async def test_endpoints_follow_pods_and_come_back_when_deleted(small: InProcess) -> None:
    await small.create(make_service("svc"))
    unready = {"readinessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1}}
    await small.create(web("a"))
    await small.create(web("b", **unready))

    def subsets() -> list[Object]:
        return (small.get("endpoints", "svc") or {}).get("subsets") or [{}]

    await small.until(lambda: subsets()[0].get("addresses") and subsets()[0].get("notReadyAddresses"))
    (subset,) = subsets()
    assert [a["targetRef"]["name"] for a in subset["addresses"]] == ["a"]
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["b"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]

    def slices() -> list[Object]:
        return small.api.store.list("endpointslices.discovery.k8s.io", "default")

    (found,) = await small.until(lambda: [s for s in slices() if len(s.get("endpoints") or ()) == 2])
    ready = {e["targetRef"]["name"]: e["conditions"]["ready"] for e in found["endpoints"]}
    assert ready == {"a": True, "b": False}
    await small.delete("endpoints", "svc")
    await small.until(lambda: small.get("endpoints", "svc") is not None)
    await small.delete("pods", "a")
    await small.until(lambda: not subsets()[0].get("addresses"))
    await small.delete("services", "svc")
    await small.gone("endpoints", "svc")
    await small.until(lambda: not slices())


async def test_a_service_that_publishes_unready_addresses_lists_them_as_ready(small: InProcess) -> None:
    await small.create(make_service("svc", clusterIP="None", publishNotReadyAddresses=True))
    await small.create(web("a", readinessProbe={"exec": {"command": ["false"]}}))
    await small.until(lambda: ((small.get("endpoints", "svc") or {}).get("subsets") or [{}])[0].get("addresses"))
    labels = small.get("endpoints", "svc")["metadata"]["labels"]  # type: ignore[index]
    assert "service.kubernetes.io/headless" in labels


async def test_a_disruption_budget_counts_and_holds_evictions_back(small: InProcess) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"tier": "web"}}},
    }
    await small.create(budget)
    for name in ("a", "b"):
        await small.create(web(name))
    key = "poddisruptionbudgets.policy"

    def status() -> Object:
        return (small.get(key, "b") or {}).get("status") or {}

    await small.until(lambda: status().get("disruptionsAllowed") == 1)
    assert (status()["currentHealthy"], status()["desiredHealthy"], status()["expectedPods"]) == (2, 1, 2)
    pods = small.api.resource("pods")
    small.api.below(pods, "default", "a", "eviction", {})
    await small.gone("pods", "a")
    await small.until(lambda: status().get("disruptionsAllowed") == 0)
    assert condition(small.get(key, "b"), "DisruptionAllowed") == "False"
    with pytest.raises(ApiError, match="would violate the pod's disruption budget"):
        small.api.below(pods, "default", "b", "eviction", {})


# -- over a restart ---------------------------------------------------------------------------------------------------


async def test_fewer_nodes_than_before_remove_the_others_and_their_pods(tmp_path: Path) -> None:
    from swarm_deploy.local.store import Store

    database = tmp_path / "cluster.db"
    async with in_process(tmp_path / "state", nodes=2, store=Store(database)) as first:
        await first.create(make_pod("one", nodeName="node-1"))
        await first.create(make_pod("two", nodeName="node-2"))
        await first.create(make_pod("ended", "exit 0", nodeName="node-1", restartPolicy="Never"))
        await first.create(make_pod("once", nodeName="node-1", restartPolicy="Never"))
        await first.until(lambda: all(first.ready(name) for name in ("one", "two", "once")))
        await first.until(lambda: first.status("ended").get("phase") == "Succeeded")
    async with in_process(tmp_path / "state", nodes=1, store=Store(database)) as second:
        await second.gone("pods", "two")
        assert second.get("nodes", "node-2", "") is None
        await second.until(lambda: second.ready("one") and second.container("one")["restartCount"] == 1)
        assert second.container("one")["lastState"]["terminated"]["exitCode"] == 255
        assert second.status("ended")["phase"] == "Succeeded"
        await second.until(lambda: second.status("once").get("phase") == "Failed")
        assert second.said("one", "SandboxChanged")
        await second.delete("pods", "ended")
        await second.gone("pods", "ended")
