"""`swarm top`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from swarm_deploy.reports import NodeReport

__all__ = ["top"]

_PRIORITIES = ("critical", "high", "normal", "bulk")


def top(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, CONTEXT/NAME, a URL or a file.")] = None,
    interval: Annotated[float, typer.Option("--interval", "-n", min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it and leave.")] = False,
) -> None:
    """Watch a swarm live."""
    from rich.console import Console
    from rich.live import Live

    from swarm_deploy.reports import Reporter

    # A pipe has no width of its own; names cut short would help nobody who reads it by a program.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    with Reporter(swarm) as reporter:
        view = _View(reporter.title)
        if once or not console.is_terminal:
            view.take(reporter.read(), time.monotonic())
            if not once:  # a rate needs two looks
                time.sleep(interval)
                view.take(reporter.read(), time.monotonic())
            console.print(view.render())
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            try:
                while True:
                    view.take(reporter.read(), time.monotonic())
                    live.update(view.render(), refresh=True)
                    time.sleep(interval)
            except KeyboardInterrupt:
                return


class _View:
    """The picture, and what the last look saw: rates are differences."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._nodes: list[NodeReport] = []
        self._done: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._at = 0.0

    def take(self, nodes: list[NodeReport], at: float) -> None:
        """Notes what all nodes reported at a monotonic time."""
        # An agent that was started anew counts from 0 under its new epoch.
        done = {f"{a['name']}@{a['epoch']}": int(a["done"]) for node in nodes for a in node.agents}
        span = at - self._at
        known = {key: value - self._done[key] for key, value in done.items() if key in self._done}
        self._rates = {key: change / span for key, change in known.items()} if self._at and span > 0 else {}
        self._nodes, self._done, self._at = nodes, done, at

    def render(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        agents = [a for node in self._nodes for a in node.agents if a["role"] != "resource"]
        alive = sum(a["state"] == "alive" for a in agents)
        busy = sum(bool(a["running"]) for a in agents)
        queued = [sum(n.report.get("queues", {}).get(p, 0) for n in self._nodes) for p in _PRIORITIES]
        head = Text.assemble(
            (f" {self._title} ", "reverse bold"),
            f"  {alive}/{len(agents)} agents, {busy} busy   {self._per_second(sum(self._rates.values()))}   queued ",
            "  ".join(f"{p} {n}" for p, n in zip(_PRIORITIES, queued, strict=True)),
        )
        table = Table(box=box.SIMPLE_HEAD, expand=True)
        for name, right in (
            ("node", 0), ("agent", 0), ("role", 0), ("state", 0), ("running", 1), ("done", 1), ("tasks/s", 1),
            ("cpu", 1), ("memory", 1), ("epoch", 1), ("seen", 1),
        ):  # fmt: skip
            table.add_column(name, justify="right" if right else "left", no_wrap=True)
        for node in self._nodes:
            if node.error:
                table.add_row(node.node, Text(f"does not answer: {node.error}", style="red"))
            for position, agent in enumerate(node.agents):
                table.add_row(node.node if position == 0 else "", *self._row(agent))
        return Group(head, table, Text("Ctrl-C leaves", style="dim"))

    def _row(self, agent: dict[str, Any]) -> list[RenderableType]:
        from rich.filesize import decimal
        from rich.text import Text

        rate = self._rates.get(f"{agent['name']}@{agent['epoch']}")
        state = str(agent["state"])
        return [
            agent["name"],
            agent["role"],
            Text(state, style="green" if state == "alive" else "red"),
            str(agent["running"]),
            str(agent["done"]),
            "" if rate is None else f"{rate:.1f}",
            f"{agent['cpu']:.0%}",
            decimal(agent["rss"]) if agent["rss"] else "",
            str(agent["epoch"]),
            f"{agent['heartbeat_age'] * 1e3:.0f} ms",
        ]

    def _per_second(self, rate: float) -> str:
        return f"{rate:.1f} tasks/s" if self._rates else "measuring"
