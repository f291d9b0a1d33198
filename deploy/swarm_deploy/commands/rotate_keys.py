"""`swarm rotate-keys`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = ["rotate_keys"]


def rotate_keys(
    target: Annotated[
        str | None, typer.Argument(help="A swarm's name, NAMESPACE/NAME, CONTEXT/NAME or CONTEXT/NAMESPACE/NAME.")
    ] = None,
) -> None:
    """Ask for new CURVE keys; old and new are both taken for security.keyOverlap."""
    namespace, name = asyncio.run(_ask(target))
    typer.echo(
        f"new keys are asked for: the condition KeysRenewing of swarm {namespace}/{name} says how far that is and what "
        "it waits for, and status.keys which keys hold"
    )


async def _ask(target: str | None) -> tuple[str, str]:
    from swarm_deploy.connect import open_swarm
    from swarm_operator.kube import RESOURCES
    from swarm_operator.names import ANNOTATION_ROTATE_KEYS

    async with open_swarm(target) as (api, namespace, swarm):
        name = str(swarm["metadata"]["name"])
        await api.request(
            "PATCH",
            RESOURCES["Swarm"].path(namespace, name),
            "Swarm",
            query={"fieldManager": "swarm-rotate-keys"},
            body={"metadata": {"annotations": {ANNOTATION_ROTATE_KEYS: datetime.now(UTC).isoformat()}}},
            content_type="application/merge-patch+json",
        )
        return namespace, name
