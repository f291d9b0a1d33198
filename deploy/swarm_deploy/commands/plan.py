"""`swarm plan FILE`: what the operator would do for a manifest, without a cluster.

It runs the operator's own planner on a snapshot in which nothing exists yet, with made-up nodes. What the API server
would refuse (bounds, rules) is refused here by the same models; what only it can know (quotas, other admission) is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from swarm_agents.errors import SwarmError

__all__ = ["BadManifest", "plan"]

_UID = "00000000-0000-0000-0000-000000000000"


class BadManifest(SwarmError, ValueError):  # noqa: N818 - named like the product's other errors
    """The file holds no Swarm, or one that the API would refuse."""


def plan(
    file: Annotated[Path, typer.Argument(help="Manifest with one or more Swarms; - reads standard input.")],
    nodes: Annotated[int, typer.Option(help="How many nodes to assume, called node-0, node-1, …", min=0)] = 2,
    manifests: Annotated[bool, typer.Option(help="Print the objects themselves, as YAML.")] = False,
    policy: Annotated[Path | None, typer.Option(help="The operator's policy, as of swarm-operator --policy.")] = None,
) -> None:
    """Print what the operator would do for a manifest, offline."""
    import yaml

    for number, document in enumerate(_documents(file)):
        if number:
            typer.echo("---")
        planned, refused = _planned(document, nodes, policy)
        if manifests:
            found = [action.manifest for action in planned.actions if hasattr(action, "manifest")]
            typer.echo(yaml.safe_dump_all(found, sort_keys=False, width=110), nl=False)
            continue
        meta = document["metadata"]
        typer.echo(f"Swarm {meta.get('namespace', 'default')}/{meta['name']} on {nodes} assumed nodes")
        for line in refused:
            typer.echo(f"  not accepted: {line}")
        if refused:
            raise typer.Exit(1)
        typer.echo(f"  revision {planned.revision}, settings {planned.settings_revision}")
        stage = -1
        for action in planned.actions:
            if action.stage != stage:
                stage = action.stage
                typer.echo(f"  {_STAGES.get(stage, 'then')}")
            typer.echo(f"    {_line(action)}")


_STAGES = {0: "first, all at once:", 1: "when these are there:", 2: "when agents run:", 3: "last:"}


def _line(action: Any) -> str:
    manifest = getattr(action, "manifest", None)
    if manifest and manifest["kind"] == "Pod":
        node = manifest["metadata"].get("annotations", {}).get("agentswarm.dev/node")
        agent, *hub = [
            ", ".join(f"{key} {value}" for key, value in container["resources"]["limits"].items())
            for container in manifest["spec"]["containers"]
        ]
        wanted = agent + "".join(f"; its hub {amounts}" for amounts in hub)
        return f"Create Pod/{action.name} ({wanted}{f', on {node}' if node else ''})"
    return str(action.describe())


def _documents(file: Path) -> list[dict[str, Any]]:
    import sys

    import yaml

    from swarm_operator.api.v1alpha1 import API_VERSION, KIND

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = [d for d in yaml.safe_load_all(text) if isinstance(d, dict)]
    except OSError as error:
        raise BadManifest(f"{file} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadManifest(f"{file} is no YAML: {error}") from error
    swarms = [d for d in found if d.get("kind") == KIND and d.get("apiVersion") == API_VERSION]
    if not swarms:
        kinds = ", ".join(sorted({f"{d.get('apiVersion')} {d.get('kind')}" for d in found})) or "nothing"
        raise BadManifest(f"{file} holds no Swarm of {API_VERSION}, but {kinds}")
    for swarm in swarms:
        if not isinstance(swarm.get("metadata"), dict) or not swarm["metadata"].get("name"):
            raise BadManifest(f"{file}: a Swarm without metadata.name")
    return swarms


def _planned(document: dict[str, Any], nodes: int, policy: Path | None) -> tuple[Any, list[str]]:
    from swarm_operator.api.read import read_spec
    from swarm_operator.plan import plan as decide
    from swarm_operator.policy import OPEN
    from swarm_operator.policy_file import BadPolicy, load
    from swarm_operator.snapshot import Snapshot
    from swarm_operator.views import NodeView, SwarmView

    try:
        allowed = load(policy) if policy else OPEN
    except BadPolicy as error:
        raise BadManifest(str(error)) from error
    meta = document["metadata"]
    spec, invalid = read_spec(document.get("spec") or {})
    if spec is None:
        raise BadManifest(f"the API server would refuse Swarm {meta['name']}: {invalid}")
    snapshot = Snapshot(
        swarm=SwarmView(
            namespace=meta.get("namespace", "default"),
            name=meta["name"],
            uid=_UID,
            resource_version="",
            generation=1,
            deleting=False,
            spec=document.get("spec") or {},
            status={},
        ),
        spec=spec,
        policy=allowed,
        nodes=tuple(
            NodeView(
                name=f"node-{number}",
                resource_version="",
                labels={
                    "kubernetes.io/hostname": f"node-{number}",
                    **spec.scheduling.node_selector,
                    **spec.resource.node_selector,
                },
            )
            for number in range(nodes)
        ),
    )
    return decide(snapshot, 0.0), [str(refusal) for refusal in snapshot.refusals(spec)]
