"""The benchmarks' harness: what figures, ratios, tables and files say, with measurements that are made up."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Priority

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True, scope="module")
def _importable() -> Any:
    """The benchmarks are programs of their own, whose modules lie beside them."""
    added = [str(BENCHMARKS), str(BENCHMARKS / "transport")]
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)


@pytest.fixture(name="harness")
def _harness() -> Any:
    import harness

    return harness


def make_row(harness: Any, name: str = "row", better: str = "less", peer: str | None = "peer", **changes: Any) -> Any:
    return harness.Row(
        name,
        "what it is",
        changes.pop("unit", "s"),
        harness.Better(better),
        harness.Measure(Path("x.py"), changes.pop("ours", "ours")),
        harness.Measure(Path("x.py"), peer) if peer else None,
        **changes,
    )


def play(harness: Any, rows: list[Any], rounds: int, figures: dict[str, list[Any]]) -> tuple[list[Any], list[str]]:
    """Runs with made-up figures by function; what was taken, in its order."""
    order: list[str] = []
    queues = {name: iter(values) for name, values in figures.items()}

    def take(measure: Any) -> Any:
        order.append(measure.function)
        value = next(queues[measure.function])
        return value if isinstance(value, harness.Outcome) else harness.Outcome(value)

    return harness.run(rows, rounds, take), order


def test_the_median_of_the_rounds_counts_and_the_spread_shows_the_rest(harness: Any) -> None:
    figures = {"ours": [2.0, 1.0, 9.0, 3.0, 2.5], "peer": [10.0, 30.0, 20.0, 100.0, 25.0]}
    (result,), _ = play(harness, [make_row(harness, goal=10)], 5, figures)
    entry = result.as_json()
    assert entry["ours"] == 2.5
    assert entry["peer"] == 25.0
    assert entry["ratio"] == 10.0
    assert entry["rounds"] == 5
    assert entry["met"] is True
    assert entry["spread"]["ours"] == [1.0, 9.0]
    assert entry["spread"]["ratio"] == [20 / 9, 100 / 3]


@pytest.mark.parametrize(
    ("better", "ours", "peer", "ratio", "goal", "met"),
    [
        ("less", 2.0, 16.0, 8.0, 8, True),
        ("less", 2.0, 15.0, 7.5, 8, False),
        ("more", 60.0, 3.0, 20.0, 20, True),
        ("more", 3.0, 60.0, 0.05, 20, False),
        ("share", 3.0, 2.0, 1.5, 2, True),
        ("share", 5.0, 2.0, 2.5, 2, False),
    ],
)
def test_a_ratio_says_how_many_times_better_ours_is(
    harness: Any, better: str, ours: float, peer: float, ratio: float, goal: float, met: bool
) -> None:
    (result,), _ = play(harness, [make_row(harness, better=better, goal=goal)], 1, {"ours": [ours], "peer": [peer]})
    assert result.ratio == ratio
    assert result.met is met


@given(ours=st.floats(1e-9, 1e9), peer=st.floats(1e-9, 1e9), factor=st.floats(1.01, 100))
def test_being_better_always_raises_the_ratio_unless_it_is_a_share(ours: float, peer: float, factor: float) -> None:
    from harness import Better

    assert Better.LESS.ratio(ours / factor, peer) > Better.LESS.ratio(ours, peer)
    assert Better.MORE.ratio(ours * factor, peer) > Better.MORE.ratio(ours, peer)
    assert Better.SHARE.ratio(ours / factor, peer) < Better.SHARE.ratio(ours, peer)


def test_without_a_peer_the_figure_itself_is_held_against_the_goal(harness: Any) -> None:
    (result,), _ = play(harness, [make_row(harness, better="share", peer=None, goal=0.01)], 1, {"ours": [0.004]})
    entry = result.as_json()
    assert (entry["peer"], entry["ratio"], entry["met"]) == (None, 0.004, True)


def test_no_violation_at_all_meets_a_goal_of_none(harness: Any) -> None:
    (result,), _ = play(harness, [make_row(harness, better="share", peer=None, goal=0)], 1, {"ours": [0]})
    assert result.met is True


def test_sides_alternate_and_who_goes_first_alternates_too(harness: Any) -> None:
    figures = {"ours": [1.0] * 4, "peer": [1.0] * 4}
    _, order = play(harness, [make_row(harness)], 4, figures)
    assert order == ["ours", "peer", "peer", "ours"] * 2


def test_a_measurement_that_serves_two_rows_is_taken_once_a_round(harness: Any) -> None:
    rows = [
        make_row(harness, "a", peer="first"),
        make_row(harness, "b", peer="second"),
    ]
    results, order = play(harness, rows, 2, {"ours": [1.0, 3.0], "first": [2.0] * 2, "second": [4.0] * 2})
    assert order.count("ours") == 2
    assert [result.ours for result in results] == [2.0, 2.0]
    assert [result.ratio for result in results] == [1.0, 2.0]


def test_a_figure_is_taken_out_of_a_map_by_its_name(harness: Any) -> None:
    measure = harness.Measure(Path("x.py"), "ours", "b")
    row = harness.Row("row", "what", "s", harness.Better.LESS, measure)
    (result,), _ = play(harness, [row], 1, {"ours": [{"a": 1.0, "b": 2.0}]})
    assert result.ours == 2.0
    (result,), _ = play(harness, [row], 1, {"ours": [{"a": 1.0}]})
    assert "no figure 'b'" in result.errors[0]


def test_a_measurement_that_fails_costs_its_round_and_nothing_else(harness: Any) -> None:
    rows = [make_row(harness, "a", ours="bad", peer="first", goal=2), make_row(harness, "b", peer="second", goal=2)]
    failed = harness.Outcome(error="it broke\nbadly")
    figures = {"bad": [failed, 1.0, 3.0], "first": [100.0, 6.0, 6.0], "ours": [1.0] * 3, "second": [2.0] * 3}
    (broken, sound), _ = play(harness, rows, 3, figures)
    entry = broken.as_json()
    assert (entry["ours"], entry["peer"], entry["ratio"], entry["rounds"]) == (2.0, 6.0, 3.0, 2)
    assert entry["errors"] == ["round 1, ours: it broke\nbadly"]
    assert sound.as_json()["rounds"] == 3
    assert sound.errors == []


def test_a_row_that_never_worked_has_no_ratio_and_is_not_called_met(harness: Any) -> None:
    failed = harness.Outcome(error="no")
    (result,), _ = play(harness, [make_row(harness, goal=2)], 2, {"ours": [failed] * 2, "peer": [3.0] * 2})
    entry = result.as_json()
    assert (entry["ours"], entry["peer"], entry["ratio"], entry["met"], entry["rounds"]) == (None, 3.0, None, None, 0)


def test_a_missing_peer_is_asked_for_once_and_is_no_failure(harness: Any) -> None:
    missing = harness.Outcome(missing="the package ray is not installed")
    (result,), order = play(harness, [make_row(harness, goal=50)], 3, {"ours": [1.0] * 3, "peer": [missing]})
    entry = result.as_json()
    assert order.count("peer") == 1
    assert entry["notAvailable"] == "the package ray is not installed"
    assert (entry["ours"], entry["peer"], entry["ratio"], entry["met"]) == (1.0, None, None, None)
    assert result.errors == []


def test_our_own_side_missing_is_a_failure(harness: Any) -> None:
    missing = harness.Outcome(missing="the package ours is not installed")
    (result,), _ = play(harness, [make_row(harness)], 1, {"ours": [missing], "peer": [1.0]})
    assert "ours is not installed" in result.errors[0]


def test_a_measurement_may_be_taken_in_fewer_rounds_than_the_others(harness: Any) -> None:
    once = harness.Measure(Path("x.py"), "once", rounds=1)
    rows = [harness.Row("once", "what", "", harness.Better.SHARE, once), make_row(harness)]
    (rare, often), order = play(harness, rows, 3, {"once": [0], "ours": [1.0] * 3, "peer": [1.0] * 3})
    assert order.count("once") == 1
    assert (len(rare.whole), len(often.whole)) == (1, 3)


def test_rows_are_chosen_by_name_and_a_wrong_name_says_which_there_are(harness: Any) -> None:
    rows = [make_row(harness, name) for name in ("a", "b", "c")]
    assert [row.name for row in harness.choose(rows, "c,a")] == ["c", "a"]
    assert harness.choose(rows, "") == rows
    with pytest.raises(ValueError, match="nothing: no such row; there are a, b, c"):
        harness.choose(rows, "nothing")


def test_the_file_is_a_map_of_rows_with_their_figures(harness: Any, tmp_path: Path) -> None:
    results, _ = play(harness, [make_row(harness)], 1, {"ours": [0.0], "peer": [0.0]})
    harness.write_json(tmp_path / "deep" / "x.json", results, {"machine": "this one"})
    read = json.loads((tmp_path / "deep" / "x.json").read_text())
    assert set(read) == {"row"}
    assert {"ours", "peer", "ratio", "unit", "rounds"} <= set(read["row"])
    assert read["row"]["ratio"] is None  # 0/0: no number, and JSON has no NaN
    assert read["row"]["machine"] == "this one"


def test_the_table_shows_spread_goals_missing_peers_and_failures(harness: Any) -> None:
    from report import table

    rows = [
        make_row(harness, "good", ours="a", peer="b", goal=8),
        make_row(harness, "bad", ours="c", peer="d", better="more", unit="/s", goal=20),
        make_row(harness, "gone", ours="e", peer="f", goal=2),
        make_row(harness, "ill", ours="g", peer=None, better="share", unit="of a core", goal=0.01),
    ]
    figures = {
        "a": [4e-7, 5e-7],
        "b": [5e-6, 5e-6],
        "c": [1.5e6] * 2,
        "d": [1e6] * 2,
        "e": [1.0] * 2,
        "f": [harness.Outcome(missing="no wheel")],
        "g": [harness.Outcome(error="died")] * 2,
    }
    results, _ = play(harness, rows, 2, figures)
    text = table(results, {"cpu": "a test"})
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert lines["cpu:"] == "cpu: a test"
    shown = {line.split()[0]: line for line in text.splitlines() if "≥" in line or "≤" in line}
    assert "450 ns" in shown["good"]
    assert "400 ns..500 ns" in shown["good"]
    assert shown["good"].endswith("yes")
    assert "1.5 M/s" in shown["bad"]
    assert shown["bad"].endswith("NO")
    assert "not available: no wheel" in shown["gone"]
    assert shown["gone"].endswith("not measured")
    assert shown["ill"].endswith("not measured")
    assert "failed in round 1, ours: died" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.123e-7, "s", "412 ns"),
        (9.999e-7, "s", "1 µs"),
        (0.00123, "s", "1.23 ms"),
        (123456.0, "/s", "123 k/s"),
        (0.00412, "of a core", "0.00412"),
        (0, "violations", "0"),
        (None, "s", "-"),
    ],
)
def test_figures_are_written_with_three_digits_and_a_prefix(value: float | None, unit: str, text: str) -> None:
    from report import amount

    assert amount(value, unit) == text


def test_the_machine_is_named_by_what_the_kernel_shows() -> None:
    from report import machine

    facts = machine()
    assert {"cpu", "cpus", "architecture", "kernel", "governor", "cores"} <= set(facts)
    assert all(facts.values())


# -- measurements in processes of their own


def measured(tmp_path: Path, harness: Any, body: str, limit: float = 30.0) -> Any:
    file = tmp_path / "measured_thing.py"
    file.write_text(body)
    return harness.launch(harness.Measure(file, "measure", arguments='{"factor": 2}', limit=limit))


def test_a_measurement_runs_in_a_process_of_its_own_and_returns_its_figure(harness: Any, tmp_path: Path) -> None:
    body = (
        "import os\ndef measure(factor):\n    print('noise')\n    return {'figure': factor * 21, 'pid': os.getpid()}\n"
    )
    outcome = measured(tmp_path, harness, body)
    assert outcome.value["figure"] == 42
    assert outcome.value["pid"] != os.getpid()
    assert "measured_thing" not in sys.modules


def test_what_a_measurement_is_started_through_may_say_something_too(harness: Any, tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\necho starting\nexec "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "wrapped_thing.py").write_text("def measure():\n    return 7\n")
    outcome = harness.launch(harness.Measure(tmp_path / "wrapped_thing.py", "measure"), str(wrapper))
    assert outcome.value == 7


def test_what_a_measurement_raises_is_its_error(harness: Any, tmp_path: Path) -> None:
    outcome = measured(tmp_path, harness, "def measure(factor):\n    raise ValueError('no such luck')\n")
    assert not outcome.ok
    assert "no such luck" in outcome.error


def test_a_package_that_is_not_installed_is_missing_and_not_an_error(harness: Any, tmp_path: Path) -> None:
    outcome = measured(tmp_path, harness, "def measure(factor):\n    import agentswarm_no_such_peer\n")
    assert outcome.missing == "the package agentswarm_no_such_peer is not installed"
    assert not outcome.error


def test_a_measurement_that_hangs_is_ended_and_shows_where(harness: Any, tmp_path: Path) -> None:
    body = "import time\ndef stuck():\n    time.sleep(600)\ndef measure(factor):\n    stuck()\n"
    outcome = measured(tmp_path, harness, body, limit=0.5)
    assert "in stuck" in outcome.error


def test_nothing_that_a_measurement_has_started_outlives_it(harness: Any, tmp_path: Path) -> None:
    body = """
import os, subprocess, sys
def measure(factor):
    # A daemon in a session of its own, as a peer may leave one.
    child = subprocess.Popen([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"],
                             stdout=subprocess.PIPE, start_new_session=True)
    return int(child.stdout.readline())
"""
    outcome = measured(tmp_path, harness, body)
    until = time.monotonic() + 10
    while Path(f"/proc/{outcome.value}").exists():
        assert time.monotonic() < until, "the daemon still runs"
        time.sleep(0.01)


# -- the rows of the data plane's bench


def test_the_transport_bench_has_the_rows_that_are_asked_for_with_their_goals() -> None:
    from transport import bench

    goals = {row.name: row.goal for row in bench.ROWS if row.goal is not None}
    assert goals == {
        "latency_vs_iceoryx2": 8,
        "latency_vs_pyzmq_ipc": 50,
        "latency_vs_c11": 0.67,
        "stream_vs_pyzmq_ipc": 20,
        "stream_single_vs_pyzmq_ipc": 2,
        "task_rtt_vs_ray_actor": 50,
        "tasks_per_s_vs_ray": 50,
        "tasks_per_s_vs_dask": 50,
        "priority_p99": 2,
        "parked_cpu": 0.01,
        "array_1MiB_vs_pyzmq_ipc": 20,
        "crossnode_vs_pyzmq_tcp": 0.7,
        "litmus": 0,
    }
    assert len({row.name for row in bench.ROWS}) == len(bench.ROWS)


def test_every_function_that_a_row_measures_by_is_there() -> None:
    from transport import bench

    for row in bench.ROWS:
        for side in (row.ours, row.peer):
            if side is not None:
                assert f"def {side.function}(" in side.file.read_text(), f"{row.name}: {side.file.name} {side.function}"


def test_the_flood_of_the_priority_bench_leaves_out_the_critical_lane_alone() -> None:
    import ours_priority

    assert len(Priority) - 1 == ours_priority._LANES
    assert Priority.CRITICAL.lane == 0
