"""`swarm up`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["up"]


def up(
    nodes: Annotated[int, typer.Option(min=1, max=200, help="How many simulated nodes.")] = 2,
    cpus_per_node: Annotated[int, typer.Option(min=1, max=256, help="CPUs that each of them offers.")] = 4,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The API server's port on 127.0.0.1; 0: a free one.")] = 0,
    operator: Annotated[bool, typer.Option(help="Run the operator too.")] = True,
    audit: Annotated[bool, typer.Option(help="Note every request in the API server's audit log, of 32 MiB.")] = True,
    state: Annotated[
        Path | None, typer.Option(help="Where its objects are kept; else SWARM_LOCAL_STATE or the user's own.")
    ] = None,
) -> None:
    """Start a local cluster in the background, with the operator."""
    import shlex

    from swarm_deploy.local.manager import Cluster

    cluster = Cluster(state)
    record = cluster.start(
        nodes=nodes, cpus_per_node=cpus_per_node, port=port, operator=operator, audit=audit, progress=typer.echo
    )
    kubeconfig = shlex.quote(str(cluster.kubeconfig))
    typer.echo(f"ready: {record.nodes} nodes with {record.cpus_per_node} CPUs each, {record.url}")
    typer.echo(f"next:  export KUBECONFIG={kubeconfig}")
    typer.echo("       kubectl apply -f deploy/examples/risk.yaml && swarm top")
