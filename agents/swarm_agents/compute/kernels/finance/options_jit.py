"""The compiled Black-Scholes formula with its greeks; imports Numba.

One pass over the options: what NumPy keeps in some twenty temporary arrays stays in registers, and the loop becomes
vector code because logarithm, exponential and the normal distribution are `elementary`'s. The signature is explicit:
importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import exponential, logarithm, normal_cdf, widest

__all__ = ["options"]

_column = types.Array(float64, 1, "C", readonly=True)
_BLOCK = 64
_rows = types.Array(float64, 2, "C")


@njit(
    types.void(_column, _column, _column, _column, _column, float64, float64, _rows, int64, int64),
    cache=True,
    nogil=True,
    fastmath={"contract"},
    error_model="numpy",
)
def options(spot, strike, maturity, rate, sigma, sign, dividend, rows, begin, end):  # type: ignore[no-untyped-def]
    """Fills rows[:, begin:end] with price, delta, gamma, vega, theta and rho."""
    widest()
    # Arguments and results go through one small array: of separate ones the compiler would have to find out at run time
    # that no two overlap, and for so many it gives up and leaves the loop scalar.
    v = np.empty((11, _BLOCK))
    for start in range(begin, end, _BLOCK):
        count = min(_BLOCK, end - start)
        for i in range(count):
            v[0, i] = spot[start + i]
            v[1, i] = strike[start + i]
            v[2, i] = maturity[start + i]
            v[3, i] = rate[start + i]
            v[4, i] = sigma[start + i]
        for i in range(count):
            s = v[0, i]
            k = v[1, i]
            t = v[2, i]
            r = v[3, i]
            root = math.sqrt(t)
            deviation = v[4, i] * root
            moneyness = logarithm(s / k) + (r - dividend) * t
            still = deviation == 0.0
            safe = 1.0 if still else deviation
            limit = 0.0 if moneyness == 0.0 else (1e300 if moneyness > 0.0 else -1e300)
            d1 = limit if still else moneyness / safe + 0.5 * deviation
            d2 = d1 - deviation
            held = exponential(-dividend * t)
            paid = k * exponential(-r * t)
            b = min(abs(d1), 37.4)
            density = 0.3989422804014327 * exponential(-0.5 * b * b)
            density = density if abs(d1) <= 37.4 else 0.0
            n1 = normal_cdf(sign * d1)
            n2 = normal_cdf(sign * d2)
            decay = s * held * density * v[4, i] / (2.0 * (1.0 if root == 0.0 else root))
            v[5, i] = sign * (s * held * n1 - paid * n2)
            v[6, i] = sign * held * n1
            v[7, i] = 0.0 if still else held * density / (s * safe)
            v[8, i] = s * held * density * root
            v[9, i] = sign * (dividend * s * held * n1 - r * paid * n2) - (0.0 if t == 0.0 else decay)
            v[10, i] = sign * t * paid * n2
        for row in range(6):
            for i in range(count):
                rows[row, start + i] = v[5 + row, i]
