"""An agent that is throttled holds nobody up: its tasks are run a second time by an idle sibling, and answered once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from swarm_agents.config import encode_settings

KERNELS = """
import hashlib
from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import kernel
from swarm_agents.retry import Retry

@kernel("crowded.work")
def work(number: int, *, ctx: Context) -> int:
    '''The same amount of work each time.'''
    block = bytes(1 << 16)
    for _ in range(1000):
        ctx.check()
        hashlib.sha256(block).digest()
    return number

@kernel("crowded.once", retry=Retry(attempts=1))
def once(number: int, *, ctx: Context) -> int:
    '''The same, but it must not be begun twice.'''
    return work.reference(number, ctx=ctx)
"""


@contextlib.contextmanager
def throttled(pid: int) -> Iterator[None]:
    """The process gets a twentieth of its time, as under a quota of its control group."""
    over = threading.Event()

    def squeeze() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.12)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.006)

    thread = threading.Thread(target=squeeze)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.kill(pid, signal.SIGCONT)


class Scene:
    """Two agents that know what their work takes."""

    def __init__(self, node: Any, client: Any) -> None:
        self.node, self.client = node, client
        self.first, self.second = node.pods
        for kernel in ("crowded.work", "crowded.once"):
            tickets = [client.submit(kernel, n) for n in range(80)]
            assert len(client.answers(len(tickets), 120)) == 80

    def won(self) -> float:
        return sum(pod.metric('swarm_second_runs_total{result="won"}') for pod in self.node.pods)

    def index(self, pod: Any) -> int:
        return int(self.client.info(pod.name).index)

    def until_in_hand(self, pod: Any, kernel: str, eventually: Any) -> Any:
        """A task that this pod's agent has begun: those that the other one took are answered first."""

        def look() -> Any:
            ticket = self.client.submit(kernel, 7)
            for _ in range(400):
                if self.client.info(pod.name).running:
                    return ticket
                found = self.client.port.poll(1)
                if found:
                    return None
                time.sleep(0.001)
            return None

        return eventually("the agent has a task", look)


@pytest.fixture
def scene(node: Any, client_of: Any) -> Scene:
    (node.root / "crowded_kernels.py").write_text(KERNELS)
    settings = node.with_runtime(kernel_modules=("crowded_kernels",))
    # Far beyond the pauses that the throttled agent makes: it is slow, not dead.
    failover = msgspec.structs.replace(settings.failover, heartbeat_interval=0.1, suspect_after=1.5, dead_after=6.0)
    node.write(msgspec.structs.replace(settings, failover=failover))
    for ordinal in (0, 1):
        node.start(ordinal, PYTHONPATH=str(node.root))
    for pod in node.pods:
        pod.ready()
    return Scene(node, client_of(node))


def test_the_tasks_of_a_throttled_agent_are_answered_by_its_sibling_and_once(scene: Scene, eventually: Any) -> None:
    client, slow, other = scene.client, scene.first, scene.second
    pid = client.agent_pid(slow)
    before = slow.metric('swarm_tasks_total{priority="normal",result="overtaken"}')
    with throttled(pid):
        tickets = {client.submit("crowded.work", n).task_id for n in range(40)}
        answers = client.answers(40, 60)
    assert {answer.ticket.task_id for answer in answers} == tickets
    assert [answer.error for answer in answers if answer.error] == []
    assert {answer.attempts for answer in answers} == {1}, "nobody was declared dead"
    assert not client.port.wait(0.1), "a task was answered twice"
    assert client.agent_pid(slow) == pid
    assert scene.won() >= 1
    told = {event["event"] for event in other.http("GET", "/v1/events")[1]["events"]}
    assert {"TaskRunTwice", "TaskOvertaken"} <= told
    eventually(
        "the slow one throws its work away",
        lambda: slow.metric('swarm_tasks_total{priority="normal",result="overtaken"}') > before,
    )
    # It goes on as if nothing had been.
    client.submit("crowded.work", 41)
    assert client.answers(1)[0].value == 41


def test_second_runs_are_switched_off_by_a_push_and_never_made_of_what_may_be_begun_once(
    scene: Scene, eventually: Any
) -> None:
    client, slow = scene.client, scene.first
    won = scene.won()
    with throttled(client.agent_pid(slow)):
        scene.until_in_hand(slow, "crowded.once", eventually)
        assert client.answers(client.port.pending, 60)[0].agent == scene.index(slow)
    old = scene.node.settings
    new = msgspec.structs.replace(old, failover=msgspec.structs.replace(old.failover, straggler_share=0.0))
    for pod in scene.node.pods:
        assert pod.http("PUT", "/v1/settings", encode_settings(new))[0] == 200
    with throttled(client.agent_pid(slow)):
        scene.until_in_hand(slow, "crowded.work", eventually)
        assert client.answers(client.port.pending, 60)[0].agent == scene.index(slow)
    assert scene.won() == won
