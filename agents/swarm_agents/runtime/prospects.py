"""How likely it is that an agent fails soon, from what its supervisor sees of it anyway. Pure; time is passed in.

Three ways in which agents are seen to go, each with the probability that it happens within `HORIZON` seconds:

- **memory** runs into the container's limit: a straight line is laid through the last two minutes (least squares), and
  the probability is that of the true slope being steep enough, by the error of the slope. Memory that is high and does
  not grow says nothing: the node's arena is charged to the agent that made it, and fills once.
- **deaths** come again: if the agent died `n` times within a window that is twice the horizon, the next death comes as
  the last ones did (a Poisson process), with probability 1 - exp(-n / 2).
- **silences** grow: an agent that is held up more and more is declared dead one day. The age of its heartbeat, looked
  at now and then, is on average the scale of its pauses (their tail is exponential, see `accrual`); the probability is
  that one of the pauses within the horizon is longer than four times `failover.deadAfter`, which is when it is declared
  dead even if it only waits for a core.

They are held for independent. What is not seen (no limit, no cgroup) adds nothing, and a short history adds nothing.

Rejected: the share of tasks that end in errors, which tells of the tasks, not of the agent. Sensors of the hardware
(correctable errors, heat) belong to the node's resource agent, which can tell them apart from its agents.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["HORIZON", "Forecast", "Prospects"]

#: How far ahead it is looked (seconds).
HORIZON = 300.0
#: Points that a line, or a mean, needs at least, and how many are kept; at one in two seconds the last two minutes.
_ENOUGH = 20
_KEPT = 60
#: The line must lie over so many seconds at least.
_SPAN = 30.0
#: Slopes are not believed to be more certain than this share of what is needed to reach the limit.
_FLOOR = 0.05
#: A way to fail is told from this probability on.
_WORTH_TELLING = 0.05
#: So many times `deadAfter` an agent may be silent that waits for a core.
_STARVING = 4.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """The probability (0 to 1) of a failure within `HORIZON`, and why, the likeliest first."""

    probability: float = 0.0
    reasons: tuple[str, ...] = ()


class Prospects:
    """What was seen of one agent. Times are monotonic seconds, sizes bytes."""

    def __init__(self) -> None:
        self._memory: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._limit = 0.0
        self._silences: deque[float] = deque(maxlen=_KEPT)
        self._deaths: deque[float] = deque(maxlen=_KEPT)

    def memory(self, now: float, used: float, limit: float) -> None:
        """So much of the limit is in use and can't be reclaimed."""
        if limit != self._limit:  # a container that was resized: what was before says nothing
            self._memory.clear()
        self._limit = limit
        self._memory.append((now, used))

    def silence(self, age: float) -> None:
        """The agent's last heartbeat was so many seconds ago, at a moment that was not chosen for it."""
        self._silences.append(age)

    def died(self, now: float) -> None:
        """The agent's process has died by itself; the next one begins with an empty memory."""
        self._deaths.append(now)
        self._memory.clear()
        self._silences.clear()

    def forecast(self, now: float, dead_after: float) -> Forecast:
        """What is to be expected. `dead_after`: seconds, of the settings."""
        found = [
            each
            for each in (self._by_memory(now), self._by_deaths(now), self._by_silences(dead_after))
            if each[0] >= _WORTH_TELLING
        ]
        found.sort(key=lambda each: -each[0])
        survives = math.prod(1.0 - probability for probability, _ in found)
        return Forecast(round(1.0 - survives, 4), tuple(f"{why} ({100 * p:.0f} %)" for p, why in found))

    def _by_memory(self, now: float) -> tuple[float, str]:
        points = self._memory
        count = len(points)
        if count < _ENOUGH or points[-1][0] - points[0][0] < _SPAN:
            return 0.0, ""
        mean_t = sum(at for at, _ in points) / count
        mean_u = sum(used for _, used in points) / count
        spread = sum((at - mean_t) ** 2 for at, _ in points)
        slope = sum((at - mean_t) * (used - mean_u) for at, used in points) / spread
        if slope <= 0.0:
            return 0.0, ""
        rest = sum((used - mean_u - slope * (at - mean_t)) ** 2 for at, used in points)
        reached = mean_u + slope * (now - mean_t)
        needed = max(self._limit - reached, 0.0) / HORIZON
        # Readings that follow each other are not independent: the error is of a tenth as many.
        error = max(math.sqrt(rest / (count - 2) / spread) * math.sqrt(10.0), _FLOOR * needed, 1e-9)
        probability = _normal((slope - needed) / error)
        seconds = (self._limit - reached) / slope
        text = (
            f"memory {100 * reached / self._limit:.0f} % of its limit, growing by {slope / (1 << 20):.3g} MiB/s: full "
            f"in {max(seconds, 0.0):.0f} s"
        )
        return probability, text

    def _by_deaths(self, now: float) -> tuple[float, str]:
        window = 2 * HORIZON
        count = sum(now - at <= window for at in self._deaths)
        return 1.0 - math.exp(-count * HORIZON / window), f"its process died {count} times in {window:.0f} s"

    def _by_silences(self, dead_after: float) -> tuple[float, str]:
        if len(self._silences) < _ENOUGH:
            return 0.0, ""
        scale = max(sum(self._silences) / len(self._silences), 1e-6)
        limit = _STARVING * dead_after
        longer = math.exp(-limit / scale)
        probability = -math.expm1(HORIZON / scale * math.log1p(-min(longer, 1.0 - 1e-12)))
        return probability, f"silent for {1e3 * scale:.0f} ms at a time, and dead from {1e3 * limit:.0f} ms on"


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
