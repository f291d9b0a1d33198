"""A simulated node is switched off: its agents are replaced on the other one, and what comes back with it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.clusters import CRD
from support.kubectl import Kubectl, manifest
from support.leftovers import processes, stays_empty_within
from swarm_deploy.local.manager import Cluster

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(180)]

RISK = {
    "apiVersion": "agentswarm.dev/v1alpha1",
    "kind": "Swarm",
    "metadata": {"name": "risk"},
    "spec": {
        "compute": {"replicas": 2, "cpus": "100m"},
        "scheduling": {"topology": {"placement": "Spread"}},
        "transport": {"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 16}},
    },
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of two nodes, held for dead after two seconds, with its operator."""
    made = Cluster(tmp_path / "state")
    made.start(nodes=2, heartbeat=0.5, node_grace=2.0, back_off=0.5)
    yield made
    made.stop()
    left = stays_empty_within(10, lambda: processes(str(tmp_path)))
    assert not left, left


def eventually(what: str, look: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.1)
    return found


def test_agents_of_a_lost_node_are_replaced_and_end_when_it_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "kubectl-cache")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    kubectl("create", "-f", "-", stdin=manifest(RISK))
    kubectl("wait", "--for=condition=Ready", "swarm/risk", "--timeout=90s", timeout=100)

    def compute() -> dict[str, dict[str, Any]]:
        found = kubectl.get("pods", "-l", "agentswarm.dev/role=compute")["items"]
        return {pod["metadata"]["name"]: pod for pod in found}

    def ready(pod: dict[str, Any]) -> bool:
        conditions = pod.get("status", {}).get("conditions", ())
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    (lost,) = [pod for pod in compute().values() if pod["spec"]["nodeName"] == "node-2"]
    name, ordinal = lost["metadata"]["name"], lost["metadata"]["labels"]["agentswarm.dev/ordinal"]
    cluster.node_stop("node-2")
    kubectl("wait", "--for=condition=Ready=Unknown", "node/node-2", "--timeout=30s")
    successor = f"risk-compute-{ordinal}-1"

    def succeeded() -> dict[str, Any] | None:
        pod = compute().get(successor)
        return pod if pod and ready(pod) else None

    pod = eventually("the successor", succeeded)
    assert pod["spec"]["nodeName"] == "node-1"
    assert "deletionTimestamp" in compute()[name]["metadata"], "the old one is deleted, and waits for its node"

    def hubs() -> list[str]:
        settings = kubectl.get("configmap", "risk-settings")["data"]["settings.json"]
        return [hub["node"] for hub in json.loads(settings)["hubs"]]

    assert eventually("the lost hub to leave the settings", lambda: hubs() == ["node-1"])
    reasons = {e["reason"] for e in kubectl.get("events")["items"] if e["involvedObject"].get("kind") == "Swarm"}
    assert "NodeLost" in reasons

    cluster.node_start("node-2")
    eventually("the old incarnation to end", lambda: name not in compute())
    eventually("the hub to be back", lambda: sorted(hubs()) == ["node-1", "node-2"])
    kubectl("wait", "--for=condition=Ready", "swarm/risk", "--timeout=60s", timeout=70)
    names = set(compute())
    assert len(names) == 2
    assert successor in names, "who took the place keeps it"
