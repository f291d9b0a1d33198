"""The local cluster from outside: it starts, stops, comes back, and leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kubectl import Kubectl, manifest
from support.leftovers import processes, stays_empty_within
from swarm_agents.errors import Unreachable
from swarm_deploy.local.manager import Cluster, LocalClusterError
from swarm_deploy.local.record import CLUSTER_MARK, shared_memory

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster's manager; whatever the test starts by it is stopped, and nothing may be left."""
    made = Cluster(tmp_path / "state")
    yield made
    made.stop()
    left = stays_empty_within(10, lambda: processes(str(tmp_path)))
    assert not left, left


def kubectl_of(cluster: Cluster) -> Kubectl:
    return Kubectl(cluster.kubeconfig, cluster.state.parent / "kubectl-cache")


def pod(name: str, script: str, **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "localhost/host:1", "command": ["sh", "-c", script]}
    container |= more.pop("container", {})
    spec = {"containers": [container], "terminationGracePeriodSeconds": 2, "automountServiceAccountToken": False} | more
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def eventually(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"waited {seconds:g} s in vain"
        time.sleep(0.05)
    return found


def test_objects_are_found_again_and_pods_run_again_after_down_and_up(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False)
    kubectl = kubectl_of(cluster)
    kubectl("create", "configmap", "kept", "--from-literal=a=1")
    kubectl("create", "-f", "-", stdin=manifest(pod("p", "echo began; exec sleep 600")))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    uid = kubectl.get("pod", "p")["metadata"]["uid"]
    assert cluster.stop()
    assert not processes(str(cluster.state))
    cluster.start(nodes=1, operator=False)
    assert kubectl.get("configmap", "kept")["data"] == {"a": "1"}

    def again() -> bool:
        status = kubectl.get("pod", "p")["status"]["containerStatuses"][0]
        return bool(status["restartCount"] >= 1 and status["ready"])

    eventually(again)
    assert kubectl.get("pod", "p")["metadata"]["uid"] == uid


def test_a_cluster_that_is_killed_takes_its_pods_with_it_and_starts_again(cluster: Cluster) -> None:
    record = cluster.start(nodes=1, operator=False)
    kubectl = kubectl_of(cluster)
    kubectl("create", "-f", "-", stdin=manifest(pod("p", "exec sleep 4711")))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: cluster.record() is None)
    left = stays_empty_within(10, lambda: [p for p in processes(str(cluster.state)) if "4711" in p])
    assert not left, "a pod outlived its cluster"
    cluster.start(nodes=1, operator=False)
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")


def test_two_clusters_can_not_share_a_directory(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False)
    with pytest.raises(LocalClusterError, match="swarm status"):
        cluster.start(nodes=1, operator=False)


def test_a_port_in_use_is_an_error_that_says_what_to_do(cluster: Cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(LocalClusterError, match="--port"):
            cluster.start(nodes=1, operator=False, port=taken.getsockname()[1])
    assert cluster.record() is None


def test_a_state_directory_of_another_release_is_refused_untouched(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False)
    cluster.stop()
    (database,) = cluster.state.glob("*.db")
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 4242")
    connection.close()
    with pytest.raises(LocalClusterError, match=r"4242|layout|version|release"):
        cluster.start(nodes=1, operator=False)
    assert database.exists()


def test_purge_removes_what_a_stopped_cluster_kept_and_nothing_of_others(cluster: Cluster, tmp_path: Path) -> None:
    record = cluster.start(nodes=1, operator=False)
    with pytest.raises(LocalClusterError, match="stop it first"):
        cluster.purge()
    assert shared_memory(record.cluster).is_dir()
    cluster.stop()
    assert not shared_memory(record.cluster).exists()
    cluster.purge()
    assert not cluster.state.exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(LocalClusterError, match="nothing was removed"):
        Cluster(tmp_path / "mine").purge()


def test_the_credentials_are_their_owners_alone(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False)
    assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert cluster.state.stat().st_mode & 0o077 == 0
    url = kubectl_of(cluster)("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").out
    assert url.startswith("https://127.0.0.1:")


def test_pods_get_volumes_environment_probes_cpus_and_an_address_of_their_own(cluster: Cluster) -> None:
    cluster.start(nodes=1, cpus_per_node=4, operator=False)
    kubectl = kubectl_of(cluster)
    kubectl("create", "configmap", "settings", "--from-literal=color=blue")
    kubectl("create", "secret", "generic", "keys", "--from-literal=token=s3cret")
    mounts = [{"name": n, "mountPath": f"/etc/test/{n}"} for n in ("settings", "keys", "scratch")]
    env = [
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(COLOR)-$(NODE)"},
        {"name": "KEYS", "value": "/etc/test/keys"},
    ]
    volumes = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "scratch", "emptyDir": {"medium": "Memory"}},
    ]
    script = (
        "cat /etc/test/settings/color; echo; cat $KEYS/token; echo; echo $BOTH $IP $SWARM_CPUS_EXCLUSIVE;"
        "touch /etc/test/scratch/up; exec sleep 600"
    )
    container = {
        "env": env,
        "volumeMounts": mounts,
        "resources": {"limits": {"cpu": "2", "memory": "64Mi"}},
        "readinessProbe": {"exec": {"command": ["test", "-e", "/etc/test/scratch/up"]}, "periodSeconds": 1},
    }
    kubectl("create", "-f", "-", stdin=manifest(pod("p", script, container=container, volumes=volumes)))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    status = kubectl.get("pod", "p")["status"]
    assert status["qosClass"] == "Guaranteed"
    lines = kubectl("logs", "p").out.split()
    node = kubectl.get("pod", "p")["spec"]["nodeName"]
    assert lines[:4] == ["blue", "s3cret", f"blue-{node}", status["podIP"]]
    # Four simulated CPUs on fewer real ones: two of them may be the same, and the pod is told so.
    assert lines[4] == ("simulated" if len(os.sched_getaffinity(0)) >= 4 else "false")
    assert status["podIP"].startswith("127.")


def test_a_node_is_switched_off_and_on_from_outside(cluster: Cluster) -> None:
    cluster.start(nodes=2, operator=False, heartbeat=0.2, node_grace=1.0)
    kubectl = kubectl_of(cluster)
    spec = pod("p", "exec sleep 86391", nodeName="node-2", tolerations=[{"operator": "Exists"}])
    kubectl("create", "-f", "-", stdin=manifest(spec))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    assert "node-2: ready, 1 of 1 pods running" in cluster.summary()
    cluster.node_stop("node-2")
    assert not stays_empty_within(10, lambda: [p for p in processes(str(cluster.state)) if "86391" in p])
    kubectl("wait", "--for=condition=Ready=Unknown", "node/node-2", "--timeout=30s")
    assert any(line.startswith("node-2: not heard of") for line in cluster.summary())
    cluster.node_start("node-2")
    kubectl("wait", "--for=condition=Ready", "node/node-2", "pod/p", "--timeout=30s")
    with pytest.raises(Unreachable, match="node-9"):
        cluster.node_stop("node-9")


def test_what_a_killed_cluster_left_is_cleared_away_by_down(cluster: Cluster) -> None:
    record = cluster.start(nodes=1, operator=False)
    # What a cluster would leave whose shim was killed before it: a process with its mark, and shared memory.
    orphan = subprocess.Popen(["sleep", "86390"], env={**os.environ, CLUSTER_MARK: record.cluster})
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: cluster.record() is None)
    shared_memory(record.cluster).mkdir(exist_ok=True)
    assert cluster.stop(), "there was something to end"
    assert orphan.wait(10) == -signal.SIGTERM
    assert not shared_memory(record.cluster).exists()
    assert not cluster.stop()


def test_a_directory_that_holds_other_things_is_left_alone(cluster: Cluster) -> None:
    cluster.state.mkdir()
    (cluster.state / "thesis.tex").write_text("years of work")
    with pytest.raises(LocalClusterError, match=r"thesis\.tex.*--state"):
        cluster.start(nodes=1, operator=False)
    assert [path.name for path in cluster.state.iterdir()] == ["thesis.tex"]


def test_without_a_port_given_it_comes_back_on_the_one_it_had(cluster: Cluster) -> None:
    first = cluster.start(nodes=1, operator=False).url
    cluster.stop()
    assert cluster.start(nodes=1, operator=False).url == first
    cluster.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(first.rpartition(":")[2])))
        taken.listen()
        assert cluster.start(nodes=1, operator=False).url != first


def test_an_interrupted_start_leaves_nothing_running(cluster: Cluster) -> None:
    def interrupt(_: str) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.3)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cluster.start(nodes=1, operator=False, progress=interrupt)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not processes(str(cluster.state))
    assert cluster.record() is None


def test_the_operator_is_started_again_when_it_dies_and_ends_with_the_cluster(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=True)

    def operators() -> list[int]:
        lines = [line for line in processes(str(cluster.kubeconfig)) if "swarm-operator" in line]
        return [int(line.partition(":")[0]) for line in lines]

    (first,) = eventually(operators)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: operators() and operators() != [first])
    assert (cluster.state / "log" / "operator.log").exists()
