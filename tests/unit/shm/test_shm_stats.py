"""The board's statistics: what is counted where, by priority and path, and what Prometheus is told of it."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.shm import forked, make_board, make_port, make_worker
from swarm_agents.config import Priority
from swarm_agents.errors import SwarmError, SwarmFull
from swarm_agents.resource.board_metrics import BoardMetrics, buckets
from swarm_agents.shm import tally
from swarm_agents.shm.board import Board, Member, Port, Worker
from swarm_agents.shm.layout import EVENT_NAMES, H_PAGE_BYTES, HIST_BUCKETS, HIST_ROUND_TRIP, HIST_RUN, PATHS
from swarm_agents.shm.stats import Histogram

LANES = [str(priority) for priority in Priority]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path)


def serve(worker: Worker, count: int = 1) -> None:
    for _ in range(count):
        claim = worker.claim(5.0)
        assert claim is not None
        worker.commit(claim, None)


def take(port: Port, count: int = 1) -> None:
    taken = 0
    while taken < count:
        assert port.wait(5.0)
        taken += len(port.poll())


@pytest.fixture
def pair(board: Board) -> Iterator[tuple[Port, Worker]]:
    client, port = make_port(board)
    agent, worker = make_worker(board)
    yield port, worker
    board.leave(client)
    board.leave(agent)


# -- what is counted


def test_round_trips_are_counted_by_the_path_and_the_priority_of_their_task(
    board: Board, pair: tuple[Port, Worker]
) -> None:
    port, worker = pair
    expected = {path: dict.fromkeys(LANES, 0) for path in PATHS}
    for number, path in enumerate(PATHS):
        for lane in Priority:
            port.path = path
            for _ in range(1 + number + lane.lane):
                port.submit("core.noop", priority=lane)
                serve(worker)
                take(port)
                expected[path][str(lane)] += 1
    stats = board.stats()
    counted = {path: {lane: h.total for lane, h in lanes.items()} for path, lanes in stats.round_trips.items()}
    assert counted == expected
    for lane in LANES:
        together = sum(expected[path][lane] for path in PATHS)
        assert {kind: stats.latency[kind][lane].total for kind in stats.latency} == {
            "queued": together,
            "run": together,
            "round_trip": together,
        }


def test_a_task_keeps_its_path_when_the_port_goes_on_to_another(board: Board, pair: tuple[Port, Worker]) -> None:
    port, worker = pair
    port.path = "rest"
    port.submit("core.noop")
    port.path = "node"
    port.submit("core.noop")
    serve(worker, 2)
    take(port, 2)
    assert {path: lanes["normal"].total for path, lanes in board.stats().round_trips.items()} == {
        "local": 0,
        "tcp": 0,
        "node": 1,
        "rest": 1,
    }


def test_a_path_that_nobody_knows_is_refused(pair: tuple[Port, Worker]) -> None:
    with pytest.raises(ValueError, match="carrier pigeon"):
        pair[0].path = "carrier pigeon"
    assert pair[0].path == "local"


def test_what_is_refused_cancelled_or_too_late_is_counted_by_path_and_priority(
    board: Board, pair: tuple[Port, Worker]
) -> None:
    port, worker = pair
    port.path = "tcp"
    with pytest.raises(SwarmFull):
        flood(port, Priority.BULK)
    port.path = "rest"
    assert port.cancel(port.submit("core.noop", priority=Priority.HIGH))
    port.path = "node"
    port.submit("core.noop", priority=Priority.CRITICAL, deadline=time.time() - 1)
    assert worker.claim(0.0, lanes=(0, 0)) is None
    assert nonzero(board) == {
        ("full", "tcp", "bulk"): 1,
        ("cancelled", "rest", "high"): 1,
        ("expired", "node", "critical"): 1,
    }


def flood(port: Port, priority: Priority) -> None:
    """Submits more than a lane holds."""
    for _ in range(65):
        port.submit("core.noop", priority=priority)


def nonzero(board: Board) -> dict[tuple[str, str, str], int]:
    return {
        (event, path, lane): count
        for event, paths in board.stats().events.items()
        for path, lanes in paths.items()
        for lane, count in lanes.items()
        if count
    }


def test_what_the_dead_leave_behind_is_counted_by_path_and_priority(board: Board) -> None:
    board.max_attempts = 2
    client, port = make_port(board)
    port.path = "tcp"
    port.submit("core.noop", priority=Priority.HIGH)
    for name in ("a", "b"):
        agent, worker = make_worker(board, f"swarm-compute-{name}")
        assert worker.claim(1.0) is not None
        board.declare_dead(agent.index, agent.epoch)
    assert nonzero(board) == {("retried", "tcp", "high"): 2, ("lost", "tcp", "high"): 1}
    port.path = "node"
    port.submit("core.noop", priority=Priority.BULK)
    board.declare_dead(client.index, client.epoch)
    assert nonzero(board)["dropped", "node", "bulk"] == 1
    totals = board.stats().totals
    assert {name: totals[name] for name in ("retried", "lost", "expired", "dropped")} == {
        "retried": 2,
        "lost": 1,
        "expired": 0,
        "dropped": 1,
    }


def test_who_takes_a_place_over_goes_on_counting_where_the_last_one_ended(board: Board) -> None:
    keeper = board.join("keeper", "resource")
    index = set()
    for _ in range(3):
        client, port = make_port(board)
        agent, worker = make_worker(board)
        port.submit("core.noop")
        serve(worker)
        take(port)
        index.add((client.index, agent.index))
        board.leave(client)
        board.leave(agent)
    assert len(index) == 1  # the same two places each time
    stats = board.stats()
    assert stats.latency["run"]["normal"].total == 3
    assert stats.totals["committed"] == 3
    board.leave(keeper)


# -- histograms


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Board, Member]]:
    board = make_board(tmp_path_factory.mktemp("stats"))
    member = board.join("one", "client")
    yield board, member
    board.leave(member)


@settings(max_examples=60, deadline=None)
@given(nanos=st.lists(st.one_of(st.integers(0, 1 << 12), st.integers(0, 1 << 44)), max_size=20))
def test_a_duration_falls_into_the_bucket_that_holds_it_and_the_sum_is_exact(
    counted: tuple[Board, Member], nanos: list[int]
) -> None:
    board, member = counted
    before = board.stats().latency["run"]["high"]
    for duration in nanos:
        tally.record(board.mapping.base, member.index, Priority.HIGH.lane, HIST_RUN, duration)
    after = board.stats().latency["run"]["high"]
    fresh = after - before
    assert fresh.total == len(nanos)
    assert math.isclose(after.seconds, before.seconds + sum(nanos) * 1e-9, rel_tol=1e-12, abs_tol=1e-12)
    ends = [round(bound * 1e9) for bound in Histogram.bounds()[:-1]]
    expected = [0] * HIST_BUCKETS
    for duration in nanos:
        # A bucket holds what is below its bound: whoever reads it may say so of every one in it.
        expected[sum(duration >= end for end in ends)] += 1
    assert list(fresh.counts) == expected


def test_bounds_rise_by_at_most_half_and_two_buckets_make_an_octave() -> None:
    bounds = Histogram.bounds()
    assert len(bounds) == HIST_BUCKETS
    assert bounds[0] == 128e-9
    assert math.isinf(bounds[-1])
    assert all(1.3 < b / a < 1.51 for a, b in itertools.pairwise(bounds[:-1]))
    assert all(math.isclose(b / a, 2) for a, b in zip(bounds, bounds[2:-1], strict=False))


@given(
    counts=st.lists(st.integers(0, 50), min_size=HIST_BUCKETS, max_size=HIST_BUCKETS),
    more=st.lists(st.integers(0, 50), min_size=HIST_BUCKETS, max_size=HIST_BUCKETS),
)
def test_what_is_added_can_be_taken_away_again(counts: list[int], more: list[int]) -> None:
    one, other = Histogram(tuple(counts), 2.0), Histogram(tuple(more), 3.0)
    assert (one + other) - other == one
    assert (one + other).total == one.total + other.total


@given(counts=st.lists(st.integers(0, 50), min_size=HIST_BUCKETS, max_size=HIST_BUCKETS))
def test_exported_buckets_are_cumulative_and_end_with_all(counts: list[int]) -> None:
    found = buckets(Histogram(tuple(counts), 1.0))
    assert [name for name, _ in found][-1] == "+Inf"
    assert found[-1][1] == sum(counts)
    values = [count for _, count in found]
    assert values == sorted(values)
    bounds = Histogram.bounds()
    for name, count in found[:-1]:
        exact = 2.0 ** round(math.log2(float(name) * 1e9)) * 1e-9
        assert math.isclose(float(name), exact, rel_tol=1e-3)
        assert count == sum(n for n, bound in zip(counts, bounds, strict=True) if bound <= exact * 1.0001)


# -- what Prometheus is told


def exported(board: Board) -> dict[str, Metric]:
    registry = CollectorRegistry()
    registry.register(BoardMetrics(board, "node-0"))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert len({family.name for family in families}) == len(families), "a name is exported twice"
    return {family.name: family for family in families}


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    (found,) = [
        sample.value
        for sample in family.samples
        if sample.name == family.name + suffix and {"node": "node-0", **labels} == sample.labels
    ]
    return float(found)


def test_the_board_is_exported_with_its_counts_and_durations(board: Board, pair: tuple[Port, Worker]) -> None:
    port, worker = pair
    for _ in range(3):
        port.submit("core.noop", priority=Priority.HIGH)
    serve(worker, 2)
    take(port, 2)
    port.path = "tcp"
    port.submit("core.noop", priority=Priority.CRITICAL)
    serve(worker)
    take(port)
    stats, families = board.stats(), exported(board)
    assert value(families["swarm_queue_depth"], priority="high") == 1
    assert value(families["swarm_board_tasks"], priority="high", state="ready") == 1
    assert value(families["swarm_board_members"], kind="compute") == 1
    operations = families["swarm_board_operations"]
    assert value(operations, "_total", operation="submitted") == 4
    assert value(operations, "_total", operation="committed") == 3
    trips = families["swarm_task_round_trip_seconds"]
    assert value(trips, "_count", priority="high", path="local") == 2
    assert value(trips, "_count", priority="critical", path="tcp") == 1
    assert value(trips, "_count", priority="critical", path="local") == 0
    assert value(trips, "_bucket", priority="high", path="local", le="+Inf") == 2
    seconds = stats.round_trips["local"]["high"].seconds
    assert seconds > 0
    assert math.isclose(value(trips, "_sum", priority="high", path="local"), seconds)
    assert value(families["swarm_task_queued_seconds"], "_count", priority="high") == 2
    assert value(families["swarm_task_run_seconds"], "_count", priority="critical") == 1
    assert value(families["swarm_arena_size_bytes"]) == stats.arena_bytes


def test_events_are_exported_by_priority_and_path_and_are_there_before_the_first(
    board: Board, pair: tuple[Port, Worker]
) -> None:
    port, _ = pair
    events = exported(board)["swarm_board_events"]
    for event in EVENT_NAMES:
        assert value(events, "_total", event=event, priority="bulk", path="local") == 0
    port.path = "rest"
    assert port.cancel(port.submit("core.noop", priority=Priority.BULK))
    events = exported(board)["swarm_board_events"]
    assert value(events, "_total", event="cancelled", priority="bulk", path="rest") == 1


def test_names_units_and_histograms_are_as_prometheus_wants_them(board: Board, pair: tuple[Port, Worker]) -> None:
    port, worker = pair
    port.submit("core.noop")
    serve(worker)
    take(port)
    for name, family in exported(board).items():
        assert re.fullmatch(r"swarm_[a-z][a-z0-9_]*", name), name
        assert family.documentation
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), f"{name}: a reserved suffix"
        assert not re.search(r"_(milli|micro|nano)?seconds_|_(ms|us|ns|kb|mb|percent)$", name), f"{name}: base units"
        assert family.type in ("counter", "gauge", "histogram")
        labels = {label for sample in family.samples for label in sample.labels}
        assert not labels & {family.type, "job", "instance"}
        assert "node" in labels
        if family.type == "histogram":
            assert name.endswith("_seconds")
            check_histogram(family)


def check_histogram(family: Metric) -> None:
    """Every series of it: buckets rise with their bounds, and the last one is the count."""
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            labels = dict(sample.labels)
            bound = float(labels.pop("le"))
            series.setdefault(tuple(sorted(labels.items())), []).append((bound, sample.value))
    assert series
    for labels, pairs in series.items():
        assert pairs == sorted(pairs)
        assert len({bound for bound, _ in pairs}) == len(pairs)
        assert pairs[-1] == (math.inf, value(family, "_count", **{k: v for k, v in labels if k != "node"}))


def test_reading_the_statistics_changes_nothing(board: Board, pair: tuple[Port, Worker]) -> None:
    port, worker = pair
    port.submit("core.noop")
    serve(worker)
    take(port)
    before = board.stats()
    exported(board)
    assert board.stats() == before


def test_shared_arrays_are_exported_and_what_is_reclaimed_of_the_dead_is_counted(board: Board) -> None:
    keeper = board.join("keeper", "client")
    arena = board.arena(keeper)
    kept = [arena.put(np.zeros(shape)) for shape in (10, 3000)]

    def labelled(name: str, **labels: str) -> float:
        return value(exported(board)[name], "_total" if labels else "", **labels)

    assert labelled("swarm_arena_arrays") == 2
    assert labelled("swarm_arena_leases") == 2
    page = board.words[H_PAGE_BYTES]
    assert labelled("swarm_arena_array_bytes") == page * (1 + -(-24_000 // page))
    assert labelled("swarm_arena_reclaimed", what="arrays") == 0

    def hold_and_die() -> None:
        member, port = make_port(board, "doomed")
        held = board.arena(member).put(np.ones(5000))
        port.submit("core.noop", (np.zeros(20_000),))
        assert held.size
        os.kill(os.getpid(), signal.SIGKILL)

    with forked(hold_and_die) as child:
        child.wait()
    assert labelled("swarm_arena_arrays") == 3
    board.reap()
    board.sweep()
    assert labelled("swarm_arena_arrays") == 2
    assert labelled("swarm_arena_reclaimed", what="arrays") == 1
    assert labelled("swarm_arena_reclaimed", what="leases") == 1
    assert labelled("swarm_arena_reclaimed", what="blocks") >= 1
    del kept
    assert labelled("swarm_arena_array_bytes") == 0
    board.leave(keeper)


def test_kinds_of_round_trips_follow_each_other_in_the_order_of_the_paths(board: Board) -> None:
    member = board.join("one", "client")
    for number, path in enumerate(PATHS):
        tally.record(board.mapping.base, member.index, 0, HIST_ROUND_TRIP + number, 1_000)
        assert board.stats().round_trips[path]["critical"].total == 1
    board.leave(member)


def test_an_error_is_an_answer_like_any_other(board: Board, pair: tuple[Port, Worker]) -> None:
    port, worker = pair
    port.submit("core.noop")
    claim = worker.claim(5.0)
    assert claim is not None
    worker.fail(claim, SwarmError("no"))
    take(port)
    stats = board.stats()
    assert (stats.totals["committed"], stats.totals["failed"]) == (1, 1)
    assert stats.round_trips["local"]["normal"].total == 1
