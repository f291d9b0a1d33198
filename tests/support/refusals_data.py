"""The kernels of databases and networks."""

from __future__ import annotations

import numpy as np

from support.refusals import Entry, entry
from swarm_agents.compute.registry import call

__all__ = ["TABLE"]

_IN_PROPORTION = "what it allocates is in proportion to its arguments"

_SAME = np.zeros(1000, np.int64)

TABLE: dict[str, Entry] = {
    "data.hash_join": entry(
        empty="left right", beyond=lambda: call(np.zeros(1000, np.int64), np.zeros(1000, np.int64))
    ),
    "data.group_by": entry(empty="keys values", beyond=_IN_PROPORTION),
    "net.checksum": entry(beyond=_IN_PROPORTION),
    "net.parse_headers": entry(beyond=_IN_PROPORTION),
}
