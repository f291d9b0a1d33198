"""The dashboards as they are committed: made by the code, over metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from swarm_deploy.dashboards.boards import BOARDS
from swarm_deploy.dashboards.grafana import built
from swarm_deploy.dashboards.model import Board, filled, legend
from swarm_deploy.metrics_reference import declared

COMMITTED = Path(__file__).parents[3] / "charts/agentswarm/files/dashboards"
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def panels(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in made["panels"] if panel["type"] != "row"]


@each_board
def test_the_committed_dashboard_is_the_code_s(board: Board) -> None:
    assert (COMMITTED / f"{board.uid}.json").read_text() == built(board), "run `make generate`"


def test_there_is_no_dashboard_that_the_code_does_not_make() -> None:
    assert {path.stem for path in COMMITTED.glob("*.json")} == {board.uid for board in BOARDS}


def test_there_are_the_six_that_were_promised() -> None:
    assert [board.title.partition(" / ")[2] for board in BOARDS] == [
        "Overview",
        "One agent",
        "Data plane",
        "Hardware",
        "Failover",
        "Operator",
    ]


@each_board
def test_each_panel_says_what_it_shows_has_a_place_of_its_own_and_asks_the_chosen_source(board: Board) -> None:
    made = json.loads(built(board))
    assert made["schemaVersion"] >= 36
    numbers = [panel["id"] for panel in made["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in panels(made):
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@each_board
def test_queries_read_metrics_that_there_are_and_variables_that_the_dashboard_has(board: Board) -> None:
    known = {"__rate_interval", *(variable.name for variable in board.variables)}
    series = {name for one in declared().values() for name in one.series()}
    for panel in board.panels():
        for query in panel.queries:
            assert set(re.findall(r"\$(\w+)", query.expression)) <= known
            bare = re.sub(r'"[^"]*"', "", query.expression)
            used = set(re.findall(r"\b((?:swarm|process)_[a-z0-9_]+)\b", bare))
            assert used, panel.title
            assert used <= series, panel.title


@each_board
def test_a_legend_names_only_labels_that_the_query_leaves(board: Board) -> None:
    always = {"namespace", "swarm", "pod", "node", "role"}
    for panel in board.panels():
        for query in panel.queries:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query.expression))))
            own = {label for one in declared().values() if one.name in query.expression for label in one.labels}
            for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
                assert label in (kept or always | own), f"{panel.title}: {query.legend}"


def test_variables_and_legends_are_filled_as_grafana_does_it() -> None:
    assert filled('x{a=~"$a"}[$__rate_interval]', {"a": ".*", "__rate_interval": "1m"}) == 'x{a=~".*"}[1m]'
    with pytest.raises(KeyError):
        filled("$nobody", {})
    assert legend("{{a}} on {{ b }}", {"a": "x", "b": "y"}) == "x on y"
    assert legend("", {"__name__": "m", "a": "x"}) == "a=x"
