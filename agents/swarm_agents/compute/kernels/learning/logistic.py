"""The loss of logistic regression on a shard and its gradient: what a data-parallel training loop maps and adds up.

With z = features·weights + bias, the loss of a sample is log(1 + exp(z)) − y·z, and its derivative by z is σ(z) − y
(T. Hastie, R. Tibshirani and J. Friedman, The Elements of Statistical Learning, 2nd ed. 2009, section 4.4.1). Neither
is computed so as written: exp(z) overflows from z = 710 on, so both use exp(−|z|), which can't (as in M. Mächler,
Accurately computing log(1 − exp(−|a|)), 2012).

NumPy reads the features twice, once for z and once for the gradient; the compiled one does both while a row is in the
cache.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["logistic_gradient"]

Floats = NDArray[np.float64]
_NUMBER = Between(-1e300, 1e300)


def _check(labels: Floats) -> None:
    wrong = np.flatnonzero((labels < 0.0) | (labels > 1.0))
    if wrong.size:
        raise BadArguments(
            f"kernel learning.logistic_gradient argument 'labels' must lie between 0 and 1: "
            f"got {labels[wrong[0]]} at index {wrong[0]}"
        )


@kernel("learning.logistic_gradient")
def logistic_gradient(
    features: Annotated[Floats, Dims("n", "features"), Finite()],
    labels: Annotated[Floats, Dims("n"), Finite()],
    weights: Annotated[Floats, Dims("features"), Finite()],
    bias: Annotated[float, _NUMBER] = 0.0,
) -> dict[str, Any]:
    """Logistic regression on a shard, summed: `gradient` [features], `bias` (its derivative), `loss`, `count`.

    Labels are 0 or 1, or probabilities between. All four add up over shards; divide by `count` for means.
    Regularisation belongs to the loop: it is of the weights and not of a shard. Products of features and weights that
    pass 1e308 give infinities or NaN.

    Raises:
        BadArguments: a label is below 0 or above 1.
    """
    _check(labels)
    with np.errstate(over="ignore", invalid="ignore"):
        z = features @ weights + bias
        small = np.exp(-np.abs(z))
        loss = np.maximum(z, 0.0) - labels * z + np.log1p(small)
        error = np.where(z >= 0, 1.0, small) / (1.0 + small) - labels
        gradient = error @ features
    return {
        "gradient": gradient,
        "bias": float(error.sum()),
        "loss": float(loss.sum()),
        "count": len(labels),
    }


@logistic_gradient.memory
def _(features: Any, **_: Any) -> float:
    return float(8.0 * features.size + 64.0 * len(features))


@logistic_gradient.samples
def _(rng: np.random.Generator) -> Call:
    n, features = int(rng.integers(1, 500)), int(rng.integers(1, 40))
    return call(
        rng.normal(size=(n, features)),
        (rng.random(n) < 0.5).astype(float) if rng.random() < 0.5 else rng.random(n),
        rng.normal(0, 4, features),
        bias=float(rng.normal()),
    )


@logistic_gradient.implementation("threads", parallel=True, tolerance=1e-7, default=False)
def _(features: Floats, labels: Floats, weights: Floats, bias: float = 0.0) -> dict[str, Any]:
    from swarm_agents.compute.kernels.learning import jit

    _check(labels)

    def part(begin: int, end: int) -> Floats:
        sums: Floats = jit.logistic(features[begin:end], labels[begin:end], weights, bias)
        return sums

    parts = team.run(part, team.pieces(len(labels), least=1 + 65536 // len(weights)))
    return _named(np.sum(parts, axis=0), len(labels))


@logistic_gradient.implementation("numba", tolerance=1e-7)
def _(features: Floats, labels: Floats, weights: Floats, bias: float = 0.0) -> dict[str, Any]:
    from swarm_agents.compute.kernels.learning import jit

    _check(labels)
    return _named(jit.logistic(features, labels, weights, bias), len(labels))


def _named(sums: Floats, count: int) -> dict[str, Any]:
    """`sums`: the gradient, then the bias's derivative and the loss."""
    return {"gradient": sums[:-2].copy(), "bias": float(sums[-2]), "loss": float(sums[-1]), "count": count}
