"""Where a figure that climbs will be in a while, if it goes on as it does: towards a limit, or levelling out. Pure.

The last `WINDOW` seconds are cut in three. Of the means of the thirds, m1, m2, m3, the steps d1 = m2 - m1 and
d2 = m3 - m2 say how fast it goes, and q = d2 / d1 whether it slows: what heats up towards an equilibrium, or a batch
that has taken its memory, slows down by about the same factor each third (the sum of a geometric series, as in
Aitken's delta-squared process, 1926); a leak does not. A climb that quickens is taken to go on as it does now.

The error is of the steps' own: the scatter of the values about the line within each third, and a share of the way
itself. So a jump within one third has a large error, and noise has one as large as the climb.

How long a climb goes on is not known from its slope. Of what has lasted for some time and may end at any scale of time,
a share of T / (T + t) lasts for another t (Gott, "Implications of the Copernican principle", 1993): a climb from far
below that is nearly there is believed, one that has just begun is not, however steep it is. T is what was climbed since
the lowest of the last minutes, at the present pace.
"""

from __future__ import annotations

import itertools
import math
from collections import deque

__all__ = ["WINDOW", "Climb"]

#: Seconds that are looked at.
WINDOW = 45.0
#: Values that each third must have.
_ENOUGH = 3
#: A climb must also be seen in the newest share of the window: what has just slowed down shows there first.
_SHORT = 0.4
#: Nothing is foretold more certainly than this share of the way to go.
_SHARE = 0.15
#: What is less likely than this to go on for long enough is not reckoned with any further.
_NEGLIGIBLE = 0.04
#: A climb to where it has been before, and come back from, is so much less likely to go on.
_TURNED = 0.4
#: The lowest value is sought in so many stretches of so many seconds.
_STRETCHES, _STRETCH = 48, 5.0


class Climb:
    """One figure's last values. Times are seconds, of a clock that goes forwards."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._points: deque[tuple[float, float]] = deque(maxlen=512)
        self._lows: deque[list[float]] = deque(maxlen=_STRETCHES)

    def clear(self) -> None:
        """What was before says nothing of what comes."""
        self._points.clear()
        self._lows.clear()

    def add(self, now: float, value: float) -> None:
        """A value of now; what is no finite number is not taken, and a clock that was set back begins anew."""
        if not (math.isfinite(value) and math.isfinite(now)):
            return
        points = self._points
        if points and now < points[-1][0]:
            self.clear()
        while points and points[0][0] <= now - self._window:
            points.popleft()
        points.append((now, value))
        lows = self._lows
        if lows and now - lows[-1][0] < _STRETCH:
            lows[-1][1], lows[-1][2] = min(lows[-1][1], value), max(lows[-1][2], value)
        else:
            lows.append([now, value, value])

    def ahead(self, seconds: float) -> tuple[float, float]:
        """The value to come, and its standard error; (NaN, inf) while there is too little to say."""
        return self._ahead(seconds, self._window)

    def _ahead(self, seconds: float, window: float) -> tuple[float, float]:
        points = self._points
        if not points or points[-1][0] - points[0][0] < 0.9 * window - 1.0:
            return math.nan, math.inf
        end, third = points[-1][0], window / 3.0
        parts: list[list[float]] = [[], [], []]
        for at, value in reversed(points):
            if at <= end - window:
                break
            parts[min(max(2 - int((end - at) / third), 0), 2)].append(value)
        if min(map(len, parts)) < _ENOUGH:
            return math.nan, math.inf
        first, second, last = (sum(part) / len(part) for part in parts)
        one, two = second - first, last - second
        noise = math.sqrt(sum(_scatter(part) / len(part) for part in parts) / 3.0)
        slowing = min(max(two / one, 0.0), 1.0) if one * two > 0.0 else (0.0 if abs(two) < abs(one) else 1.0)
        # The last third's mean is half a third ago.
        thirds = seconds / third + 0.5
        slows = slowing < 1.0 - 1e-6
        factor = slowing * (1.0 - slowing**thirds) / (1.0 - slowing) if slows else thirds
        way = two * factor
        # A climb of the last third alone may as well be a step that is over.
        unsure = abs(two) * thirds * 0.5 if abs(one) < 0.25 * abs(two) else 0.0
        error = math.hypot(noise * (1.0 + thirds), _SHARE * abs(way), unsure)
        return last + way, error

    def exceeds(self, limit: float, seconds: float) -> float:
        """The probability that it is beyond the limit in so many seconds."""
        if not self._points or not math.isfinite(limit):
            return 0.0
        last = self._points[-1][1]
        if last >= limit:
            return 1.0
        lowest, since = min((low, -at) for at, low, _ in self._lows)
        before = max((high for at, _, high in self._lows if at < -since), default=-math.inf)
        climbed = last - lowest
        lasts = climbed / (climbed + limit - last)  # both at the same pace
        if lasts < _NEGLIGIBLE:  # most of the time
            return 0.0
        enough = min(self._reaches(limit, seconds, self._window), self._reaches(limit, seconds, self._window * _SHORT))
        return enough * lasts * (_TURNED if before >= last else 1.0)

    def _reaches(self, limit: float, seconds: float, window: float) -> float:
        """The same, if it goes on."""
        value, error = self._ahead(seconds, window)
        if not math.isfinite(error) or value <= self._points[-1][1]:
            return 0.0
        return 0.5 * math.erfc((limit - value) / error / math.sqrt(2.0)) if error > 0.0 else float(value > limit)

    @property
    def last(self) -> float:
        """The newest value; NaN before there is one."""
        return self._points[-1][1] if self._points else math.nan


def _scatter(values: list[float]) -> float:
    """Mean square about the line through them, by the differences of neighbours (von Neumann, 1941).

    Differences see the noise and not the slope; the mean of squares is what a jump leaves in it.
    """
    squares = sum((b - a) ** 2 for a, b in itertools.pairwise(values))
    slope = (values[-1] - values[0]) / (len(values) - 1)
    return max(squares / (len(values) - 1) - slope * slope, 0.0) / 2.0
