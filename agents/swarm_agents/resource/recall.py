"""Which tasks that were sent to another node should come back: those that have been there for far too long.

A node that slows down (a neighbour, throttling) shows it by answers that do not come. Its tasks fall in two kinds. What
has not been begun there is called back and goes elsewhere: `Recall` to that hub, which takes off its board what nobody
has claimed yet and refuses it, as it would have refused a task for which it had no room. What has been begun stays; an
idle agent of the home node may run it a second time (`swarm_agents.compute.speculation`).

Late is what has been away for longer than `factor` times the 95th percentile of its kernel's tasks that other nodes
have answered, there and back, queues included; so a swarm that is busy everywhere calls nothing back. Asked again for
the same task only after as long again. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarm_agents.config import Failover
from swarm_agents.resource.peers import Forward
from swarm_agents.runtime.straggler import Durations
from swarm_agents.wire.schema import TaskId

__all__ = ["Recalls"]

#: Kernels whose times are remembered.
_MOST_KERNELS = 256


class Recalls:
    """What one hub knows of how long its tasks are away. Times are the caller's clock, in seconds."""

    def __init__(self) -> None:
        self._times: dict[str, Durations] = {}
        #: When to ask for a task next.
        self._next: dict[TaskId, float] = {}

    def learn(self, kernel: str, seconds: float) -> None:
        """A task was answered after having been away for so long."""
        known = self._times.get(kernel)
        if known is None:
            if len(self._times) >= _MOST_KERNELS:
                self._times.clear()
            known = self._times[kernel] = Durations()
        known.learn(seconds)

    def late(self, forwards: Iterable[Forward[Any]], failover: Failover, now: float) -> list[TaskId]:
        """The tasks to call back now; each of them is named again only later."""
        found = []
        for forward in forwards:
            known = self._times.get(forward.submit.kernel)
            tail = known.quantile(0.95) if known is not None else None
            if tail is None:
                continue
            task, span = forward.submit.task, max(failover.straggler_factor * tail, failover.straggler_least)
            if now >= self._next.get(task, forward.sent + span):
                self._next[task] = now + span
                found.append(task)
        return found

    def forget(self, task: TaskId) -> None:
        """It is not away any more."""
        self._next.pop(task, None)
