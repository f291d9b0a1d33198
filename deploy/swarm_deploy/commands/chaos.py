"""`swarm chaos`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["chaos"]


def chaos(
    swarm: Annotated[
        str | None, typer.Argument(help="A swarm that runs, NAME or NAMESPACE/NAME; without one a cluster is started.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How long faults are done.")] = 60.0,
    seed: Annotated[int | None, typer.Option(min=0, help="What they are drawn from; a new one when left out.")] = None,
    only: Annotated[str, typer.Option(help="Kinds of faults, or groups such as kill,partition; else all.")] = "",
    weight: Annotated[str, typer.Option(help="How often kinds are drawn, such as kill-agent=10,node=0.")] = "",
    every: Annotated[float, typer.Option(min=0.05, max=3600, help="Seconds between two faults, on average.")] = 2.0,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Clients, in turn on a node and off the nodes.")] = 2,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Simulated nodes of the cluster that is started.")] = 2,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Compute agents there.")] = 4,
    standby: Annotated[int, typer.Option(min=0, max=16, help="Standbys there.")] = 1,
    report: Annotated[Path, typer.Option(help="Where the figures are written.")] = Path("build/chaos.json"),
    kinds: Annotated[bool, typer.Option("--kinds", help="List the kinds with their weights, and leave.")] = False,
) -> None:
    """Do faults to a swarm while clients check every answer: nothing may be lost, and nothing doubled."""
    from swarm_deploy.chaos import main

    if kinds:
        for line in main.kinds():
            typer.echo(line)
        return
    code = main.chaos(
        swarm=swarm,
        seconds=seconds,
        seed=seed,
        only=_words(only),
        weight=_words(weight),
        every=every,
        clients=clients,
        nodes=nodes,
        replicas=replicas,
        standby=standby,
        report=report,
        say=lambda line: typer.echo(line),
    )
    raise typer.Exit(code)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
