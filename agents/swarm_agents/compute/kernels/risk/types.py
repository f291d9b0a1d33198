"""What risk kernels share: what their arguments may be, the portfolio's revaluation, numbers, checkpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.context import Context
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import PayloadTooLarge

__all__ = [
    "Decay",
    "Floats",
    "Level",
    "Losses",
    "Model",
    "Paths",
    "Returns",
    "Seed",
    "Weights",
    "keep_rows",
    "philox",
    "resume_rows",
    "revalue",
]

Floats = NDArray[np.float64]
#: Log returns, [day, factor].
Returns = Annotated[NDArray[np.float64], Dims("days", "factors"), Finite()]
#: Amounts held, [factor].
Weights = Annotated[NDArray[np.float64], Dims("factors"), Finite()]
#: Profits (positive) and losses (negative), in any order.
Losses = Annotated[NDArray[np.float64], Dims("n"), Finite()]
Level = Annotated[float, Between(0.5, 0.99999)]
Decay = Annotated[float, Between(0.5, 0.9999)]
Seed = Annotated[int, Between(0, 2**63 - 1)]
Paths = Annotated[int, Between(1, 1 << 25)]
#: How volatilities are filtered: GARCH(1,1) fitted to each factor, or RiskMetrics' exponential weights.
Model = Literal["garch", "ewma"]


def revalue(moves: Floats, weights: Floats) -> Floats:
    """The profit of each scenario: Σ wᵢ·(exp(moveᵢ) − 1) over the factors in order; `moves` is [scenario, factor]."""
    profit: Floats = weights[0] * np.expm1(moves[:, 0])
    for i in range(1, len(weights)):
        profit += weights[i] * np.expm1(moves[:, i])
    return profit


def philox(seed: int, stream: int, number: int) -> np.random.Generator:
    """The random numbers of piece `number` of a stream: Philox 4x64 (Salmon et al. 2011) from counter number·2¹²⁸ on.

    Whoever draws piece 17 draws the same numbers, whether or not it drew pieces 0 to 16.
    """
    bits: Any = np.random.Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([0, 0, number, 0], np.uint64)
    )
    return np.random.Generator(bits)


def keep_rows(ctx: Context, done: int, *arrays: Floats) -> None:
    """Between two steps of a loop that fills arrays row by row: keeps the rows that are filled, if it is time to.

    Raises:
        TaskCancelled, DeadlineExceeded: as `ctx.check`.
    """
    if done and ctx.due():
        try:
            ctx.checkpoint({"done": done, "rows": [array[:done] for array in arrays]})
        except PayloadTooLarge:
            pass  # such a task begins at the beginning again
    else:
        ctx.check()


def resume_rows(ctx: Context, *arrays: Floats) -> int:
    """Fills in the rows that an earlier attempt has kept; how many there are."""
    kept = ctx.resume()
    match kept:
        case {"done": int() as done, "rows": [*rows]}:
            fits = len(rows) == len(arrays) and all(
                row.shape == (done, *array.shape[1:]) and row.dtype == array.dtype and done <= len(array)
                for row, array in zip(rows, arrays, strict=True)
            )
            if fits:
                for row, array in zip(rows, arrays, strict=True):
                    array[:done] = row
                return done
    return 0
