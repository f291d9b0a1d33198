"""A pod's status follows from its containers' states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.kubelet.state import ContainerState, Running, Terminated, Waiting, pod_phase, pod_status

WAITS = ContainerState("c", "i")
RUNS = replace(WAITS, state=Running(1.0), started=True)
READY = replace(RUNS, ready=True)
GOOD = replace(WAITS, state=Terminated(0, "Completed", 1.0, 2.0), final=True)
BAD = replace(WAITS, state=Terminated(1, "Error", 1.0, 2.0), final=True)
AGAIN = replace(BAD, final=False)


@pytest.mark.parametrize(
    ("init", "main", "phase"),
    [
        ((), (WAITS,), "Pending"),
        ((), (RUNS,), "Running"),
        ((), (RUNS, WAITS), "Running"),
        ((), (AGAIN,), "Running"),
        ((), (replace(WAITS, last=Terminated(1, "Error", 1.0, 2.0)),), "Running"),
        ((), (GOOD, RUNS), "Running"),
        ((), (GOOD, GOOD), "Succeeded"),
        ((), (GOOD, BAD), "Failed"),
        ((RUNS,), (WAITS,), "Pending"),
        ((BAD,), (WAITS,), "Failed"),
        ((replace(BAD, sidecar=True),), (GOOD,), "Succeeded"),
        ((replace(RUNS, sidecar=True),), (GOOD,), "Running"),
    ],
)
def test_the_phase(init: Any, main: Any, phase: str) -> None:
    assert pod_phase(init, main) == phase


def make_pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"generation": 1}, "spec": {"containers": []}, "status": status}


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_ready_needs_every_container_and_every_gate() -> None:
    assert conditions(pod_status(make_pod(), [], [READY, RUNS], 5.0, ip="x"))["Ready"] == "False"
    pod = make_pod(conditions=[{"type": "gate", "status": "False"}])
    pod["spec"]["readinessGates"] = [{"conditionType": "gate"}]
    status = pod_status(pod, [], [READY], 5.0, ip="x")
    assert conditions(status) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "True",
        "gate": "False",
    }
    pod["status"]["conditions"][0]["status"] = "True"
    assert conditions(pod_status(pod, [], [READY], 5.0, ip="x"))["Ready"] == "True"


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    first = pod_status(make_pod(), [], [RUNS], 10.0)
    second = pod_status(make_pod(**first), [], [RUNS], 20.0)
    third = pod_status(make_pod(**second), [], [READY], 30.0)
    times = [
        next(c for c in s["conditions"] if c["type"] == "Ready")["lastTransitionTime"] for s in (first, second, third)
    ]
    assert times[0] == times[1] != times[2]


def test_conditions_of_others_are_kept_and_a_final_phase_is_never_taken_back() -> None:
    held = [{"type": "DisruptionTarget", "status": "True"}]
    status = pod_status(make_pod(phase="Succeeded", conditions=held), [], [RUNS], 5.0)
    assert status["phase"] == "Succeeded"
    assert held[0] in status["conditions"]


def test_a_failure_of_the_pod_as_a_whole_is_told_with_its_reason() -> None:
    status = pod_status(make_pod(), [], [RUNS], 5.0, failure=("DeadlineExceeded", "too long"))
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


@given(st.lists(st.sampled_from([WAITS, RUNS, READY, GOOD, BAD, AGAIN]), min_size=1, max_size=4))
def test_the_status_of_an_unchanged_pod_does_not_change(main: list[ContainerState]) -> None:
    first = pod_status(make_pod(), [], main, 10.0, ip="a", host_ip="b", started=1.0)
    assert pod_status(make_pod(**first), [], main, 99.0, ip="a", host_ip="b", started=1.0) == first
    assert (first["phase"] == "Pending") == all(isinstance(c.state, Waiting) for c in main)
