"""Forecasts of many series at once, 1 s, 10 s and 60 s ahead, that state their error as they go. Pure.

Several simple methods forecast each series; how wrong each was here (the mean absolute error of what it said when that
came true, the last minutes weighing most) decides how much it is heard. Their mixture is what is used where it was
better than "as it is now", by `GATE` at least, on this node's own history of this series and horizon; elsewhere the
last value is the forecast, and `Forecast.method` says so.

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
  technique for absolute deviations curve fitting", 1973).

The mixture: weights are a method's mean absolute error to the power of -`_SHARP`, so one that is a fifth more wrong
hardly counts. The interval is the mixture's (or the last value's) own recent errors: the running 90 % quantile of their
size, followed by steps up and down (Robbins and Monro, 1951).

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

__all__ = ["GATE", "HORIZONS", "METHODS", "Forecast", "Forecaster"]

#: Seconds ahead.
HORIZONS = (1, 10, 60)
METHODS = ("last", "fast", "slow", "holt", "median", "steady", "regression")
#: The mixture is used where its error is below this share of the last value's.
GATE = 0.95
#: Forecasts that have come true before a method is believed.
ENOUGH = 30

_SHARP = 12.0
#: Errors are forgotten over so many seconds (the time constant of the mean).
_ERRORS_OVER = 600.0
#: The regression's samples, too.
_SAMPLES_OVER = 1200.0
_RIDGE = 10.0
_EVERY = 5
_WINDOW = 64
_HOLT_LEVEL, _HOLT_TREND, _HOLT_DAMPED = 0.4, 0.1, 0.93
_QUANTILE = 0.9
#: Nothing is believed to change by more than so many mean changes.
_CLIP = 20.0
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
        self._features = np.zeros((self._depth, count, _FEATURES))
        self._scales = np.zeros((self._depth, count))
        self._gram: _Array = np.zeros((ways, count, _FEATURES, _FEATURES))
        self._right: _Array = np.zeros((ways, count, _FEATURES))
        self._line: _Array = np.zeros((ways, count, _FEATURES))
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
            for kept in (self._gram, self._right, self._line):
                kept[:, back] = 0.0
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
        """The regression's sums, from what was known each horizon ago and what became of it."""
        ways = np.arange(len(self.horizons))
        steps = (self._steps - self._h) % self._depth
        said = self._said[steps, ways, 0]
        scale = self._scales[steps]
        x = self._features[steps]
        y = np.clip((row - said) / scale, -_CLIP, _CLIP)
        good = known & np.isfinite(y) & (scale > 0.0)
        y = np.where(good, y, 0.0)
        off = np.abs(y - np.einsum("hsf,hsf->hs", x, self._line))
        weight = np.where(good, 1.0 / np.maximum(off, 0.1), 0.0)
        keep = np.where(good, 1.0 - 1.0 / _SAMPLES_OVER, 1.0)
        weighted = x * weight[..., None]
        self._gram *= keep[..., None, None]
        self._gram += weighted[..., :, None] * x[..., None, :]
        self._right *= keep[..., None]
        self._right += weighted * y[..., None]
        if self._steps % _EVERY == 0:
            ridge = _RIDGE * np.eye(_FEATURES)
            self._line = np.asarray(np.linalg.solve(self._gram + ridge, self._right[..., None])[..., 0], np.float64)

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
        x = np.stack(
            [
                np.ones_like(value),
                *((means[over] - value) / scale for over in (5.0, 15.0, 60.0, 300.0)),
                (median - value) / scale,
                self._change / scale,
            ],
            axis=-1,
        )
        x = np.clip(np.where(np.isfinite(x), x, 0.0), -_CLIP, _CLIP)
        ways = len(self.horizons)
        said = np.empty((ways, len(METHODS), value.size))
        said[:, 0], said[:, 1], said[:, 2] = value, means[5.0], means[30.0]
        said[:, 3] = self._level + damped[:, None] * self._trend
        said[:, 4], said[:, 5] = median, means[300.0]
        said[:, 6] = value + np.where(scale > 0, scale, 0.0) * np.einsum("sf,hsf->hs", x, self._line)
        room = 0.1 * (self._most - self._least)
        said = np.clip(said, self._least - room, self._most + room)
        weight = (
            np.maximum(self._errors[:, :-1], 1e-12 + 1e-9 * self._errors[:, :1]) / self._errors.max(1)[:, None]
        ) ** -_SHARP
        weight = np.where(np.isfinite(weight), weight, 1.0)
        mixed = (weight * said).sum(axis=1) / weight.sum(axis=1)
        at = self._steps % self._depth
        gone = (self._seen == 0) | (self._missing > 0)
        self._said[at, :, :-1], self._said[at, :, -1] = said, mixed
        self._said[at][..., gone] = np.nan
        self._now = np.where(gone, self._now, mixed)
        self._features[at], self._scales[at] = x, np.where(gone, 0.0, np.nan_to_num(scale))

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


_FEATURES = 7
