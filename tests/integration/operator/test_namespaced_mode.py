"""An operator that serves two namespaces by the rights of deploy/rbac/namespaced.yaml, and then without nodes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.clusters import TestCluster
from support.kubectl import manifest
from support.operatorlive import Client, Operator, swarm
from support.rights import operator_kubeconfig, remove_rights
from swarm_operator import rbac


@pytest.fixture
def others(cluster: TestCluster) -> Iterator[list[str]]:
    """Two further namespaces."""
    names = [f"test-{uuid.uuid4().hex[:10]}" for _ in range(2)]
    made = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": cluster.label}} for name in names
    ]
    cluster.kubectl("create", "-f", "-", stdin=manifest(*made))
    yield names
    cluster.kubectl("delete", "namespace", *names, "--wait=false", "--ignore-not-found")


@pytest.fixture
def rights(cluster: TestCluster, namespace: str, others: list[str], tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A kubeconfig with the rights for two of the three, and the suffix of what belongs to the cluster."""
    found = operator_kubeconfig(cluster, tmp_path, namespace, (namespace, others[0]))
    yield found
    remove_rights(cluster, found[1])


@pytest.fixture
def launch(
    rights: tuple[Path, str], namespace: str, others: list[str], tmp_path: Path
) -> Iterator[Callable[[], Operator]]:
    started: list[Operator] = []

    def begin() -> Operator:
        started.append(Operator(rights[0], tmp_path, [namespace, others[0]], "--no-leader-election").start())
        return started[-1]

    yield begin
    for operator in started:
        if operator.process and operator.process.poll() is None:
            operator.stop()


async def test_two_namespaces_are_served_also_without_the_right_to_read_nodes(
    client: Client, cluster: TestCluster, others: list[str], rights: tuple[Path, str], launch: Callable[[], Operator]
) -> None:
    binding = f"{rbac.ACCOUNT}-nodes{rights[1]}"
    held = json.loads(cluster.kubectl("get", "clusterrolebinding", binding, "-o", "json").out)
    held["metadata"] = {key: held["metadata"][key] for key in ("name", "labels")}
    cluster.kubectl("delete", "clusterrolebinding", binding)
    first, second, third = client, Client(client.api, others[0]), Client(client.api, others[1])
    await first.create(swarm(compute={"replicas": 2}))
    await second.create(swarm(compute={"replicas": 1}, transport={"sharedMemory": {"medium": "Memory"}}))
    await third.create(swarm(compute={"replicas": 1}))
    operator = launch()

    async def served() -> bool:
        ready = await first.condition("risk", "Ready")
        return (
            await first.names("Pod") == {"risk-compute-0-0", "risk-compute-1-0"}
            and await second.names("Pod") == {"risk-compute-0-0"}
            and ready.get("reason") == "NodesUnreadable"
        )

    await first.until(served, "both namespaces to be served")
    assert "agentswarm-operator-nodes" in (await first.condition("risk", "Ready"))["message"]
    assert (await second.condition("risk", "Ready"))["reason"] == "WaitingForAgents"
    assert any("nodes can't be read" in str(line.get("message")) for line in operator.lines())
    assert operator.http("/readyz")
    assert operator.http("/healthz")

    cluster.kubectl("create", "-f", "-", stdin=manifest(held))

    async def resource() -> bool:
        return any("-resource-" in name for name in await first.names("Pod"))

    await first.until(resource, "resource agents, once nodes may be read", 60)
    assert await third.names("Pod") == set()
    assert "status" not in await third.get("Swarm", "risk")
    assert operator.process
    assert operator.process.poll() is None
