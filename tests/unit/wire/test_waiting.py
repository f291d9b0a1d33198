"""Spinning before sleeping, and a socket's small questions."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import zmq

from swarm_agents.wire import options, waiter
from swarm_agents.wire.waiter import Spin, Waiter


class Descriptors:
    """What `epoll.poll` is to a `Spin`: sleeps are told apart from looks, and take no time but by the clock given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.looks: list[object] = []
        self.sleep_ns = 0
        self.there: Callable[[], bool] = lambda: False
        monkeypatch.setattr(time, "perf_counter_ns", self._clock)

    def _clock(self) -> int:
        self.now += 1_000
        return self.now

    def poll(self, pause: object) -> list[tuple[int, int]]:
        self.looks.append(pause)
        if pause == 0:
            return [(7, 1)] if self.there() else []
        self.now += self.sleep_ns
        return [(7, 1)]


@pytest.fixture
def descriptors(monkeypatch) -> Descriptors:
    return Descriptors(monkeypatch)


def test_who_is_woken_late_sleeps_at_once(descriptors):
    spin = Spin()
    descriptors.sleep_ns = 10 * waiter._SPIN_NS
    for _ in range(5):
        assert spin.wait(descriptors.poll, None) == [(7, 1)]
    assert descriptors.looks == [None] * 5


def test_who_was_woken_soon_looks_before_it_sleeps_and_finds(descriptors):
    spin = Spin()
    descriptors.sleep_ns = 1_000
    spin.wait(descriptors.poll, 5.0)
    descriptors.looks.clear()
    descriptors.there = lambda: len(descriptors.looks) > 3
    assert spin.wait(descriptors.poll, 5.0) == [(7, 1)]
    assert descriptors.looks == [0] * 4


def test_looking_in_vain_ends_and_is_not_done_again(descriptors):
    spin = Spin()
    descriptors.sleep_ns = 1_000
    spin.wait(descriptors.poll, 5.0)
    descriptors.looks.clear()
    descriptors.sleep_ns = 10 * waiter._SPIN_NS
    spin.wait(descriptors.poll, 5.0)
    assert descriptors.looks[-1] == 5.0
    assert 1 < len(descriptors.looks) <= waiter._SPIN_NS // 1_000 + 2
    descriptors.looks.clear()
    spin.wait(descriptors.poll, 5.0)
    assert descriptors.looks == [5.0]


def test_a_look_without_waiting_never_spins(descriptors):
    spin = Spin()
    descriptors.sleep_ns = 1_000
    spin.wait(descriptors.poll, 5.0)
    descriptors.looks.clear()
    assert spin.wait(descriptors.poll, 0.0) == []
    assert descriptors.looks == [0]


def test_a_waiter_that_was_woken_soon_is_still_woken_from_its_sleep():
    waits = Waiter()
    try:
        for _ in range(3):
            waits.wake()
            assert [fd for fd, _ in waits.wait(5.0)] == [waits.nudge_fd]
            waits.nudged()
        assert waits.wait(0.001) == []
        waits.ring_in(0.0005)
        assert [fd for fd, _ in waits.wait(5.0)] == [waits.alarm_fd]
        waits.rung()
    finally:
        waits.close()


@pytest.mark.parametrize("library", [True, False], ids=["libzmq", "pyzmq"])
def test_questions_are_answered_as_pyzmq_answers_them(library, monkeypatch):
    if library and options._library() is None:
        pytest.skip("this pyzmq does not show its libzmq")
    if not library:
        monkeypatch.setattr(options, "_library", lambda: None)
    context: zmq.Context = zmq.Context()
    one, other = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    try:
        one.bind("inproc://questions")
        other.connect("inproc://questions")
        events, more = options.question(one, zmq.EVENTS), options.question(one, zmq.RCVMORE)
        assert events() == one.get(zmq.EVENTS) == zmq.POLLOUT
        other.send_multipart([b"first", b"second"])
        assert one.poll(5000)
        assert events() & zmq.POLLIN
        assert one.recv() == b"first"
        assert more() == 1
        assert one.recv() == b"second"
        assert more() == 0
        with pytest.raises(zmq.ZMQError):
            options.question(one, 9_999)()
    finally:
        one.close(0)
        other.close(0)
        context.term()
