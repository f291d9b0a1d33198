"""The dense product of two matrices, which is BLAS's: nothing written here would be faster, and nothing is added to it.

What an agent could add is copies. There is none: the factors are read where the client has put them in the node's
memory, and the product is written to where the client reads it.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims

__all__ = ["gemm"]

Floats = NDArray[np.float64]


@kernel("vector.gemm")
def gemm(
    a: Annotated[NDArray[np.float64], Dims("m", "k", empty=True)],
    b: Annotated[NDArray[np.float64], Dims("k", "n", empty=True)],
    *,
    ctx: Context,
) -> Floats:
    """The product a·b, float64 [m, n], by BLAS's dgemm; all zeros where k is 0.

    Sums are rounded in BLAS's order, which differs between CPUs by some units in the last place of |a|·|b|.
    """
    out = ctx.array((a.shape[0], b.shape[1]))
    with np.errstate(all="ignore"):
        np.matmul(a, b, out=out)
    return out


@gemm.memory
def _(a: Floats, b: Floats, **_: Any) -> float:
    return 8.0 * int(a.shape[0]) * int(b.shape[1])


@gemm.samples
def _(rng: np.random.Generator) -> Call:
    m, k, n = (int(extent) for extent in rng.integers(1, 40, 3))
    return call(rng.normal(size=(m, k)), rng.normal(size=(k, n)))
