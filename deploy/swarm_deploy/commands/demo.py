"""`swarm demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long the job keeps the machine busy.")] = 20.0,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Simulated nodes.")] = 2,
    report: Annotated[Path, typer.Option(help="Where the report is written.")] = Path("build/demo/report.html"),
) -> None:
    """Compute a portfolio's risk on a local swarm, and kill an agent meanwhile."""
    from swarm_deploy.demo.main import run

    raise typer.Exit(run(seconds=seconds, nodes=nodes, report=report))
