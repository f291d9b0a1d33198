"""Scheduling gates, extended resources and a Topology Manager that rejects, as a real cluster has them."""

from __future__ import annotations

from typing import Any

import pytest

from support.localnode import InProcess, make_pod
from swarm_deploy.local.api.client import ApiError
from swarm_deploy.local.kubelet.kubelet import NUMA

MIG = "nvidia.com/mig-1g.10gb"


def asking(name: str, **amounts: str) -> dict[str, Any]:
    amounts = {"memory": "16Mi"} | amounts
    return make_pod(name, container={"resources": {"requests": dict(amounts), "limits": dict(amounts)}})


def scheduled(cluster: InProcess, name: str) -> tuple[str, str]:
    """Its node, and why it has none."""
    pod = cluster.get("pods", name) or {"spec": {}}
    conditions = {c["type"]: c for c in cluster.status(name).get("conditions") or ()}
    return pod["spec"].get("nodeName", ""), conditions.get("PodScheduled", {}).get("reason", "")


async def node_name(cluster: InProcess) -> str:
    return str((await cluster.client.list("nodes")).items[0]["metadata"]["name"])


async def offer(cluster: InProcess, node: str, **amounts: str) -> None:
    await cluster.client.patch_status("nodes", node, {"capacity": amounts, "allocatable": amounts})


async def test_a_gated_pod_waits_until_its_last_gate_is_gone(small: InProcess) -> None:
    pod = make_pod("gated")
    pod["spec"]["schedulingGates"] = [{"name": "a.example/x"}, {"name": "b.example/y"}]
    await small.create(pod)
    await small.until(lambda: scheduled(small, "gated") == ("", "SchedulingGated"))
    await small.client.patch("pods", "gated", {"spec": {"schedulingGates": [{"name": "b.example/y"}]}}, "default")
    assert scheduled(small, "gated") == ("", "SchedulingGated")
    await small.client.patch("pods", "gated", {"spec": {"schedulingGates": None}}, "default")
    await small.until(lambda: small.ready("gated"))


async def test_a_gate_can_be_taken_away_and_never_added(small: InProcess) -> None:
    await small.create(make_pod("free"))
    with pytest.raises(ApiError, match="only deletion is allowed, but found new scheduling gate"):
        await small.client.patch("pods", "free", {"spec": {"schedulingGates": [{"name": "a.example/x"}]}}, "default")


async def test_devices_are_what_the_nodes_status_offers(small: InProcess) -> None:
    node = await node_name(small)
    await small.create(asking("early", **{"cpu": "100m", MIG: "1"}))
    await small.until(lambda: scheduled(small, "early")[1] == "Unschedulable")
    await offer(small, node, **{MIG: "2"})
    await small.until(lambda: small.ready("early"))
    await small.create(asking("two", **{"cpu": "100m", MIG: "2"}))
    await small.until(lambda: scheduled(small, "two")[1] == "Unschedulable")
    await small.delete("pods", "early", grace_period=0)
    await small.until(lambda: small.ready("two"))
    # its kubelet's own report keeps what others have written
    await small.assembly.kubelets[0]._report()
    assert (small.get("nodes", node, "") or {})["status"]["allocatable"][MIG] == "2"


async def test_a_topology_manager_rejects_what_no_numa_node_has(small: InProcess) -> None:
    node = await node_name(small)
    await small.client.patch("nodes", node, {"metadata": {"annotations": {NUMA: "2"}}})
    await small.create(asking("wide", cpu="3"))
    await small.until(lambda: small.status("wide").get("phase") == "Failed")
    status = small.status("wide")
    assert status["reason"] == "TopologyAffinityError"
    assert not status.get("containerStatuses"), "no container of it ever was"
    assert scheduled(small, "wide")[0] == node
    await small.delete("pods", "wide")
    await small.gone("pods", "wide")
    # two and one fit on a NUMA node each; then two are free, on different ones
    await small.create(asking("two", cpu="2"))
    await small.until(lambda: small.ready("two"))
    await small.create(asking("one", cpu="1"))
    await small.until(lambda: small.ready("one"))
    held = {c for cpus in small.assembly.kubelets[0].services.cpus.exclusively_held.values() for c in cpus}
    assert len(held) == 3
    assert {2, 3} <= held
