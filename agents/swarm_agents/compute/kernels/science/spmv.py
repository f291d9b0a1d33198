"""Sparse matrix times vector, the matrix in compressed sparse rows (CSR).

The format is that of Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. 2003, section 3.4, and of
`scipy.sparse.csr_array`: row i holds data[indptr[i]:indptr[i+1]] in the columns indices[indptr[i]:indptr[i+1]]. Indices
come from outside, so each is checked before it is used: one that points outside the matrix is refused, by name.

Each row is summed in the order in which its values are stored, by every implementation: their results are equal to the
last bit. Several threads share rows so that each has about as many values.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims
from swarm_agents.errors import BadArguments

__all__ = ["spmv"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
#: Values that are worth a thread of their own.
_LEAST = 1 << 15


@kernel("science.spmv")
def spmv(
    data: Annotated[NDArray[np.float64], Dims("values", empty=True)],
    indices: Annotated[NDArray[np.int64], Dims("values", empty=True)],
    indptr: Annotated[NDArray[np.int64], Dims("rows + 1")],
    x: Annotated[NDArray[np.float64], Dims("columns", empty=True)],
) -> Floats:
    """The product of a CSR matrix and a vector, [rows]; the matrix has as many columns as x has values.

    Values for the same row and column add up. NaN and infinity spread by the rules of arithmetic, in the rows that have
    a value stored for them. Indices of 32 bits are taken as well (and copied).

    Raises:
        BadArguments: `indptr` does not begin with 0, end with the number of values, or decreases somewhere; or an index
            is below 0 or not below the number of columns.
    """
    _check(indptr, len(data))
    bad = np.flatnonzero((indices < 0) | (indices >= len(x)))
    if bad.size:
        raise _outside(indices, int(bad[0]), len(x))
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    with np.errstate(all="ignore"):
        products = data * x[indices]
        return np.asarray(np.bincount(rows, products, len(indptr) - 1), np.float64)


def _check(indptr: Ints, values: int) -> None:
    where = "kernel science.spmv argument 'indptr' must"
    if indptr[0] != 0 or indptr[-1] != values:
        raise BadArguments(
            f"{where} begin with 0 and end with {values}, the number of values: got {indptr[0]} and {indptr[-1]}"
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if falls.size:
        i = int(falls[0])
        raise BadArguments(f"{where} not decrease: got {indptr[i]} and then {indptr[i + 1]} at row {i}")


def _outside(indices: Ints, at: int, columns: int) -> BadArguments:
    return BadArguments(
        f"kernel science.spmv argument 'indices' must lie from 0 to {columns - 1}, the last column: "
        f"got {indices[at]} at index {at}"
    )


@spmv.memory
def _(data: Floats, indptr: Ints, **_: Any) -> float:
    return 8.0 * (4 * len(data) + 4 * len(indptr)) + (1 << 16)


def _load() -> Any:
    from swarm_agents.compute.kernels.science import spmv_jit

    return spmv_jit


@spmv.implementation("numba_threads", parallel=True, warm=_load, default=False)
def _(data: Floats, indices: Ints, indptr: Ints, x: Floats) -> Floats:
    _check(indptr, len(data))
    y = np.empty(len(indptr) - 1)
    # Cut where the values are halved, so that a few long rows do not make one thread wait for the other.
    ends = [int(np.searchsorted(indptr, b)) for _, b in team.pieces(len(data), _LEAST)]
    ends[-1] = len(y)
    begins = [0, *ends[:-1]]
    product = _load().product
    bad = team.run(product, [(data, indices, indptr, x, y, a, max(a, b)) for a, b in zip(begins, ends, strict=True)])
    first = min((at for at in bad if at >= 0), default=-1)
    if first >= 0:
        raise _outside(indices, first, len(x))
    return y


@spmv.implementation("numba", warm=_load)
def _(data: Floats, indices: Ints, indptr: Ints, x: Floats) -> Floats:
    _check(indptr, len(data))
    y = np.empty(len(indptr) - 1)
    bad = _load().product(data, indices, indptr, x, y, 0, len(y))
    if bad >= 0:
        raise _outside(indices, bad, len(x))
    return y


@spmv.samples
def _(rng: np.random.Generator) -> Call:
    rows, columns = int(rng.integers(1, 300)), int(rng.integers(1, 300))
    counts = rng.integers(0, 12, rows)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = rng.integers(0, columns, indptr[-1])
    return call(rng.normal(0, 1, indptr[-1]), indices, indptr, rng.normal(0, 1, columns))
