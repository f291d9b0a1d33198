"""Statistics over a sliding window: mean, variance, minimum and maximum of each `window` consecutive samples.

The usual trick, adding what enters and subtracting what leaves, drifts: errors never leave, and after one large sample
the small ones are lost (sensor data has such). Here nothing is subtracted. The samples are cut into blocks as long as
the window; every window is the end of one block and the beginning of the next, so its statistics are those of a suffix
joined with a prefix, both of which come from one pass each. For minima and maxima that is M. van Herk's algorithm
(Pattern Recognition Letters 13 (1992)); means and variances go the same way, by B. Welford's update (Technometrics 4
(1962)) and the rule of T. Chan, G. Golub and R. LeVeque for joining two sets (The American Statistician 37 (1983)).
The time does not depend on the window.

The reference is the definition, each window by itself in two passes; it takes time in proportion to n·window.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["window_stats"]

Floats = NDArray[np.float64]
_NAMES = ("mean", "variance", "minimum", "maximum")
#: So many samples are looked at at a time by the reference, about.
_CHUNK = 1 << 18


def _check(samples: Floats, window: int, ddof: int) -> int:
    """How many windows there are."""
    if window > samples.size:
        raise BadArguments(
            f"kernel media.window_stats argument 'window' must be at most the number of samples, {samples.size}: "
            f"got {window}"
        )
    if window <= ddof:
        raise BadArguments("kernel media.window_stats argument 'ddof' must be below the window, 1: got 1")
    return samples.size - window + 1


@kernel("media.window_stats")
def window_stats(
    samples: Annotated[Floats, Dims("n"), Finite()],
    *,
    window: Annotated[int, Between(1, 2**40)],
    ddof: Literal[0, 1] = 0,
) -> dict[str, Floats]:
    """Of each window of consecutive samples `mean`, `variance`, `minimum`, `maximum`: arrays [n − window + 1].

    `variance` is the sum of squared deviations over window − ddof, in the samples' unit squared. Of samples beyond
    1e150 means and variances may be infinite or NaN.

    Raises:
        BadArguments: a window longer than the samples, or ddof = 1 with a window of 1.
    """
    count = _check(samples, window, ddof)
    out = {name: np.empty(count) for name in _NAMES}
    views = np.lib.stride_tricks.sliding_window_view(samples, window)
    chunk = 1 + _CHUNK // window
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, count, chunk):
            part = slice(begin, min(begin + chunk, count))
            out["mean"][part] = views[part].mean(axis=1)
            out["variance"][part] = views[part].var(axis=1, ddof=ddof)
            out["minimum"][part] = views[part].min(axis=1)
            out["maximum"][part] = views[part].max(axis=1)
    return out


@window_stats.memory
def _(samples: Floats, window: int, **_: Any) -> float:
    return 64.0 * len(samples) + 24.0 * (_CHUNK + window)  # the reference looks at so many samples at a time


@window_stats.samples
def _(rng: np.random.Generator) -> Call:
    n = int(rng.integers(2, 2000))
    window = int(rng.integers(2, 1 + min(n, 300)))
    return call(rng.normal(20.0, 3.0, n), window=window, ddof=int(rng.integers(2)))


@window_stats.implementation("threads", parallel=True, tolerance=1e-9, default=False)
def _(samples: Floats, window: int, ddof: int = 0) -> dict[str, Floats]:
    from swarm_agents.compute.kernels.media import jit

    count = _check(samples, window, ddof)
    out = np.empty((4, count))

    def part(begin: int, end: int) -> None:
        jit.window(samples[begin : end + window - 1], window, ddof, out[:, begin:end])

    # A thread begins anew with its own blocks and reads window − 1 samples that are not its own.
    team.run(part, team.pieces(count, least=max(4 * window, 1 << 15)))
    return dict(zip(_NAMES, out, strict=True))


@window_stats.implementation("numba", tolerance=1e-9)
def _(samples: Floats, window: int, ddof: int = 0) -> dict[str, Floats]:
    from swarm_agents.compute.kernels.media import jit

    out: Any = np.empty((4, _check(samples, window, ddof)))
    jit.window(samples, window, ddof, out)
    return dict(zip(_NAMES, out, strict=True))
