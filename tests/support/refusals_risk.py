"""The kernels of market risk, and the hash tree."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_RETURNS = np.random.default_rng(1).normal(0, 0.01, (60, 2))
_WEIGHTS = np.array([1.0, -0.5])
_IN_PROPORTION = "what it allocates is in proportion to its arguments"

TABLE: dict[str, Entry] = {
    "risk.backtest": entry(beyond=_IN_PROPORTION),
    "risk.backtest_window": entry(beyond=_IN_PROPORTION),
    "risk.bootstrap": entry(beyond=lambda: call(_RETURNS[:, 0].copy(), resamples=10_000_000)),
    "risk.ewma_volatility": entry(beyond=_IN_PROPORTION),
    "risk.filtered_historical": entry(beyond=_IN_PROPORTION),
    "risk.garch_fit": entry(beyond=_IN_PROPORTION),
    "risk.loss_tail": entry(beyond=_IN_PROPORTION),
    "risk.monte_carlo": entry(beyond=lambda: call(_RETURNS, _WEIGHTS, paths=1 << 25)),
    "risk.what_if": entry(beyond=_IN_PROPORTION),
    "hash.sha256_tree": entry(empty="data", beyond=_IN_PROPORTION),
}
