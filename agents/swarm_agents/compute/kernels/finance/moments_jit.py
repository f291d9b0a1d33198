"""Mean, variance and kurtosis without temporary arrays; imports Numba.

Two passes, since the one-pass formulas cancel. Sums may be taken in any order ("reassoc"), so that they become vector
code: the reference is met to some digits, not to the last bit.
"""

from __future__ import annotations

from numba import float64, njit, types

__all__ = ["moments"]


@njit(
    types.void(types.Array(float64, 1, "C", readonly=True), float64, float64[::1]),
    cache=True,
    nogil=True,
    fastmath={"reassoc", "contract", "nsz"},
    error_model="numpy",
)
def moments(values, factor, out):  # type: ignore[no-untyped-def]
    """Fills `out` with mean, variance and kurtosis (0 of what does not vary) of the values times `factor`."""
    n = len(values)
    total = 0.0
    for i in range(n):
        total += values[i] * factor
    mean = total / n
    second = 0.0
    fourth = 0.0
    for i in range(n):
        square = (values[i] * factor - mean) * (values[i] * factor - mean)
        second += square
        fourth += square * square
    variance = second / n
    out[0] = mean
    out[1] = variance
    out[2] = (fourth / n) / (variance * variance) if variance * variance > 0.0 else 0.0
