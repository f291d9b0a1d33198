"""What the failover benchmark counts by: records of executions, quantiles, and rows that are named as they are read."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FAILOVER = BENCHMARKS / "failover"


@pytest.fixture(autouse=True, scope="module")
def _importable() -> Any:
    """The benchmarks are programs of their own, whose modules lie beside them."""
    added, before = [str(FAILOVER), str(BENCHMARKS), str(BENCHMARKS / "transport")], set(sys.modules)
    sys.path[:0] = added
    yield
    for path in added:
        sys.path.remove(path)
    for name in ("bench", *(module.stem for module in FAILOVER.glob("*.py"))):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.fixture(name="rows")
def _rows() -> dict[str, Any]:
    import bench

    return {row.name: row for row in bench.rows(10.0)}


GOALS = {
    "kill_to_resumed_p99_s": 0.05,
    "kill_vs_ray_actor": 10,
    "hang_to_resumed_p99_s": 1.0,
    "crossnode_to_resumed_p99_s": 1.0,
    "hub_loss_longest_gap_s": 0.05,
    "hub_loss_longest_gap_remote_s": 1.0,
    "agent_replaced_p99_s": 0.1,
    "lost": 0,
    "doubled": 0,
    "false_deaths": 0,
    "checkpoint_overhead": 0.02,
}


def test_all_that_is_promised_of_failover_has_a_row_with_its_goal(rows: dict[str, Any]) -> None:
    assert {name: rows[name].goal for name in GOALS} == GOALS
    assert [name for name, row in rows.items() if row.peer is not None] == ["kill_vs_ray_actor"]
    assert all("no peer" in rows[name].what for name in GOALS if name != "kill_vs_ray_actor")


def test_every_measurement_is_a_function_that_takes_the_arguments_of_its_row(rows: dict[str, Any]) -> None:
    for row in rows.values():
        for measure in (row.ours, row.peer):
            if measure is not None:
                function = getattr(importlib.import_module(measure.file.stem), measure.function)
                inspect.signature(function).bind(**json.loads(measure.arguments))


def test_the_overload_lasts_as_long_as_was_asked_and_has_time_to_end() -> None:
    import bench

    row = next(row for row in bench.rows(1.5) if row.name == "false_deaths")
    assert json.loads(row.ours.arguments) == {"minutes": 1.5}
    assert row.ours.limit > 90
    assert "1.5 minutes" in row.what


@pytest.mark.parametrize(
    ("count", "p99", "p50"), [(1, 1, 1), (2, 2, 1), (99, 99, 50), (100, 99, 50), (101, 100, 51), (120, 119, 60)]
)
def test_quantiles_are_samples_and_never_lie_between_two(count: int, p99: int, p50: int) -> None:
    from figures import summary

    said = summary([float(n) for n in range(count, 0, -1)])
    assert said == {"p99": p99, "p50": p50, "worst": count, "samples": count}


def test_no_samples_have_no_quantile() -> None:
    from figures import quantile

    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)


def test_a_task_leaves_a_mark_each_time_that_it_is_begun(tmp_path: Path) -> None:
    from marks import Marks, work

    path = tmp_path / "marks"
    marks = Marks(path)
    assert marks.fresh() == []
    first = work(str(path), 7, 0.0)
    work(str(path), 8, 0.0)
    work(str(path), 7, 0.0)
    assert [mark.task for mark in marks.fresh()] == [7, 8, 7]
    assert marks.fresh() == []
    assert first[:2] == [7, os.getpid()]
    assert [mark.at for mark in marks.all()] == sorted(mark.at for mark in marks.all())


def test_a_record_that_is_half_there_is_read_when_it_is_whole(tmp_path: Path) -> None:
    from marks import Marks, work

    path = tmp_path / "marks"
    work(str(path), 1, 0.0)
    whole = path.read_bytes()
    marks = Marks(path)
    path.write_bytes(whole + whole[:10])
    assert len(marks.fresh()) == 1
    path.write_bytes(whole + whole)
    assert len(marks.fresh()) == 1


def test_only_another_process_counts_as_one_that_has_resumed_the_task(tmp_path: Path) -> None:
    from marks import Marks, work

    path = tmp_path / "marks"
    work(str(path), 3, 0.0)
    with pytest.raises(TimeoutError, match="task 3"):
        Marks(path).wait(3, 0.01, but=os.getpid())
    program = "import sys; sys.path.insert(0, sys.argv[1]); from marks import work; work(sys.argv[2], 3, 60.0)"
    # It was begun before, so that this one does not compute for a minute.
    subprocess.run([sys.executable, "-c", program, str(FAILOVER), str(path)], check=True, timeout=30)
    assert Marks(path).wait(3, 1.0, but=os.getpid()).pid != os.getpid()


def test_further_figures_are_shown_and_kept_beside_the_row() -> None:
    import harness
    import report

    row = harness.Row(
        "kill",
        "what it is",
        "s",
        harness.Better.SHARE,
        harness.Measure(Path("x.py"), "kill", "p99"),
        goal=1,
        also=("samples", "unknown"),
    )
    taken = iter([{"p99": 0.5, "samples": 100.0}, {"p99": 0.7, "samples": 120.0}])
    (result,) = harness.run([row], 2, lambda measure: harness.Outcome(next(taken)))
    entry = result.as_json()
    assert entry["also"] == {"samples": 110.0}
    assert (entry["ours"], entry["peer"], entry["ratio"], entry["met"]) == (0.6, None, 0.6, True)
    assert "samples 110" in report.table([result], {})
