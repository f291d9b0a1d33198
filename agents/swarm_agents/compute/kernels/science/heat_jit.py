"""The compiled steps of heat on a grid; imports Numba.

No `fastmath`: each cell is computed by the operations of the reference, in their order, so that all implementations
agree to the last bit. Grids are flat arrays here, and places in them unsigned: of a place that might be negative Numba
asks at each cell from which end it counts, and the loop stays scalar; parts of rows, the other way out, take several
times as long to compile. The signatures are explicit: importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import widest

__all__ = ["step", "tile"]

_cells = types.Array(float64, 1, "C")
_given = types.Array(float64, 1, "C", readonly=True)


@njit(forceinline=True)
def _row(p, at, q, to, columns, rate, count):  # type: ignore[no-untyped-def]
    """One step of `count` cells of a row of p, from place `at` on, into q from `to` on."""
    at, to, columns = np.uint64(at), np.uint64(to), np.uint64(columns)
    for i in range(np.uint64(count)):
        k = at + i
        centre = p[k]
        q[to + i] = centre + rate * (
            p[k - columns] + p[k + columns] + p[k - np.uint64(1)] + p[k + np.uint64(1)] - 4.0 * centre
        )


@njit(forceinline=True)
def _copy(p, at, q, to, count):  # type: ignore[no-untyped-def]
    at, to = np.uint64(at), np.uint64(to)
    for i in range(np.uint64(count)):
        q[to + i] = p[at + i]


@njit(types.void(_cells, _cells, float64, int64, int64), cache=True, nogil=True)
def step(a, b, rate, rows, columns):  # type: ignore[no-untyped-def]
    """One step from a to b, but for the outermost cells."""
    widest()
    for y in range(1, rows - 1):
        at = y * columns + 1
        _row(a, at, b, at, columns, rate, max(columns - 2, 0))


@njit(
    types.void(_given, int64, int64, _cells, int64, float64, int64, int64, int64, int64, int64, int64),
    cache=True,
    nogil=True,
)
def tile(a, rows, columns, out, out_columns, rate, steps, around, top, bottom, left, right):  # type: ignore[no-untyped-def]
    """Fills the rows top…bottom and columns left…right of `out` with what `a` [rows, columns] is after so many steps.

    `a` has `around` more cells than `out` on each side. Its outermost cells stay as they are; with as many around as
    steps that spoils nothing.
    """
    widest()
    top, bottom, left, right = top + around, bottom + around, left + around, right + around
    # What these steps depend on, as far as the grid goes: its corner is (y0, x0).
    y0, y1 = max(top - steps, 0), min(bottom + steps, rows)
    x0, x1 = max(left - steps, 0), min(right + steps, columns)
    width = x1 - x0
    size = (y1 - y0) * width
    both = np.empty(2 * size)
    for y in range(y1 - y0):
        _copy(a, (y0 + y) * columns + x0, both, y * width, width)
        _copy(a, (y0 + y) * columns + x0, both, size + y * width, width)
    for done in range(steps):
        old, new = (done & 1) * size, (1 - (done & 1)) * size
        left_over = steps - 1 - done
        first, last = max(left - left_over, 1), min(right + left_over, columns - 1)
        for y in range(max(top - left_over, 1), min(bottom + left_over, rows - 1)):
            at = (y - y0) * width + first - x0
            _row(both, old + at, both, new + at, width, rate, max(last - first, 0))
    result = (steps & 1) * size
    for y in range(top, bottom):
        at = result + (y - y0) * width + left - x0
        _copy(both, at, out, (y - around) * out_columns + left - around, right - left)
