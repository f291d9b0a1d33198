"""The compiled simulation of pairs of antithetic paths; imports Numba.

Both functions advance `LANES` pairs side by side, one inner loop over the lanes for every two steps, which LLVM turns
into vector code: a pair of normal numbers by Box and Muller serves two steps, and the antithetic path is the same
Brownian motion with its sign changed, so that one exponential (with its reciprocal) serves both. Their sums do not
depend on which call computes which block. Products and sums may be fused ("contract"), nothing else may be changed.

The signatures are explicit: importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types, uint64

from swarm_agents.compute.kernels.elementary import exp_both, exponential, normals, philox, widest

__all__ = ["LANES", "asian", "barrier"]

#: Pairs of paths that are simulated side by side: a block.
LANES = 256

_sums = types.Array(float64, 2, "C")


@njit(forceinline=True)
def _draw(words, base, group, stream, k0, k1):  # type: ignore[no-untyped-def]
    """Four random words for each lane, which serve the four steps of a group."""
    for lane in range(LANES):
        pair = base + np.uint64(lane)
        words[0, lane], words[1, lane], words[2, lane], words[3, lane] = philox(
            pair & np.uint64(0xFFFFFFFF), pair >> np.uint64(32), np.uint64(group), np.uint64(stream), k0, k1
        )


@njit(forceinline=True)
def _note(sums, row, y, c):  # type: ignore[no-untyped-def]
    """Adds a payoff and its control to the sums of a block."""
    sums[row, 0] += y
    sums[row, 1] += c
    sums[row, 2] += y * y
    sums[row, 3] += c * c
    sums[row, 4] += y * c


@njit(
    types.void(uint64, int64, int64, int64, int64, uint64, uint64, float64[::1], float64[::1], _sums),
    cache=True,
    nogil=True,
    fastmath={"contract"},
    error_model="numpy",
)
def asian(first, pairs, begin, end, steps, k0, k1, growth, terms, sums):  # type: ignore[no-untyped-def]
    """Blocks begin…end of arithmetic Asian options, controlled by the geometric average; fills those rows of `sums`.

    `growth`[t]: the deterministic growth at step t; `terms`: see `paths._Terms`.
    """
    spot, strike, sign, discount, vol, mean_drift, shift = (
        terms[0], terms[1], terms[2], terms[3], terms[4], terms[5], terms[6]
    )  # fmt: skip
    widest()
    words = np.empty((4, LANES), np.uint64)
    w = np.empty(LANES)
    total = np.empty(LANES)
    plus = np.empty(LANES)
    minus = np.empty(LANES)
    for block in range(begin, end):
        base = first + np.uint64(block * LANES)
        for lane in range(LANES):
            w[lane] = 0.0
            total[lane] = 0.0
            plus[lane] = 0.0
            minus[lane] = 0.0
        for step in range((steps + 1) // 2):
            half = 2 * (step & 1)
            if half == 0:
                _draw(words, base, step // 2, 0, k0, k1)
            g1 = growth[2 * step]
            live = 1.0 if 2 * step + 1 < steps else 0.0
            g2 = growth[2 * step + 1] if 2 * step + 1 < steps else 0.0
            for lane in range(LANES):
                z1, z2 = normals(words[half, lane], words[half + 1, lane])
                w1 = w[lane] + z1
                w2 = w1 + z2
                up1, down1 = exp_both(vol * w1)
                up2, down2 = exp_both(vol * w2)
                plus[lane] = (plus[lane] + g1 * up1) + g2 * up2
                minus[lane] = (minus[lane] + g1 * down1) + g2 * down2
                total[lane] = (total[lane] + w1) + live * w2
                w[lane] = w2
        for i in range(5):
            sums[block, i] = 0.0
        per = 1.0 / steps
        for lane in range(min(LANES, pairs - block * LANES)):
            up, down = exp_both(vol * total[lane] * per)
            geometric = spot * exponential(mean_drift)
            y = max(sign * (spot * plus[lane] * per - strike), 0.0) + max(
                sign * (spot * minus[lane] * per - strike), 0.0
            )
            c = max(sign * (geometric * up - strike), 0.0) + max(sign * (geometric * down - strike), 0.0)
            _note(sums, block, 0.5 * discount * y - shift, 0.5 * discount * c - shift)


@njit(
    types.void(uint64, int64, int64, int64, int64, uint64, uint64, float64[::1], _sums),
    cache=True,
    nogil=True,
    fastmath={"contract"},
    error_model="numpy",
)
def barrier(first, pairs, begin, end, steps, k0, k1, terms, sums):  # type: ignore[no-untyped-def]
    """Blocks begin…end of barrier options, controlled by the plain European one; fills those rows of `sums`.

    Needs no exponential but the last: whether a path touched the barrier is seen by its logarithm.
    """
    spot, strike, sign, discount, vol, drift, shift = (
        terms[0], terms[1], terms[2], terms[3], terms[4], terms[5], terms[6]
    )  # fmt: skip
    side, level, dead = terms[7], terms[8], terms[9]
    widest()
    words = np.empty((4, LANES), np.uint64)
    w = np.empty(LANES)
    highest = np.empty(LANES)
    lowest = np.empty(LANES)
    slope = side * drift
    rate = side * vol
    for block in range(begin, end):
        base = first + np.uint64(block * LANES)
        for lane in range(LANES):
            w[lane] = 0.0
            highest[lane] = -1e300
            lowest[lane] = -1e300
        for step in range((steps + 1) // 2):
            half = 2 * (step & 1)
            if half == 0:
                _draw(words, base, step // 2, 1, k0, k1)
            at1 = slope * (2 * step + 1)
            last = 2 * step + 2 > steps
            at2 = at1 if last else slope * (2 * step + 2)
            live = 0.0 if last else 1.0
            for lane in range(LANES):
                z1, z2 = normals(words[half, lane], words[half + 1, lane])
                w1 = w[lane] + z1
                w2 = w1 + live * z2
                highest[lane] = max(highest[lane], max(at1 + rate * w1, at2 + rate * w2))
                lowest[lane] = max(lowest[lane], max(at1 - rate * w1, at2 - rate * w2))
                w[lane] = w2
        for i in range(5):
            sums[block, i] = 0.0
        end_value = spot * exponential(drift * steps)
        for lane in range(min(LANES, pairs - block * LANES)):
            up, down = exp_both(vol * w[lane])
            one = max(sign * (end_value * up - strike), 0.0)
            other = max(sign * (end_value * down - strike), 0.0)
            # dead = 1: touching it ends the option; 0: touching it begins it
            one_counts = 1.0 - dead if highest[lane] >= level else dead
            other_counts = 1.0 - dead if lowest[lane] >= level else dead
            y = one * one_counts + other * other_counts
            _note(sums, block, 0.5 * discount * y - shift, 0.5 * discount * (one + other) - shift)
