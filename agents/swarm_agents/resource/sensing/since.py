"""What counters have done since they were last looked at.

A counter that goes backwards has been reset (its device came anew, the host was migrated) or has wrapped, and which of
the two can't be told: it gives no rate this time, and goes on from there. `iowait` goes backwards by itself.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence

from swarm_agents.resource.sensing.scan import rates

__all__ = ["Counters", "Rates"]


class Counters:
    """The last value of each counter, and when it was taken."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[float, float]] = {}

    def rate(self, key: Hashable, value: float, now: float) -> float | None:
        """Units a second since the last time; None the first time and where it went backwards."""
        last = self._last.get(key)
        self._last[key] = (value, now)
        if last is None or value < last[0] or now <= last[1]:
            return None
        return (value - last[0]) / (now - last[1])

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forgets all but these."""
        for key in self._last.keys() - set(keys):
            del self._last[key]


class Rates:
    """The same of many counters at once, which come as an array."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: list[Hashable] = []
        self._last = self._rate = array("d")
        self._addresses = (0, 0)
        self._at = clock()

    def begin(self, keys: Sequence[Hashable]) -> None:
        """These are the array's elements from now on; what was known of those that it had before is kept."""
        before = dict(zip(self._keys, self._last, strict=True))
        self._keys = list(keys)
        self._last = array("d", [before.get(key, math.nan) for key in keys])
        self._rate = array("d", self._last)
        self._addresses = self._last.buffer_info()[0], self._rate.buffer_info()[0]

    def of(self, address: int) -> list[float]:
        """Units a second since the last call; NaN the first time and where a counter went backwards. `address` is that
        of as many float64 as `begin` named."""
        now = self._clock()
        rates(address, *self._addresses, len(self._keys), now - self._at)
        self._at = now
        return self._rate.tolist()
