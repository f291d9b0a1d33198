"""Forecasts of many series at once, 1 s, 10 s and 60 s ahead, that state their error as they go. Pure.

Several simple methods forecast each series; how wrong each was here (the mean absolute error of what it said when that
came true, the last minutes weighing most) decides how much it is heard. What is between those that are heard is used
where it was better than "as it is now", by `GATE` at least, on this node's own history of this series and horizon;
elsewhere the last value is the forecast, and `Forecast.method` says so.

The methods
- `last`: as it is now, the one to beat;
- `fast`, `slow`: exponential means over about 5 s and 30 s (what is noise reverts to the mean);
- `holt`: level and trend, the trend damped (Gardner and McKenzie, "Forecasting trends in time series", 1985): slopes
  that last, such as heat and leaks;
- `median`: of the last minute: a load that is all or nothing has a mean that it never is;
- `steady`: exponential mean over five minutes;
- `regression`: the change to come, by least absolute deviations on what is known now (distance to the means of 5, 15
  and 60 s and five minutes, the last second's change), a ridge towards no change; made anew every few seconds from
  sums that forget, each sample weighted by one over how wrong the line was on it (Schlossmacher, "An iterative
  technique for absolute deviations curve fitting", 1973);
- `autoregression`: the same on the distances to what was 1, 2, 3, 5, 10, 20, 30 and 60 s ago and to the means, with a
  larger ridge: what comes in periods, and what follows a burst.

The mixture: the weighted median of what the methods say. Weights are a method's mean absolute error to the power of
-`_SHARP`, so one that is a tenth more wrong hardly counts. A median, because what is measured is the absolute error,
and because a mean of "it goes on" and "it is over" is what will certainly not be: on a recorded load the mean's gain
over the last value was a third less (13 % against 18 % at 10 s).

The interval is the mixture's (or the last value's) own recent errors: the running 90 % quantile of their size, followed
by steps up and down (Robbins and Monro, 1951).

Invariants: what is not known (NaN) teaches nothing and is not forecast until the series is back; no state is ever
infinite; the forecast of a share stays within what was seen and a little more.

Cost: some 60 calls of NumPy a second whatever the number of series; a bench row measures it.
Rejected: ARIMA or state-space libraries (each series on its own in Python: a hundred times the cost, for seconds that
are noise and jumps more than dynamics), and neural networks (an error that nobody can state in advance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm_agents.resource.foresight.lines import CLIP, Lines

__all__ = ["GATE", "HORIZONS", "METHODS", "Forecast", "Forecaster"]

#: Seconds ahead.
HORIZONS = (1, 10, 60)
METHODS = ("last", "fast", "slow", "holt", "median", "steady", "regression", "autoregression")
#: The mixture is used where its error is below this share of the last value's.
GATE = 0.98
#: Forecasts that have come true before a method is believed.
ENOUGH = 30

_SHARP = 25.0
#: Errors are forgotten over so many seconds (the time constant of the mean).
_ERRORS_OVER = 600.0
_RIDGE, _RIDGE_OF_LAGS = 10.0, 50.0
#: Seconds ago that the autoregression looks at.
_LAGS = np.array([1, 2, 3, 5, 10, 20, 30, 60])
_EVERY = 5
_WINDOW = 64
#: What both regressions look at besides their constant: four means, the median.
_NEAR = 6
_HOLT_LEVEL, _HOLT_TREND, _HOLT_DAMPED = 0.4, 0.1, 0.93
_QUANTILE = 0.9
#: A series that is unknown for longer begins anew.
_STALE = 60

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Forecast:
    """One series, one horizon; in the series' own unit."""

    value: float
    #: nine in ten come true between them, by recent errors; the value itself while there are none
    low: float
    high: float
    #: mean absolute error of what was used, lately; NaN before the first has come true
    error: float
    #: the same of the last value
    error_last: float
    #: `mixture`, or `last value`
    method: str


class Forecaster:
    """Forecasts `places` series; time is the number of calls: one a second, NaN where nothing is known."""

    def __init__(self, places: int, horizons: tuple[int, ...] = HORIZONS) -> None:
        self.horizons = horizons
        self._h = np.array(horizons)
        ways, kinds, count = len(horizons), len(METHODS), places
        self._depth = max(horizons) + 1
        self._steps = 0
        self._value: _Array = np.full(count, np.nan)
        self._missing: _Array = np.zeros(count)
        self._seen = np.zeros(count)
        self._past = np.full((_WINDOW, count), np.nan)
        self._means = {over: np.zeros(count) for over in (5.0, 15.0, 30.0, 60.0, 300.0)}
        self._level: _Array = np.zeros(count)
        self._trend: _Array = np.zeros(count)
        self._change: _Array = np.zeros(count)
        self._least, self._most = np.full(count, np.inf), np.full(count, -np.inf)
        #: What was said when: by step (a ring), horizon, method (the mixture after the last), series.
        self._said = np.full((self._depth, ways, kinds + 1, count), np.nan)
        self._errors: _Array = np.zeros((ways, kinds + 1, count))
        self._true = np.zeros((ways, count))
        self._spread: _Array = np.zeros((ways, count))
        self._scales = np.zeros((self._depth, count))
        near = _NEAR + 1
        self._lines = (
            Lines(ways, count, near, _RIDGE, self._depth),
            Lines(ways, count, near - 1 + len(_LAGS), _RIDGE_OF_LAGS, self._depth),
        )
        self._now = np.full((ways, count), np.nan)

    def step(self, row: _Array) -> None:
        """A second has passed: `row` has shape (places,)."""
        row = np.where(np.abs(row) < 1e100, row, np.nan)  # NaN compares as false
        known = ~np.isnan(row)
        self._forget(known)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            self._judge(row, known)
            self._learn(row, known)
            self._follow(row, known)
            self._foretell()
        self._steps += 1

    def forecast(self, place: int) -> dict[int, Forecast]:
        """By horizon; empty while the series is unknown."""
        if not self._seen[place] or self._missing[place] > _STALE:
            return {}
        found = {}
        for way, horizon in enumerate(self.horizons):
            used = self._better(way, place)
            value = float(self._now[way, place] if used else self._value[place])
            wide = float(self._spread[way, place])
            judged = self._true[way, place] > 0
            found[horizon] = Forecast(
                value,
                value - wide,
                value + wide,
                float(self._errors[way, -1 if used else 0, place]) if judged else float("nan"),
                float(self._errors[way, 0, place]) if judged else float("nan"),
                "mixture" if used else "last value",
            )
        return found

    def forget(self, place: int) -> None:
        """The place is another series' from now on."""
        self._missing[place] = _STALE + 1.0

    def _better(self, way: int, place: int) -> bool:
        mixture, last = self._errors[way, -1, place], self._errors[way, 0, place]
        return bool(self._true[way, place] >= ENOUGH and mixture < GATE * last)

    def _forget(self, known: NDArray[np.bool_]) -> None:
        """Series that were away for long begin anew: what they were says nothing of what they are."""
        back = known & (self._missing > _STALE)
        self._missing = np.where(known, 0.0, self._missing + 1.0)
        if back.any():
            self._seen[back] = 0.0
            self._past[:, back] = np.nan
            self._said[..., back] = np.nan
            self._true[:, back] = 0.0
            self._scales[:, back] = 0.0
            for lines in self._lines:
                lines.forget(back)
            self._least[back], self._most[back] = np.inf, -np.inf

    def _judge(self, row: _Array, known: NDArray[np.bool_]) -> None:
        """What was said of this second, each horizon ago, has come true or not."""
        steps = (self._steps - self._h) % self._depth
        ways = np.arange(len(self.horizons))
        said = self._said[steps, ways]
        off = np.abs(said - row)
        judged = known & ~np.isnan(off[:, 0])
        rate = np.maximum(1.0 / (self._true + 1.0), 1.0 / _ERRORS_OVER)
        moved = self._errors + rate[:, None] * (off - self._errors)
        self._errors = np.where(judged[:, None] & np.isfinite(moved), moved, self._errors)
        used = np.where(self._trusted(), off[:, -1], off[:, 0])
        # A quantile is where as many steps down (each the smaller) as up are taken.
        size = np.maximum(self._errors[:, 0], 1e-300) * np.maximum(rate, 0.02)
        step = np.where(used > self._spread, _QUANTILE, _QUANTILE - 1.0) * size * 3.0
        first = judged & (self._true == 0)
        self._spread = np.where(judged, np.maximum(np.where(first, used, self._spread + step), 0.0), self._spread)
        self._true += judged

    def _trusted(self) -> NDArray[np.bool_]:
        return (self._true >= ENOUGH) & (self._errors[:, -1] < GATE * self._errors[:, 0])

    def _learn(self, row: _Array, known: NDArray[np.bool_]) -> None:
        """The regressions' samples: what was known each horizon ago, and what became of it."""
        ways = np.arange(len(self.horizons))
        steps = (self._steps - self._h) % self._depth
        scale = self._scales[steps]
        change = np.clip((row - self._said[steps, ways, 0]) / scale, -CLIP, CLIP)
        good = known & np.isfinite(change) & (scale > 0.0)
        for lines in self._lines:
            lines.learn(steps, np.where(good, change, 0.0), good)
            if self._steps % _EVERY == 0:
                lines.solve()

    def _follow(self, row: _Array, known: NDArray[np.bool_]) -> None:
        """Means, level and trend as they are after this second."""
        first = known & (self._seen == 0)
        self._change = np.where(known & ~first, row - self._value, 0.0)
        self._value = np.where(known, row, self._value)
        value = self._value
        for over, mean in self._means.items():
            # A mean of what there is, until there is as much as it is over.
            rate = np.maximum(1.0 / over, 1.0 / (self._seen + 1.0))
            mean += np.where(known, rate * (value - mean), 0.0)
            mean[first] = value[first]
        ahead = self._level + _HOLT_DAMPED * self._trend
        level = _HOLT_LEVEL * value + (1 - _HOLT_LEVEL) * ahead
        trend = _HOLT_TREND * (level - self._level) + (1 - _HOLT_TREND) * _HOLT_DAMPED * self._trend
        self._level = np.where(first, value, np.where(known, level, self._level))
        self._trend = np.where(first, 0.0, np.where(known, trend, self._trend))
        self._past[self._steps % _WINDOW] = np.where(known, row, np.nan)
        self._least, self._most = np.fmin(self._least, row), np.fmax(self._most, row)
        self._seen += known

    def _foretell(self) -> None:
        """What each method, and all together, say of the horizons from here."""
        value, means = self._value, self._means
        median = self._median()
        damped = np.array(
            [_HOLT_DAMPED * (1 - _HOLT_DAMPED**horizon) / (1 - _HOLT_DAMPED) for horizon in self.horizons]
        )
        scale = self._scale()
        at = self._steps % self._depth
        near = [np.ones_like(value), *((mean - value) / scale for mean in self._around()), (median - value) / scale]
        ago = (self._past[(self._steps - _LAGS) % _WINDOW] - value) / scale
        changes = [
            lines.foretell(at, np.stack(features, axis=-1))
            for lines, features in zip(self._lines, ([*near, self._change / scale], [*near, *ago]), strict=True)
        ]
        ways = len(self.horizons)
        said = np.empty((ways, len(METHODS), value.size))
        said[:, 0], said[:, 1], said[:, 2] = value, means[5.0], means[30.0]
        said[:, 3] = self._level + damped[:, None] * self._trend
        said[:, 4], said[:, 5] = median, means[300.0]
        for which, change in enumerate(changes, 6):
            said[:, which] = value + np.where(scale > 0, scale, 0.0) * change
        room = 0.1 * (self._most - self._least)
        said = np.clip(said, self._least - room, self._most + room)
        weight = (
            np.maximum(self._errors[:, :-1], 1e-12 + 1e-9 * self._errors[:, :1]) / self._errors.max(1)[:, None]
        ) ** -_SHARP
        weight = np.where(np.isfinite(weight), weight, 1.0)
        mixed = _weighted_median(said, weight)
        gone = (self._seen == 0) | (self._missing > 0)
        self._said[at, :, :-1], self._said[at, :, -1] = said, mixed
        self._said[at][..., gone] = np.nan
        self._now = np.where(gone, self._now, mixed)
        self._scales[at] = np.where(gone, 0.0, np.nan_to_num(scale))

    def _around(self) -> list[_Array]:
        return [self._means[over] for over in (5.0, 15.0, 60.0, 300.0)]

    def _scale(self) -> _Array:
        """How much a series moves about: features and changes are told in it."""
        off = self._past - self._means[60.0]
        count = np.maximum((~np.isnan(off)).sum(axis=0), 1)
        scale: _Array = np.sqrt(np.nansum(off * off, axis=0) / count)
        return scale

    def _median(self) -> _Array:
        ordered = np.sort(self._past, axis=0)  # what is unknown comes last
        count = np.maximum((~np.isnan(ordered)).sum(axis=0), 1)
        places = np.arange(count.size)
        middle: _Array = (ordered[(count - 1) // 2, places] + ordered[count // 2, places]) / 2.0
        return middle


def _weighted_median(said: _Array, weight: _Array) -> _Array:
    """Over the second axis: the first that half of the weight is at or below."""
    order = np.argsort(said, axis=1)
    reached = np.cumsum(np.take_along_axis(weight, order, 1), axis=1)
    middle = np.argmax(reached >= 0.5 * reached[:, -1:], axis=1)
    found: _Array = np.take_along_axis(said, np.take_along_axis(order, middle[:, None], 1), 1)[:, 0]
    return found
