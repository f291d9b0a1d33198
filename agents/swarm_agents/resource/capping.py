"""How much of their time a node's agents may work, so that it keeps below a cap of watts or degrees: pure but for what
it keeps.

Power follows the work at once, heat with a delay of seconds to minutes. So of power the last reading counts, and of
heat what it comes to in `AHEAD` seconds if it goes on rising as it does: without that the node would be far beyond the
cap before the first degree above it is seen, and far below before the last one is. The share is multiplied at each
step: quickly down, slowly up, and held between two marks below the cap, so that it comes to rest. The tighter cap
decides.

A cap that can't be kept, for the node is beyond it though its agents hardly work, ends at `LEAST`: what others do on
the node is not ours to stop. Where no sensor shows what is capped nothing is done, and that is said.
"""

from __future__ import annotations

import math

__all__ = ["AHEAD", "EVERY", "LEAST", "Capping"]

#: Seconds between steps.
EVERY = 1.0
#: The least share of their time that agents work.
LEAST = 0.05
#: Heat is judged by what it comes to so many seconds from now.
AHEAD = 10.0
#: Above this share of the capped power less is worked, below the other more.
_WATTS_HIGH, _WATTS_LOW = 0.98, 0.92
#: The same for heat: degrees below the cap.
_HEAT_HIGH, _HEAT_LOW = 1.0, 3.0
#: What a step may change: down at most, a step up.
_DOWN, _UP = 0.4, 1.05
#: A degree too much takes such a share.
_A_DEGREE = 0.04
#: Weight of a new observation of how fast heat rises; of one that is worse.
_NEWS, _SOONER = 0.3, 0.8


class Capping:
    """See the module's text. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.share = 1.0
        #: What keeps the share below 1, for people; empty: nothing does.
        self.cause = ""
        self._due = -math.inf
        self._heat: tuple[float, float] | None = None
        self._slope = 0.0

    def look(self, now: float, watts: float | None, celsius: float | None, most_watts: float, most_heat: float) -> bool:
        """Takes readings (None: unavailable) and caps (0: none). True if it was time for a step."""
        if now < self._due and now > self._due - 10 * EVERY:
            return False
        self._due = now + EVERY
        factors = []
        if most_watts > 0 and watts is not None and math.isfinite(watts):
            factors.append((self._power(watts, most_watts), f"{watts:.0f} W, the cap is {most_watts:g} W"))
        if most_heat > 0 and celsius is not None and math.isfinite(celsius):
            factor = self._warmth(now, celsius, most_heat)
            factors.append((factor, f"{celsius:.1f} degrees Celsius, the cap is {most_heat:g}"))
        else:
            self._heat, self._slope = None, 0.0
        if not factors:
            self.share, self.cause = 1.0, ""
            return True
        factor, cause = min(factors)
        self.share = min(max(self.share * factor, LEAST), 1.0)
        if self.share == 1.0:
            self.cause = ""
        elif factor < 1.0 or not self.cause:
            self.cause = cause
        return True

    def _power(self, watts: float, most: float) -> float:
        if watts > _WATTS_HIGH * most:
            # What the node draws idle does not go down with the work, so the work has to go down by more.
            return max((_WATTS_HIGH * most / watts) ** 2, _DOWN)
        return _UP if watts < _WATTS_LOW * most else 1.0

    def _warmth(self, now: float, celsius: float, most: float) -> float:
        if self._heat is not None and now > self._heat[0]:
            rise = (celsius - self._heat[1]) / (now - self._heat[0])
            # What rises faster than thought is believed sooner: late is hot.
            self._slope += (_SOONER if rise > self._slope else _NEWS) * (rise - self._slope)
        self._heat = (now, celsius)
        comes_to = celsius + AHEAD * self._slope
        beyond = max(comes_to - (most - _HEAT_HIGH), celsius - most)
        if beyond > 0:
            return max(1.0 - _A_DEGREE * beyond, _DOWN)
        return _UP if comes_to < most - _HEAT_LOW else 1.0
