"""How much of their cores' time a node's agents really get: its weight where work is placed.

What a node's tasks take is measured (`Desk.load`), but only once they have ended; until a slowed node shows it that way
it has taken tasks for as long as they run. What slows it is seen within a reading:

    steal       of the time in which the CPUs had something to run, what the hypervisor gave to others
    heat        while the CPUs are being throttled, how far they are below the highest frequency they have been seen at
    memory      the share of time in which everybody waited for memory (PSI, full): nobody computes then

The weight is the product of what is left, smoothed over `SMOOTH` seconds so that one tick does not move work about; a
CPU that has had nothing to run says nothing of what is stolen from it. What is not shown takes nothing off. Goes to the
board (`shm.pace`), from where the hub tells other nodes' hubs that tasks take that much longer here. Below `SLOWED` an
event says so and why, and from `RECOVERED` on that it is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric

from swarm_agents.resource.exported import ACTION
from swarm_agents.shm.pace import set_weight

if TYPE_CHECKING:
    from swarm_agents.resource.sensing import Reading
    from swarm_agents.shm.board import Board

__all__ = ["LEAST", "RECOVERED", "SLOWED", "SMOOTH", "Weight", "Weights"]

#: Seconds over which the weight follows.
SMOOTH = 1.0
#: A node is never said to do less than this.
LEAST = 0.05
#: The weights at which a node is said to be slowed, and not to be any more.
SLOWED, RECOVERED = 0.7, 0.9
#: A node whose CPUs have been busy for less of their time says nothing of what would be stolen from it.
_BUSY = 0.1
#: A count of throttlings that has risen holds for so long (seconds): it is read once a second or less often.
_HOT = 3.0
#: Above this it is worth no word on the board.
_WHOLE = 0.98
#: Seconds that what is on the board holds, unless it is said again.
_HOLDS = 3.0


class Weight:
    """The number, from what sensors say; no clock. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.share = 1.0
        #: What takes most off, for people.
        self.cause = ""
        self._steal = 0.0
        self._throttles: float | None = None
        self._hot_until = -math.inf
        self._fastest = 0.0
        self._last = 0.0

    def look(self, now: float, readings: Mapping[str, Reading]) -> float:
        """Takes a look's readings, and returns the share."""
        losses = (
            (self._stolen(readings), "the hypervisor takes {:.0%} of its CPUs' time"),
            (self._heat(now, readings), "its CPUs are throttled for heat, {:.0%} below their highest frequency"),
            (_starved(readings), "everybody waits for memory for {:.0%} of the time"),
        )
        share = max(math.prod(1.0 - loss for loss, _ in losses), LEAST)
        # The first look, and one after a pause, say no more than others do.
        passed, self._last = min(max(now - self._last, 0.0), SMOOTH) if self._last else 0.0, now
        self.share += (share - self.share) * -math.expm1(-passed / SMOOTH)
        worst, text = max(losses, key=lambda each: each[0])
        if worst > 0.0:
            self.cause = text.format(worst)
        elif self.share > RECOVERED:
            self.cause = ""
        return self.share

    def _stolen(self, readings: Mapping[str, Reading]) -> float:
        busy, steal = _value(readings, "cpu", "cpu_busy_ratio"), _value(readings, "cpu", "cpu_steal_ratio")
        if busy is not None and steal is not None and busy > _BUSY:
            self._steal = _share(steal / busy)
        return self._steal

    def _heat(self, now: float, readings: Mapping[str, Reading]) -> float:
        count = _value(readings, "throttling", "thermal_throttles")
        if count is not None:
            if self._throttles is not None and count > self._throttles:
                self._hot_until = now + _HOT
            self._throttles = count
        hertz = _value(readings, "frequency", "cpu_frequency_hertz")
        if hertz is None or hertz <= 0.0:
            return 0.0
        self._fastest = max(self._fastest, hertz)
        return _share(1.0 - hertz / self._fastest) if now < self._hot_until else 0.0


def _starved(readings: Mapping[str, Reading]) -> float:
    reading = readings.get("pressure")
    full = reading.series.get("pressure_full_ratio", {}).get("memory") if reading is not None else None
    return _share(full) if full is not None else 0.0


def _value(readings: Mapping[str, Reading], sensor: str, name: str) -> float | None:
    reading = readings.get(sensor)
    value = reading.values.get(name) if reading is not None else None
    return value if value is not None and math.isfinite(value) else None


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


class Weights:
    """A looker of the resource agent; see the module's text."""

    def __init__(self, board: Board, tell: Callable[..., None] = lambda event, **fields: None) -> None:
        self.weight = Weight()
        self._board, self._tell = board, tell
        self._slowed = self._said = False

    def look(self, now: float, readings: Mapping[str, Any]) -> None:
        """Takes what the sensors say now (monotonic seconds)."""
        share = self.weight.look(now, readings)
        if share < _WHOLE or self._said:
            self._said = share < _WHOLE
            set_weight(self._board.mapping, min(share, 1.0) if self._said else 1.0, _HOLDS, now)
        if not self._slowed and share < SLOWED:
            self._slowed = True
            self._tell("NodeSlowed", level="warning", weight=round(share, 2), cause=self.weight.cause)
        elif self._slowed and share > RECOVERED:
            self._slowed = False
            self._tell("NodeRecovered", weight=round(share, 2), cause="nothing takes its CPUs' time any more")

    def report(self) -> dict[str, Any]:
        """For `GET /v1/swarm`."""
        return {"weight": self.weight.share, "cause": self.weight.cause}

    def metrics(self) -> Iterable[Metric]:
        """How much of their cores' time agents get."""
        yield ACTION["swarm_node_weight_ratio"].gauge(((), self.weight.share))
