"""`swarm audit`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Annotated, Any

import typer

__all__ = ["audit"]


def audit(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, NAMESPACE/NAME or CONTEXT/NAME.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain; exit code 1 when it is broken.")] = False,
) -> None:
    """Show who changed a swarm, when, and from what to what; --verify checks that the trail is whole.

    It names field managers (kubectl, Helm, an autoscaler); who was logged in is known to the API server's audit log.
    A trail is kept also after its swarm was deleted; name the swarm then.
    """
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}: expected table or json", param_hint="--output")
    name, entries, findings = asyncio.run(_read(swarm))
    if output == "json":
        said = [{"broken": f.broken, "where": f.where, "what": f.what} for f in findings]
        json.dump({"swarm": name, "entries": entries, "findings": said}, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif not verify:
        for item in entries:
            typer.echo(line(item))
    if not entries:
        typer.echo(f"{name} has no audit trail: the operator begins one when it sees a swarm", err=True)
    broken = any(finding.broken for finding in findings)
    if verify or broken:
        for finding in findings:
            typer.echo(str(finding), err=True)
    if verify and output == "table" and entries and not broken:
        typer.echo(f"{name}: {len(entries)} entries, {entries[0]['n']} to {entries[-1]['n']}, unbroken")
        typer.echo(f"head {entries[-1]['hash']}")
    if verify and (broken or not entries):
        raise typer.Exit(1)


async def _read(target: str | None) -> tuple[str, list[dict[str, Any]], list[Any]]:
    from swarm_deploy.connect import open_swarm
    from swarm_operator.audit import Anchor, read_segment
    from swarm_operator.audit import verify as check
    from swarm_operator.auditor import fetch

    async with open_swarm(target, missing=True) as (api, namespace, swarm):
        name = swarm["metadata"]["name"]
        trail = await fetch(api, namespace, name)
        said = (swarm.get("status") or {}).get("audit") or {}
        anchor = Anchor(int(said["entries"]), str(said["head"])) if said.get("entries") else None
    entries = [item for _, text in trail.texts for item in read_segment(text) if item]
    return f"{namespace}/{name}", entries, check(trail.texts, anchor)


def line(item: dict[str, Any]) -> str:
    """An entry for people."""
    who = ", ".join(
        f"{by['manager']} ({by['operation']}{' ' + by['subresource'] if by.get('subresource') else ''})"
        for by in item.get("by", ())
    )
    head = f"{item['n']:>4}  {item.get('time', '')[:23]}  {item.get('event', ''):<8}"
    if "generation" in item:
        head += f"  generation {item['generation']}"
    if who:
        head += f"  by {who}"
    if item.get("why"):
        head += f"  {item['why']}"
    return "\n".join([head, *(f"          {_change(change)}" for change in item.get("changes", ()))])


def _change(change: dict[str, Any]) -> str:
    if "more" in change:
        return f"and {change['more']} more"
    was, now = (json.dumps(change[side]) if side in change else "(none)" for side in ("from", "to"))
    return f"{change['path']}: {was} -> {now}"
