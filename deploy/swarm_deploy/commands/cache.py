"""`swarm cache`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["cache"]


class Action(StrEnum):
    """What to do with the cache."""

    SHOW = "show"
    WARM = "warm"
    CLEAR = "clear"


def cache(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.SHOW,
    directory: Annotated[
        Path | None, typer.Option(help="The cache's root; without it the user's own, which local clusters start from.")
    ] = None,
    module: Annotated[list[str] | None, typer.Option(help="With warm: a module with kernels of yours.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With clear: those of other CPUs and versions too.")
    ] = False,
) -> None:
    """Show, warm or clear the cache of compiled kernels."""
    from rich.filesize import decimal

    from swarm_agents.runtime import jitcache

    root = directory or jitcache.default_root()
    if action is Action.CLEAR:
        typer.echo(f"freed {decimal(jitcache.clear(root, everything=everything))}")
        return
    found = jitcache.warm(root, module or ()) if action is Action.WARM else jitcache.describe(root)
    typer.echo(f"{found.directory}\n{found.entries} compiled functions, {decimal(found.size)}, for {found.target}")
    for other in found.others:
        typer.echo(f"also there: {other}")
    if not found.entries:
        typer.echo("an agent's first start compiles its kernels; `swarm cache warm` does it beforehand")
