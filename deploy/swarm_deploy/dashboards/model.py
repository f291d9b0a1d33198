"""What a dashboard is before it is Grafana's JSON or a picture: panels of queries, over variables.

One description serves both, so that a picture in the README shows the panels that people will have, and a test can run
every query of every panel against a real Prometheus without reading it out of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

__all__ = ["Board", "Panel", "Query", "Row", "Variable", "filled", "legend"]

Unit = Literal["short", "s", "bytes", "percentunit", "ops", "reqps", "hertz", "celsius", "bool"]


class Query(Struct, frozen=True):
    """PromQL, and how its series are called: text with `{{label}}`."""

    expression: str
    legend: str = ""


class Panel(Struct, frozen=True):
    """One panel. `kind` stat shows the last value, series a graph."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: Unit = "short"
    kind: Literal["series", "stat"] = "series"
    stacked: bool = False


class Row(Struct, frozen=True):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(Struct, frozen=True):
    """What is chosen at the top: the values of a label. `many`: several or all, else one."""

    name: str
    label: str
    metric: str
    of: str
    many: bool = True


class Board(Struct, frozen=True):
    """One dashboard. `uid` is also its file's name."""

    uid: str
    title: str
    text: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels


def filled(expression: str, values: Mapping[str, str]) -> str:
    """The expression with its variables filled in, as Grafana does it.

    Raises:
        KeyError: a variable has no value.
    """
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def legend(text: str, labels: Mapping[str, str]) -> str:
    """What a series is called."""
    named = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), text)
    return named or ", ".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "__name__")
