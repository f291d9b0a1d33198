"""What a hub has refused for overload: which tasks wait to be tried again, and who waits behind them.

A refused task is tried again when the hub says, no sooner, unless its submitter's patience or its deadline ends before:
then the refusal is its answer. While tasks of a lane wait so, no others of that lane are sent, so a client of an
overloaded node holds no more than it had on the way, and what waits takes no credit from what is more urgent.

Plain bookkeeping: no clock but what is passed in, no I/O, no lock of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

from swarm_agents.errors import Overloaded

__all__ = ["Shed", "patience"]

Task = TypeVar("Task", bound=Hashable)


def patience(timeout: float | None, deadline: float | None, now: float, wall: float) -> float:
    """Until when (monotonic) a submitter waits for its task to be taken; `deadline` and `wall` are Unix seconds."""
    ends = [math.inf]
    if timeout is not None:
        ends.append(now + timeout)
    if deadline is not None:
        ends.append(now + deadline - wall)
    return min(ends)


class Shed(Generic[Task]):
    """See the module's text. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[Task, float] = {}
        self._waiting: dict[Task, tuple[int, Overloaded]] = {}
        self._lanes: Counter[int] = Counter()

    def note(self, task: Task, until: float) -> None:
        """A task is submitted whose submitter waits until then for it to be taken."""
        if until < math.inf:
            self._until[task] = until

    def refuse(self, task: Task, lane: int, error: Overloaded, now: float) -> float | None:
        """A task is refused now: when it is to be tried again, or None where that is too late for its submitter."""
        due = now + error.retry_after
        if due > self._until.get(task, math.inf):
            return None
        if task not in self._waiting:
            self._lanes[lane] += 1
        self._waiting[task] = lane, error
        return due

    def holds(self, lane: int) -> Overloaded | None:
        """Why tasks of a lane are not sent at present; None: they are."""
        if not self._lanes[lane]:
            return None
        return next(error for known, error in self._waiting.values() if known == lane)

    def leave(self, task: Task) -> bool:
        """It is tried again, or not wanted any more; False if it did not wait."""
        found = self._waiting.pop(task, None)
        if found is None:
            return False
        self._lanes[found[0]] -= 1
        return True

    def forget(self, task: Task) -> bool:
        """It is done with; whether it was waiting."""
        self._until.pop(task, None)
        return self.leave(task)
