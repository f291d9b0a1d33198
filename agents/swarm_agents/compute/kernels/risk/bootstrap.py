"""How far VaR and ES could have come out otherwise: the bootstrap of a set of scenarios.

Resamples the scenarios with replacement and measures each resample (B. Efron, Bootstrap methods, Ann. Statist. 7
(1979); for VaR and ES with filtered residuals: P. Christoffersen and S. Gonçalves, Estimation risk in financial risk
management, J. Risk 7(3) (2005), here without fitting the volatilities anew). Resample number i has random numbers of
its own, so chunks that any agents computed are exactly the resamples of one long run.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np

from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.risk.tail import tail_measures, tail_size, worst_losses
from swarm_agents.compute.kernels.risk.types import Level, Losses, Seed, keep_rows, philox, resume_rows
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between

__all__ = ["bootstrap"]

_STREAM = 0x6273  # "bs"


@kernel("risk.bootstrap")
def bootstrap(
    profits: Losses,
    *,
    resamples: Annotated[int, Between(1, 10_000_000)] = 1000,
    seed: Seed = 0,
    chunk: Annotated[int, Between(0, 1 << 40)] = 0,
    level: Level = 0.99,
    ctx: Context,
) -> dict[str, Any]:
    """VaR and ES of resampled scenarios: arrays `var` and `es` [resamples], numbers chunk·resamples and up.

    Raises:
        TaskCancelled: it was cancelled; looked at between resamples.
    """
    n = len(profits)
    kept = math.floor(tail_size(n, level)) + 1
    var, es = np.empty(resamples), np.empty(resamples)
    for i in range(resume_rows(ctx, var, es), resamples):
        keep_rows(ctx, i, var, es)
        rng = philox(seed, _STREAM, chunk * resamples + i)
        resample = profits[rng.integers(0, n, n, dtype=np.int64)]
        var[i], es[i] = tail_measures(worst_losses(resample, kept), n, level)
    return {"var": var, "es": es, "level": level, "chunk": chunk}


@bootstrap.memory
def _(profits: Losses, resamples: int, **_: Any) -> float:
    return 16.0 * resamples + 32.0 * len(profits)


@bootstrap.samples
def _(rng: np.random.Generator) -> Call:
    return call(
        rng.standard_t(4, int(rng.integers(1, 600))),
        resamples=int(rng.integers(1, 20)),
        seed=int(rng.integers(1 << 30)),
    )
