"""Filtered historical simulation: yesterday's shocks at today's volatility.

Each historical day's return is divided by the volatility that was forecast for it and multiplied by the forecast for
tomorrow; the days' joint residuals keep the dependence between factors and the fat tails as they were.

Sources: J. Hull and A. White, Incorporating volatility updating into the historical simulation method for
Value-at-Risk, J. Risk 1(1) (1998), for the rescaling by volatility; G. Barone-Adesi, K. Giannopoulos and L. Vosper,
VaR without correlations for portfolios of derivative securities, J. Futures Markets 19(5) (1999), for GARCH and joint
residuals.
For one day every historical day is one scenario, so nothing needs to be drawn at random.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from swarm_agents.compute.kernels.risk.tail import tail_measures, tail_size, worst_losses
from swarm_agents.compute.kernels.risk.types import Decay, Floats, Level, Model, Returns, Weights, revalue
from swarm_agents.compute.kernels.risk.volatility import COMPILED, NUMPY, Recursions, filtered
from swarm_agents.compute.registry import Call, call, kernel

__all__ = ["filtered_historical"]


def _filtered_historical(
    recursions: Recursions, returns: Floats, weights: Floats, model: str, level: float, decay: float
) -> dict[str, Any]:
    f = filtered(recursions, returns, model, decay)
    moves = f.residuals * f.sigma[-1]
    profits = revalue(moves, weights)
    worst = worst_losses(profits, math.floor(tail_size(len(profits), level)) + 1)
    var, es = tail_measures(worst, len(profits), level)
    return {
        "var": var,
        "es": es,
        "level": level,
        "profits": profits,
        "moves": moves,
        "volatility": f.sigma[-1],
        "parameters": f.parameters,
    }


@kernel("risk.filtered_historical")
def filtered_historical(
    returns: Returns, weights: Weights, *, model: Model = "garch", level: Level = 0.99, decay: Decay = 0.94
) -> dict[str, Any]:
    """One-day VaR and ES by filtered historical simulation.

    Returns `var` and `es`, the scenarios' `profits` [days] and `moves` [days, factors], the `volatility` forecast
    [factors] and the filter's `parameters` [factors, (ω, α, β)].

    Raises:
        ValueError: a factor did not move on any day.
    """
    return _filtered_historical(NUMPY, returns, weights, model, level, decay)


@filtered_historical.implementation("numba")
def _(
    returns: Floats, weights: Floats, model: str = "garch", level: float = 0.99, decay: float = 0.94
) -> dict[str, Any]:
    return _filtered_historical(COMPILED, returns, weights, model, level, decay)


@filtered_historical.memory
def _(returns: Floats, **_: Any) -> float:
    return float(64.0 * returns.size + 32.0 * len(returns))


@filtered_historical.samples
def _(rng: np.random.Generator) -> Call:
    factors = int(rng.integers(1, 4))
    returns = 0.01 * rng.standard_t(5, (int(rng.integers(100, 300)), factors))
    return call(returns, rng.normal(0, 1, factors), model=("garch", "ewma")[int(rng.integers(2))])
