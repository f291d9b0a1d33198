"""`swarm down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["down"]


def down(
    purge: Annotated[bool, typer.Option("--purge", help="Remove its objects and logs too.")] = False,
    state: Annotated[Path | None, typer.Option(help="As for `swarm up`.")] = None,
) -> None:
    """Stop the local cluster; its objects are kept."""
    from swarm_deploy.local.manager import Cluster

    cluster = Cluster(state)
    stopped = cluster.stop()
    if purge:
        cluster.purge()
    kept = "nothing is kept" if purge else f"its objects are kept in {cluster.state}"
    typer.echo(f"stopped; {kept}" if stopped else f"no cluster was running in {cluster.state}; {kept}")
