"""`swarm events`.

They are read from the API server, where the operator writes them: so they are there also for a pod that is gone, and
for whoever can't reach the pods. The API server keeps Events for about an hour.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from swarm_operator.kube import Api

__all__ = ["events"]

_POLL = 1.0
_STAGES = ("detect", "claim", "resume", "seconds")


def events(
    swarm: Annotated[str | None, typer.Argument(help="A swarm's name, NAMESPACE/NAME or CONTEXT/NAME.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what happens.")] = False,
) -> None:
    """List what happened to a swarm: deaths, takeovers, restarts, and what the operator did."""
    if output not in ("table", "json"):
        raise typer.BadParameter(f"{output!r}: expected table or json", param_hint="--output")
    try:
        asyncio.run(_events(swarm, output, watch))
    except KeyboardInterrupt:
        return


async def _events(target: str | None, output: str, watch: bool) -> None:
    from swarm_deploy.connect import open_swarm

    async with open_swarm(target, missing=True) as (api, namespace, swarm):
        seen: dict[str, int] = {}
        while True:
            found = rows(await _read(api, namespace, swarm["metadata"]["name"]))
            new = [row for row in found if seen.get(row["id"]) != row["count"]]
            seen = {row["id"]: row["count"] for row in found}
            _print(new, output, watch)
            if not watch:
                return
            await asyncio.sleep(_POLL)


async def _read(api: Api, namespace: str, name: str) -> list[dict[str, Any]]:
    from swarm_operator.kube import RESOURCES

    found: list[dict[str, Any]] = []
    query = {"fieldSelector": f"involvedObject.kind=Swarm,involvedObject.name={name}", "limit": 500}
    while True:
        page = json.loads(await api.request("GET", RESOURCES["Event"].path(namespace), "Event", query=query))
        found += page["items"]
        token = page["metadata"].get("continue")
        if not token:
            return found
        query["continue"] = token


def rows(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is shown of Kubernetes Events, oldest first. Times are Unix seconds, durations seconds."""
    from swarm_operator.names import ANNOTATION_RECORD

    out = []
    for event in found:
        raw = event["metadata"].get("annotations", {}).get(ANNOTATION_RECORD)
        try:
            record = json.loads(raw) if raw else {}
        except ValueError:
            record = {}
        stamp = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
        out.append(
            {
                "id": event["metadata"].get("uid") or event["metadata"]["name"],
                "time": record.get("time") or datetime.fromisoformat(stamp).timestamp(),
                "type": event.get("type", ""),
                "event": event.get("reason", ""),
                "who": record.get("member") or record.get("pod") or event["involvedObject"]["name"],
                "node": record.get("node", ""),
                "durations": {stage: record[stage] for stage in _STAGES if stage in record},
                "count": int(event.get("count") or 1),
                "message": event.get("message", ""),
                "record": record,
            }
        )
    return sorted(out, key=lambda row: (row["time"], row["record"].get("number", 0), row["id"]))


def _print(found: list[dict[str, Any]], output: str, watch: bool) -> None:
    if output == "json":
        if watch:  # a line each, so that a program can read them as they come
            for row in found:
                sys.stdout.write(json.dumps(row) + "\n")
        else:
            json.dump(found, sys.stdout, indent=1)
            sys.stdout.write("\n")
        sys.stdout.flush()
        return
    for row in found:
        when = datetime.fromtimestamp(row["time"], UTC).astimezone().strftime("%m-%d %H:%M:%S.%f")[:-3]
        took = " ".join(f"{stage}={seconds * 1e3:.1f}ms" for stage, seconds in row["durations"].items())
        times = f" (x{row['count']})" if row["count"] > 1 else ""
        who = f"{row['who']}{' on ' + row['node'] if row['node'] else ''}"
        typer.echo(f"{when}  {row['event']:<20} {who}{'  ' + took if took else ''}  {row['message']}{times}")
    if not found and not watch:
        typer.echo("nothing happened within the hour that the API server keeps Events", err=True)
