"""Monte Carlo of the day to come: correlated heavy-tailed moves of all factors, the portfolio valued anew on each path.

The model has constant conditional correlation (T. Bollerslev, Modelling the coherence in short-run nominal exchange
rates, Rev. Econ. Stat. 72 (1990)): volatilities are tomorrow's forecast of the chosen filter, correlations are those of
the filtered residuals, and shocks are multivariate Student t (or normal) with unit variance, made by a Cholesky factor.
If the degrees of freedom are not given they come from the residuals' excess kurtosis κ by ν = 4 + 6/κ, the method of
moments (A. McNeil, R. Frey and P. Embrechts, Quantitative Risk Management, 2nd ed. 2015, chapters 6 and 9).

Paths come in blocks of `BLOCK`, each with random numbers of its own (see `types.philox`). Chunk c of n paths is the
paths from c·n on, so when n is a multiple of BLOCK, chunks that any agents computed in any order hold exactly the
paths of one long run, and `merge` makes its figures from them to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np

from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.risk.tail import tail_measures, tail_size, worst_losses
from swarm_agents.compute.kernels.risk.types import (
    Decay,
    Floats,
    Level,
    Model,
    Paths,
    Returns,
    Seed,
    Weights,
    keep_rows,
    philox,
    resume_rows,
)
from swarm_agents.compute.kernels.risk.volatility import COMPILED, NUMPY, Recursions, filtered
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between

__all__ = ["BINS", "BLOCK", "merge", "monte_carlo"]

#: Paths that are simulated together: their arrays fit a core's second-level cache.
BLOCK = 8192
#: Bins of the histogram: ±8 standard deviations of the portfolio's normal approximation; the outer ones are open.
BINS = 160
_STREAM = 0x6D63  # "mc": keeps these numbers apart from other kernels' with the same seed

Chunk = Annotated[int, Between(0, 1 << 40)]
Freedom = Annotated[float, Between(2.05, 1e6)]
Tail = Annotated[float, Between(0.0, 1.0)]


def _monte_carlo(recursions: Recursions, returns: Floats, weights: Floats, o: dict[str, Any]) -> dict[str, Any]:
    paths, chunk, level, ctx = o["paths"], o["chunk"], o["level"], o["ctx"]
    f = filtered(recursions, returns, o["model"], o["decay"])
    sigma = f.sigma[-1]
    root = _cholesky(_correlation(f.residuals))
    dof = None if o["shocks"] == "normal" else o["dof"] or _degrees_of_freedom(f.residuals)
    profits = np.empty(paths)
    blocks = -(-paths // BLOCK)
    done = resume_rows(ctx, profits) // BLOCK
    for block in range(done, blocks):
        begin = block * BLOCK
        keep_rows(ctx, begin, profits)
        piece = profits[begin : begin + BLOCK]
        _block(piece, philox(o["seed"], _STREAM, chunk * blocks + block), root, sigma, weights, dof)
    scale = math.sqrt(float(np.sum((root.T * (sigma * weights)).sum(axis=1) ** 2)))
    edges = np.linspace(-8 * scale, 8 * scale, BINS + 1)
    bins = np.clip(np.searchsorted(edges, profits, side="right") - 1, 0, BINS - 1)
    kept = min(paths, max(math.ceil(o["tail"] * paths), math.floor(tail_size(paths, level)) + 1))
    worst = worst_losses(profits, kept)
    var, es = tail_measures(worst, paths, level)
    return {
        "var": var,
        "es": es,
        "level": level,
        "paths": paths,
        "chunk": chunk,
        "mean": float(np.mean(profits)),
        "dof": dof,
        "worst": worst,
        "edges": edges,
        "counts": np.bincount(bins, minlength=BINS),
    }


def _block(
    profits: Floats, rng: np.random.Generator, root: Floats, sigma: Floats, weights: Floats, dof: float | None
) -> None:
    """Fills `profits` with the portfolio's profit on as many paths."""
    n, factors = len(profits), len(sigma)
    normal = rng.standard_normal((factors, n))
    stretch = None if dof is None else np.sqrt((dof - 2.0) / rng.chisquare(dof, n))
    profits[:] = 0.0
    for i in range(factors):
        move = root[i, 0] * normal[0]
        for j in range(1, i + 1):
            move += root[i, j] * normal[j]
        if stretch is not None:
            move *= stretch
        move *= sigma[i]
        np.expm1(move, out=move)
        move *= weights[i]
        profits += move


def _correlation(residuals: Floats) -> Floats:
    """Of zero-mean residuals. `einsum` sums in one order on any number of threads; a matrix product may not."""
    products = np.einsum("ti,tj->ij", residuals, residuals, optimize=False)
    size = np.sqrt(np.diag(products))
    return np.asarray(products / np.outer(size, size))


def _cholesky(correlation: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.cholesky(correlation), np.float64)
    except np.linalg.LinAlgError:
        raise ValueError(
            "the factors' correlations are not positive definite: one factor is a combination of the others, "
            "or there are fewer days than factors"
        ) from None


def _degrees_of_freedom(residuals: Floats) -> float:
    squares = residuals * residuals
    kurtosis = np.mean(np.mean(squares * squares, axis=0) / np.mean(squares, axis=0) ** 2)
    excess = float(kurtosis) - 3.0
    return min(4.0 + 6.0 / excess, 200.0) if excess > 0.03 else 200.0


@kernel("risk.monte_carlo")
def monte_carlo(
    returns: Returns,
    weights: Weights,
    *,
    paths: Paths = 100_000,
    seed: Seed = 0,
    chunk: Chunk = 0,
    shocks: Literal["t", "normal"] = "t",
    dof: Freedom | None = None,
    model: Model = "ewma",
    decay: Decay = 0.94,
    level: Level = 0.99,
    tail: Tail = 0.0,
    ctx: Context,
) -> dict[str, Any]:
    """One-day VaR and ES by Monte Carlo with Student-t (or normal) shocks, correlated as the history was.

    Chunk c of n paths holds the paths c·n to (c+1)·n − 1 of the seed's endless sequence (n a multiple of 8192), whoever
    computes it. Returns `var`, `es`, `mean`, the `worst` losses (largest first; as many as the level needs, and at
    least the share `tail` of all paths), a histogram (`edges`, `counts`), and `dof`.

    Raises:
        ValueError: a factor did not move, or is a combination of the others.
        TaskCancelled: it was cancelled; looked at every 8192 paths.
    """
    options: dict[str, Any] = {
        "paths": paths,
        "seed": seed,
        "chunk": chunk,
        "shocks": shocks,
        "dof": dof,
        "model": model,
    }
    options |= {"decay": decay, "level": level, "tail": tail, "ctx": ctx}
    return _monte_carlo(NUMPY, returns, weights, options)


@monte_carlo.memory
def _(returns: Floats, paths: int, **_: Any) -> float:
    # profits, their bins (twice) and the sorted worst; two matrices as large as the returns; a block's numbers
    return 40.0 * paths + 24.0 * returns.size + 8.0 * BLOCK * (len(returns.T) + 4)


@monte_carlo.work
def _(returns: Floats, paths: int, **_: Any) -> float:
    return float(paths * returns.shape[1] + returns.size)


@monte_carlo.implementation("numba")
def _(returns: Floats, weights: Floats, **options: Any) -> dict[str, Any]:
    return _monte_carlo(COMPILED, returns, weights, {**monte_carlo.signature.defaults, **options})


def merge(chunks: Sequence[dict[str, Any]], level: float = 0.99) -> dict[str, Any]:
    """The figures of all chunks' paths together: `var`, `es`, `paths`, `worst`, `edges`, `counts`.

    Raises:
        ValueError: the chunks kept too few of their worst losses for the answer to be exact (ask for a larger `tail`).
    """
    paths = sum(int(c["paths"]) for c in chunks)
    worst = -np.sort(-np.concatenate([c["worst"] for c in chunks]))
    # Below the smallest loss that a chunk kept, losses of that chunk may be missing from the list.
    sure = max((float(c["worst"][-1]) for c in chunks if len(c["worst"]) < c["paths"]), default=-math.inf)
    worst = worst[worst >= sure]
    var, es = tail_measures(worst, paths, level)
    counts = np.sum([c["counts"] for c in chunks], axis=0)
    return {
        "var": var,
        "es": es,
        "level": level,
        "paths": paths,
        "worst": worst,
        "edges": chunks[0]["edges"],
        "counts": counts,
    }


@monte_carlo.samples
def _(rng: np.random.Generator) -> Call:
    factors = int(rng.integers(1, 4))
    returns = 0.01 * rng.standard_t(5, (int(rng.integers(30, 200)), factors))
    return call(
        returns,
        rng.normal(0, 1, factors),
        paths=int(rng.integers(100, 20_000)),
        seed=int(rng.integers(1 << 40)),
        chunk=int(rng.integers(1 << 20)),
        shocks=("t", "normal")[int(rng.integers(2))],
    )
