"""Answers that nobody takes are put aside on a disk, and come back when they are wanted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm_agents.resource.aside import LEAST, PAUSE, Aside
from swarm_agents.resource.outbox import Outbox
from swarm_agents.resource.sessions import Session, Sessions
from swarm_agents.resource.spillfiles import SpillFiles
from swarm_agents.runtime.iodepth import Depth
from swarm_agents.runtime.ioqueue import IoQueue
from swarm_agents.wire.schema import Answer

SIZE = 2 * LEAST
LIMIT = 10 * SIZE


class FakeReactor:
    """Calls what was posted when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.posted: list[Any] = []

    def clock(self) -> float:
        return self.now

    def post(self, function: Any, *args: Any) -> None:
        self.posted.append((function, args))

    def call_later(self, delay: float, function: Any, *args: Any) -> None:
        pass


class FakeRouter:
    """Takes everything, and keeps what was sent by task."""

    full = False

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, frames: list[Any]) -> bool:
        self.sent.append(frames)
        return True


class FakeLog:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, **fields: Any) -> None:
        self.lines.append(text)

    error = warning


class Hub:
    """A hub's answers, without the hub."""

    def __init__(self, directory: Path) -> None:
        self.cancelled: list[Any] = []
        self.sessions = Sessions(window=64, keep_bytes=LIMIT, cancel=self.cancelled.append)
        self.reactor, self.router, self.log, self.counts = FakeReactor(), FakeRouter(), FakeLog(), Counter[str]()
        self.outbox = Outbox(self.router, self.sessions)  # type: ignore[arg-type]
        self.files = SpillFiles(directory, 1 << 30)
        self.queue = IoQueue(depth=Depth(1, 2))
        self.aside = Aside(self.reactor, self.sessions, self.outbox, self.files, self.queue, self.counts, self.log)
        self.session = self.open(1)

    def open(self, number: int) -> Session:
        session = self.sessions.open(number, "client", "c", "", self.outbox.deliver, 0.0)
        self.sessions.attach(session, b"route%d" % number)
        session.room = SIZE
        return session

    def answer(self, number: int, session: Session | None = None) -> tuple[int, int]:
        session, task = session or self.session, (1, number)
        self.sessions.expect(session, task, 10)
        entry = self.sessions.answered(task, Answer(task), [b"head", bytes([number]) * (SIZE - 4)], SIZE)
        assert entry is not None
        session.deliver(session, entry)
        return task

    def acknowledge(self, task: tuple[int, int], session: Session | None = None) -> None:
        session = session or self.session
        self.sessions.finish(session, task, 0.0)
        self.outbox.pump(session)

    def settle(self) -> None:
        """Lets the disk do all that it was asked for, and the reactor all that follows."""
        for _ in range(10_000):
            if not (self.aside._writing or self.aside._fetching or self.queue.waiting or self.reactor.posted):
                return
            time.sleep(0.001)
            posted, self.reactor.posted = self.reactor.posted, []
            for function, args in posted:
                function(*args)
        raise AssertionError("the disk's work does not end")

    def relieve(self) -> None:
        self.aside.relieve()
        self.settle()

    def delivered(self) -> list[int]:
        """By what their payloads are filled with, the answers that were sent."""
        return [bytes(frames[-1])[-1] for frames in self.router.sent if len(bytes(frames[-1])) > LEAST]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    yield hub
    hub.queue.close()
    hub.aside.close()
    assert not list(tmp_path.iterdir())


def test_the_last_to_be_sent_are_put_aside_and_all_come_back_whole(hub: Hub) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    assert hub.delivered() == [0]
    hub.relieve()
    assert hub.counts["put_aside"] == 5
    assert hub.sessions.kept_bytes == 3 * SIZE
    assert hub.aside.on_disk > 5 * SIZE
    for task in tasks:
        hub.acknowledge(task)
        hub.settle()
    assert sorted(hub.delivered()) == list(range(8))
    assert hub.counts["brought_back"] == 5
    assert (hub.sessions.kept_bytes, hub.aside.on_disk, hub.session.owed, hub.session.flying) == (0, 0, 0, 0)


def test_below_the_mark_and_what_is_small_or_on_its_way_stays(hub: Hub) -> None:
    for number in range(5):
        hub.answer(number)
    hub.relieve()
    assert hub.counts["put_aside"] == 0
    hub.session.room = 1 << 40
    hub.outbox.pump(hub.session)
    for number in range(5, 9):
        hub.answer(number)
    hub.relieve()
    assert hub.counts["put_aside"] == 0, "all are on their way"


def test_a_session_that_comes_back_gets_what_was_put_aside_for_it(hub: Hub) -> None:
    hub.sessions.detach(b"route1")
    for number in range(8):
        hub.answer(number)
    hub.relieve()
    assert hub.counts["put_aside"] == 5
    hub.sessions.attach(hub.session, b"again")
    hub.session.restart()
    hub.session.room = 1 << 40
    for entry in hub.sessions.unsent(hub.session):
        hub.outbox.deliver(hub.session, entry)
    hub.settle()
    assert sorted(hub.delivered()) == list(range(8))
    assert not hub.session.waiting


@pytest.mark.parametrize("harm", ["torn", "damaged", "gone"])
def test_a_file_that_is_lost_costs_its_own_answer_by_name_and_no_other(hub: Hub, harm: str) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    hub.relieve()
    victim = hub.sessions.find(tasks[7])
    assert victim is not None
    path = hub.aside._where[victim].path
    if harm == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: SIZE // 2] if harm == "torn" else whole[:-50] + b"?" * 50)
    for task in tasks:
        entry = hub.sessions.find(task)
        hub.acknowledge(task)
        hub.settle()
        if entry is victim:
            assert entry.answer is not None
            assert entry.answer.error is not None
            assert entry.answer.error["code"] == "TaskLost"
    assert sorted(hub.delivered()) == list(range(7))
    assert hub.counts["aside_lost"] == 1
    assert (hub.sessions.kept_bytes, hub.aside.on_disk, hub.session.owed) == (0, 0, 0)


def test_a_disk_that_is_full_leaves_answers_in_memory_and_is_left_alone_for_a_while(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    asked = []

    def fail(parts: Any) -> None:
        asked.append(1)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hub.files, "write", fail)
        hub.relieve()
        tried = len(asked)
        hub.relieve()
        assert len(asked) == tried
    assert hub.log.lines == ["answers can't be put aside; they stay in memory"]
    assert hub.sessions.kept_bytes == 8 * SIZE
    hub.reactor.now += PAUSE
    hub.relieve()
    assert hub.counts["put_aside"] == 5
    for task in tasks:
        hub.acknowledge(task)
        hub.settle()
    assert sorted(hub.delivered()) == list(range(8))


def test_an_answer_that_nobody_wants_any_more_takes_no_room_on_the_disk(hub: Hub) -> None:
    for number in range(8):
        hub.answer(number)
    hub.relieve()
    hub.sessions.close(hub.session)
    assert (hub.aside.on_disk, hub.sessions.kept_bytes) == (0, 0)


def test_one_that_is_wanted_or_forgotten_while_it_is_written_leaves_no_file(hub: Hub) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    hub.aside.relieve()  # the five last are being written
    hub.session.room = 1 << 40
    hub.outbox.pump(hub.session)
    hub.acknowledge(tasks[7])
    hub.settle()
    assert (hub.counts["put_aside"], hub.aside.on_disk) == (0, 0)
    assert hub.delivered() == list(range(8))


def test_one_that_is_forgotten_while_it_is_read_is_let_go(hub: Hub) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    hub.relieve()
    for task in tasks[:2]:
        hub.acknowledge(task)
    hub.session.room = 1 << 40
    hub.outbox.pump(hub.session)  # all are being read
    hub.sessions.close(hub.session)
    hub.settle()
    assert (hub.aside.on_disk, hub.sessions.kept_bytes, hub.counts["aside_lost"]) == (0, 0, 0)


def test_no_more_is_brought_back_than_the_session_takes(hub: Hub) -> None:
    tasks = [hub.answer(number) for number in range(8)]
    hub.relieve()
    hub.acknowledge(tasks[0])
    hub.settle()
    assert hub.session.flying == SIZE
    assert hub.counts["brought_back"] <= 1
