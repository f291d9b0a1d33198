"""The compiled loops of the media kernels; imports Numba.

Explicit signatures: importing the module compiles it, or loads it from the cache. Inner loops run over slices from 0,
which the compiler can put into vector registers; nothing is summed in another order than written.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, njit, types

__all__ = ["dct8", "fir", "window"]

_vector = types.Array(float64, 1, "C", readonly=True)
_matrix = types.Array(float64, 2, "C", readonly=True)
#: Rows that lie apart, as those of a part of the columns do.
_rows = types.Array(float64, 2, "A")
#: Outputs that stay in the first cache while all taps of a filter are added to them.
_BLOCK = 2048


@njit(types.void(_vector, _matrix, float64[:, ::1], int64, int64), cache=True, nogil=True)
def fir(padded, taps, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills out[:, begin:end]; `padded` is the signal behind taps − 1 earlier samples."""
    filters, width = taps.shape
    for start in range(begin, end, _BLOCK):
        stop = min(start + _BLOCK, end)
        for b in range(filters):
            y = out[b, start:stop]
            y[:] = 0.0
            for k in range(width):
                tap = taps[b, k]
                x = padded[start + width - 1 - k : stop + width - 1 - k]
                for i in range(y.size):
                    y[i] += tap * x[i]


@njit(types.void(_vector, int64, int64, _rows), cache=True, nogil=True, error_model="numpy")
def window(samples, length, ddof, out):  # type: ignore[no-untyped-def]
    """Fills the rows mean, variance, minimum, maximum of each window in.

    Window i, from block edge e = (i // length)·length, is the suffix of that block from i and the prefix of the next
    block up to i + length. Suffixes are made for a block at a time, from its end; prefixes as the windows move on.
    """
    count = samples.size - length + 1
    suffix = np.empty((4, length))
    for edge in range(0, count, length):
        mean = squares = 0.0
        least, most = np.inf, -np.inf
        for i in range(length):
            x = samples[edge + length - 1 - i]
            step = x - mean
            mean += step / (i + 1)
            squares += step * (x - mean)
            least, most = min(least, x), max(most, x)
            at = length - 1 - i
            suffix[0, at], suffix[1, at], suffix[2, at], suffix[3, at] = mean, squares, least, most
        mean = squares = 0.0
        least, most = np.inf, -np.inf
        for i in range(min(length, count - edge)):
            if i:
                x = samples[edge + length + i - 1]
                step = x - mean
                mean += step / i
                squares += step * (x - mean)
                least, most = min(least, x), max(most, x)
            apart = mean - suffix[0, i]
            out[0, edge + i] = suffix[0, i] + apart * (i / length)
            both = suffix[1, i] + squares + apart * apart * ((length - i) * (i / length))
            out[1, edge + i] = both / (length - ddof)
            out[2, edge + i] = min(suffix[2, i], least)
            out[3, edge + i] = max(suffix[3, i], most)


@njit(types.void(_matrix, _matrix, boolean, float64[:, ::1]), cache=True, nogil=True)
def dct8(image, basis, inverse, out):  # type: ignore[no-untyped-def]
    """Transforms each 8x8 block: its columns first, all 8 side by side, then its rows as columns of the transpose."""
    height, width = image.shape
    block, other = np.empty((8, 8)), np.empty((8, 8))
    for top in range(0, height, 8):
        for left in range(0, width, 8):
            for i in range(8):
                for j in range(8):
                    block[i, j] = image[top + i, left + j]
            for _ in range(2):
                if inverse:
                    for x in range(4):
                        for j in range(8):
                            even = odd = 0.0
                            for u in range(0, 8, 2):
                                even += basis[u, x] * block[u, j]
                                odd += basis[u + 1, x] * block[u + 1, j]
                            other[j, x] = even + odd
                            other[j, 7 - x] = even - odd
                else:
                    for u in range(0, 8, 2):
                        for j in range(8):
                            even = odd = 0.0
                            for x in range(4):
                                even += basis[u, x] * (block[x, j] + block[7 - x, j])
                                odd += basis[u + 1, x] * (block[x, j] - block[7 - x, j])
                            other[j, u] = even
                            other[j, u + 1] = odd
                block, other = other, block
            for i in range(8):
                for j in range(8):
                    out[top + i, left + j] = block[i, j]
