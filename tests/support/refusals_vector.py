"""The kernels of vectors and matrices."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_MANY = np.zeros(200_000)

TABLE: dict[str, Entry] = {
    "vector.chain": entry(nonfinite="x y", empty="x y", beyond=lambda: call(_MANY, _MANY)),
    "vector.gemm": entry(nonfinite="a b", empty="a b", beyond=lambda: call(np.zeros((400, 1)), np.zeros((1, 500)))),
    "vector.triad": entry(nonfinite="b c", empty="b c", beyond=lambda: call(_MANY, _MANY, 2.0)),
}
