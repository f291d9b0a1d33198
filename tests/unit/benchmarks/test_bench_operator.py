"""The operator's benchmark: what is promised has a row with its goal, and each row a function that can be called."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPERATOR = BENCHMARKS / "operator"
NAMES = {"bench", "harness", "report", "command", *(module.stem for module in OPERATOR.glob("*.py"))}

GOALS = {
    "pods_created_per_s": 100,
    "swarms_ready_per_s": 10,
    "reconcile_p99_s": 0.5,
    "memory_mib": 250,
    "idle_cpu_share": 0.02,
    "idle_writes": 0,
    "scale_in_lost": 0,
    "leader_takeover_s": 5,
    "settings_live_p99_s": 1,
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmarks are programs of their own, whose modules lie beside them."""
    before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    for path in (BENCHMARKS, OPERATOR):
        monkeypatch.syspath_prepend(str(path))
    path = [*sys.path]
    yield
    sys.path[:] = path  # a scene puts the tests' own directory there
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def rows() -> dict[str, Any]:
    return {row.name: row for row in importlib.import_module("bench").rows()}


def test_all_that_is_promised_of_the_operator_has_a_row_with_its_goal() -> None:
    assert {name: row.goal for name, row in rows().items()} == GOALS
    assert {name for name, row in rows().items() if row.better.value == "more"} == {
        "pods_created_per_s",
        "swarms_ready_per_s",
    }


@pytest.mark.parametrize("name", GOALS)
def test_every_measurement_of_the_operator_can_be_called_as_its_row_does(name: str) -> None:
    measure = rows()[name].ours
    assert measure.file.is_file()
    function = getattr(importlib.import_module(measure.file.stem), measure.function)
    inspect.signature(function).bind(**json.loads(measure.arguments))
