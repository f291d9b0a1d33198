"""What a board has to say of itself, as `GET /v1/swarm` shows it and a client's `info` returns it: plain JSON types.

Duck-typed on purpose: the wire knows no shared memory.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

__all__ = ["describe_board"]

_QUANTILES = {"p50": 0.5, "p99": 0.99}


def describe_board(board: Any) -> dict[str, Any]:
    """Members, queues, totals, latencies (upper bounds of quantiles, seconds), failovers, how full the arena is; and
    the tasks that were given up of late, with who died over them."""
    from swarm_agents.runtime.ledger import set_aside

    stats = board.stats()
    return {
        "uid": board.swarm_uid,
        "members": [_plain(info) for info in board.members()],
        "queues": stats.ready(),
        "totals": stats.totals,
        "latencySeconds": {
            kind: {
                lane: {name: _finite(histogram.quantile(q)) for name, q in _QUANTILES.items()}
                for lane, histogram in lanes.items()
                if histogram.total
            }
            for kind, lanes in stats.latency.items()
        },
        "failovers": [_plain(record) for record in stats.failovers],
        "arena": {"bytes": stats.arena_bytes, "usedBytes": stats.arena_used},
        "setAside": set_aside(board.directory),
    }


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=str)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
