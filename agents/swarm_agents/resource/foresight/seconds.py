"""Samples that come when they come, made into one mean a second for each series, which is what forecasts work on.

A second has the mean of what was sampled within it, or is unknown (NaN). Everything that a clock or a sensor can do
wrong ends here: values that are no finite number are not sampled, time that stands still or goes backwards begins
nothing new, and a gap is unknown seconds, at most `MOST` of them (after a longer one the past says little anyway).

Rejected: forecasting the samples themselves, ten a second. /proc/stat counts in ticks of 10 ms, so that the load of a
tenth of a second is a coarse number, and any mean would beat it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "Seconds"]

#: Unknown seconds that a gap makes, at most.
MOST = 120
#: No figure of a node is larger; sums of squares of such numbers are still finite.
_ABSURD = 1e100


class Seconds:
    """Means by the second of a fixed number of series, which get their places by name as they come up.

    Names beyond `places` are left out (`refused` counts them): what a node has is bounded, what a broken driver reports
    is not.
    """

    def __init__(self, places: int) -> None:
        self.places: dict[str, int] = {}
        self.refused = 0
        self._most = places
        self._free = list(range(places))[::-1]
        self._sums = np.zeros(places)
        self._counts = np.zeros(places)
        #: The second that is being filled (of the caller's clock), and the last time seen.
        self._second: int | None = None
        self._epoch = 0.0

    def add(self, now: float, values: Mapping[str, float]) -> list[NDArray[np.float64]]:
        """Takes samples of a moment (seconds); returns the seconds that have ended by it, as rows of means.

        The rows have shape (places,), NaN where nothing was sampled.
        """
        ended = self._turn(now)
        sums, counts, places = self._sums, self._counts, self.places
        for name, value in values.items():
            if not -_ABSURD < value < _ABSURD:  # NaN as well
                continue
            at = places.get(name)
            if at is None:
                if not self._free:
                    self.refused += 1
                    continue
                at = places[name] = self._free.pop()
            sums[at] += value
            counts[at] += 1.0
        return ended

    def release(self, name: str) -> int | None:
        """Frees a series' place for another one; returns it, None if it had none."""
        at = self.places.pop(name, None)
        if at is not None:
            self._sums[at] = self._counts[at] = 0.0
            self._free.append(at)
        return at

    def _turn(self, now: float) -> list[NDArray[np.float64]]:
        if not math.isfinite(now):
            return []
        second = math.floor(now)
        if self._second is None or second < self._second:  # first, or set back: what was begun goes on from here
            self._second = second
            return []
        passed = second - self._second
        if not passed:
            return []
        with np.errstate(invalid="ignore"):
            mean = self._sums / np.where(self._counts > 0.0, self._counts, np.nan)
        self._sums[:] = 0.0
        self._counts[:] = 0.0
        self._second = second
        return [mean, *(np.full(self._most, np.nan) for _ in range(min(passed - 1, MOST)))]
