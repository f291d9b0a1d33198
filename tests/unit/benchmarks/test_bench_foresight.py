"""What foresight's benchmark counts by: its goals, the recording as it was taken, and alarms as they count."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.faultscores import by_thresholds, choose, score
from support.faulttraces import DEAD_AFTER, Look, Trace
from swarm_agents.resource.foresight.hazards import Signs

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RESOURCE = BENCHMARKS / "resource"


@pytest.fixture(autouse=True, scope="module")
def _importable() -> Any:
    """The benchmarks are programs of their own, whose modules lie beside them."""
    added, before = [str(RESOURCE), str(BENCHMARKS)], list(sys.path)
    known = set(sys.modules)
    sys.path[:0] = added
    yield
    sys.path[:] = before
    for name in ("command", "harness", "report", *(module.stem for module in RESOURCE.glob("*.py"))):
        if name not in known:
            sys.modules.pop(name, None)


def test_the_goals_are_the_issue_s() -> None:
    import rows_foresight

    rows = {row.name: row for row in rows_foresight.rows(3.0)}
    assert {name: (row.goal, row.better.value) for name, row in rows.items()} == {
        "forecast_vs_last_value": (1.25, "less"),
        "failure_f1_vs_threshold": (1.3, "more"),
        "false_alarms_per_hour": (0, "share"),
    }
    assert json.loads(rows["false_alarms_per_hour"].ours.arguments) == {"minutes": 3.0}


def test_every_figure_that_a_row_shows_is_measured() -> None:
    import ours_foresight
    import rows_foresight

    names, _ = ours_foresight.recorded()
    made = {f"{name}_{horizon}s" for name in names for horizon in (1, 10, 60)}
    made |= {f"{what}_{horizon}s" for what in ("all", "within_interval") for horizon in (1, 10, 60)}
    for function in ("forecasts", "faults", "crowded"):
        tree = ast.parse(inspect.getsource(getattr(ours_foresight, function)))
        made |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    for row in rows_foresight.rows(1.0):
        assert {row.ours.key, *row.also, *([row.peer.key] if row.peer else [])} <= made


def test_the_recording_says_what_it_is_of_and_is_a_real_one() -> None:
    import ours_foresight

    names, seconds = ours_foresight.recorded()
    assert len(seconds) > 1500
    assert seconds.shape[1] == len(names)
    assert np.isfinite(seconds).all()
    busy = seconds[:, names.index("busy")]
    assert 0.0 <= busy.min() < 0.2
    assert 0.9 < busy.max() <= 1.0
    with np.load(ours_foresight.RECORDING) as file:
        about = json.loads(str(file["about"]))
    assert {"machine", "date", "ran", "interval_s"} <= set(about)
    assert ours_foresight.RECORDING.stat().st_size < 300_000


def test_a_recorder_s_file_is_read_back_as_it_was_sampled(tmp_path: Path) -> None:
    import ours_foresight
    import record

    record.record(2.3, tmp_path / "some.npz", "a machine", "nothing")
    names, seconds = ours_foresight.recorded(tmp_path / "some.npz")
    assert names == list(record.UNITS)
    assert 1 <= len(seconds) <= 3
    used = float(seconds[0][names.index("memory_used")])
    assert 0.0 < used < 1.0


def trace(ages: list[float], begins: float | None, fails: float | None) -> Trace:
    looks = tuple(Look(float(at), Signs(age=age), 0.0) for at, age in enumerate(ages))
    return Trace("some", 0, looks, begins, fails)


def test_an_alarm_counts_between_the_fault_and_the_failure_alone() -> None:
    alarm = by_thresholds({"age": DEAD_AFTER})
    in_time = trace([0.0] * 5 + [1.0] * 5, 4.0, 9.0)
    too_early = trace([0.0, 1.0] + [0.0] * 8, 4.0, 9.0)
    too_late = trace([0.0] * 9 + [1.0], 4.0, 9.0)
    never = trace([0.0] * 10, 4.0, 9.0)
    healthy, alarmed = trace([0.0] * 10, None, None), trace([1.0] * 10, None, None)
    found = score([in_time, too_early, too_late, never, healthy, alarmed], alarm)
    assert (found.true, found.false, found.missed, found.leads) == (1, 2, 3, (4.0,))
    assert found.f1 == pytest.approx(2 / 7)
    assert found.false_per_hour == pytest.approx(3600 * 2 / (4 * 4 + 20))


def test_the_thresholds_that_are_chosen_are_the_best_there_are() -> None:
    ill = [trace([0.1, 0.2, 0.5, 0.6, 0.9, 3.0], 2.0, 5.0) for _ in range(3)]
    well = [trace([0.1, 0.2, 0.3, 0.2, 0.3, 0.2], None, None) for _ in range(3)]
    chosen = choose(ill + well, ("age",))
    assert 0.3 < chosen["age"] <= 0.9
    assert score(ill + well, by_thresholds(chosen)).f1 == 1.0
