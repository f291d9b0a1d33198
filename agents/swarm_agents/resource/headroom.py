"""Says no to more work before the kernel's OOM killer has to choose whom to kill.

What comes in from outside the node takes memory of the hub and room in shared memory, and both count against the pod's
limit. So a task is taken only if its arguments leave a reserve: of the cgroup's limit, and of the node's memory where
the kernel is the one to choose. Who is refused hears why and when to come again, as from a full board (`SwarmFull`).
The arena itself needs none of this: its blocks are allocated when the board is made.

With hysteresis: refused from less than `RESERVE` free, taken again from `AGAIN`. What the kernel would give back by
itself (pages of files that nobody uses, in a cgroup's count) is free; it is looked up only when it matters, because
that file of the cgroup is dear to read. Where nothing is known nothing is refused. No clock here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from swarm_agents import cgroups
from swarm_agents.errors import SwarmFull
from swarm_agents.resource.sensing.reading import Availability, Reading

__all__ = ["Headroom", "reclaimable"]

#: Shares of the limit (or the node's memory) that stay free, from where on less is refused and more is taken again.
RESERVE, AGAIN = 0.05, 0.08
#: The reserve is no smaller, and no larger, than that (bytes).
_LEAST, _MOST = 16 << 20, 1 << 30


def reclaimable(root: Path = Path("/")) -> float:
    """Bytes that the hub's own cgroup is charged for files that were not used of late; 0 where that is not known."""
    at = cgroups.place("memory", root)
    return 0.0 if at is None else cgroups.reclaimable(at)


class Headroom:
    """A looker of the resource agent: what there is is taken from the sensors, what was let in since is added."""

    def __init__(self, reclaim: Callable[[], float] = reclaimable) -> None:
        self._reclaim = reclaim
        #: Of each bound: free bytes, and its size.
        self._free: dict[str, tuple[float, float]] = {}
        #: Bytes that were let in since the last look: no sensor shows them yet.
        self._since = 0
        #: Why nothing is taken now; empty while something is.
        self.closed = ""

    def look(self, now: float, readings: Mapping[str, Reading]) -> None:
        """Takes what the sensors say."""
        self._free, self._since = {}, 0
        for what, sensor, total, part, used in (
            ("its memory limit", "cgroup", "cgroup_memory_limit_bytes", "cgroup_memory_used_bytes", True),
            ("the node's memory", "memory", "memory_bytes", "memory_available_bytes", False),
        ):
            reading = readings.get(sensor)
            if reading is None or reading.availability is Availability.UNAVAILABLE:
                continue
            size, value = reading.values.get(total), reading.values.get(part)
            if size is None or value is None or not 0 < size < float("inf") or not 0 <= value < float("inf"):
                continue
            free = size - value if used else value
            if used and free < 2 * self._reserve(size, AGAIN):
                free = min(free + self._reclaim(), size)
            self._free[what] = free, size
        share = AGAIN if self.closed else RESERVE
        self.closed = self._short(0, share)

    def admit(self, size: int) -> None:
        """Lets in a task whose arguments have so many bytes.

        Raises:
            SwarmFull: there would not be enough memory left.
        """
        why = self.closed or self._short(size, RESERVE)
        if why:
            raise SwarmFull(f"{why}: wait for answers, or submit again later")
        self._since += size

    def _short(self, size: int, share: float) -> str:
        for what, (free, whole) in self._free.items():
            left = free - self._since - size
            if left < self._reserve(whole, share):
                return f"the hub would have {max(left, 0.0) / 2**20:.0f} MiB left of {what} of {whole / 2**20:.0f} MiB"
        return ""

    @staticmethod
    def _reserve(whole: float, share: float) -> float:
        # Of a very small limit no more than a fifth: it has to be good for something.
        return min(max(share * whole, _LEAST * share / RESERVE), _MOST * share / RESERVE, whole / 5)
