"""`swarm status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["status"]


def status(
    kubeconfig: Annotated[
        bool, typer.Option("--kubeconfig", help="Print the kubeconfig's path and nothing else.")
    ] = False,
    state: Annotated[Path | None, typer.Option(help="As for `swarm up`.")] = None,
) -> None:
    """Say what the local cluster runs."""
    from swarm_deploy.local.manager import Cluster

    cluster = Cluster(state)
    record = cluster.record()
    if record is None:
        typer.echo(f"no cluster runs in {cluster.state}; `swarm up` starts one", err=True)
        raise typer.Exit(1)
    if kubeconfig:
        typer.echo(str(cluster.kubeconfig))
        return
    typer.echo(f"{record.url}, process {record.pid}, {record.nodes} nodes with {record.cpus_per_node} CPUs each")
    typer.echo(f"state in {cluster.state}, logs in {cluster.state / 'log'}")
    for line in cluster.summary():
        typer.echo(line)
