"""The types that risk kernels share: what their arguments may be, and the portfolio's revaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.signature import Between, Dims, Finite

__all__ = ["Decay", "Floats", "Level", "Losses", "Model", "Paths", "Returns", "Seed", "Weights", "philox", "revalue"]

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
