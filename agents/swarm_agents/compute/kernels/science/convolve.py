"""Convolution of two sequences: directly, by one Fourier transform, or by transforms of pieces.

By the convolution theorem (J. Cooley and J. Tukey, Math. Comp. 19 (1965), made it fast) the transform of a convolution
is the product of the transforms: O(n·log n) rather than O(n·m) operations. Real transforms (SciPy's pocketfft) of a
length with small prime factors do half the work of complex ones. Where one sequence is much shorter, pieces of the
other that fit the caches are transformed instead, and their results overlap and are added (overlap-add: T. Stockham,
High-speed convolution and correlation, 1966).

Rounding errors of the transforms are in proportion to the largest values of the result, not to each: a value that is
tiny beside the others has fewer right digits than by the direct sum.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["convolve"]

Floats = NDArray[np.float64]
Mode = Literal["full", "same", "valid"]
#: From this length of the shorter sequence on transforms win.
_SHORT = 64


@kernel("science.convolve")
def convolve(
    signal: Annotated[NDArray[np.float64], Dims("n"), Finite()],
    response: Annotated[NDArray[np.float64], Dims("m"), Finite()],
    *,
    mode: Mode = "full",
) -> Floats:
    """The discrete convolution Σₖ signal[k]·response[i − k] of two sequences.

    `full` gives all n + m − 1 values, `same` the max(n, m) in the middle, `valid` the max(n, m) − min(n, m) + 1 for
    which the shorter lies wholly within the longer (as `numpy.convolve`).
    """
    return np.convolve(signal, response, mode)


@convolve.memory
def _(signal: Floats, response: Floats, **_: Any) -> float:
    return 8.0 * 14 * (len(signal) + len(response)) + (1 << 22)  # the last for the pieces of `overlap_add`


def _part(full: Floats, n: int, m: int, mode: str) -> Floats:
    """Of the full convolution what the mode asks for."""
    long, short = max(n, m), min(n, m)
    if mode == "full":
        return full
    if mode == "same":
        begin = (short - 1) // 2
        return full[begin : begin + long].copy()
    return full[short - 1 : long].copy()


@convolve.implementation("overlap_add", tolerance=1e-11, default=False)
@np.errstate(all="ignore")
def _(signal: Floats, response: Floats, mode: str = "full") -> Floats:
    from scipy import fft

    n, m = len(signal), len(response)
    long, short = (signal, response) if n >= m else (response, signal)
    size = fft.next_fast_len(max(8 * len(short), 4096), real=True)
    step = size - len(short) + 1
    count = -(-len(long) // step)
    spectrum = fft.rfft(short, size)
    full = np.zeros(count * step + len(short) - 1)
    batch = max(1, (1 << 16) // size)  # as many pieces as fit the second-level cache
    pieces = np.zeros((batch, step))
    for first in range(0, count, batch):
        now = min(batch, count - first)
        part = long[first * step : (first + now) * step]
        pieces.reshape(-1)[: len(part)] = part
        pieces.reshape(-1)[len(part) :] = 0.0
        made = fft.irfft(fft.rfft(pieces[:now], size, axis=1) * spectrum, size, axis=1)
        for i in range(now):
            at = (first + i) * step
            full[at : at + size] += made[i, : len(full) - at]
    return _part(full[: n + m - 1].copy(), n, m, mode)


def _long(signal: Floats, response: Floats, mode: str = "full") -> bool:
    return min(len(signal), len(response)) >= _SHORT


@convolve.implementation("fft", tolerance=1e-11, when=_long)
@np.errstate(all="ignore")
def _(signal: Floats, response: Floats, mode: str = "full") -> Floats:
    from scipy import fft

    n, m = len(signal), len(response)
    size = fft.next_fast_len(n + m - 1, real=True)
    product = fft.rfft(signal, size)
    product *= fft.rfft(response, size)
    return _part(fft.irfft(product, size)[: n + m - 1].copy(), n, m, mode)


@convolve.samples
def _(rng: np.random.Generator) -> Call:
    n, m = (int(rng.integers(1, top)) for top in (6000, 300))
    mode = ("full", "same", "valid")[int(rng.integers(3))]
    pair = rng.normal(0, 1, n), rng.normal(0, 1, m)
    return call(*(pair if rng.random() < 0.7 else pair[::-1]), mode=mode)
