"""Writes the dashboards as Grafana's JSON, by Grafana's own typed builders, into the chart.

Run as `python -m swarm_deploy.dashboards.grafana`; `make generate` does. The data source is a variable, so that the
files can be imported as they are. Sets nothing that would differ from run to run, so that drift can be seen.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from swarm_deploy.dashboards.boards import BOARDS
from swarm_deploy.dashboards.model import Board, Panel, Query, Variable

__all__ = ["built", "main"]

_REPOSITORY: Final = Path(__file__).parents[3]
_PLACE: Final = _REPOSITORY / "charts/agentswarm/files/dashboards"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
#: Columns of 24, and rows of about 30 pixels.
_STAT: Final = (4, 4)
_SERIES: Final = (8, 8)


def built(board: Board) -> str:
    """One dashboard's JSON."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.text)
        .tags(["agentswarm"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("Agent Swarm")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["agentswarm"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in board.variables:
        made = made.with_variable(_variable(variable))
    numbers = itertools.count(1)
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            one = _stat(panel) if panel.kind == "stat" else _series(panel)
            made = made.with_panel(one.id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(made.build()) + "\n"


def _variable(variable: Variable) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(_SOURCE)
        .query(f"label_values({variable.metric}, {variable.of})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if variable.many:
        everything = VariableOption(selected=True, text="All", value="$__all")
        made = made.multi(True).include_all(True).all_value(".*").current(everything)
    return made


def _target(query: Query, letter: str, instant: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().datasource(_SOURCE).expr(query.expression).ref_id(letter)
    made = made.legend_format(query.legend or "__auto")
    return made.instant() if instant else made.range()


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.text)
        .datasource(_SOURCE)
        .unit(_unit(panel))
        .span(_STAT[0])
        .height(_STAT[1])
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    for query, letter in zip(panel.queries, "ABCDEFGH", strict=False):
        made = made.with_target(_target(query, letter, instant=True))
    return made


def _series(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.text)
        .datasource(_SOURCE)
        .unit(_unit(panel))
        .span(_SERIES[0])
        .height(_SERIES[1])
        .fill_opacity(30 if panel.stacked else 5)
        .show_points(VisibilityMode.NEVER)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if panel.unit != "celsius":
        made = made.min(0)
    if panel.unit == "percentunit":
        made = made.max(1)
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for query, letter in zip(panel.queries, "ABCDEFGH", strict=False):
        made = made.with_target(_target(query, letter, instant=False))
    return made


def _unit(panel: Panel) -> str:
    """As Grafana calls it."""
    return {"bool": "short", "hertz": "hertz"}.get(panel.unit, panel.unit)


def main() -> int:
    """Writes the files, and removes those of dashboards that are no more."""
    _PLACE.mkdir(parents=True, exist_ok=True)
    for old in set(_PLACE.glob("agentswarm-*.json")) - {_PLACE / f"{board.uid}.json" for board in BOARDS}:
        old.unlink()
    for board in BOARDS:
        (_PLACE / f"{board.uid}.json").write_text(built(board))
    return 0


if __name__ == "__main__":
    sys.exit(main())
