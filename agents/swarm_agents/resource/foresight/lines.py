"""Regressions of many series at once, by least absolute deviations, learnt as the samples come. Pure.

Each series and horizon has a line of its own from what was known to the change that came of it. Sums that forget are
kept of the samples, each weighted by one over how wrong the line was on it (Schlossmacher, "An iterative technique for
absolute deviations curve fitting", 1973); every few seconds the line is made anew of them, with a ridge towards no
change. Changes and features are told in the series' own scale, and nothing counts for more than `CLIP` of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLIP", "Lines"]

#: Nothing is believed to change by more than so many mean changes.
CLIP = 20.0
#: Samples are forgotten over so many seconds (the time constant).
_OVER = 1200.0
#: Who is less wrong than that, in scales, counts no more for it.
_LEAST_OFF = 0.1

_Array = NDArray[np.float64]


class Lines:
    """`ways` horizons of `count` series; `depth` is how long features are kept: longer than the longest horizon."""

    def __init__(self, ways: int, count: int, features: int, ridge: float, depth: int) -> None:
        self._kept = np.zeros((depth, count, features))
        self._gram: _Array = np.zeros((ways, count, features, features))
        self._right: _Array = np.zeros((ways, count, features))
        self._line: _Array = np.zeros((ways, count, features))
        self._ridge = ridge * np.eye(features)

    def learn(self, steps: NDArray[np.int64], change: _Array, good: NDArray[np.bool_]) -> None:
        """What became of the features that were kept at `steps`, one a horizon: the changes, in scales, of shape
        (ways, count); those that are not `good` teach nothing."""
        x = self._kept[steps]
        off = np.abs(change - np.einsum("hsf,hsf->hs", x, self._line))
        weight = np.where(good, 1.0 / np.maximum(off, _LEAST_OFF), 0.0)
        keep = np.where(good, 1.0 - 1.0 / _OVER, 1.0)
        weighted = x * weight[..., None]
        self._gram *= keep[..., None, None]
        self._gram += weighted[..., :, None] * x[..., None, :]
        self._right *= keep[..., None]
        self._right += weighted * change[..., None]

    def solve(self) -> None:
        """Makes the lines anew."""
        found = np.linalg.solve(self._gram + self._ridge, self._right[..., None])
        self._line = np.asarray(found[..., 0], np.float64)

    def foretell(self, step: int, features: _Array) -> _Array:
        """The changes to come, in scales, of shape (ways, count); `features` of shape (count, features) are kept."""
        x = np.clip(np.where(np.isfinite(features), features, 0.0), -CLIP, CLIP)
        self._kept[step] = x
        said: _Array = np.einsum("sf,hsf->hs", x, self._line)
        return said

    def forget(self, places: NDArray[np.bool_]) -> None:
        """These series begin anew."""
        for kept in (self._gram, self._right, self._line):
            kept[:, places] = 0.0
