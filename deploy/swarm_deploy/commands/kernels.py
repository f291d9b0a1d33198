"""`swarm kernels`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["kernels"]


def kernels(
    module: Annotated[list[str] | None, typer.Option(help="A module with kernels of yours, imported first.")] = None,
) -> None:
    """List the kernels, what they take and what they do."""
    from swarm_agents.compute import registry

    registry.load(module or ())
    for name in registry.names():
        kernel = registry.get(name)
        typer.echo(str(kernel.signature))
        typer.echo(f"    {kernel.summary}")
