"""Reduction and scan: one number of an array, and all its partial sums.

Sums are compensated: each addition's rounding error is found exactly (the two-sum of D. Knuth, TAOCP 2, 4.2.2; W.
Kahan, Comm. ACM 8 (1965); A. Neumaier, ZAMM 54 (1974)) and added in the end, so that the error does not grow with the
number of values (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, section 4.3). The reference
is exactly rounded (`math.fsum`). The scan in two passes is that of G. Blelloch, Prefix sums and their applications
(1990): sums of blocks, their prefix sums, and then each block from its own start.

Blocks have a fixed length, so that results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims

__all__ = ["reduce", "scan"]

Floats = NDArray[np.float64]
Values = Annotated[NDArray[np.float64], Dims("n", empty=True)]
#: Values of a block.
_BLOCK = 1 << 15


def _load() -> Any:
    from swarm_agents.compute.kernels.science import sums_jit

    return sums_jit


@kernel("science.reduce")
def reduce(values: Values, *, op: Literal["sum", "min", "max"] = "sum") -> float:
    """The sum, smallest or largest of an array's values.

    The sum's error is at most some units in its last place, unless its values cancel to less than 1e-15 of their
    sizes' sum. The sum of nothing is 0. NaN anywhere gives NaN; infinities, and sums beyond the range of numbers, are
    what plain addition makes of them.

    Raises:
        ValueError: the smallest or largest of an empty array.
    """
    if op != "sum":
        _not_empty(values, op)
        return float(values.min() if op == "min" else values.max())
    try:
        return math.fsum(values) if np.isfinite(values).all() else _plain(values)
    except OverflowError:
        return _plain(values)


def _not_empty(values: Floats, op: str) -> None:
    if not len(values):
        raise ValueError(f"an empty array has no {op}: ask for the sum, or leave the task out")


def _plain(values: Floats) -> float:
    with np.errstate(all="ignore"):
        return float(np.sum(values))


@reduce.memory
def _(values: Floats, **_: Any) -> float:
    return 1.0 * len(values) + (1 << 16)


def _blocks(n: int) -> int:
    return -(-n // _BLOCK)


def _reduced(values: Floats, op: str, threads: bool) -> float:
    if op != "sum":
        _not_empty(values, op)
    out = np.zeros((_blocks(len(values)), 2))
    function = _load().sums if op == "sum" else _load().extremes
    if threads:
        team.run(function, [(values, _BLOCK, out, a, b) for a, b in team.pieces(len(out))])
    else:
        function(values, _BLOCK, out, 0, len(out))
    if op == "min":
        return float(out[:, 0].min())
    if op == "max":
        return float(out[:, 1].max())
    return math.fsum(out.ravel()) if np.isfinite(out).all() else _plain(values)


@reduce.implementation("numba_threads", parallel=True, warm=_load, tolerance=1e-13, default=False)
def _(values: Floats, op: str = "sum") -> float:
    return _reduced(values, op, threads=True)


@reduce.implementation("numba", warm=_load, tolerance=1e-13)
def _(values: Floats, op: str = "sum") -> float:
    return _reduced(values, op, threads=False)


@kernel("science.scan")
def scan(values: Values, *, exclusive: bool = False) -> Floats:
    """The prefix sums of an array, [n]: value i is the sum of the values up to and with i, or without it (exclusive).

    NaN and infinities spread to all sums that hold them, by the rules of addition.
    """
    with np.errstate(all="ignore"):
        sums = np.cumsum(values)
    if exclusive and len(sums):
        sums[1:] = sums[:-1].copy()
        sums[0] = 0.0
    return sums


@scan.memory
def _(values: Floats, **_: Any) -> float:
    return 17.0 * len(values) + (1 << 16)


@scan.implementation("numba_threads", parallel=True, warm=_load, tolerance=1e-11, default=False)
def _(values: Floats, exclusive: bool = False) -> Floats:
    jit = _load()
    out = np.empty(len(values))
    sums = np.empty(_blocks(len(values)))
    pieces = team.pieces(len(sums))
    team.run(jit.totals, [(values, _BLOCK, sums, a, b) for a, b in pieces])
    with np.errstate(all="ignore"):
        starts = np.cumsum(np.concatenate([[0.0], sums]))
    team.run(jit.scan, [(values, _BLOCK, starts, exclusive, out, a, b) for a, b in pieces])
    return out


@scan.implementation("numba", warm=_load)
def _(values: Floats, exclusive: bool = False) -> Floats:
    out = np.empty(len(values))
    # One block: the very additions of the reference, in their order.
    _load().scan(values, len(values) + 1, np.zeros(1), exclusive, out, 0, 1)
    return out


@reduce.samples
def _(rng: np.random.Generator) -> Call:
    n = int(rng.integers(1, 100_000))
    return call(rng.normal(0.1, 1, n) * 10.0 ** rng.uniform(-3, 3), op=("sum", "min", "max")[int(rng.integers(3))])


@scan.samples
def _(rng: np.random.Generator) -> Call:
    return call(rng.normal(0, 1, int(rng.integers(1, 100_000))), exclusive=bool(rng.integers(2)))
