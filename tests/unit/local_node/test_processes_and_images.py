"""Which process is meant, what an image stands for, what a pod may not ask for, what a target names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm_agents.errors import Unreachable
from swarm_deploy.connect import parse_target
from swarm_deploy.local.controllers.disruption import healthy_wanted
from swarm_deploy.local.controllers.nodes import tolerated_seconds
from swarm_deploy.local.kubelet.admission import container_refusal, not_enforced, pod_refusal
from swarm_deploy.local.kubelet.images import find_image
from swarm_deploy.local.processes import Process, end, marked


def test_a_number_that_belongs_to_another_process_now_is_not_signalled() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        meant = Process.of(process.pid)
        assert meant is not None
        assert Process.from_record(meant.record()) == meant
        for stranger in (replace(meant, start=meant.start + 1), replace(meant, boot="another")):
            assert not stranger.alive()
            assert not stranger.send(signal.SIGKILL)
        assert process.poll() is None
        assert meant.send(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not meant.alive()
    assert Process.from_record({"pid": "x"}) is None


def test_what_does_not_end_when_asked_is_made_to() -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    meant = Process.of(process.pid)
    assert meant is not None
    assert end([meant], 0.1) == []
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()


def test_processes_are_found_by_their_mark_and_only_by_the_whole_of_it() -> None:
    process = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "TEST_MARK": "abc"})
    try:
        assert [p.pid for p in marked("TEST_MARK", "abc")] == [process.pid]
        assert marked("TEST_MARK", "ab") == []
        assert marked("MARK", "abc") == []
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("agentswarm/agent:0.1.0", ("swarm-agent",)),
        ("agentswarm/agent", ("swarm-agent",)),
        ("registry.example:5000/agentswarm/operator:x", ("swarm-operator",)),
        ("localhost/host", ()),
        ("localhost/host:2", ()),
    ],
)
def test_images_that_are_here(name: str, command: tuple[str, ...]) -> None:
    image = find_image(name, {"PATH": "/bin", "HOME": "/h", "SECRET": "x"})
    assert image is not None
    assert image.command == command
    assert "SECRET" not in image.env, "a pod must not see the environment of whoever started the cluster"
    if command:
        assert image.env["PATH"].startswith(str(Path(sys.executable).parent))
        assert image.env["SWARM_CACHE_SEED"].endswith("agentswarm/jit")


@pytest.mark.parametrize("name", ["nginx", "agentswarm/agents", "evil-agentswarm/agent", "localhost/hosts", "host", ""])
def test_images_that_are_not(name: str) -> None:
    assert find_image(name) is None


def make_pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": [{"name": "c", **(container or {})}], **spec}}


def test_a_pod_of_the_operator_is_not_refused_and_what_is_not_enforced_is_listed() -> None:
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    own = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    pod = make_pod({"securityContext": own}, securityContext=security, volumes=[{"name": "v", "emptyDir": {}}])
    agent, host = find_image("agentswarm/agent"), find_image("localhost/host")
    assert agent is not None
    assert host is not None
    assert pod_refusal(pod) == ""
    assert container_refusal(pod, pod["spec"]["containers"][0], agent) == ""
    assert "65532" in container_refusal(pod, pod["spec"]["containers"][0], host)
    assert "runAsUser 65532" in not_enforced(pod)
    assert "capabilities.drop" in not_enforced(pod)
    assert not_enforced(make_pod()) == ""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, (None, None, None)),
        ("risk", (None, None, "risk")),
        ("space/risk", (None, "space", "risk")),
        ("work/risk", ("work", None, "risk")),
        ("work/space/risk", ("work", "space", "risk")),
        ("other/space/risk", ("other", "space", "risk")),
        ("arn:aws:eks:x/prod/risk", ("arn:aws:eks:x/prod", None, "risk")),
        ("arn:aws:eks:x/prod/space/risk", ("arn:aws:eks:x/prod", "space", "risk")),
    ],
)
def test_what_a_target_names(target: str | None, expected: tuple[str | None, ...]) -> None:
    assert tuple(parse_target(target, frozenset({"work", "arn:aws:eks:x/prod"}))) == expected


@pytest.mark.parametrize("target", ["a/b/c/d", "/risk", "risk/", "a//b"])
def test_other_targets_are_refused_with_the_forms_there_are(target: str) -> None:
    with pytest.raises(Unreachable, match="CONTEXT/NAMESPACE/NAME"):
        parse_target(target)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (5, 2)),
        ({"minAvailable": "50%"}, (4, 2)),
        ({"maxUnavailable": 1}, (4, 3)),
        ({"maxUnavailable": "30%"}, (4, 2)),
        ({"maxUnavailable": "100%"}, (4, 0)),
        ({}, (5, 1)),
    ],
)
def test_how_many_pods_a_budget_wants_healthy(spec: dict[str, Any], expected: tuple[int, int]) -> None:
    assert healthy_wanted(spec, there=5, expected=4) == expected


def test_how_long_a_pod_stays_under_taints() -> None:
    taints = [{"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoExecute"}]
    limited = {"key": "a", "operator": "Exists", "tolerationSeconds": 5}
    for tolerations, expected in (
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        ([limited], 0.0),
        ([limited, {"key": "b", "operator": "Exists"}], 5.0),
        ([limited, {"key": "b", "operator": "Exists", "tolerationSeconds": 3}], 3.0),
    ):
        assert tolerated_seconds({"spec": {"tolerations": tolerations}}, taints) == expected
