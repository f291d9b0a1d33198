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
    for _ in range(2000):
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
    """Two agents, the second of which knows what the work takes."""

    def __init__(self, node: Any, client: Any, eventually: Any) -> None:
        self.node, self.client = node, client
        self.first, self.second = node.pods
        self._eventually = eventually
        self._drain(self.first)
        for kernel in ("crowded.work", "crowded.once"):
            tickets = [client.submit(kernel, n) for n in range(25)]
            assert len(client.answers(len(tickets), 120)) == 25
        assert self.first.http("POST", "/v1/resume", b"")[0] == 202

    def _drain(self, pod: Any) -> None:
        assert pod.http("POST", "/v1/drain", b"")[0] == 202
        self._eventually("drained", lambda: pod.status().get("state") == "drained")

    def won(self) -> float:
        return sum(pod.metric('swarm_second_runs_total{result="won"}') for pod in self.node.pods)

    def index(self, pod: Any) -> int:
        return int(self.client.info(pod.name).index)

    def give(self, kernel: str) -> Any:
        """A task that the first agent has in hand while the second one has nothing to do."""
        self._drain(self.second)
        ticket = self.client.submit(kernel, 7)
        self._eventually("it has begun", lambda: self.client.info(self.first.name).running)
        assert self.second.http("POST", "/v1/resume", b"")[0] == 202
        return ticket


@pytest.fixture
def scene(node: Any, client_of: Any, eventually: Any) -> Scene:
    (node.root / "crowded_kernels.py").write_text(KERNELS)
    settings = node.with_runtime(kernel_modules=("crowded_kernels",))
    # Far beyond the pauses that the throttled agent makes: it is slow, not dead.
    failover = msgspec.structs.replace(settings.failover, heartbeat_interval=0.1, suspect_after=1.5, dead_after=6.0)
    node.write(msgspec.structs.replace(settings, failover=failover))
    for ordinal in (0, 1):
        node.start(ordinal, PYTHONPATH=str(node.root))
    for pod in node.pods:
        pod.ready()
    return Scene(node, client_of(node), eventually)


def test_the_tasks_of_a_throttled_agent_are_answered_by_its_sibling_and_once(scene: Scene, eventually: Any) -> None:
    client, slow, other = scene.client, scene.first, scene.second
    pid = client.agent_pid(slow)
    before = slow.metric('swarm_tasks_total{priority="normal",result="overtaken"}')
    with throttled(pid):
        late = scene.give("crowded.work")
        (answer,) = client.answers(1, 60)
        assert (answer.ticket, answer.agent) == (late, client.info(other.name).index)
        tickets = {client.submit("crowded.work", n).task_id for n in range(20)}
        answers = client.answers(20, 60)
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


def test_second_runs_are_switched_off_by_a_push_and_never_made_of_what_may_be_begun_once(scene: Scene) -> None:
    client, slow = scene.client, scene.first
    won = scene.won()
    with throttled(client.agent_pid(slow)):
        scene.give("crowded.once")
        assert client.answers(1, 60)[0].agent == scene.index(slow)
    old = scene.node.settings
    new = msgspec.structs.replace(old, failover=msgspec.structs.replace(old.failover, straggler_share=0.0))
    for pod in scene.node.pods:
        assert pod.http("PUT", "/v1/settings", encode_settings(new))[0] == 200
    with throttled(client.agent_pid(slow)):
        scene.give("crowded.work")
        assert client.answers(1, 60)[0].agent == scene.index(slow)
    assert scene.won() == won
