"""What counters have done since they were last looked at.

A counter that goes backwards has been reset (its device came anew, the host was migrated) or has wrapped, and which of
the two can't be told: it gives no rate this time, and goes on from there. `iowait` goes backwards by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

__all__ = ["Counters"]


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
