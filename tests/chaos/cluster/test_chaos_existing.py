"""Faults on a swarm that runs already: of the local cluster, and of one that is reached by its API server alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm_agents.errors import SwarmError, Unreachable
from swarm_deploy.chaos import main
from swarm_deploy.chaos.existing import ClusterGround, find_ground
from swarm_deploy.chaos.ground import LocalGround
from swarm_deploy.local.calls import call
from swarm_deploy.local.manager import Cluster

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(300)]

SWARM = {
    "apiVersion": "agentswarm.dev/v1alpha1",
    "kind": "Swarm",
    "metadata": {"name": "theirs", "namespace": "default"},
    "spec": {
        "compute": {"replicas": 2, "cpus": "1", "memory": "256Mi"},
        "transport": {"sharedMemory": {"size": "32Mi"}},
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("theirs") / "state")
    running.start(nodes=2, cpus_per_node=4, back_off=0.2)
    try:
        path = "/apis/agentswarm.dev/v1alpha1/namespaces/default/swarms/theirs?fieldManager=test&force=true"
        call(running.kubeconfig, "PATCH", path, SWARM, kind="application/apply-patch+yaml")
        yield running
    finally:
        running.stop()


@pytest.fixture
def beside(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local cluster's own kubeconfig, where it belongs."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))


@pytest.fixture
def afar(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same API server, as if it were anywhere: nothing says that it is this machine's."""
    monkeypatch.setenv("KUBECONFIG", str(shutil.copy(cluster.kubeconfig, tmp_path)))


def chaos(tmp_path: Path, only: list[str], seconds: float = 6.0) -> tuple[int, dict[str, Any], str]:
    lines: list[str] = []
    code = main.chaos(
        swarm="theirs",
        seconds=seconds,
        seed=3,
        only=only,
        weight=[],
        every=0.8,
        clients=2,
        nodes=1,
        replicas=1,
        standby=0,
        report=tmp_path / "chaos.json",
        say=lines.append,
    )
    return code, json.loads((tmp_path / "chaos.json").read_text()), "\n".join(lines)


@pytest.mark.usefixtures("beside")
def test_a_local_swarm_is_hit_by_its_processes_and_left_running(cluster: Cluster, tmp_path: Path) -> None:
    ground = find_ground("theirs")
    assert isinstance(ground, LocalGround)
    code, document, said = chaos(tmp_path, ["kill-agent", "stop-agent", "kill-hub"])
    assert code == 0, said
    assert sum(document["done"].values()) >= 2
    assert document["lost"] == document["doubled"] == 0
    assert document["ledger"] is None  # its agents were not asked to note their commits
    assert cluster.record() is not None
    assert ground.unready() == ""


@pytest.mark.usefixtures("afar")
def test_a_swarm_of_another_cluster_has_its_pods_deleted(tmp_path: Path) -> None:
    ground = find_ground("theirs")
    assert isinstance(ground, ClusterGround)
    code, document, said = chaos(tmp_path, ["delete-agent"])
    assert code == 0, said
    assert document["done"]["delete-agent"] >= 1
    assert document["lost"] == 0


@pytest.mark.parametrize(
    ("where", "kind", "why"),
    [
        ("beside", "kill-api", "it would end a cluster that this run has not started"),
        ("beside", "disk-full", "the machine's own disk is not filled"),
        ("afar", "kill-agent", "a real cluster's API server offers no more than deleting pods"),
        ("afar", "partition", "it needs the nodes themselves"),
    ],
)
def test_what_cannot_be_done_to_a_swarm_is_refused_with_the_reason(
    where: str, kind: str, why: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(where)
    with pytest.raises(SwarmError, match=f"{kind} can't be done here: .*{why}"):
        chaos(tmp_path, [kind])


@pytest.mark.usefixtures("beside")
def test_a_swarm_that_is_not_there_is_an_error_that_says_so() -> None:
    with pytest.raises(Unreachable, match="there is no swarm nobody in namespace default"):
        find_ground("nobody")
