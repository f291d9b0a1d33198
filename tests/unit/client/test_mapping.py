"""`Swarm.map`: which calls travel together, and that nobody can tell by the values."""

from __future__ import annotations

from collections import deque
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents import chunks
from swarm_agents.chunks import Answer
from swarm_agents.client.mapping import CHUNK_SECONDS, Mapping
from swarm_agents.client.task import TaskInfo
from swarm_agents.errors import (
    BadArguments,
    ConnectionLost,
    KernelError,
    PayloadTooLarge,
    SwarmError,
    TaskLost,
    to_wire,
)

SHORT = CHUNK_SECONDS / 10


class Future:
    def __init__(self, swarm: FakeSwarm, calls: list, chunk: bool) -> None:
        self.swarm, self.calls, self.chunk = swarm, calls, chunk
        self.info = None
        self.cancelled = False

    def result(self, timeout):
        value, made = self.swarm.answer(self)
        self.swarm.underway -= len(self.calls)
        self.info = TaskInfo(run=self.swarm.seconds * max(made, 1))
        return value

    def cancel(self) -> None:
        self.cancelled = True


class FakeSwarm:
    """Squares numbers: 13 raises, and a chunk is answered as the test says."""

    def __init__(self, seconds: float = SHORT, makes=lambda calls: len(calls), chunk_error: SwarmError | None = None):
        self.seconds, self.makes, self.chunk_error = seconds, makes, chunk_error
        self.sent: list[int] = []
        self.underway = self.most = 0
        self.futures: list[Future] = []

    def submit(self, args, kwargs, timeout) -> Future:
        calls = kwargs.get(chunks.KEYWORD, [args])
        future = Future(self, list(calls), bool(kwargs))
        self.sent.append(len(calls))
        self.futures.append(future)
        self.underway += len(calls)
        self.most = max(self.most, self.underway)
        return future

    @staticmethod
    def call(args):
        if args[0] == 13:
            raise KernelError("ValueError: thirteen", "ValueError", "")
        return args[0] ** 2

    def answer(self, future: Future):
        if not future.chunk:
            return self.call(future.calls[0]), 1
        if self.chunk_error is not None:
            raise self.chunk_error
        answer = Answer([], [])
        for call in future.calls[: self.makes(future.calls)]:
            try:
                value = self.call(call)
            except KernelError as error:
                value = None
                answer.errors.append((len(answer.values), to_wire(error)))
            answer.values.append(value)
        return [answer.values, [list(each) for each in answer.errors]], len(answer.values)

    def map(self, items, *, width=64, window=None, chunksize=None) -> Mapping:
        return Mapping(
            self.submit, zip(items, strict=True), width=width, window=window, chunksize=chunksize, timeout=None
        )


def test_calls_that_turn_out_to_be_short_travel_together_and_their_values_come_in_order() -> None:
    swarm = FakeSwarm()
    assert list(swarm.map(range(14, 3000))) == [n * n for n in range(14, 3000)]
    assert swarm.sent[:64] == [1] * 64, "nobody knows yet how long they take"
    assert max(swarm.sent) > 4
    assert len(swarm.sent) < 1000


def test_calls_of_milliseconds_travel_alone() -> None:
    swarm = FakeSwarm(seconds=2 * CHUNK_SECONDS)
    assert list(swarm.map(range(14, 1000))) == [n * n for n in range(14, 1000)]
    assert set(swarm.sent) == {1}


def test_who_asks_for_chunks_of_a_size_gets_them_from_the_first_call_on() -> None:
    for size, sent in ((1, [1] * 10), (4, [4, 4, 2]), (100, [10])):
        swarm = FakeSwarm()
        assert list(swarm.map(range(10), chunksize=size)) == [n * n for n in range(10)]
        assert swarm.sent == sent


def test_an_error_is_raised_at_its_own_item_and_what_is_underway_is_cancelled() -> None:
    swarm = FakeSwarm()
    values = iter(swarm.map([*range(13), *range(13, 40)], chunksize=8))
    assert list(islice(values, 13)) == [n * n for n in range(13)]
    with pytest.raises(KernelError, match="thirteen"):
        next(values)
    asked = [future for future in swarm.futures if not future.cancelled]
    assert sum(len(future.calls) for future in asked) == 16
    assert any(future.cancelled for future in swarm.futures)


@pytest.mark.parametrize("error", [TaskLost("its agents died"), BadArguments("an agent of an older release")])
def test_a_chunk_that_fails_as_a_whole_is_submitted_call_by_call(error: SwarmError) -> None:
    swarm = FakeSwarm(chunk_error=error)
    assert list(swarm.map(range(12), chunksize=6)) == [n * n for n in range(12)]
    assert swarm.sent == [6, 6] + [1] * 12


def test_a_connection_that_is_lost_is_not_submitted_again() -> None:
    swarm = FakeSwarm(chunk_error=ConnectionLost("it broke and did not come back"))
    with pytest.raises(ConnectionLost):
        list(swarm.map(range(12), chunksize=6))
    assert swarm.sent == [6, 6]


def test_an_agent_that_takes_no_chunks_of_a_kernel_is_sent_no_more_of_them() -> None:
    swarm = FakeSwarm(makes=lambda calls: 0)
    assert list(swarm.map(range(14, 2000))) == [n * n for n in range(14, 2000)]
    chunked = [size for size in swarm.sent if size > 1]
    assert 0 < len(chunked) < 64
    assert sum(swarm.sent) - sum(chunked) == 2000 - 14


def test_arguments_that_are_large_travel_alone() -> None:
    class Takes(FakeSwarm):
        @staticmethod
        def call(args):
            return len(args[0])

    swarm = Takes()
    items = [bytes(10), np.zeros(1 << 20, np.uint8), bytes(10), bytes(11), bytes(1 << 20)]
    assert list(swarm.map(items, chunksize=5)) == [10, 1 << 20, 10, 11, 1 << 20]
    assert swarm.sent == [1, 1, 2, 1]


def test_a_chunk_that_is_too_large_to_be_submitted_goes_call_by_call() -> None:
    class Small(FakeSwarm):
        def submit(self, args, kwargs, timeout):
            if kwargs:
                raise PayloadTooLarge("for this arena")
            return super().submit(args, kwargs, timeout)

    swarm = Small()
    assert list(swarm.map(range(10), chunksize=5)) == [n * n for n in range(10)]


def test_never_more_calls_are_underway_than_the_window_allows_though_the_items_never_end() -> None:
    swarm = FakeSwarm(seconds=1e-6)
    assert list(islice(swarm.map(count(14), window=40), 500)) == [n * n for n in range(14, 514)]
    assert swarm.most <= 40
    swarm = FakeSwarm(seconds=1e-6)
    assert list(islice(swarm.map(count(14), width=64), 5000)) == [n * n for n in range(14, 5014)]
    assert swarm.most <= 1000


@given(
    left=st.lists(st.integers(0, 12), max_size=60),
    items=st.lists(st.integers(0, 12), max_size=200),
    size=st.one_of(st.none(), st.integers(1, 12)),
    window=st.one_of(st.none(), st.integers(1, 50)),
)
def test_the_values_are_those_of_the_calls_however_much_of_each_chunk_is_made(left, items, size, window) -> None:
    makes = deque(left)
    swarm = FakeSwarm(makes=lambda calls: min(makes.popleft(), len(calls)) if makes else len(calls))
    assert list(swarm.map(items, window=window, chunksize=size)) == [n * n for n in items]
    assert swarm.underway == 0
