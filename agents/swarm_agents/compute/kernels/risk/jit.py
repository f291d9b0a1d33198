"""The compiled recursions over days; imports Numba.

They do what `_NumPy` in `volatility` does, operation by operation, so that their results are equal to the last bit:
no `fastmath`, nothing summed in another order, and `log` is the C library's in both. Explicit signatures: importing the
module compiles it, or loads it from the cache. Arguments may be read-only, since they often lie in shared memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, njit, types

__all__ = ["cost", "variances"]

_vector = types.Array(float64, 1, "C", readonly=True)
_matrix = types.Array(float64, 2, "C", readonly=True)


@njit(float64[:, ::1](_matrix, _vector, _vector, _vector), cache=True, nogil=True)
def variances(returns, omega, alpha, beta):  # type: ignore[no-untyped-def]
    """See `Recursions.variances`."""
    days, factors = returns.shape
    h = np.empty((days + 1, factors))
    for i in range(factors):
        total = 0.0
        for t in range(days):
            total += returns[t, i] * returns[t, i]
        h[0, i] = total / days
    for t in range(days):
        for i in range(factors):
            square = returns[t, i] * returns[t, i]
            h[t + 1, i] = (omega[i] + alpha[i] * square) + beta[i] * h[t, i]
    return h


@njit(float64(_vector, float64, float64, float64, float64), cache=True, nogil=True)
def cost(squares, mean, omega, alpha, beta):  # type: ignore[no-untyped-def]
    """See `Recursions.cost`."""
    h = mean
    total = 0.0
    for t in range(squares.size):
        square = squares[t]
        total += math.log(h) + square / h
        h = (omega + alpha * square) + beta * h
    return total
