"""Backtests: forecasts made day by day from what was known then, and whether their breaches are what they should be.

Sources: P. Kupiec, Techniques for verifying the accuracy of risk measurement models, J. Derivatives 3(2) (1995), for
the share of breaches; P. Christoffersen, Evaluating interval forecasts, Int. Econ. Rev. 39 (1998), for their
independence and for both together; C. Acerbi and B. Székely, Backtesting expected shortfall, Risk (2014), test 2, for
ES.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.risk.tail import tail_measures, tail_size, worst_losses
from swarm_agents.compute.kernels.risk.types import (
    Decay,
    Floats,
    Level,
    Model,
    Returns,
    Weights,
    keep_rows,
    resume_rows,
    revalue,
)
from swarm_agents.compute.kernels.risk.volatility import COMPILED, NUMPY, Recursions, filtered
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite

__all__ = ["backtest", "backtest_window"]

Forecasts = Annotated[NDArray[np.float64], Dims("days"), Finite()]
Days = Annotated[int, Between(1, 100_000)]


def _backtest_window(
    recursions: Recursions,
    returns: Floats,
    weights: Floats,
    window: int,
    refit: int,
    model: str,
    level: float,
    decay: float,
    ctx: Context,
) -> dict[str, Any]:
    days = len(returns) - window
    if days < 1:
        raise ValueError(f"a window of {window} days needs at least {window + 1} rows of returns, got {len(returns)}")
    var, es = np.empty(days), np.empty(days)
    parameters: Floats | None = None
    kept = math.floor(tail_size(window, level)) + 1
    done = resume_rows(ctx, var, es)
    if done % refit:  # the fit that is in force: made again, it comes out the same
        last = done - done % refit
        parameters = filtered(recursions, returns[last : last + window], model, decay).parameters
    for day in range(done, days):
        keep_rows(ctx, day, var, es)
        known = returns[day : day + window]
        f = filtered(recursions, known, model, decay, parameters if day % refit else None)
        parameters = f.parameters
        profits = revalue(f.residuals * f.sigma[-1], weights)
        var[day], es[day] = tail_measures(worst_losses(profits, kept), window, level)
    return {"profits": revalue(returns[window:], weights), "var": var, "es": es, "level": level}


@kernel("risk.backtest_window")
def backtest_window(
    returns: Returns,
    weights: Weights,
    *,
    window: Days = 1000,
    refit: Days = 1,
    model: Model = "garch",
    level: Level = 0.99,
    decay: Decay = 0.94,
    ctx: Context,
) -> dict[str, Any]:
    """Forecasts VaR and ES of each day after the first `window` ones by filtered historical simulation.

    A day's forecast knows the `window` days before it and nothing else; GARCH parameters are fitted anew every `refit`
    days. Returns `profits` (what happened), `var` and `es`, each [days - window].

    Raises:
        ValueError: no more rows than the window is long, or a factor did not move in a window.
        TaskCancelled: it was cancelled; looked at between two days.
    """
    return _backtest_window(NUMPY, returns, weights, window, refit, model, level, decay, ctx)


@backtest_window.work
def _(returns: Floats, window: int, **_: Any) -> float:
    return float(max(len(returns) - window, 1) * min(window, len(returns)) * returns.shape[1])


@backtest_window.implementation("numba")
def _(
    returns: Floats,
    weights: Floats,
    *,
    window: int = 1000,
    refit: int = 1,
    model: str = "garch",
    level: float = 0.99,
    decay: float = 0.94,
    ctx: Context,
) -> dict[str, Any]:
    return _backtest_window(COMPILED, returns, weights, window, refit, model, level, decay, ctx)


@kernel("risk.backtest")
def backtest(profits: Forecasts, var: Forecasts, es: Forecasts | None = None, *, level: Level = 0.99) -> dict[str, Any]:
    """Tests a series of forecasts against what happened.

    Returns `days`, `breaches`, `expected`; likelihood ratios and p-values of Kupiec's test (`kupiec`, `kupiec_p`), of
    Christoffersen's for independence (`independence`, …) and of both (`conditional`, …); with `es` also Acerbi and
    Székely's `z2`: 0 expected, below about -0.7 the shortfall was underestimated (5 % level, any fat tails).
    """
    days = len(profits)
    hit = -profits > var
    breaches = int(hit.sum())
    p = 1.0 - level
    kupiec = 2.0 * (_log_likelihood(breaches, days, breaches / days) - _log_likelihood(breaches, days, p))
    quiet, loud = hit[1:][~hit[:-1]], hit[1:][hit[:-1]]
    after = int(hit[1:].sum())
    independence = 2.0 * (
        _log_likelihood(int(quiet.sum()), len(quiet), float(quiet.mean()) if len(quiet) else 0.0)
        + _log_likelihood(int(loud.sum()), len(loud), float(loud.mean()) if len(loud) else 0.0)
        - _log_likelihood(after, days - 1, after / (days - 1) if days > 1 else 0.0)
    )
    result = {
        "days": days,
        "breaches": breaches,
        "expected": p * days,
        "kupiec": kupiec,
        "kupiec_p": _chi_square_tail(kupiec, 1),
        "independence": independence,
        "independence_p": _chi_square_tail(independence, 1),
        "conditional": kupiec + independence,
        "conditional_p": _chi_square_tail(kupiec + independence, 2),
    }
    if es is not None:
        if not np.all(es > 0):
            raise ValueError("every forecast of ES must be a loss above 0")
        result["z2"] = 1.0 - float(np.sum(np.where(hit, -profits / es, 0.0))) / (days * p)
    return result


def _log_likelihood(ones: int, n: int, p: float) -> float:
    """log pᵒⁿᵉˢ·(1 − p)ⁿ⁻ᵒⁿᵉˢ, where 0·log 0 is 0."""
    total = 0.0
    if ones:
        total += ones * math.log(p)
    if n - ones:
        total += (n - ones) * math.log1p(-p)
    return total


def _chi_square_tail(x: float, degrees: int) -> float:
    """P(X > x) of the chi-square distribution with 1 or 2 degrees of freedom, in closed form."""
    x = max(x, 0.0)  # a likelihood ratio may come out a rounding error below 0
    return math.erfc(math.sqrt(x / 2.0)) if degrees == 1 else math.exp(-x / 2.0)


@backtest_window.memory
def _(returns: Floats, window: int, **_: Any) -> float:
    return float(96.0 * min(window, len(returns)) * len(returns.T) + 64.0 * returns.size)


@backtest_window.samples
def _(rng: np.random.Generator) -> Call:
    factors, window = int(rng.integers(1, 3)), int(rng.integers(60, 150))
    returns = 0.01 * rng.standard_t(5, (window + int(rng.integers(1, 4)), factors))
    model = ("garch", "ewma")[int(rng.integers(2))]
    return call(
        returns, rng.normal(0, 1, factors), window=window, refit=int(rng.integers(1, 3)), model=model, level=0.95
    )


@backtest.memory
def _(profits: Floats, **_: Any) -> float:
    return float(32.0 * len(profits))


@backtest.samples
def _(rng: np.random.Generator) -> Call:
    days = int(rng.integers(2, 1000))
    return call(rng.standard_t(5, days), rng.uniform(1.5, 3, days), rng.uniform(3, 4, days))
