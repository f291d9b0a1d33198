"""Deaths on a real node: what is seen, by which witness, what is recorded of it, and that a crowd kills nobody."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from swarm_agents.runtime.accrual import Limits
from swarm_agents.runtime.witness import Opinion, opinion_of, read_threads


def fences(pod) -> float:
    return sum(
        pod.metric(f'swarm_fences_total{{witness="{witness}"}}')
        for witness in ("exit", "process", "lock", "stopped", "dying", "confirmed", "heartbeat")
    )


def test_a_stopped_agent_is_found_by_its_state_and_the_failover_is_recorded(pair, eventually) -> None:
    info = pair.client.info(pair.first.name)
    replaced = pair.first.status()["restarts"]
    os.kill(info.pid, signal.SIGSTOP)

    def told(event: str) -> list[dict]:
        found = [e for pod in (pair.first, pair.second) for e in pod.http("GET", "/v1/events")[1]["events"]]
        return [e for e in found if e["event"] == event and e.get("member_epoch") == info.epoch]

    (record,) = eventually("the record of the failover", lambda: told("FailedOver"))
    deaths = told("AgentHung") + told("SiblingDeclaredDead")
    assert {death["witness"] for death in deaths} == {"stopped"}, "the kernel said so: nobody had to wait for certainty"
    assert record["member"] == pair.first.name
    assert record["detect"] < pair.node.settings.failover.dead_after
    eventually("a new agent", lambda: pair.first.status().get("restarts") == replaced + 1)
    pair.first.ready()


def test_what_is_new_can_be_asked_for_alone(pair) -> None:
    status, said = pair.first.http("GET", "/v1/events")
    assert status == 200
    assert [event["number"] for event in said["events"]] == list(range(1, said["last"] + 1))
    assert pair.first.http("GET", f"/v1/events?after={said['last']}")[1]["events"] == []
    assert pair.first.http("GET", "/v1/events?after=x")[0] == 400


@pytest.fixture
def crowd_of_spinners() -> Iterator[None]:
    """Twice as many busy processes as cores, besides the agents."""
    count = 2 * len(os.sched_getaffinity(0))
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield
    for each in made:
        each.kill()
        each.wait()


def test_in_twice_overload_nobody_who_lives_is_declared_dead(pair, crowd_of_spinners) -> None:
    before = fences(pair.first) + fences(pair.second)
    pids = {pod.name: pair.client.info(pod.name).pid for pod in (pair.first, pair.second)}
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for _ in range(8):
            pair.client.submit("core.spin", 0.02)
        assert all(answer.attempts == 1 for answer in pair.client.answers(8))
    assert fences(pair.first) + fences(pair.second) == before
    assert {pod.name: pair.client.info(pod.name).pid for pod in (pair.first, pair.second)} == pids
    threshold = pair.first.metric('swarm_detection_threshold_seconds{stage="suspect"}')
    assert 0 < threshold <= Limits.of(pair.node.settings.failover).suspect


def test_the_kernel_tells_the_stopped_from_the_starved() -> None:
    program = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        assert opinion_of({}, read_threads(made.pid)) is Opinion.NONE
        made.send_signal(signal.SIGSTOP)
        os.waitpid(made.pid, os.WUNTRACED)
        assert opinion_of({}, read_threads(made.pid)) is Opinion.STOPPED
        made.kill()
    assert read_threads(made.pid) == {}
    assert opinion_of({1: ("R", 5)}, {1: ("R", 5)}) is Opinion.STARVED, "ready to run, and was not let run"
    assert opinion_of({1: ("R", 5)}, {1: ("R", 9)}) is Opinion.NONE, "it runs, and does not beat"
    assert opinion_of({1: ("S", 5)}, {1: ("S", 5)}) is Opinion.NONE


def test_a_process_that_was_killed_and_has_not_ended_yet_is_known_to_be_dying() -> None:
    """A tracer holds it at the last moment of its life, as a crowded machine would."""
    seize, go_on, trace_exit = 0x4206, 7, 0x40
    about_to_end = signal.SIGTRAP | 6 << 8
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    program = "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        try:
            if ptrace(seize, made.pid, None, trace_exit):
                pytest.skip(f"nobody may be traced here: {os.strerror(ctypes.get_errno())}")
            assert opinion_of({}, read_threads(made.pid)) is Opinion.NONE
            made.send_signal(signal.SIGTERM)
            # Any of its threads may take the signal; the traced one stops if it is that one, and at its end.
            while (status := os.waitpid(made.pid, os.WUNTRACED)[1]) >> 8 != about_to_end:
                assert os.WIFSTOPPED(status)
                assert ptrace(go_on, made.pid, None, os.WSTOPSIG(status)) == 0
            assert opinion_of({}, read_threads(made.pid)) is Opinion.DYING
        finally:
            made.kill()
            ptrace(go_on, made.pid, None, None)
    assert opinion_of({}, {1: ("S", 5), 2: ("X", 5)}) is Opinion.DYING
    assert opinion_of({1: ("R", 5)}, {1: ("X", 5)}) is Opinion.DYING, "not starved: it will never work again"
