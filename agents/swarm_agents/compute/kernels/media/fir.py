"""A bank of FIR filters over one signal: each filter's output is the signal convolved with its taps, causally.

y[b, t] = Σₖ taps[b, k]·x[t − k], the direct form (A. Oppenheim and R. Schafer, Discrete-Time Signal Processing, 3rd
ed. 2010, section 6.5): `scipy.signal.lfilter(taps[b], 1, x)` for each b. A stream is filtered in pieces by handing the
samples before each piece over as `history`. The sums are formed from k = 0 upwards in both forms. NumPy walks over the
whole output once a tap; the compiled one stays in a block of outputs that the first cache holds until it is done.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["fir_bank"]

Floats = NDArray[np.float64]
#: A thread gets as many multiplications at least.
_LEAST = 1 << 18


def _padded(signal: Floats, history: Floats | None, width: int) -> Floats:
    """The signal behind the `width − 1` samples before it; what `history` does not reach back to is silence."""
    padded = np.zeros(width - 1 + signal.size)
    padded[width - 1 :] = signal
    if history is not None and width > 1:
        reach = min(history.size, width - 1)
        padded[width - 1 - reach : width - 1] = history[history.size - reach :]
    return padded


@kernel("media.fir_bank")
def fir_bank(
    signal: Annotated[Floats, Dims("n"), Finite()],
    taps: Annotated[Floats, Dims("filters", "taps"), Finite()],
    *,
    history: Annotated[Floats, Dims("before", empty=True), Finite()] | None = None,
) -> Floats:
    """A filter bank's outputs, float64 [filters, n]: each row of `taps` convolved with `signal`, causally.

    A row's first tap weighs the newest sample. `history` holds the samples just before the signal, oldest first; as
    many as a filter reaches back are used, and where there are fewer the signal before was 0. Sums beyond 1e308
    give infinities or NaN.
    """
    width, n = taps.shape[1], signal.size
    padded, out = _padded(signal, history, width), np.zeros((len(taps), n))
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(width):
            out += taps[:, k, None] * padded[None, width - 1 - k : width - 1 - k + n]
    return out


@fir_bank.memory
def _(signal: Floats, taps: Floats, **_: Any) -> float:
    n, (filters, width) = signal.size, taps.shape
    return float(8 * ((2 * filters + 1) * n + width) + (1 << 18))


@fir_bank.samples
def _(rng: np.random.Generator) -> Call:
    n, filters, width = int(rng.integers(1, 3000)), int(rng.integers(1, 5)), int(rng.integers(1, 40))
    history = rng.normal(size=int(rng.integers(1, 50))) if rng.random() < 0.5 else None
    return call(rng.normal(size=n), rng.normal(size=(filters, width)), history=history)


@fir_bank.work
def _(signal: Floats, taps: Floats, **_: Any) -> float:
    return signal.size * taps.size


@fir_bank.implementation("threads", parallel=True, default=False)
def _(signal: Floats, taps: Floats, history: Floats | None = None) -> Floats:
    from swarm_agents.compute.kernels.media import jit

    width, n = taps.shape[1], signal.size
    padded, out = _padded(signal, history, width), np.empty((len(taps), n))

    def part(begin: int, end: int) -> None:
        jit.fir(padded, taps, out, begin, end)

    team.run(part, team.pieces(n, least=1 + _LEAST // taps.size))
    return out


@fir_bank.implementation("numba")
def _(signal: Floats, taps: Floats, history: Floats | None = None) -> Floats:
    from swarm_agents.compute.kernels.media import jit

    out = np.empty((len(taps), signal.size))
    jit.fir(_padded(signal, history, taps.shape[1]), taps, out, 0, signal.size)
    return out
