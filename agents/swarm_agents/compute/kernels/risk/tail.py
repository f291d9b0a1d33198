"""Value at Risk and Expected Shortfall of a set of profits and losses, and what each position adds to them.

VaR at level α is the smallest loss ℓ with P(L ≤ ℓ) ≥ α, the empirical quantile without interpolation; ES is the mean of
the worst (1 − α) of the distribution, an observation on its edge counted by the part that lies in it, so that ES is
coherent for any number of scenarios (C. Acerbi and D. Tasche, On the coherence of expected shortfall, J. Banking &
Finance 26 (2002)). Contributions to ES are Euler's: the mean of a position's losses over the portfolio's tail, which
add up to ES (D. Tasche, Risk contributions and performance measurement, 1999).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from swarm_agents.compute.kernels.risk.types import Floats, Level, Losses, Returns, Weights
from swarm_agents.compute.registry import Call, call, kernel

__all__ = ["loss_tail", "tail_measures", "tail_size", "what_if", "worst_losses"]


def tail_size(n: int, level: float) -> float:
    """How many of n scenarios lie beyond the level; a fraction counts. Nearby whole numbers are meant as such."""
    size = n * (1.0 - level)
    return float(round(size)) if abs(size - round(size)) < 1e-6 else size


def worst_losses(profits: Floats, count: int) -> Floats:
    """The `count` largest losses, the largest first."""
    count = min(count, len(profits))
    if count < len(profits):
        profits = np.partition(profits, count - 1)[:count]
    return -np.sort(profits)


def tail_measures(worst: Floats, n: int, level: float) -> tuple[float, float]:
    """(VaR, ES) of n scenarios, of which `worst` holds the largest losses in descending order.

    Raises:
        ValueError: `worst` does not reach as far as the level asks for.
    """
    size = tail_size(n, level)
    whole = min(math.floor(size), n - 1)
    if len(worst) < whole + 1:
        raise ValueError(f"level {level} of {n} scenarios needs the {whole + 1} worst losses, {len(worst)} were kept")
    var = float(worst[whole])
    if size < 1.0:  # the level lies beyond the data: the worst loss is all that is known
        return var, float(worst[0])
    total = float(np.sum(worst[:whole])) + (size - whole) * var
    return var, total / size


@kernel("risk.loss_tail")
def loss_tail(profits: Losses, *, level: Level = 0.99) -> dict[str, Any]:
    """VaR and ES of scenario profits: `var`, `es`, and the `worst` losses that they come from, largest first."""
    worst = worst_losses(profits, math.floor(tail_size(len(profits), level)) + 1)
    var, es = tail_measures(worst, len(profits), level)
    return {"var": var, "es": es, "level": level, "worst": worst}


@kernel("risk.what_if")
def what_if(moves: Returns, weights: Weights, *, level: Level = 0.99) -> dict[str, Any]:
    """VaR and ES that given positions would have over given scenarios (log returns), and each position's part of ES.

    For the trader's question before a trade: `moves` are the day's scenarios, such as those that
    `risk.filtered_historical` returns, and `weights` the positions as they would be. `contributions` add up to `es`.
    """
    parts = np.expm1(moves) * weights
    profits = parts[:, 0].copy()
    for i in range(1, parts.shape[1]):
        profits += parts[:, i]
    size = tail_size(len(profits), level)
    count = min(math.floor(size) + 1, len(profits))
    order = np.argsort(profits, kind="stable")[:count]
    worst = -profits[order]
    var, es = tail_measures(worst, len(profits), level)
    share = np.zeros(count)
    share[: min(math.floor(size), count)] = 1.0
    if math.floor(size) < count:
        share[math.floor(size)] = size - math.floor(size)
    if size < 1.0:
        share[:], share[0], size = 0.0, 1.0, 1.0
    contributions = np.array([-np.sum(parts[order, i] * share) for i in range(parts.shape[1])]) / size
    return {"var": var, "es": es, "level": level, "contributions": contributions}


@loss_tail.memory
def _(profits: Floats, **_: Any) -> float:
    return float(24.0 * len(profits))


@loss_tail.samples
def _(rng: np.random.Generator) -> Call:
    return call(rng.standard_t(4, int(rng.integers(1, 3000))), level=float(rng.uniform(0.9, 0.999)))


@what_if.memory
def _(moves: Floats, **_: Any) -> float:
    return float(24.0 * moves.size + 64.0 * len(moves))


@what_if.samples
def _(rng: np.random.Generator) -> Call:
    factors = int(rng.integers(1, 6))
    return call(0.01 * rng.standard_t(4, (int(rng.integers(1, 800)), factors)), rng.normal(0, 1, factors))
