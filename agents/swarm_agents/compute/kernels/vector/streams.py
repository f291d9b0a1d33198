"""STREAM's triad and a chain of five operations: as many bytes as must be moved, and no more.

Neither computes enough to keep a core busy: what counts is how often the arrays cross the memory bus. NumPy walks over
them once an operation and keeps what is between in temporaries. The compiled functions go over everything once, and
from `STREAMED` bytes on they write past the caches (see `jit`): a store into a cache reads the line first that it is
about to overwrite, which is a third of the triad's traffic beyond need. Answers are the same to the last bit.

Source: J. McCalpin, Memory bandwidth and machine balance in current high performance computers, IEEE TCCA Newsletter,
December 1995 (STREAM).
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims

__all__ = ["STREAMED", "chain", "chain_into", "triad", "triad_into"]

Floats = NDArray[np.float64]
Vector = Annotated[NDArray[np.float64], Dims("n", empty=True)]
#: Any number but NaN and the infinities.
Factor = Annotated[float, Between(-sys.float_info.max, sys.float_info.max)]

#: An answer of so many bytes is written past the caches: it would push everything else out of one core's (2 MiB are a
#: large second-level cache), and be pushed out itself before anybody reads it.
STREAMED = 4 << 20
#: Values that are worth a thread of their own.
_PIECE = 1 << 15


def _load() -> Any:
    from swarm_agents.compute.kernels.vector import jit

    return jit


def _share_out(function: Any, n: int, *arguments: Any) -> None:
    team.run(function, [(*arguments, n * 8 >= STREAMED, a, b) for a, b in team.pieces(n, least=_PIECE)])


def triad_into(out: Floats, b: Floats, c: Floats, s: float, *, threads: bool = True) -> None:
    """Fills `out` with b + s·c. All three are C-contiguous float64 of one length; `out` may not overlap the others."""
    if threads:
        _share_out(_load().triad, len(out), out, b, c, s)
    else:
        _load().triad(out, b, c, s, out.nbytes >= STREAMED, 0, len(out))


def chain_into(out: Floats, x: Floats, y: Floats, a: float, b: float, c: float, *, threads: bool = True) -> None:
    """Fills `out` with |(a·x + y)·b − c|, on the same terms as `triad_into`."""
    if threads:
        _share_out(_load().chain, len(out), out, x, y, a, b, c)
    else:
        _load().chain(out, x, y, a, b, c, out.nbytes >= STREAMED, 0, len(out))


@kernel("vector.triad")
def triad(b: Vector, c: Vector, s: Factor, *, ctx: Context) -> Floats:
    """b + s·c, float64 [n], rounded after the product and after the sum; of nothing it is nothing."""
    out = ctx.array(len(b))
    with np.errstate(all="ignore"):
        np.multiply(c, s, out=out)
        np.add(b, out, out=out)
    return out


@triad.memory
def _(b: Floats, **_: Any) -> float:
    return 8.0 * len(b)


@triad.samples
def _(rng: np.random.Generator) -> Call:
    b, c = rng.normal(size=(2, int(rng.integers(0, 3000))))
    return call(b, c, float(rng.normal()))


@triad.implementation("numba_threads", parallel=True, warm=_load, default=False)
def _(b: Floats, c: Floats, s: float, ctx: Context) -> Floats:
    out = ctx.array(len(b))
    triad_into(out, b, c, s)
    return out


@triad.implementation("numba", warm=_load)
def _(b: Floats, c: Floats, s: float, ctx: Context) -> Floats:
    out = ctx.array(len(b))
    triad_into(out, b, c, s, threads=False)
    return out


@kernel("vector.chain")
def chain(x: Vector, y: Vector, *, a: Factor = 1.0, b: Factor = 1.0, c: Factor = 0.0, ctx: Context) -> Floats:
    """|(a·x + y)·b − c|, float64 [n]: five operations, each rounded by itself, fused into one pass over memory."""
    with np.errstate(all="ignore"):
        out = ctx.array(len(x))
        out[...] = np.abs((a * x + y) * b - c)
    return out


@chain.memory
def _(x: Floats, **_: Any) -> float:
    return 24.0 * len(x)


@chain.samples
def _(rng: np.random.Generator) -> Call:
    x, y = rng.normal(size=(2, int(rng.integers(0, 3000))))
    a, b, c = (float(value) for value in rng.normal(size=3))
    return call(x, y, a=a, b=b, c=c)


@chain.implementation("numba_threads", parallel=True, warm=_load, default=False)
def _(x: Floats, y: Floats, a: float = 1.0, b: float = 1.0, c: float = 0.0, *, ctx: Context) -> Floats:
    out = ctx.array(len(x))
    chain_into(out, x, y, a, b, c)
    return out


@chain.implementation("numba", warm=_load)
def _(x: Floats, y: Floats, a: float = 1.0, b: float = 1.0, c: float = 0.0, *, ctx: Context) -> Floats:
    out = ctx.array(len(x))
    chain_into(out, x, y, a, b, c, threads=False)
    return out
