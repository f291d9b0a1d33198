"""What a running kernel may ask of its surroundings: whether it is still wanted, and where it was.

A kernel that declares the keyword-only parameter `ctx: Context` gets one. The agent that runs it says there whether the
task was cancelled or its time is over, and keeps what the kernel hands to `checkpoint`: should the agent die, whoever
begins the task again finds it by `resume`.

    saved = ctx.resume()
    done, sums = (saved["done"], saved["sums"].copy()) if saved else (0, np.zeros(n))
    while done < steps:
        sums += step(done)
        done += 1
        ctx.keep({"done": done, "sums": sums})

A kernel that is called directly (a test, a notebook) gets one that never interrupts, keeps nothing and resumes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from swarm_agents.errors import DeadlineExceeded, PayloadTooLarge, TaskCancelled

__all__ = ["Context", "Keeping"]

#: `due` says yes so rarely that writing takes at most one part in so many of the time, however large the value is.
_SHARE = 60


class Keeping(Protocol):
    """Where a task's checkpoints lie: see `swarm_agents.runtime.store.Keeper`."""

    def read(self, usable: Callable[[Any], bool] = ...) -> Any: ...

    def write(self, value: Any, *, version: int = 0) -> bool: ...


class Context:
    """A task as its kernel sees it."""

    def __init__(
        self,
        cancelled: Callable[[], bool] | None = None,
        *,
        keep: Callable[[], Keeping] | None = None,
        deadline: float | None = None,
        interval: float = 0.25,
        attempt: int = 1,
        memory: Callable[[Any, Any], np.ndarray[Any, Any]] | None = None,
    ) -> None:
        """
        Args:
            cancelled: whether the answer is not wanted any more.
            keep: makes the task's keeper when it is needed first.
            deadline: on the clock of `time.monotonic`, after which `check` raises.
            interval: how often `due` says yes (seconds).
            attempt: how often the task has been begun, this time included.
            memory: lends an array of a shape and dtype in the node's shared memory.
        """
        self._cancelled = cancelled
        self._keep = keep
        self._deadline = deadline
        self._interval = interval
        #: The task's keeper, once the kernel has asked for it.
        self.keeper: Any = None
        #: From 1: how often the task has been begun.
        self.attempt = attempt
        #: Seconds spent in `checkpoint`.
        self.spent = 0.0
        self._next = 0.0
        self._memory = memory

    def array(self, shape: int | tuple[int, ...], dtype: Any = np.float64) -> np.ndarray[Any, Any]:
        """An array to write the result to, with arbitrary contents: returned from the kernel, it is handed to who waits
        for it on this node without being copied. (When it goes to another node its bytes are sent, as of any array.)

        Raises:
            SwarmFull: the node's shared memory had no room for it for long.
            PayloadTooLarge: it is larger than that memory.
        """
        return np.empty(shape, dtype) if self._memory is None else self._memory(shape, dtype)

    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted. Cheap; a long kernel asks every few milliseconds."""
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Ends the kernel when its answer is no longer wanted.

        Raises:
            TaskCancelled: it was cancelled, or it is another agent's by now.
            DeadlineExceeded: its deadline has passed.
        """
        if self.cancelled():
            raise TaskCancelled("the task was cancelled while it ran")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise DeadlineExceeded("the deadline passed while the kernel ran")

    def due(self, every: float | None = None) -> bool:
        """Whether it is time for the next checkpoint: `every` seconds, or as the swarm's settings say; more rarely when
        writing it takes long. Costs a clock reading."""
        if self._keep is None:
            return False
        now = time.monotonic()
        if every is not None and every != self._interval:
            self._interval, self._next = every, 0.0
        if not self._next:
            self._next = now + self._interval
        return now >= self._next

    def checkpoint(self, value: Any, version: int = 0) -> bool:
        """Keeps `value` (anything that can travel: numbers, lists, maps, arrays) in place of what was kept before.

        It is copied before this returns. False: it could not be kept, because the node's share of memory for
        checkpoints is used up, or because there is nowhere to keep it; go on all the same.

        Args:
            version: of the value's form; `resume` passes over values of another one.

        Raises:
            TaskCancelled, DeadlineExceeded: as `check`, which this does first.
            PayloadTooLarge: it is larger than a checkpoint may be.
            PayloadError: it holds something that can't travel.
        """
        self.check()
        if self._keep is None:
            return False
        if self.keeper is None:
            self.keeper = self._keep()
        begun = time.monotonic()
        try:
            kept: bool = self.keeper.write(value, version=version)
            return kept
        finally:
            now = time.monotonic()
            self.spent += now - begun
            # On a grid, so that a late one does not put off all that follow.
            planned = self._next + self._interval
            self._next = max(planned if planned > now else now + self._interval, now + _SHARE * (now - begun))

    def keep(self, value: Any) -> None:
        """Between two steps of a long kernel: checkpoints `value` if that is `due`, and checks if not.

        What is larger than a checkpoint may be is not kept: such a task, begun again, begins at the beginning.

        Raises:
            TaskCancelled, DeadlineExceeded: as `check`.
            PayloadError: the value holds something that can't travel.
        """
        if not self.due():
            self.check()
            return
        try:
            self.checkpoint(value)
        except PayloadTooLarge:
            pass

    def resume(self, version: int = 0) -> Any:
        """What this task kept last, by whichever agent and in whichever life of the swarm; None: begin at the
        beginning. Arrays in it are read-only: copy one to go on with it."""
        if self._keep is None:
            return None
        if self.keeper is None:
            self.keeper = self._keep()
        kept = self.keeper.read(lambda found: found.version == version)
        return None if kept is None else kept.value
