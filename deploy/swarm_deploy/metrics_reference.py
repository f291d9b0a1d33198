"""Writes `deploy/reference/metrics.md` from the declarations that every metric is made of (`swarm_agents.exported`)."""

from __future__ import annotations

from typing import Final

from swarm_agents.exported import Declared, Table
from swarm_agents.resource.exported import ACTION, BOARD, FORESIGHT, HUB, NODE
from swarm_agents.runtime.exported import COMPUTE, IO, POD
from swarm_operator.exported import OPERATOR

__all__ = ["TABLES", "declared", "metrics_reference"]

TABLES: Final[tuple[Table, ...]] = (OPERATOR, POD, COMPUTE, IO, BOARD, HUB, NODE, FORESIGHT, ACTION)

_HEAD: Final = """# Metrics

Generated from the declarations that every metric is made of. Units are seconds, bytes and ratios; counters end with
`_total`, a histogram is the three series `_bucket`, `_sum` and `_count`. Each label says what bounds its values: none
holds a task, a client or a session. A counter is there before its first event, as 0.

The shipped scrape configuration (`deploy/prometheus/`, and the chart's PodMonitor) adds to the agents' metrics whose
they are: `namespace`, `swarm`, `role`, `pod` and `node`.
"""


def declared() -> dict[str, Declared]:
    """Every metric by its name in queries (of a histogram without the suffix)."""
    return {one.exposed: one for table in TABLES for one in table}


def metrics_reference() -> str:
    """The tables as Markdown."""
    lines = [_HEAD]
    for table in TABLES:
        lines += [f"## {table.title}", "", table.text, "", "| metric | type | labels | |", "|---|---|---|---|"]
        for one in table:
            labels = "; ".join(f"`{label}`: {bound}" for label, bound in one.labels.items())
            sensor = f" (sensor `{one.sensor}`)" if one.sensor else ""
            text = f"{one.text}{sensor}".replace("|", "\\|")
            lines.append(f"| `{one.exposed}` | {one.kind} | {labels} | {text} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
