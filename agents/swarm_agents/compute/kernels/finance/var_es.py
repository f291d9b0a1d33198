"""Value at Risk and Expected Shortfall of a list of profits: by the data themselves, or a distribution fitted to them.

The historical figures are those of `risk.loss_tail` (and its code). Parametric ones: mean and variance of the losses
with a normal or Student t distribution (A. McNeil, R. Frey and P. Embrechts, Quantitative Risk Management, 2nd ed.
2015, examples 2.11 and 2.14); the degrees of freedom come from the excess kurtosis κ by the method of moments:
ν = 4 + 6/κ.
For a portfolio's returns factor by factor, volatilities filtered, see `risk.filtered_historical` and its neighbours.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.kernels.risk.tail import tail_measures, tail_size, worst_losses
from swarm_agents.compute.kernels.risk.types import Level
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["var_es"]

Floats = NDArray[np.float64]
Profits = Annotated[NDArray[np.float64], Dims("n"), Finite()]


def _figures(profits: Floats, method: str, level: float, scale: float, moments: Floats) -> dict[str, Any]:
    """`moments`: mean, variance and kurtosis of profits/scale, whose powers can't leave the range of numbers."""
    mean, variance, kurtosis = moments.tolist()
    mean, sigma = scale * mean, scale * math.sqrt(variance)
    dof: float | None = None
    if method == "historical":
        n = len(profits)
        var, es = tail_measures(worst_losses(profits, math.floor(tail_size(n, level)) + 1), n, level)
    elif method == "normal" or not kurtosis > 3.03:  # a tail no fatter than the normal one
        from scipy.special import ndtri

        z = float(ndtri(level))
        var = sigma * z - mean
        es = sigma * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / (1.0 - level) - mean
    else:
        from scipy.special import gammaln, stdtrit

        dof = 4.0 + 6.0 / (kurtosis - 3.0)
        q = float(stdtrit(dof, level))
        width = sigma * math.sqrt((dof - 2.0) / dof)
        log_norm = float(gammaln(0.5 * (dof + 1.0)) - gammaln(0.5 * dof)) - 0.5 * math.log(dof * math.pi)
        density = math.exp(log_norm - 0.5 * (dof + 1.0) * math.log1p(q * q / dof))
        var = width * q - mean
        es = width * density / (1.0 - level) * (dof + q * q) / (dof - 1.0) - mean
    return {"var": var, "es": es, "level": level, "method": method, "mean": mean, "std": sigma, "dof": dof}


@kernel("finance.var_es")
def var_es(
    profits: Profits, *, method: Literal["historical", "normal", "t"] = "historical", level: Level = 0.99
) -> dict[str, Any]:
    """VaR and ES of `profits` [n] (losses are negative): historical, or of a normal or Student t fitted to them.

    Returns `var` and `es` (losses are positive there), `mean` and `std` of the profits, and `dof` of the fitted t, None
    where the tails are no fatter than normal ones (then the normal distribution is used) or none was fitted.
    """
    scale = _scale(profits)
    scaled = profits / scale
    mean = np.mean(scaled)
    squares = (scaled - mean) ** 2
    variance = np.mean(squares)
    kurtosis = np.mean(squares * squares) / (variance * variance) if variance * variance > 0.0 else 0.0
    return _figures(profits, method, level, scale, np.array([mean, variance, kurtosis]))


def _scale(profits: Floats) -> float:
    """The largest profit or loss, or 1 where that is next to nothing."""
    largest = float(max(-profits.min(), profits.max()))
    return largest if largest > 1e-300 else 1.0


@var_es.memory
def _(profits: Floats, **_: Any) -> float:
    return 40.0 * len(profits)


def _load() -> Any:
    from swarm_agents.compute.kernels.finance import moments_jit

    return moments_jit


@var_es.implementation("numba", warm=_load, tolerance=1e-8)
def _(profits: Floats, method: str = "historical", level: float = 0.99) -> dict[str, Any]:
    out = np.empty(3)
    scale = _scale(profits)
    _load().moments(profits, 1.0 / scale, out)
    return _figures(profits, method, level, scale, out)


@var_es.samples
def _(rng: np.random.Generator) -> Call:
    profits = rng.standard_t(5, int(rng.integers(1, 3000)))
    method = ("historical", "normal", "t")[int(rng.integers(3))]
    return call(profits, method=method, level=float(rng.uniform(0.9, 0.999)))
