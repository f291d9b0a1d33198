"""The kernels of finance. (`finance.monte_carlo_path` takes numbers alone, and works in blocks of fixed size.)"""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_N = 20_000

TABLE: dict[str, Entry] = {
    "finance.black_scholes": entry(
        empty="spot strike maturity rate sigma",
        beyond=lambda: call(*(np.broadcast_to(np.ones(1), (_N,)).copy() for _ in range(5))),
    ),
    "finance.var_es": entry(beyond=lambda: call(np.arange(100_000.0))),
}
