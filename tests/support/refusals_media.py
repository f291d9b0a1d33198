"""The kernels of streams and media."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_IN_PROPORTION = "what it allocates is in proportion to its arguments"

TABLE: dict[str, Entry] = {
    "media.fir_bank": entry(empty="history", beyond=lambda: call(np.ones(3000), np.ones((3000, 1)))),
    "media.window_stats": entry(beyond=_IN_PROPORTION),
    "media.dct8": entry(beyond=_IN_PROPORTION),
}
