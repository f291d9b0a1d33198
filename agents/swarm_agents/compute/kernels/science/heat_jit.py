"""The compiled steps of heat on a grid; imports Numba.

No `fastmath`: each cell is computed by the operations of the reference, in their order, so that all implementations
agree to the last bit. The signatures are explicit: importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import widest

__all__ = ["step", "tile", "wrap"]

_grid = types.Array(float64, 2, "C")
_given = types.Array(float64, 2, "C", readonly=True)


@njit(forceinline=True)
def _row(above, middle, below, out, rate, begin, end):  # type: ignore[no-untyped-def]
    """One step of a row's cells begin…end. Parts are taken so that all are counted from 0: of an index that might be
    negative Numba asks at each cell from which end it counts, and the loop stays scalar."""
    up, down = above[begin:end], below[begin:end]
    left, centre, right = middle[begin - 1 : end - 1], middle[begin:end], middle[begin + 1 : end + 1]
    to = out[begin:end]
    for i in range(len(to)):
        to[i] = centre[i] + rate * (up[i] + down[i] + left[i] + right[i] - 4.0 * centre[i])


@njit(types.void(_grid), cache=True, nogil=True)
def wrap(a):  # type: ignore[no-untyped-def]
    """Fills the outermost cells with those that lie opposite within."""
    rows, columns = a.shape
    for x in range(columns):
        a[0, x] = a[rows - 2, x]
        a[rows - 1, x] = a[1, x]
    for y in range(rows):
        a[y, 0] = a[y, columns - 2]
        a[y, columns - 1] = a[y, 1]


@njit(types.void(_grid, _grid, float64), cache=True, nogil=True)
def step(a, b, rate):  # type: ignore[no-untyped-def]
    """One step from a to b, but for the outermost cells."""
    widest()
    rows, columns = a.shape
    for y in range(1, rows - 1 if columns > 2 else 1):
        _row(a[y - 1], a[y], a[y + 1], b[y], rate, 1, columns - 1)


@njit(types.void(_given, _grid, float64, int64, int64, int64, int64, int64, int64), cache=True, nogil=True)
def tile(a, out, rate, steps, around, top, bottom, left, right):  # type: ignore[no-untyped-def]
    """Fills out[top:bottom, left:right] with what `a` is after so many steps.

    `a` has `around` more cells than `out` on each side. Its outermost cells stay as they are; with as many around as
    steps that spoils nothing.
    """
    widest()
    rows, columns = a.shape
    top, bottom, left, right = top + around, bottom + around, left + around, right + around
    # What these steps depend on, as far as the grid goes: its corner is (y0, x0).
    y0, y1 = max(top - steps, 0), min(bottom + steps, rows)
    x0, x1 = max(left - steps, 0), min(right + steps, columns)
    both = np.empty((2, y1 - y0, x1 - x0))
    for y in range(y0, y1):
        both[0, y - y0] = a[y, x0:x1]
        both[1, y - y0] = a[y, x0:x1]
    for done in range(steps):
        p = both[done & 1]
        q = both[1 - (done & 1)]
        left_over = steps - 1 - done
        x2, x3 = max(left - left_over, 1) - x0, min(right + left_over, columns - 1) - x0
        if x2 < x3:
            for y in range(max(top - left_over, 1) - y0, min(bottom + left_over, rows - 1) - y0):
                _row(p[y - 1], p[y], p[y + 1], q[y], rate, x2, x3)
    last = both[steps & 1]
    for y in range(top, bottom):
        out[y - around, left - around : right - around] = last[y - y0, left - x0 : right - x0]
