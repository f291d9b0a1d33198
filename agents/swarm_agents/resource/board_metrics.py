"""The node's board for Prometheus: read from shared memory when somebody asks, by the node's resource agent alone.

The board counts for all its members, so one of them exports it, and no sum over pods counts a task twice; what an agent
knows of itself (`swarm_tasks_total`, `swarm_task_seconds`, …) its own pod exports. The label `node` says whose board it
is. Nothing is kept here: a resource agent that was replaced goes on with the board's numbers, which never fall as long
as the board is there.

Histograms have a bucket an octave from about a microsecond to about a minute. The board has twice as many, which would
be more series than they are worth. The paths other than `local` appear once a task has come by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents.resource.exported import BOARD, MEMBERS, OPERATIONS
from swarm_agents.shm.stats import Histogram

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, BoardStats

__all__ = ["BoardMetrics", "buckets"]

#: Upper bounds: 2^10 ns to 2^36 ns.
_BOUNDS = tuple(2.0**power * 1e-9 for power in range(10, 37))
_LOCAL = "local"


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts as Prometheus wants them: upper bound in seconds, and how many were not above it."""
    left = list(zip(Histogram.bounds(), histogram.counts, strict=True))
    found, reached, at = [], 0, 0
    for bound in _BOUNDS:
        while left[at][0] <= bound * (1 + 1e-9):
            reached += left[at][1]
            at += 1
        found.append((f"{bound:.4g}", float(reached)))
    return [*found, ("+Inf", float(histogram.total))]


class BoardMetrics(Collector):
    """See the module's text."""

    def __init__(self, board: Board, node: str) -> None:
        self._board = board
        self._node = node

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        stats = self._board.stats()
        yield from self._depths(stats)
        yield from self._counts(stats)
        yield from self._durations(stats)
        yield from self._arena(stats)

    def _depths(self, stats: BoardStats) -> Iterator[Metric]:
        node = self._node
        yield BOARD["swarm_queue_depth"].gauge(
            *(((node, priority), states["ready"]) for priority, states in stats.depth.items())
        )
        yield BOARD["swarm_board_tasks"].gauge(
            *(
                ((node, priority, state), count)
                for priority, states in stats.depth.items()
                for state, count in states.items()
            )
        )
        present = Counter(str(info.role) for info in self._board.members() if info.alive)
        yield BOARD["swarm_board_members"].gauge(*(((node, role), present[role]) for role in MEMBERS))

    def _counts(self, stats: BoardStats) -> Iterator[Metric]:
        node = self._node
        yield BOARD["swarm_board_operations"].counter(*(((node, name), stats.totals[name]) for name in OPERATIONS))
        yield BOARD["swarm_board_events"].counter(
            *(
                ((node, event, priority, path), count)
                for event, paths in stats.events.items()
                for path, lanes in paths.items()
                for priority, count in lanes.items()
                if path == _LOCAL or count
            )
        )

    def _durations(self, stats: BoardStats) -> Iterator[Metric]:
        node = self._node
        for kind in ("queued", "run"):
            yield BOARD[f"swarm_task_{kind}_seconds"].histogram(
                *(
                    ((node, priority), buckets(histogram), histogram.seconds)
                    for priority, histogram in stats.latency[kind].items()
                )
            )
        yield BOARD["swarm_task_round_trip_seconds"].histogram(
            *(
                ((node, priority, path), buckets(histogram), histogram.seconds)
                for path, lanes in stats.round_trips.items()
                for priority, histogram in lanes.items()
                if path == _LOCAL or histogram.total
            )
        )

    def _arena(self, stats: BoardStats) -> Iterator[Metric]:
        for name, value in (
            ("swarm_arena_size_bytes", stats.arena_bytes),
            ("swarm_arena_used_bytes", stats.arena_used),
            ("swarm_arena_arrays", stats.arrays),
            ("swarm_arena_array_bytes", stats.array_bytes),
            ("swarm_arena_leases", stats.leases),
            ("swarm_arena_leases_limit", stats.most_leases),
        ):
            yield BOARD[name].gauge(((self._node,), value))
        reclaimed = (((self._node, what), count) for what, count in stats.reclaimed.items())
        yield BOARD["swarm_arena_reclaimed"].counter(*reclaimed)
