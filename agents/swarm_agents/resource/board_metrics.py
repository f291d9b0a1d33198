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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents.shm.stats import Histogram

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, BoardStats

__all__ = ["BoardMetrics", "buckets"]

#: Upper bounds: 2^10 ns to 2^36 ns.
_BOUNDS = tuple(2.0**power * 1e-9 for power in range(10, 37))
#: What members count, by any path and priority; the rest of it is among the events.
_OPERATIONS = ("submitted", "claimed", "committed", "failed", "fenced", "handed_back", "answered", "parks")
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
        depth = GaugeMetricFamily(
            "swarm_queue_depth", "Tasks that wait on the node's board", labels=["node", "priority"]
        )
        tasks = GaugeMetricFamily(
            "swarm_board_tasks",
            "Tasks on the node's board by state: writing, ready (waiting), claimed, done (not yet taken)",
            labels=["node", "priority", "state"],
        )
        for priority, states in stats.depth.items():
            depth.add_metric([self._node, priority], states["ready"])
            for state, count in states.items():
                tasks.add_metric([self._node, priority, state], count)
        yield depth
        yield tasks
        members = GaugeMetricFamily("swarm_board_members", "Members of the node's board", labels=["node", "role"])
        for role, count in Counter(str(info.role) for info in self._board.members() if info.alive).items():
            members.add_metric([self._node, role], count)
        yield members

    def _counts(self, stats: BoardStats) -> Iterator[Metric]:
        operations = CounterMetricFamily(
            "swarm_board_operations", "What the board's members have done, by kind", labels=["node", "operation"]
        )
        for name in _OPERATIONS:
            operations.add_metric([self._node, name], stats.totals[name])
        yield operations
        events = CounterMetricFamily(
            "swarm_board_events",
            "Tasks that were retried, lost (begun too often), expired, dropped (their submitter was gone), cancelled, "
            "or refused because the lane was full",
            labels=["node", "event", "priority", "path"],
        )
        for event, paths in stats.events.items():
            for path, lanes in paths.items():
                for priority, count in lanes.items():
                    if path == _LOCAL or count:
                        events.add_metric([self._node, event, priority, path], count)
        yield events

    def _durations(self, stats: BoardStats) -> Iterator[Metric]:
        for kind, text in (
            ("queued", "Seconds that tasks waited on the node's board until they were begun"),
            ("run", "Seconds from the beginning of a task to its answer"),
        ):
            family = HistogramMetricFamily(f"swarm_task_{kind}_seconds", text, labels=["node", "priority"])
            for priority, histogram in stats.latency[kind].items():
                family.add_metric([self._node, priority], buckets(histogram), histogram.seconds)
            yield family
        round_trip = HistogramMetricFamily(
            "swarm_task_round_trip_seconds",
            "Seconds from a task's submission to this board until its answer was taken, by the path it came by: "
            "local, tcp (a client), node (another node's hub), rest",
            labels=["node", "priority", "path"],
        )
        for path, lanes in stats.round_trips.items():
            for priority, histogram in lanes.items():
                if path == _LOCAL or histogram.total:
                    round_trip.add_metric([self._node, priority, path], buckets(histogram), histogram.seconds)
        yield round_trip

    def _arena(self, stats: BoardStats) -> Iterator[Metric]:
        for name, text, value in (
            ("swarm_arena_size_bytes", "Bytes of the board's arena for payloads", stats.arena_bytes),
            ("swarm_arena_used_bytes", "Bytes of the arena in use", stats.arena_used),
            ("swarm_arena_arrays", "Shared arrays in the arena", stats.arrays),
            ("swarm_arena_array_bytes", "Bytes of the arena that shared arrays take", stats.array_bytes),
            ("swarm_arena_leases", "References to shared arrays that are held", stats.leases),
            ("swarm_arena_leases_limit", "References to shared arrays that can be held", stats.most_leases),
        ):
            yield _labelled(name, text, [self._node], value)
        reclaimed = CounterMetricFamily(
            "swarm_arena_reclaimed",
            "What was freed because its holders had died: shared arrays, references to them, blocks of payloads",
            labels=["node", "what"],
        )
        for what, count in stats.reclaimed.items():
            reclaimed.add_metric([self._node, what], count)
        yield reclaimed


def _labelled(name: str, text: str, labels: Sequence[str], value: float) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["node"])
    family.add_metric(labels, value)
    return family
