"""Requests to the disk go by priority, in bounds, and each for itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from swarm_agents.config import Priority
from swarm_agents.errors import SwarmFull
from swarm_agents.runtime.iodepth import Depth
from swarm_agents.runtime.ioqueue import FAIR, IoQueue, shared

PATIENCE = 20.0


@pytest.fixture
def queue() -> Iterator[IoQueue]:
    queue = IoQueue(most=32, most_bytes=1000, depth=Depth(1, 1))
    yield queue
    queue.close()


class Gate:
    """A request that is under way until it is opened."""

    def __init__(self, queue: IoQueue) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self.future = queue.submit(self.run, 1)
        assert self.begun.wait(PATIENCE)

    def run(self) -> None:
        self.begun.set()
        assert self.opened.wait(PATIENCE)


def test_the_important_goes_first_and_the_oldest_is_not_forgotten(queue: IoQueue) -> None:
    gate, order = Gate(queue), list[str]()
    futures = [queue.submit(lambda: order.append("bulk"), 1, Priority.BULK)]
    futures += [queue.submit(lambda: order.append("normal"), 1) for _ in range(2)]
    futures += [queue.submit(lambda: order.append("critical"), 1, Priority.CRITICAL) for _ in range(2 * FAIR)]
    gate.opened.set()
    for future in futures:
        future.result(PATIENCE)
    assert order[: FAIR - 2] == ["critical"] * (FAIR - 2)
    assert order.index("bulk") == FAIR - 2  # the gate was the first of the eight
    assert len(order) == len(futures)


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(queue: IoQueue) -> None:
    gate = Gate(queue)
    first = queue.submit(lambda: 1, 900)
    with pytest.raises(SwarmFull, match="900 bytes wait"):
        queue.submit(lambda: 2, 200)
    assert queue.refused == 1
    threading.Timer(0.05, gate.opened.set).start()
    second = queue.submit(lambda: 2, 200, timeout=PATIENCE)
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 2)
    assert queue.submit(lambda: 3, 5000, timeout=PATIENCE).result(PATIENCE) == 3, "larger than all room, alone"


def test_one_that_waits_can_be_cancelled_and_one_that_runs_can_not(queue: IoQueue) -> None:
    gate, ran = Gate(queue), list[int]()
    future = queue.submit(lambda: ran.append(1), 1)
    assert future.cancel()
    assert not gate.future.cancel()
    gate.opened.set()
    assert queue.submit(lambda: 5, 1).result(PATIENCE) == 5
    assert not ran
    assert queue.cancelled == 1


def test_what_one_raises_harms_no_other(queue: IoQueue) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    failed, well = queue.submit(fail, 1), queue.submit(lambda: "well", 1)
    with pytest.raises(OSError, match="No space"):
        failed.result(PATIENCE)
    assert well.result(PATIENCE) == "well"
    assert queue.failed == 1


def test_no_more_are_under_way_than_the_depth_allows() -> None:
    queue = IoQueue(depth=Depth(3, 3))
    lock, most, now, three = threading.Lock(), [0], [0], threading.Barrier(3)

    def run() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        three.wait(PATIENCE)  # fewer than three at once, and this breaks
        with lock:
            now[0] -= 1

    for future in [queue.submit(run, 1) for _ in range(30)]:
        future.result(PATIENCE)
    queue.close()
    assert most == [3]
    assert (queue.in_flight, queue.waiting, queue.ended) == (0, 0, 30)


def test_a_closed_queue_takes_nothing_and_cancels_what_waits() -> None:
    queue = IoQueue(depth=Depth(1, 1))
    gate = Gate(queue)
    waiting = queue.submit(lambda: 1, 1)
    threading.Timer(0.05, gate.opened.set).start()
    queue.close()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(lambda: 1, 1)


def test_a_process_has_one_queue_and_a_child_another(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = shared()
    assert shared() is mine
    monkeypatch.setattr(os, "getpid", lambda: -5)
    assert shared() is not mine


def test_where_no_thread_can_be_had_nothing_is_taken_that_nobody_would_serve(
    queue: IoQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(SwarmFull, match="no thread"):
            queue.submit(lambda: 1, 1)
        assert (queue.waiting, queue.refused) == (0, 1)
    assert queue.submit(lambda: 2, 1).result(PATIENCE) == 2
