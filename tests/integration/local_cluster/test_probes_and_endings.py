"""Probes with real containers behind them, and every way in which a pod comes to its end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from support.leftovers import processes
from support.localnode import InProcess, make_pod
from swarm_deploy.local.processes import Process

pytestmark = pytest.mark.embedded

# Listens on the pod's own address; answers 200 when the file `good` is in its directory, else 503.
_SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.exists("good") else 503); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer((os.environ["IP"], 8080), Handler).serve_forever()
"""


def server(name: str, **container: Any) -> dict[str, Any]:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    ports = [{"name": "http", "containerPort": 8080}]
    return make_pod(
        name, container={"command": [sys.executable, "-c", _SERVER], "env": env, "ports": ports} | container
    )


def home(small: InProcess, name: str) -> Any:
    pod = small.get("pods", name)
    assert pod is not None
    return small.assembly.state / "nodes/node-1/pods" / pod["metadata"]["uid"] / "containers/main/home"


def pid_of(small: InProcess, name: str) -> int:
    (pod,) = [p for p in small.assembly.kubelets[0].pods if p.object["metadata"]["name"] == name]
    task = pod.main[0].task
    assert task is not None
    return task.process.pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def running(pid: int) -> bool:
    process = Process.of(pid)
    return process is not None and process.alive()


async def test_two_pods_serve_one_port_each_at_its_own_address(small: InProcess) -> None:
    probe = {"readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1}}
    await small.create(server("a", **probe))
    await small.create(server("b", **probe))
    await small.until(lambda: small.ready("a") and small.ready("b"))
    assert small.status("a")["podIP"] != small.status("b")["podIP"]


async def test_readiness_by_http_comes_and_goes_without_a_restart(small: InProcess) -> None:
    probe = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
    await small.create(server("p", readinessProbe=probe))
    await small.until(lambda: small.said("p", "Unhealthy", "Readiness probe failed"))
    assert not small.ready("p")
    (home(small, "p") / "good").touch()
    await small.until(lambda: small.ready("p"))
    (home(small, "p") / "good").unlink()
    await small.until(lambda: not small.ready("p"))
    assert small.said("p", "Unhealthy", "statuscode: 503")
    assert small.container("p")["restartCount"] == 0


async def test_a_failed_liveness_probe_restarts_the_container(small: InProcess) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo not well; exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await small.create(make_pod("p", container={"livenessProbe": probe}))
    await small.until(lambda: small.container("p").get("restartCount", 0) >= 1)
    assert small.said("p", "Unhealthy", "Liveness probe failed: not well")
    assert small.said("p", "Killing", "failed liveness probe, will be restarted")
    assert small.container("p")["lastState"]["terminated"]["exitCode"] == 143


async def test_until_a_startup_probe_succeeds_the_others_are_not_asked(small: InProcess) -> None:
    startup = {"exec": {"command": ["test", "-e", "up"]}, "periodSeconds": 1, "failureThreshold": 60}
    liveness = {"exec": {"command": ["sh", "-c", "touch asked"]}, "periodSeconds": 1}
    await small.create(make_pod("p", container={"startupProbe": startup, "livenessProbe": liveness}))
    await small.until(lambda: small.said("p", "Unhealthy", "Startup probe failed"))
    assert small.container("p")["started"] is False
    assert not (home(small, "p") / "asked").exists()
    (home(small, "p") / "up").touch()
    await small.until(lambda: small.container("p").get("started"))
    await small.until(lambda: (home(small, "p") / "asked").exists())


async def test_a_probe_that_takes_too_long_has_failed_and_its_command_is_ended(small: InProcess) -> None:
    probe = {"exec": {"command": ["sleep", "86399"]}, "periodSeconds": 1, "timeoutSeconds": 1}
    await small.create(make_pod("p", container={"readinessProbe": probe}))
    await small.until(lambda: small.said("p", "Unhealthy", "command timed out after 1s"))
    await small.delete("pods", "p")
    await small.gone("pods", "p")
    assert not processes("sleep\x0086399")


async def test_sigterm_comes_first_and_sigkill_when_the_grace_is_over(small: InProcess) -> None:
    await small.create(make_pod("kind", "trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done"))
    await small.create(
        make_pod("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done", terminationGracePeriodSeconds=1)
    )
    await small.until(lambda: small.ready("kind") and small.ready("deaf"))
    pids = [pid_of(small, "kind"), pid_of(small, "deaf")]
    # A finalizer keeps the objects, so that it can be seen how their containers ended.
    for name in ("kind", "deaf"):
        await small.client.patch("pods", name, {"metadata": {"finalizers": ["example.test/look"]}}, "default")
        await small.delete("pods", name)
    await small.until(lambda: "terminated" in small.container("kind").get("state", {}))
    await small.until(lambda: "terminated" in small.container("deaf").get("state", {}))
    assert small.container("kind")["state"]["terminated"]["exitCode"] == 0
    assert small.container("deaf")["state"]["terminated"]["exitCode"] == 137
    assert not any(running(pid) for pid in pids)
    for name in ("kind", "deaf"):
        await small.client.patch("pods", name, {"metadata": {"finalizers": None}}, "default")
        await small.gone("pods", name)


async def test_a_pre_stop_hook_runs_before_the_signal_and_shares_the_grace(small: InProcess) -> None:
    script = "trap 'cat note; exit 0' TERM; while :; do sleep 0.05; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.3; echo hook > note"]}}}
    await small.create(make_pod("p", script, container={"lifecycle": hook}))
    await small.until(lambda: small.ready("p"))
    await small.client.patch("pods", "p", {"metadata": {"finalizers": ["example.test/look"]}}, "default")
    await small.delete("pods", "p")
    await small.until(lambda: "terminated" in small.container("p").get("state", {}))
    state = small.container("p")["state"]["terminated"]
    assert state["exitCode"] == 0, "the trap printed what the hook had written"
    await small.client.patch("pods", "p", {"metadata": {"finalizers": None}}, "default")
    await small.gone("pods", "p")


async def test_a_post_start_hook_that_fails_ends_the_container(small: InProcess) -> None:
    hook = {"postStart": {"exec": {"command": ["false"]}}}
    await small.create(make_pod("p", container={"lifecycle": hook}))
    await small.until(lambda: small.said("p", "FailedPostStartHook"))
    await small.until(lambda: small.container("p").get("restartCount", 0) >= 1)


async def test_deleting_by_force_kills_at_once_and_a_pod_of_the_same_name_may_follow(small: InProcess) -> None:
    await small.create(make_pod("p", "trap '' TERM; while :; do sleep 0.05; done", terminationGracePeriodSeconds=600))
    await small.until(lambda: small.ready("p"))
    pid, uid = pid_of(small, "p"), small.get("pods", "p")["metadata"]["uid"]  # type: ignore[index]
    await small.delete("pods", "p")
    await small.delete("pods", "p", grace_period=0)
    await small.gone("pods", "p")
    await small.create(make_pod("p"))
    await small.until(lambda: small.ready("p"))
    await small.until(lambda: not running(pid))
    assert small.get("pods", "p")["metadata"]["uid"] != uid  # type: ignore[index]


async def test_what_a_container_started_ends_with_it_wherever_it_went(small: InProcess) -> None:
    script = "setsid sleep 86398 & (setsid sh -c 'setsid sleep 86397 & exec sleep 86396' &) ; sleep 0.3; exit 0"
    await small.create(make_pod("p", script, restartPolicy="Never"))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    left = processes("sleep\x0086398", "sleep\x0086397", "sleep\x0086396")
    assert not left, left


async def test_an_orphan_of_a_probe_ends_with_the_probe_and_one_of_the_container_does_not(small: InProcess) -> None:
    probe = {"exec": {"command": ["sh", "-c", "setsid sleep 86394 & exit 0"]}, "periodSeconds": 1}
    script = "(setsid sleep 86395 &); exec sleep 600"
    await small.create(make_pod("p", script, container={"readinessProbe": probe}))
    await small.until(lambda: small.ready("p"))
    await small.until(lambda: not processes("sleep\x0086394"))
    assert processes("sleep\x0086395")
    await small.delete("pods", "p")
    await small.gone("pods", "p")
    assert not processes("sleep\x0086395")


async def test_when_the_shim_is_killed_its_pods_end_and_start_again_below_another(small: InProcess) -> None:
    await small.create(make_pod("p", "(setsid sleep 86393 &); exec sleep 86392"))
    await small.until(lambda: small.ready("p"))
    before = pid_of(small, "p")
    os.kill(parent_of(before), signal.SIGKILL)
    await small.until(lambda: small.container("p").get("restartCount", 0) >= 1 and small.ready("p"))
    assert small.container("p")["lastState"]["terminated"]["exitCode"] == 137
    assert not running(before)
    await small.until(lambda: len(processes("sleep\x0086392")) == 1)
    await small.until(lambda: len(processes("sleep\x0086393")) == 1)


async def test_a_change_of_image_restarts_the_container(small: InProcess) -> None:
    await small.create(make_pod("p"))
    await small.until(lambda: small.ready("p"))
    patch = {"spec": {"containers": [{"name": "main", "image": "localhost/host:2"}]}}
    await small.client.patch("pods", "p", patch, "default", type="strategic")
    await small.until(lambda: small.container("p").get("restartCount", 0) >= 1 and small.ready("p"))
    assert small.container("p")["image"] == "localhost/host:2"
    assert small.said("p", "Killing", "definition changed, will be restarted")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"container": {"image": "example.com/nosuch:1"}}, "example.com/nosuch:1"),
        ({"container": {"securityContext": {"privileged": True}}}, "privileged"),
        ({"container": {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}}, "NET_ADMIN"),
        ({"container": {"securityContext": {"runAsUser": 123456}}}, "123456"),
        ({"container": {"ports": [{"containerPort": 80, "hostPort": 80}]}}, "hostPort 80"),
        ({"container": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}, "Insufficient nvidia.com/gpu"),
        ({"container": {"readinessProbe": {"grpc": {"port": 1}}}}, "grpc"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}, 'persistentvolumeclaim "c"'),
        ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}, "nfs"),
        ({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}, "HugePages"),
        ({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["h"]}]}, "hostAliases"),
        ({"runtimeClassName": "gvisor"}, "gvisor"),
        ({"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}, "sysctls"),
        ({"nodeSelector": {"no": "such"}}, "didn't match Pod's node affinity/selector"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
async def test_what_can_not_be_given_is_refused_by_an_event(
    small: InProcess, change: dict[str, Any], says: str
) -> None:
    await small.create(make_pod("p", **change))
    await small.until(lambda: any(e["type"] == "Warning" and says in e["message"] for e in small.events("p")))
    assert small.status("p")["phase"] == "Pending"
    assert "running" not in small.container("p").get("state", {})
    await small.delete("pods", "p")
    await small.gone("pods", "p")


async def test_what_is_not_enforced_is_said(small: InProcess) -> None:
    security = {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    await small.create(make_pod("p", container={"securityContext": security}))
    await small.until(lambda: small.ready("p"))
    assert small.said("p", "NotEnforced", "readOnlyRootFilesystem, capabilities.drop")


async def test_privileges_can_be_renounced_for_real(small: InProcess) -> None:
    security = {"allowPrivilegeEscalation": False}
    script = "grep NoNewPrivs /proc/self/status"
    await small.create(make_pod("p", script, restartPolicy="Never", container={"securityContext": security}))
    await small.until(lambda: small.status("p").get("phase") == "Succeeded")
    assert (await small.log("p")).split() == ["NoNewPrivs:", "1"]
