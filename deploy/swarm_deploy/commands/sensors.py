"""`swarm sensors`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

__all__ = ["sensors"]


def sensors(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, CONTEXT/NAME, a URL or a file.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Show what each node's sensors say: which are available, their values, and why one is not."""
    from rich.console import Console
    from rich.table import Table

    from swarm_deploy.reports import Reporter

    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}: expected table or json", param_hint="--output")
    with Reporter(swarm) as reporter:
        nodes = reporter.read()
    if output == "json":
        json.dump([{"node": n.node, "error": n.error, "sensors": n.sensors} for n in nodes], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("node", "sensor", "availability", "value", "of", "amount"):
            table.add_column(name.upper(), justify="right" if name == "amount" else "left")
        reasons = []
        for node in nodes:
            for sensor, reading in node.sensors.items():
                if reading.get("reason"):
                    reasons.append(f"{node.node} {sensor} is {reading['availability']}: {reading['reason']}")
                rows = [(name, "", value) for name, value in reading.get("values", {}).items()]
                rows += [
                    (name, of, value) for name, each in reading.get("series", {}).items() for of, value in each.items()
                ]
                for name, of, value in rows or [("", "", None)]:
                    amount = "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
                    table.add_row(node.node, sensor, reading["availability"], name, of, amount)
        console = Console(soft_wrap=True)
        console.print(table)
        for reason in reasons:
            console.print(reason, markup=False, highlight=False)
    unreachable = [n for n in nodes if n.error]
    for node in unreachable:
        typer.echo(f"{node.node} does not answer: {node.error}", err=True)
    if unreachable:
        raise typer.Exit(1)
