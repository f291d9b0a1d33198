"""The kernels of science."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_MANY = np.zeros(200_000)
_VECTORS = np.zeros((20_000, 3))

TABLE: dict[str, Entry] = {
    "science.convolve": entry(beyond=lambda: call(_MANY, _MANY[:100])),
    "science.heat2d": entry(beyond=lambda: call(_MANY.reshape(400, 500), steps=1, dt=0.1)),
    "science.nbody": entry(beyond=lambda: call(_VECTORS, _VECTORS, np.ones(20_000), dt=0.1)),
    "science.reduce": entry(nonfinite="values", empty="values", beyond=lambda: call(np.zeros(1_100_000), op="sum")),
    "science.scan": entry(nonfinite="values", empty="values", beyond=lambda: call(_MANY)),
    "science.spmv": entry(
        nonfinite="data x",
        empty="data indices x",
        emptied=lambda: call(_MANY[:0], np.zeros(0, int), np.zeros(4, int), _MANY[:0]),
        beyond=lambda: call(_MANY, np.zeros(200_000, int), np.array([0, 200_000]), np.ones(1)),
    ),
}
