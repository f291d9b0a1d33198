"""Whether a node has more work than it can carry, and what it refuses then: a controller, pure but for what it keeps.

The signal is how long the oldest task of each lane has waited to be begun. One burst makes it rise for a moment, and
that is what queues are for; a node that can't carry its load has it above the target at every look. So, as in CoDel
(K. Nichols, V. Jacobson, "Controlling queue delay", ACM Queue 10(5), 2012), the least wait within a window decides, not
the mean. Depth says less: a thousand tasks of a microsecond are nothing.

    NORMAL ──▶ SHED_BULK      critical, high or normal work has stood above the target for a window,
                              or bulk work itself above `OWN` times the target
    SHED_BULK ──▶ SHED_NORMAL critical or high work has, or normal work itself above `OWN` times the target
    and back                  what led there has been below half the target for as long as `hold`

Memory leads there too: while for a tenth of the time nobody on the node can go on for want of it (PSI, full) bulk work
is refused, and normal work from `MEMORY[SHED_NORMAL]` on. More work would make the node thrash and finish less.

A level is refused to new tasks only: what was accepted is answered. Critical and high work are never refused. What is
less urgent is refused long before it would itself be hurt by waiting, and where it does no harm to others it may wait
`OWN` times longer: a batch of bulk tasks that nobody else is held up by is no overload.

One level is gone up or down at a time, and each change says why. `hold` is a window at first; a level that is needed
again soon after it was left holds twice as long as the last time, up to `LONGEST_HOLD`: the load that comes back when
the door opens does not make it swing.

Rejected: utilisation (a busy node is a good node), the depth of the queue, an admission probability (a client that is
told "no, come back in a second" can act on it; one that is refused at random can not).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

from msgspec import Struct

from swarm_agents.config import Priority

__all__ = ["LONGEST_HOLD", "MEMORY", "OWN", "TARGET", "WINDOW", "Change", "Level", "Overload"]

#: Seconds that the oldest task may wait.
TARGET = 1.0
#: Seconds that it must have waited longer at every look.
WINDOW = 1.0
#: What holds up nobody but its own kind may wait so many times the target.
OWN = 10.0
#: A level is left when its waits are below this share of what led to it.
_CALM = 0.5
LONGEST_HOLD = 30.0
#: A level that is needed again within so many times its last hold is left later the next time.
_SOON = 10.0
#: After so long without a look (seconds) nothing is known of the time between.
_GAP = 1.0
#: What is said of when to try again: a quarter of what the oldest has waited, within these bounds (seconds). It is less
#: than what is left in the queues when a level is left, so that agents do not run dry.
_RETRY_LEAST, _RETRY_MOST = 0.25, 2.0


class Level(enum.IntEnum):
    """How many lanes are refused, from bulk upwards."""

    NORMAL = 0
    SHED_BULK = 1
    SHED_NORMAL = 2


#: The share of time in which everybody waits for memory that leads to a level.
MEMORY = {Level.SHED_BULK: 0.1, Level.SHED_NORMAL: 0.3}


class Change(Struct, frozen=True):
    """A change of level, for the record."""

    before: Level
    level: Level
    cause: str


class _Since:
    """Since when something has been so at every look; None: it is not."""

    def __init__(self) -> None:
        self.at: float | None = None

    def look(self, now: float, is_so: bool) -> float:
        """Seconds that it has been so."""
        if not is_so:
            self.at = None
            return -1.0
        if self.at is None:
            self.at = now
        return now - self.at


class Overload:
    """See the module's text. Times are monotonic seconds."""

    def __init__(self, target: float = TARGET, window: float = WINDOW) -> None:
        if not (0 < target < math.inf and 0 < window < math.inf):
            raise ValueError(f"target={target}, window={window}: expected seconds above 0")
        self.level = Level.NORMAL
        self.target, self.window = target, window
        self.waits: tuple[float, ...] = (0.0,) * len(Priority)
        self.memory = 0.0
        self._above = {level: _Since() for level in Level}
        self._calm = _Since()
        self._hold = dict.fromkeys(Level, window)
        self._left = dict.fromkeys(Level, -math.inf)
        self._last = -math.inf

    @property
    def retry_after(self) -> float:
        """Seconds after which a refused task is worth another try."""
        return min(max(max(self.waits) / 4, _RETRY_LEAST), _RETRY_MOST)

    def look(self, now: float, waits: Sequence[float], workers: int = 1, memory: float = 0.0) -> Change | None:
        """Takes what the oldest tasks have waited, by lane, critical first; returns a change of level.

        Args:
            workers: agents that compute here. Without any, waiting says nothing about load: the level is left in time.
            memory: the share of time in which everybody on the node waits for memory.
        """
        self.memory = memory if 0.0 < memory <= 1.0 else 0.0
        clean = tuple(wait if math.isfinite(wait) and wait > 0 else 0.0 for wait in waits)
        self.waits = clean if workers > 0 else (0.0,) * len(clean)
        if not 0 <= now - self._last <= _GAP + self.window:
            for since in (*self._above.values(), self._calm):
                since.at = None
        self._last = now
        stood = {level: self._above[level].look(now, self._strain(level)[0] > 1.0) for level in Level if level}
        for level in (Level.SHED_BULK, Level.SHED_NORMAL):
            if self.level == level - 1 and stood[level] >= self.window:
                return self._raise(now, level)
        if self.level:
            calm = self._calm.look(now, self._strain(self.level)[0] < _CALM)
            if calm >= self._hold[self.level]:
                return self._lower(now)
        return None

    def _strain(self, level: Level) -> tuple[float, int]:
        """What leads to a level, as a share of what is bearable: the greatest, and its lane, or beyond them memory."""
        own = len(Priority) - level
        strains = [wait / self.target for wait in self.waits[:own]] + [self.waits[own] / (OWN * self.target)]
        strains += [0.0] * (len(Priority) - len(strains)) + [self.memory / MEMORY[level]]
        worst = max(range(len(strains)), key=strains.__getitem__)
        return strains[worst], worst

    def _raise(self, now: float, level: Level) -> Change:
        if now - self._left[level] < _SOON * self._hold[level]:
            self._hold[level] = min(2 * self._hold[level], LONGEST_HOLD)
        else:
            self._hold[level] = self.window
        lane = self._strain(level)[1]
        if lane == len(Priority):
            return self._go(
                level,
                f"everybody on the node has waited for memory for more than {MEMORY[level]:.0%} of the time at every "
                f"look for {self.window:g} s, last for {self.memory:.0%}",
            )
        bearable = self.target * (OWN if lane == len(Priority) - level else 1.0)
        cause = (
            f"{list(Priority)[lane]} work has waited for more than {bearable:g} s at every look for "
            f"{self.window:g} s, the oldest for {self.waits[lane]:.2f} s"
        )
        return self._go(level, cause)

    def _lower(self, now: float) -> Change:
        left = self.level
        self._left[left] = now
        cause = f"what led to it has been below half the bearable for {self._hold[left]:g} s"
        return self._go(Level(left - 1), cause)

    def _go(self, level: Level, cause: str) -> Change:
        change = Change(self.level, level, cause)
        self.level = level
        self._calm.at = None
        for since in self._above.values():  # the next level is gone to only after a whole window at this one
            since.at = None
        return change
