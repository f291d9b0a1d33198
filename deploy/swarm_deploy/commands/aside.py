"""`swarm aside`."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer

__all__ = ["aside"]


def aside(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, CONTEXT/NAME, a URL or a file.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """List the tasks that were given up, and who died over them."""
    from rich.console import Console
    from rich.table import Table

    from swarm_deploy.reports import Reporter

    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}: expected table or json", param_hint="--output")
    with Reporter(swarm) as reporter:
        nodes = reporter.read()
    tasks = [{"node": node.node, **task} for node in nodes for task in node.report.get("setAside", ())]
    if output == "json":
        json.dump(tasks, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif tasks:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("when", "node", "kernel", "task", "attempts", "why", "died over it"):
            table.add_column(name.upper(), justify="right" if name == "attempts" else "left")
        for task in tasks:
            died = ", ".join(f"{one['agent']} ({one['how']})" for one in task["died"]) or "nobody"
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(task["time"]))
            table.add_row(when, task["node"], task["kernel"], task["task"], str(task["attempts"]), task["reason"], died)
        Console(soft_wrap=True).print(table)
    else:
        typer.echo("No task was given up.")
    unreachable = [n for n in nodes if n.error]
    for node in unreachable:
        typer.echo(f"{node.node} does not answer: {node.error}", err=True)
    if unreachable:
        raise typer.Exit(1)
