"""The local cluster from outside: it starts, stops, comes back, and leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kubectl import Kubectl, manifest
from support.leftovers import processes, stays_empty_within
from swarm_deploy.local.manager import Cluster, LocalClusterError
from swarm_deploy.local.record import shared_memory

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


def test_a_container_that_crashes_is_restarted_and_its_earlier_log_kept(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False, back_off=0.2)
    kubectl = kubectl_of(cluster)
    kubectl("create", "-f", "-", stdin=manifest(pod("p", "echo run; sleep 0.2; exit 3")))

    def crashed() -> Any:
        statuses = kubectl.get("pod", "p")["status"].get("containerStatuses") or [{}]
        return statuses[0] if statuses[0].get("restartCount", 0) >= 2 else None

    status = eventually(crashed)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert "run" in kubectl("logs", "p", "--previous").out
    reasons = {e["reason"] for e in kubectl.get("events", "--field-selector=involvedObject.name=p")["items"]}
    assert {"Scheduled", "Pulled", "Created", "Started", "BackOff"} <= reasons


def test_a_failing_liveness_probe_restarts_the_container(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False, back_off=0.2)
    kubectl = kubectl_of(cluster)
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    spec = pod("p", "exec sleep 600", container={"livenessProbe": probe})
    kubectl("create", "-f", "-", stdin=manifest(spec))
    eventually(lambda: (kubectl.get("pod", "p")["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0))
    events = kubectl.get("events", "--field-selector=involvedObject.name=p,reason=Unhealthy")["items"]
    assert any("Liveness probe failed" in e["message"] for e in events)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"container": {"securityContext": {"privileged": True}}}, "privileged"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, "persistentVolumeClaim"),
        ({"container": {"ports": [{"containerPort": 80, "hostPort": 80}]}}, "hostPort"),
    ],
    ids=["privileged", "claim", "host port"],
)
def test_what_it_can_not_give_is_refused_by_an_event(cluster: Cluster, change: dict[str, Any], says: str) -> None:
    cluster.start(nodes=1, operator=False)
    kubectl = kubectl_of(cluster)
    kubectl("create", "-f", "-", stdin=manifest(pod("p", "sleep 600", **change)))

    def said() -> bool:
        events = kubectl.get("events", "--field-selector=involvedObject.name=p,type=Warning")["items"]
        return any(says.lower() in e["message"].lower() for e in events)

    eventually(said)
    assert kubectl.get("pod", "p")["status"]["phase"] in ("Failed", "Pending")


def test_owned_objects_go_with_their_owner(cluster: Cluster) -> None:
    cluster.start(nodes=1, operator=False)
    kubectl = kubectl_of(cluster)
    kubectl("create", "configmap", "owner")
    uid = kubectl.get("configmap", "owner")["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [reference]}}
    kubectl("create", "-f", "-", stdin=manifest(owned))
    kubectl("delete", "configmap", "owner", "--cascade=background")
    eventually(lambda: kubectl.attempt("get", "configmap", "owned").code != 0)
