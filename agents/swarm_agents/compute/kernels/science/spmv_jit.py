"""The compiled sparse product; imports Numba. Every index is compared before memory is read by it."""

from __future__ import annotations

from numba import float64, int64, njit, types

__all__ = ["product"]

_floats = types.Array(float64, 1, "C", readonly=True)
_ints = types.Array(int64, 1, "C", readonly=True)


@njit(int64(_floats, _ints, _ints, _floats, float64[::1], int64, int64), cache=True, nogil=True)
def product(data, indices, indptr, x, y, begin, end):  # type: ignore[no-untyped-def]
    """Fills y[begin:end]; the place of the first index that lies outside of x, -1 if none does.

    `indptr` has been checked: it does not decrease, and lies from 0 to the number of values.
    """
    columns = len(x)
    for row in range(begin, end):
        total = 0.0
        for at in range(indptr[row], indptr[row + 1]):
            column = indices[at]
            if column < 0 or column >= columns:
                return at
            total += data[at] * x[column]
        y[row] = total
    return -1
