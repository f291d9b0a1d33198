"""Compiled sums, extremes and scans of blocks; imports Numba.

Sums run in `LANES` independent lanes, which LLVM turns into vector code without being allowed to change the order of
additions: compensation would be optimised away otherwise. Signatures are explicit: importing the module compiles it.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import widest

__all__ = ["extremes", "scan", "sums", "totals"]

LANES = 32
_values = types.Array(float64, 1, "C", readonly=True)
_pairs = types.Array(float64, 2, "C")


@njit(types.void(_values, int64, _pairs, int64, int64), cache=True, nogil=True)
def sums(values, block, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills out[begin:end] with each block's sum and what its rounding has lost."""
    widest()
    s = np.empty((2, LANES))
    for b in range(begin, end):
        for lane in range(LANES):
            s[0, lane] = 0.0
            s[1, lane] = 0.0
        last = min((b + 1) * block, len(values))
        whole = b * block + (last - b * block) // LANES * LANES
        for i in range(b * block, whole, LANES):
            for lane in range(LANES):
                x = values[i + lane]
                old = s[0, lane]
                new = old + x
                part = new - old
                s[1, lane] += (old - (new - part)) + (x - part)
                s[0, lane] = new
        total = 0.0
        lost = 0.0
        for i in range(LANES + last - whole):
            x = s[0, i] if i < LANES else values[whole + i - LANES]
            new = total + x
            part = new - total
            lost += (total - (new - part)) + (x - part)
            total = new
        for lane in range(LANES):
            lost += s[1, lane]
        out[b, 0] = total
        out[b, 1] = lost


@njit(types.void(_values, int64, _pairs, int64, int64), cache=True, nogil=True)
def extremes(values, block, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills out[begin:end] with each block's smallest and largest value; both are NaN where the block holds one."""
    widest()
    s = np.empty((3, LANES))
    for b in range(begin, end):
        for lane in range(LANES):
            s[0, lane] = np.inf
            s[1, lane] = -np.inf
            s[2, lane] = 0.0
        last = min((b + 1) * block, len(values))
        whole = b * block + (last - b * block) // LANES * LANES
        for i in range(b * block, whole, LANES):
            for lane in range(LANES):
                x = values[i + lane]
                s[0, lane] = x if x < s[0, lane] else s[0, lane]
                s[1, lane] = x if x > s[1, lane] else s[1, lane]
                s[2, lane] = s[2, lane] if x == x else 1.0
        for i in range(last - whole):
            x = values[whole + i]
            s[0, i] = x if x < s[0, i] else s[0, i]
            s[1, i] = x if x > s[1, i] else s[1, i]
            s[2, i] = s[2, i] if x == x else 1.0
        out[b, 0] = np.inf
        out[b, 1] = -np.inf
        for lane in range(LANES):
            out[b, 0] = min(out[b, 0], s[0, lane])
            out[b, 1] = max(out[b, 1], s[1, lane])
        for lane in range(LANES):
            if s[2, lane] > 0.0:
                out[b, 0] = np.nan
                out[b, 1] = np.nan


@njit(types.void(_values, int64, float64[::1], int64, int64), cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def totals(values, block, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills out[begin:end] with the blocks' plain sums."""
    for b in range(begin, end):
        total = 0.0
        for i in range(b * block, min((b + 1) * block, len(values))):
            total += values[i]
        out[b] = total


@njit(types.void(_values, int64, float64[::1], boolean, float64[::1], int64, int64), cache=True, nogil=True)
def scan(values, block, starts, exclusive, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills the blocks begin…end of the prefix sums, each from where it starts."""
    for b in range(begin, end):
        total = starts[b]
        for i in range(b * block, min((b + 1) * block, len(values))):
            if exclusive:
                out[i] = total
                total += values[i]
            else:
                total += values[i]
                out[i] = total
