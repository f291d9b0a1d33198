"""Gangs, devices and nodes that refuse, from the manifest to the conditions, against an API server and its scheduler.

The nodes are changed (labels, annotations, offered devices), so these run on the embedded cluster alone. What runs
elsewhere (Kueue, Volcano) is stood in for by what it does to the objects: their names are the contract.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from support.operatorlive import Client, Operator, swarm
from swarm_operator.kube import ApiError

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

MIG = "nvidia.com/mig-1g.10gb"
NUMA = "local.agentswarm.dev/numa-nodes"
SOON = 10.0  # seconds: what the conditions of a Swarm that can't run may take
NODE_PATCH = "application/merge-patch+json"


async def synced(client: Client, operator: Operator) -> Operator:
    """What is measured from here on is the operator's time, and not that of a Python that starts."""

    async def listed() -> bool:
        return operator.said("synced")

    await client.until(listed, "the operator to have listed everything")
    return operator


async def patch_node(client: Client, node: str, patch: dict[str, Any], subresource: str = "") -> None:
    path = f"/api/v1/nodes/{node}{subresource}"
    await client.api.request("PATCH", path, body=patch, content_type=NODE_PATCH)


@pytest.fixture
async def nodes(client: Client) -> AsyncIterator[list[str]]:
    """The names of the cluster's two nodes, which are as before when the test is over."""
    names = sorted(node["metadata"]["name"] for node in await client.list("Node", ""))
    assert len(names) == 2
    yield names
    gone = {"capacity": {MIG: None}, "allocatable": {MIG: None}}
    for name in names:
        await patch_node(client, name, {"metadata": {"labels": {"gang": None}, "annotations": {NUMA: None}}})
        await patch_node(client, name, {"status": gone}, "/status")


async def compute(client: Client) -> list[dict[str, Any]]:
    return [
        pod
        for pod in await client.list("Pod")
        if "-compute-" in pod["metadata"]["name"] and "deletionTimestamp" not in pod["metadata"]
    ]


async def placed_on(client: Client) -> list[str]:
    return [pod["spec"]["nodeName"] for pod in await compute(client) if pod["spec"].get("nodeName")]


def reason(client: Client, kind: str, wanted: str) -> Callable[[], Any]:
    async def check() -> dict[str, Any] | None:
        found = await client.condition("risk", kind)
        return found if found.get("reason") == wanted else None

    return check


def gang(kind: str, replicas: int = 4, **scheduling: Any) -> dict[str, Any]:
    return swarm(
        compute={"replicas": replicas, "cpus": "1", "memory": "400Mi"},
        scheduling={"gang": kind, **scheduling},
    )


async def test_with_room_for_three_of_four_none_starts_and_with_room_for_four_all_do(
    client: Client, start: Callable[..., Operator], nodes: list[str]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    await patch_node(client, nodes[0], {"metadata": {"labels": {"gang": "x"}}})  # four CPUs, a resource agent on them
    await client.create(gang("Operator", nodeSelector={"gang": "x"}))
    found = await client.until(reason(client, "Placed", "GangWaiting"), "the group to wait for room")
    await client.until(lambda: _says(client, "room for 3 of 4 agents: none is started"), "the room to be counted")
    assert found["status"] == "False"
    end = time.monotonic() + 7.0  # a look for room later
    while time.monotonic() < end:
        assert await placed_on(client) == []
    pods = await compute(client)
    assert len(pods) == 4
    assert all(pod["spec"]["schedulingGates"] == [{"name": "agentswarm.dev/gang"}] for pod in pods)

    await patch_node(client, nodes[1], {"metadata": {"labels": {"gang": "x"}}})

    async def all_four() -> bool:
        return len(await placed_on(client)) == 4

    await client.until(all_four, "all four to be placed")
    assert {pod["metadata"]["uid"] for pod in await compute(client)} == {pod["metadata"]["uid"] for pod in pods}
    await client.until(reason(client, "Placed", "AllPlaced"), "the condition")

    # what comes later comes singly
    (first, *_) = await compute(client)
    await client.delete("Pod", first["metadata"]["name"])

    async def replaced() -> bool:
        uids = {pod["metadata"]["uid"] for pod in await compute(client)}
        return first["metadata"]["uid"] not in uids and len(await placed_on(client)) == 4

    await client.until(replaced, "the replacement to be placed")


async def _says(client: Client, text: str, kind: str = "Placed") -> bool:
    return text in (await client.condition("risk", kind)).get("message", "")


async def test_two_gangs_never_count_on_the_same_room(
    client: Client, start: Callable[..., Operator], nodes: list[str]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    for node in nodes:
        await patch_node(client, node, {"metadata": {"labels": {"gang": "x"}}})
    for name in ("one", "two"):
        made = gang("Operator", 4, nodeSelector={"gang": "x"})
        made["metadata"]["name"] = name
        await client.create(made)

    async def on_nodes() -> dict[str, int]:
        counts = {"one": 0, "two": 0}
        for pod in await compute(client):
            counts[pod["metadata"]["labels"]["agentswarm.dev/swarm"]] += bool(pod["spec"].get("nodeName"))
        return counts

    async def one_of_them() -> bool:
        return sorted((await on_nodes()).values()) == [0, 4]

    await client.until(one_of_them, "one of the gangs to start")
    end = time.monotonic() + 6.0
    while time.monotonic() < end:
        assert sorted((await on_nodes()).values()) == [0, 4], "the other one is not torn"


async def test_a_device_that_no_node_offers_is_said_within_ten_seconds_and_fractions_are_placed_by_name(
    client: Client, start: Callable[..., Operator], nodes: list[str]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    compute_ = {"replicas": 2, "cpus": "1", "memory": "400Mi", "gpus": {"resource": MIG, "count": 1}}
    await client.create(swarm(compute=compute_))
    found = await client.until(reason(client, "Placed", "NoSuchResource"), "the condition", SOON)
    assert MIG in found["message"]
    offered = {"capacity": {MIG: "1"}, "allocatable": {MIG: "1"}}
    await patch_node(client, nodes[0], {"status": offered}, "/status")
    await client.until(lambda: _count(client, 1), "one agent to be placed")
    assert await placed_on(client) == [nodes[0]]
    found = await client.until(reason(client, "Placed", "Unschedulable"), "the other one to be told of")
    assert f"Insufficient {MIG}" in found["message"]
    await patch_node(client, nodes[1], {"status": offered}, "/status")
    await client.until(reason(client, "Placed", "AllPlaced"), "both to be placed")
    assert sorted(await placed_on(client)) == nodes


async def _count(client: Client, count: int) -> bool:
    return len(await placed_on(client)) == count


async def test_agents_that_are_too_large_for_every_node_are_told_of(
    client: Client, start: Callable[..., Operator], nodes: list[str]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    await client.create(swarm(compute={"replicas": 1, "cpus": "900"}))
    found = await client.until(reason(client, "Placed", "NoNodeLargeEnough"), "the condition", SOON)
    assert "900 of cpu, the most is 4" in found["message"]


async def test_nodes_that_refuse_are_avoided_and_tried_again_and_the_refused_pods_are_collected(
    client: Client, start: Callable[..., Operator], nodes: list[str]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    for node in nodes:  # no agent of three CPUs fits onto one of two NUMA nodes
        await patch_node(client, node, {"metadata": {"annotations": {NUMA: "2"}}})
    await client.create(swarm(compute={"replicas": 1, "cpus": "3", "memory": "400Mi"}))

    async def both_avoided() -> bool:
        message = (await client.condition("risk", "TopologyRejected")).get("message", "")
        return all(f"node {node} refused agents 1 times (TopologyAffinityError" in message for node in nodes)

    await client.until(both_avoided, "both nodes to refuse", SOON)
    assert (await client.condition("risk", "TopologyRejected"))["status"] == "True"
    failed = [pod for pod in await compute(client) if pod.get("status", {}).get("phase") == "Failed"]
    assert len(failed) == 2, "one a node, and no loop"
    # the nodes change their minds; within the ten seconds nothing is tried
    for node in nodes:
        await patch_node(client, node, {"metadata": {"annotations": {NUMA: None}}})

    async def taken() -> bool:
        return any(
            pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") != "Failed"
            for pod in await compute(client)
        )

    await client.until(taken, "an agent to be taken")

    async def told() -> bool:  # the condition follows the pod by one round
        return (await client.condition("risk", "Placed"))["reason"] in ("AllPlaced", "Placing")

    await client.until(told, "the condition to follow", SOON)

    async def collected() -> bool:
        left = [pod for pod in await compute(client) if pod.get("status", {}).get("phase") == "Failed"]
        return not left and (await client.condition("risk", "TopologyRejected")).get("status") == "False"

    await client.until(collected, "the refused pods to be deleted")


async def test_pods_for_kueue_wait_behind_its_gate_and_say_that_nobody_manages_them(
    client: Client, start: Callable[..., Operator]
) -> None:
    await synced(client, start("--no-leader-election", everywhere=True))
    await client.create(gang("Kueue", queueName="team-a"))
    found = await client.until(reason(client, "Placed", "GangSchedulerMissing"), "the condition", SOON)
    assert "managedJobsNamespaceSelector" in found["message"]
    pods = await compute(client)
    assert len(pods) == 4
    assert await placed_on(client) == []
    groups = {pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] for pod in pods}
    assert len(groups) == 1
    for pod in pods:  # what its webhook does, and then its admission
        name = pod["metadata"]["name"]
        await client.merge("Pod", name, {"metadata": {"labels": {"kueue.x-k8s.io/managed": "true"}}})
    await client.until(reason(client, "Placed", "GangWaiting"), "to be told of the queue")
    for pod in pods:
        await client.merge("Pod", pod["metadata"]["name"], {"spec": {"schedulingGates": None}})
    await client.until(reason(client, "Placed", "AllPlaced"), "all to be placed")


def pod_group_crd(group: str, version: str) -> dict[str, Any]:
    """Of Volcano or coscheduling, as far as its fields matter here."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"podgroups.{group}",
            # groups of k8s.io are Kubernetes' own, and want to be told whether somebody there agreed
            "annotations": {"api-approved.kubernetes.io": "unapproved, a copy for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "PodGroup", "plural": "podgroups", "singular": "podgroup", "listKind": "PodGroupList"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("scheduler", "group", "version", "spec"),
    [
        ("Volcano", "scheduling.volcano.sh", "v1beta1", {"queueName": "q"}),
        ("Coscheduling", "scheduling.x-k8s.io", "v1alpha1", {}),
    ],
)
async def test_a_missing_gang_scheduler_is_a_condition_and_its_pod_group_is_written_once_it_is_there(
    client: Client,
    start: Callable[..., Operator],
    scheduler: str,
    group: str,
    version: str,
    spec: dict[str, Any],
) -> None:
    operator = await synced(client, start("--no-leader-election", everywhere=True))
    await client.create(gang(scheduler, **spec))
    found = await client.until(reason(client, "Placed", "GangSchedulerMissing"), "the condition", SOON)
    assert f"no PodGroup of {group}/{version}" in found["message"]
    assert await compute(client) == []
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await client.api.request("POST", crds, body=pod_group_crd(group, version))
    try:
        path = f"/apis/{group}/{version}/namespaces/{client.namespace}/podgroups/risk"

        async def written() -> bool:
            try:
                await client.api.request("GET", path)
            except ApiError as error:
                if error.status == 404:
                    return False
                raise
            return len(await compute(client)) == 4

        await client.until(written, "the PodGroup and its pods")
        pods = await compute(client)
        if scheduler == "Volcano":
            assert {pod["spec"]["schedulerName"] for pod in pods} == {"volcano"}
            assert {pod["metadata"]["annotations"]["scheduling.k8s.io/group-name"] for pod in pods} == {"risk"}
        else:
            assert {pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] for pod in pods} == {"risk"}
        assert not operator.said("reconcile crashed")
    finally:
        await client.api.request("DELETE", f"{crds}/podgroups.{group}")
