"""How an agent keeps below its node's cap of power or heat: after a task it rests, in proportion to what it has worked.

While it rests it claims critical work alone. So the agents of a node work in parallel as far as the cap allows, on
average over some tasks, and what may not wait does not. A task that runs is left to its end. The share is read from the
board (`shm.pace`) a few times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["LONGEST", "STEP", "URGENT", "Pacing"]

#: The lanes of which an agent takes work while it rests: critical.
URGENT: Final = (0, 0)
#: No rest is longer (seconds): what one long task has used too much, the controller takes from the next.
LONGEST: Final = 5.0
_READ_NS: Final = 100_000_000
#: An agent that rests looks for critical work this often (seconds).
STEP: Final = 0.001


class Pacing:
    """See the module's text. Times are CLOCK_MONOTONIC nanoseconds."""

    __slots__ = ("_read", "_read_at", "_share", "until")

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._share = 1.0
        self._read_at = 0
        #: Until then the agent rests.
        self.until = 0

    def worked(self, begun: int, ended: int) -> None:
        """The agent was at a task from then to then."""
        if ended >= self._read_at:
            self._read_at = ended + _READ_NS
            self._share = min(max(self._read(), 0.01), 1.0)
        if self._share < 1.0:
            owed = max(self.until - begun, 0)  # critical work has cut a rest short: that is made up for
            rest = int(max(ended - begun, 0) * (1.0 / self._share - 1.0)) + owed
            self.until = ended + min(rest, int(LONGEST * 1e9))
