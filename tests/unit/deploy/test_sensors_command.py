"""`swarm sensors`: every sensor has a line, and what is missing or estimated says why."""

from __future__ import annotations

import json

import pytest
import typer

from swarm_deploy import reports
from swarm_deploy.commands.sensors import sensors
from swarm_deploy.reports import NodeReport

SENSORS = {
    "cpu": {
        "availability": "available",
        "values": {"cpus": 2.0},
        "series": {"core_busy_ratio": {"0": 0.25, "1": 0.5}},
    },
    "power": {"availability": "estimated", "values": {"power_watts": 7.5}, "reason": "by [the] CPUs' time"},
    "gpu": {"availability": "unavailable", "values": {}, "reason": "no GPU is there"},
}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[NodeReport]:
    """What the hubs answer."""
    found = [NodeReport("n1", {"sensors": SENSORS})]

    class Answers:
        def __init__(self, target: str | None) -> None: ...

        def __enter__(self) -> Answers:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read(self) -> list[NodeReport]:
            return found

    monkeypatch.setattr(reports, "Reporter", Answers)
    return found


@pytest.mark.usefixtures("nodes")
def test_the_table_has_values_cores_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    sensors(None, "table")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["n1", "cpu", "available", "core_busy_ratio", "1", "0.5"] in lines
    assert ["n1", "gpu", "unavailable"] in lines
    assert ["n1", "power", "is", "estimated:", "by", "[the]", "CPUs'", "time"] in lines
    assert ["n1", "gpu", "is", "unavailable:", "no", "GPU", "is", "there"] in lines


def test_json_is_what_the_nodes_say_and_one_that_does_not_answer_fails(
    nodes: list[NodeReport], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.append(NodeReport("n2", error="no route"))
    with pytest.raises(typer.Exit):
        sensors(None, "json")
    said = capsys.readouterr()
    assert json.loads(said.out)[0] == {"node": "n1", "error": "", "sensors": SENSORS}
    assert "n2 does not answer" in said.err
