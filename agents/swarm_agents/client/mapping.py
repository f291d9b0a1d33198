"""`Swarm.map`: the same kernel for many items, and how many of its calls travel together.

The way of a task there and back costs its client and its agent some 50 µs of processor time, whatever it computes. So
calls that turn out to be shorter than `CHUNK_SECONDS` travel together (`swarm_agents.chunks`), as many as take about
that long: less than the way of a task is then lost to it, and a more urgent task waits hardly longer. The first calls
travel alone, for nobody knows how long they take; what is learned serves this one `map`. Calls whose arguments are
large, and what an agent leaves of a chunk, travel alone too.

Rejected: several boards' slots filled by one call (it is Python's work on each task that costs, not the board's), and a
length that is remembered from one `map` to the next (a short one would lie in one agent's hand).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from swarm_agents import chunks
from swarm_agents.client.task import SwarmFuture
from swarm_agents.errors import (
    ConnectionLost,
    DeadlineExceeded,
    PayloadError,
    PayloadTooLarge,
    SwarmError,
    TaskCancelled,
    from_wire,
)

__all__ = ["CHUNK_SECONDS", "Mapping"]

#: What the calls of a chunk should take together (seconds).
CHUNK_SECONDS = 0.003
#: Calls underway for each task that may be: so many times more are read ahead when they travel together.
_AHEAD = 4
#: Of the calls underway a chunk has one part in so many, or some agents would have nothing to do.
_PARTS = 32
#: What is left of a chunk is split into so many, should that have been because its calls are longer now.
_SPLIT = 4
#: An argument of more bytes travels alone.
_LARGE = 1 << 15

Arguments = tuple[Any, ...]
#: Submits a task: its positional and its keyword arguments, and the seconds to wait for room.
Submit = Callable[[Arguments, dict[str, Any], float | None], SwarmFuture]


class _Underway:
    """A task: one call, or a chunk of them."""

    __slots__ = ("calls", "future")

    def __init__(self, calls: list[Arguments], future: SwarmFuture) -> None:
        self.calls = calls
        self.future = future


class Mapping:
    """One call of `Swarm.map`. Iterating over it gives the values."""

    def __init__(
        self,
        submit: Submit,
        items: Iterator[Arguments],
        *,
        width: int,
        window: int | None,
        chunksize: int | None,
        timeout: float | None,
    ) -> None:
        """
        Args:
            submit: see `Submit`.
            items: positional arguments of each call.
            width: tasks that keep the swarm busy.
            window: calls underway at most; None: what keeps the swarm busy.
            chunksize: calls that travel together; None: by how long they take.
            timeout: seconds from now until the last value must have come.
        """
        self._submit, self._items = submit, items
        self._tasks = window or width
        self._calls = window or width * _AHEAD
        self._until = None if timeout is None else time.monotonic() + timeout
        self._underway: deque[_Underway] = deque()
        self._count = 0
        self._learns = chunksize is None
        self._most = max(min(self._calls // _PARTS, chunks.MOST), 1)
        self._size = min(chunksize or 1, self._calls, chunks.MOST)
        self._seconds: float | None = None
        #: A call that was read when the chunk before it was full.
        self._next: Arguments | None = None
        self._fill()

    def __iter__(self) -> Iterator[Any]:
        underway = self._underway
        try:
            while underway:
                task = underway.popleft()
                self._count -= len(task.calls)
                if len(task.calls) == 1:
                    value = task.future.result(self._left())
                    self._learn(task.future, 1)
                    self._fill()
                    yield value
                else:
                    yield from self._opened(task)
        finally:
            for task in underway:
                task.future.cancel()

    def _opened(self, task: _Underway) -> Iterator[Any]:
        """The values of a chunk. What is left of it is submitted again, and comes next."""
        try:
            answer = chunks.read(task.future.result(self._left()))
        except (ConnectionLost, TaskCancelled, DeadlineExceeded):
            raise
        except SwarmError:  # of the chunk as a whole: whose it is will show when each call travels alone
            answer = chunks.Answer([], [])
        values, errors = answer.values, dict(answer.errors)
        self._learn(task.future, len(values))
        rest = task.calls[len(values) :]
        if rest:
            if not values:
                self._learns, self._size = False, 1
            length = min(self._size, -(-len(rest) // _SPLIT))
            parts = [self._send(rest[at : at + length]) for at in range(0, len(rest), length)]
            self._underway.extendleft(task for part in reversed(parts) for task in reversed(part))
        self._fill()
        if not errors:
            yield from values
            return
        for number, value in enumerate(values):
            if number in errors:
                raise from_wire(errors[number])
            yield value

    def _learn(self, future: SwarmFuture, calls: int) -> None:
        """So many calls of a task were made: how many should the next one have?"""
        if not self._learns or not calls or future.info is None:
            return
        seconds = future.info.run / calls
        known = self._seconds
        if known is None:
            self._seconds = seconds
        else:  # who was interrupted, by this program not least, says little of how long the others take
            self._seconds = known + (0.5 if seconds < known else 0.1) * (min(seconds, 2 * known) - known)
        self._size = min(int(CHUNK_SECONDS / max(self._seconds, 1e-9)), self._most) or 1

    def _left(self) -> float | None:
        return None if self._until is None else max(self._until - time.monotonic(), 0.0)

    def _alone(self, call: Arguments) -> _Underway:
        self._count += 1
        return _Underway([call], self._submit(call, {}, self._left()))

    def _fill(self) -> None:
        """Submits what may be underway."""
        underway, size = self._underway, self._size
        while len(underway) < self._tasks and self._count + size <= self._calls:
            call, self._next = self._next, None
            if call is None and (call := next(self._items, None)) is None:
                return
            if size < 2 or _is_large(call):
                underway.append(self._alone(call))
                continue
            calls = [call]
            for call in self._items:
                if _is_large(call):
                    self._next = call
                    break
                calls.append(call)
                if len(calls) == size:
                    break
            underway.extend(self._send(calls))

    def _send(self, calls: list[Arguments]) -> list[_Underway]:
        """Submits calls as one task, or as one each where that can't be."""
        if len(calls) > 1:
            try:
                future = self._submit((), {chunks.KEYWORD: calls}, self._left())
            except (PayloadError, PayloadTooLarge):  # one of them, or all together
                pass
            else:
                self._count += len(calls)
                return [_Underway(calls, future)]
        return [self._alone(call) for call in calls]


def _is_large(call: Arguments) -> bool:
    for value in call:
        if type(value) is float or type(value) is int:
            continue
        size = getattr(value, "nbytes", None)
        if size is None:
            size = len(value) if isinstance(value, str | bytes | bytearray) else 0
        if size > _LARGE:
            return True
    return False
