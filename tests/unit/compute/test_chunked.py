"""Calls that travel together: each has its own value or error, and none waits for those that turn out to be long."""

from __future__ import annotations

import numpy as np
import pytest

from swarm_agents import chunks
from swarm_agents.compute import chunked, registry
from swarm_agents.errors import PayloadError, to_wire

MS = 1_000_000


class Clock:
    """Advances by what each call takes."""

    def __init__(self, *steps: int) -> None:
        self.now, self.steps = 0, list(steps)

    def __call__(self) -> int:
        self.now += self.steps.pop(0) if self.steps else 0
        return self.now


def make(run, calls, *, clock=None, unwanted=lambda: False) -> chunked.Made:
    return chunked.make(run, calls, begun=0, unwanted=unwanted, to_wire=to_wire, clock=clock or Clock())


def test_each_call_has_its_value_or_its_error_and_its_time() -> None:
    def run(args):
        if args[0] == 2:
            raise ValueError("two")
        if args[0] == 3:
            raise SystemExit(1)
        return args[0]

    made = make(run, [[n] for n in range(5)], clock=Clock(10, 20, 30, 40, 50))
    assert made.answer.values == [0, 1, None, None, 4]
    assert {number: error["type"] for number, error in made.answer.errors} == {2: "ValueError", 3: "SystemExit"}
    assert [nanoseconds for _, nanoseconds in made.ended] == [10, 20, 30, 40, 50]
    assert [type(error) for error, _ in made.ended if error is not None] == [ValueError, SystemExit]


def test_what_takes_long_is_broken_off_after_the_call_in_hand() -> None:
    patience = round(chunked.PATIENCE * 1e9)
    made = make(lambda args: args[0], [[n] for n in range(50)], clock=Clock(patience // 2, 1, patience // 2))
    assert made.answer.values == [0, 1, 2]


def test_a_chunk_that_nobody_wants_any_more_is_broken_off() -> None:
    made = make(lambda args: 0, [[n] for n in range(9)], clock=Clock(MS, 1, 1), unwanted=lambda: True)
    assert len(made.answer.values) == 1


def test_an_answer_does_not_become_much_larger_than_a_mebibyte() -> None:
    made = make(lambda args: np.zeros(chunked.LARGE // 2, np.uint8), [[n] for n in range(9)])
    assert len(made.answer.values) == 3


def test_a_kernel_that_says_something_of_attempts_or_limits_or_wants_its_context_is_called_alone() -> None:
    names = {}
    for number, options in enumerate(({}, {"attempts": 2}, {"deadline": 1.0}, {"limit": 1.0}, {"most_memory": 1})):

        @registry.kernel(f"chunked.of{number}", **options)
        def kernel(x: int) -> int:
            return x

        names[number] = chunked.may_be_chunked(kernel)
        del registry._kernels[kernel.name]
    assert names == {0: True, 1: False, 2: False, 3: False, 4: False}
    assert not chunked.may_be_chunked(registry.get("core.sleep"))


def test_what_is_no_chunk_and_what_is_no_answer_is_refused() -> None:
    assert chunks.calls_of({chunks.KEYWORD: [[1], [2, 3]]}) == [[1], [2, 3]]
    for kwargs in ({chunks.KEYWORD: 7}, {chunks.KEYWORD: [7]}, {chunks.KEYWORD: [[1]], "more": 1}):
        with pytest.raises(PayloadError):
            chunks.calls_of(kwargs)
    assert chunks.read([[1, None], [[1, {"code": "KernelError"}]]]).errors == [(1, {"code": "KernelError"})]
    for value in (None, [1], [1, 2], [[1]]):
        with pytest.raises(PayloadError):
            chunks.read(value)
