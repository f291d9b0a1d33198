"""`swarm agents`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

__all__ = ["agents"]


def agents(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, CONTEXT/NAME, a URL or a file.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table, wide or json.")] = "table",
) -> None:
    """List a swarm's agents."""
    from rich.console import Console
    from rich.table import Table

    from swarm_deploy.reports import Reporter

    if output not in ("table", "wide", "json"):
        raise typer.BadParameter(f"{output!r}: expected table, wide or json", param_hint="--output")
    with Reporter(swarm) as reporter:
        nodes = reporter.read()
    if output == "json":
        json.dump([{"node": n.node, "error": n.error, "agents": n.agents} for n in nodes], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        wide = ("epoch", "pid", "heartbeat") if output == "wide" else ()
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("agent", "role", "node", "state", "running", "done", *wide):
            table.add_column(name.upper(), justify="right" if name in ("running", "done", *wide) else "left")
        for node in nodes:
            for agent in node.agents:
                more = [
                    str(agent.get("epoch", "")),
                    str(agent.get("pid", "")),
                    f"{agent['heartbeat_age'] * 1e3:.0f} ms",
                ]
                table.add_row(
                    agent["name"], agent["role"], node.node, str(agent.get("state", "")), str(agent.get("running", "")),
                    str(agent.get("done", "")), *(more if wide else ()),
                )  # fmt: skip
        Console(soft_wrap=True).print(table)
    unreachable = [n for n in nodes if n.error]
    for node in unreachable:
        typer.echo(f"{node.node} does not answer: {node.error}", err=True)
    if unreachable:
        raise typer.Exit(1)
