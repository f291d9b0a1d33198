"""Volatility filters: RiskMetrics' exponential weights, and GARCH(1,1) fitted by quasi-maximum likelihood.

Both give σ² of each day from the days before it, so that residuals r/σ are about identically distributed: what filtered
historical simulation needs (Hull and White 1998; Barone-Adesi, Giannopoulos and Vosper 1999).

Sources: J.P. Morgan/Reuters, RiskMetrics Technical Document, 4th ed. 1996, section 5.2 (decay 0.94 for daily data);
T. Bollerslev, Generalized autoregressive conditional heteroskedasticity, J. Econometrics 31 (1986); variance targeting:
R. Engle and J. Mezrich, GARCH for groups, Risk 9(8) (1996).

The recursions exist twice, in NumPy and compiled, with the same operations in the same order; `Recursions` is what the
kernels of this package are written against, so that each has both implementations from one text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.kernels.risk.types import Decay, Floats, Returns
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["COMPILED", "NUMPY", "Filtered", "Recursions", "ewma_volatility", "filtered", "garch_fit"]

#: Returns of one factor.
Series = Annotated[NDArray[np.float64], Dims("days"), Finite()]

#: α + β stays below this: the process is stationary, and its variance is what it is targeted at.
_MOST_PERSISTENT = 0.9995


class Recursions(Protocol):
    """The two loops over days that NumPy can't vectorise."""

    def variances(self, returns: Floats, omega: Floats, alpha: Floats, beta: Floats) -> Floats:
        """σ² of each day and of the day after the last, [days + 1, factors]: h₀ = mean r², hₜ₊₁ = ω + α·rₜ² + β·hₜ."""

    def cost(self, squares: Floats, mean: float, omega: float, alpha: float, beta: float) -> float:
        """Σ log hₜ + rₜ²/hₜ: minus twice the Gaussian log likelihood of one factor, without its constant."""


def _sum_in_order(values: list[float]) -> float:
    """One by one, as the compiled loop adds; NumPy's sum is pairwise, and `sum` compensates from Python 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


class _NumPy:
    def variances(self, returns: Floats, omega: Floats, alpha: Floats, beta: Floats) -> Floats:
        days, factors = returns.shape
        h = np.empty((days + 1, factors))
        for i in range(factors):
            squares = (returns[:, i] * returns[:, i]).tolist()  # Python's floats: faster than NumPy's, one by one
            value = _sum_in_order(squares) / days
            o, a, b = float(omega[i]), float(alpha[i]), float(beta[i])
            column = [value]
            for square in squares:
                value = (o + a * square) + b * value
                column.append(value)
            h[:, i] = column
        return h

    def cost(self, squares: Floats, mean: float, omega: float, alpha: float, beta: float) -> float:
        h, total, log = mean, 0.0, math.log
        for square in squares.tolist():
            total += log(h) + square / h
            h = (omega + alpha * square) + beta * h
        return total


class _Compiled:
    @property
    def variances(self) -> Callable[..., Floats]:
        from swarm_agents.compute.kernels.risk import jit

        return jit.variances

    @property
    def cost(self) -> Callable[..., float]:
        from swarm_agents.compute.kernels.risk import jit

        return jit.cost


NUMPY: Recursions = _NumPy()
COMPILED: Recursions = _Compiled()


@dataclass(frozen=True)
class Filtered:
    """Returns, filtered: `sigma` [days + 1, factors], whose last row is the forecast for the day to come; `residuals`
    [days, factors]; `parameters` (ω, α, β) a row a factor."""

    sigma: Floats
    residuals: Floats
    parameters: Floats


def filtered(
    recursions: Recursions, returns: Floats, model: str, decay: float, parameters: Floats | None = None
) -> Filtered:
    """Filters each factor's returns by the model; GARCH parameters are fitted unless they are given.

    Raises:
        ValueError: a factor did not move on any day, so that it has no volatility.
    """
    still = np.flatnonzero(~returns.any(axis=0))
    if still.size:
        raise ValueError(
            f"factor {still[0]} did not move on any of {len(returns)} days: it has no volatility to filter by"
        )
    if parameters is None:
        if model == "ewma":
            parameters = np.tile([0.0, 1.0 - decay, decay], (returns.shape[1], 1))
        else:
            columns = np.ascontiguousarray(returns.T)
            parameters = np.array([_fit(recursions, column)[:3] for column in columns])
    omega, alpha, beta = (np.ascontiguousarray(column) for column in parameters.T)
    sigma = np.sqrt(recursions.variances(returns, omega, alpha, beta))
    return Filtered(sigma, returns / sigma[:-1], parameters)


def _fit(recursions: Recursions, series: Floats) -> tuple[float, float, float, float, int]:
    """(ω, α, β, cost, evaluations) of the GARCH(1,1) whose unconditional variance is the series' own."""
    from scipy.optimize import minimize

    # In units of its own standard deviation the search does not depend on the data's scale.
    mean_square = math.fsum((series * series).tolist()) / len(series)
    if mean_square == 0.0:
        raise ValueError(f"the series did not move on any of {len(series)} days: no GARCH model fits it")
    squares = series * series / mean_square
    mean = math.fsum(squares.tolist()) / len(squares)
    cost = recursions.cost

    def at(x: Any) -> tuple[float, float, float]:
        persistence = _MOST_PERSISTENT * _logistic(float(x[0]))
        alpha = persistence * _logistic(float(x[1]))
        return 1.0 - persistence, alpha, persistence - alpha

    def objective(x: Any) -> float:
        return cost(squares, mean, *at(x))

    start = [4.0, -2.3]  # persistence 0.98, α about 0.09
    simplex = [start, [start[0] + 0.8, start[1]], [start[0], start[1] + 0.5]]
    found = minimize(
        objective,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 2e-3, "fatol": 1e-4, "maxiter": 200},
    )
    omega, alpha, beta = at(found.x)
    return omega * mean_square, alpha, beta, float(found.fun), int(found.nfev)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(x, -30.0), 30.0)))


def _ewma_volatility(recursions: Recursions, returns: Floats, decay: float) -> Floats:
    return filtered(recursions, returns, "ewma", decay).sigma


@kernel("risk.ewma_volatility")
def ewma_volatility(returns: Returns, *, decay: Decay = 0.94) -> Floats:
    """Daily volatilities with exponential weights, [days + 1, factors]; the last row is the forecast (RiskMetrics)."""
    return _ewma_volatility(NUMPY, returns, decay)


@ewma_volatility.implementation("numba")
def _(returns: Floats, decay: float = 0.94) -> Floats:
    return _ewma_volatility(COMPILED, returns, decay)


def _garch_fit(recursions: Recursions, returns: Floats) -> dict[str, float]:
    omega, alpha, beta, cost, evaluations = _fit(recursions, returns)
    scale = math.fsum((returns * returns).tolist()) / len(returns)
    constant = len(returns) * (math.log(2 * math.pi) + math.log(scale))
    return {
        "omega": omega,
        "alpha": alpha,
        "beta": beta,
        "log_likelihood": -0.5 * (cost + constant),
        "evaluations": evaluations,
    }


@kernel("risk.garch_fit")
def garch_fit(returns: Series) -> dict[str, float]:
    """Fits a GARCH(1,1) with variance targeting to one factor's returns: omega, alpha, beta, log_likelihood.

    At least a few hundred days are needed for parameters that mean something.
    """
    return _garch_fit(NUMPY, returns)


@garch_fit.implementation("numba")
def _(returns: Floats) -> dict[str, float]:
    return _garch_fit(COMPILED, returns)


@ewma_volatility.memory
def _(returns: Floats, **_: Any) -> float:
    return float(64.0 * returns.size)


@ewma_volatility.samples
def _(rng: np.random.Generator) -> Call:
    shape = int(rng.integers(2, 400)), int(rng.integers(1, 6))
    return call(0.01 * rng.standard_t(5, shape), decay=float(rng.uniform(0.6, 0.99)))


@garch_fit.memory
def _(returns: Floats, **_: Any) -> float:
    return float(64.0 * len(returns))


@garch_fit.samples
def _(rng: np.random.Generator) -> Call:
    return call(0.01 * rng.standard_t(5, int(rng.integers(100, 500))))
