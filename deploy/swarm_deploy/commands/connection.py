"""`swarm connection`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["connection"]


def connection(
    target: Annotated[
        str | None, typer.Argument(help="A swarm's name, CONTEXT/NAME, CONTEXT/NAMESPACE/NAME, or a URL.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it.")] = Path("swarm-connection.json"),
) -> None:
    """Write a file by which a program without a kubeconfig connects to a swarm."""
    from swarm_agents.client.connection import resolve, write_connection

    write_connection(resolve(target), output)
    typer.echo(f"{output} holds secrets, and only you can read it. Use it with SWARM_ENDPOINT={output}")
