"""The rows of action: critical latency under overload against idle, and a batch with a slow worker against the ideal.

The other side of both rows is no peer but what the same measurement says is the best that there is: the latency on the
idle node, and the time that the batch takes if nobody waits.
"""

from __future__ import annotations

from pathlib import Path

from harness import Better, Measure, Row

__all__ = ["ROWS"]

_FILE = Path(__file__).with_name("ours_action.py")

ROWS: tuple[Row, ...] = (
    Row(
        "overload_critical_p99",
        "99th percentile of critical work's latency (tasks of 20 ms, two agents) at three times the load that the node "
        "can carry, half of it normal, half bulk: against the idle node",
        "ms",
        Better.SHARE,
        Measure(_FILE, "critical", "overloaded", limit=180, rounds=3),
        Measure(_FILE, "critical", "idle", limit=180, rounds=3),
        goal=3,
        scale=1e3,
        also=("overloaded_p50", "idle_p50", "samples", "offered", "answered", "shed", "full", "times_overloaded"),
    ),
    Row(
        "makespan_slow_worker",
        "120 tasks of 50 ms on four agents, one of which is four times slower: against what they take at best",
        "s",
        Better.SHARE,
        Measure(_FILE, "makespan", "ours", limit=120),
        Measure(_FILE, "makespan", "ideal", limit=120),
        goal=1.15,
        also=("of_the_slow", "tasks"),
    ),
)
