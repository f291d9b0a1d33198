"""The whole product, once for all end-to-end tests: embedded cluster, operator, and a small swarm that is Ready."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clusters import CRD
from support.kubectl import Kubectl, manifest
from support.leftovers import processes, stays_empty_within
from support.product import Running
from swarm_deploy.local.manager import Cluster
from swarm_deploy.local.record import shared_memory

SWARM = {
    "apiVersion": "agentswarm.dev/v1alpha1",
    "kind": "Swarm",
    "metadata": {"name": "small"},
    "spec": {
        "compute": {"replicas": 2, "standby": 1, "cpus": 1, "memory": "256Mi"},
        "transport": {"sharedMemory": {"size": "64Mi"}},
    },
}


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`swarm up` and a Swarm; at the end `swarm down`, and nothing may be left."""
    state = tmp_path_factory.mktemp("product") / "state"
    env = {"SWARM_LOCAL_STATE": str(state), "KUBECONFIG": str(state / "kubeconfig")}
    kubectl = Kubectl(state / "kubeconfig", state.parent / "kubectl-cache")
    running = Running(state, kubectl, env)
    up = running.swarm("up", "--nodes", "2", "--cpus-per-node", "4", timeout=120)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        record = Cluster(state).record()
        assert record is not None
        assert CRD.is_file()
        kubectl("apply", "-f", "-", stdin=manifest(SWARM))
        kubectl("wait", "--for=condition=Ready", "swarm/small", "--timeout=90s", timeout=120)
        yield running
    finally:
        down = running.swarm("down", timeout=90)
    assert down.returncode == 0, down.stdout + down.stderr
    left = stays_empty_within(10, lambda: processes(str(state)))
    assert not left, f"`swarm down` left: {left}"
    assert not shared_memory(record.cluster).exists(), "`swarm down` left its nodes' shared memory"
