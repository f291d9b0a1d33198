"""The kernels of machine learning."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_IN_PROPORTION = "what it allocates is in proportion to its arguments"
_COLUMN, _ROW = np.ones((3000, 1), np.float32), np.ones((1, 3000), np.float32)

TABLE: dict[str, Entry] = {
    "learning.dense": entry(beyond=lambda: call(_COLUMN, _ROW, _ROW[0])),
    "learning.kmeans_step": entry(beyond=_IN_PROPORTION),
    "learning.logistic_gradient": entry(beyond=_IN_PROPORTION),
}
