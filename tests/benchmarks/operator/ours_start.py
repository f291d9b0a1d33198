"""How fast pods come to be, and Swarms to be ready; what 500 quiet Swarms cost.

- `pods_created`: one Swarm of many agents, from its creation until the last pod exists.
- `swarms`: many small Swarms created at once, until the last one's status says Ready; then they are left alone, and
  the operator's processor time and writes are counted.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from scene import Scene, cpu_seconds, resident_mib, scene

from swarm_operator.kube import ApiError

__all__ = ["pods_created", "swarms"]


def pods_created(agents: int = 1000) -> dict[str, float]:
    """`per_s`: pods created a second; also until all are ready, and the processor time of operator and API server."""
    return asyncio.run(_pods_created(agents))


async def _pods_created(agents: int) -> dict[str, float]:
    async with scene() as here:
        operator = here.start_operator()
        await here.started(operator, "leading")
        await here.started(operator)
        assert operator.process
        pid = operator.process.pid
        before = cpu_seconds(pid), cpu_seconds(here.server) if here.server else 0.0
        began = time.monotonic()
        await here.client.create(here.swarm("thousand", agents))
        wanted = agents + len(here.nodes)
        await here.pods.until(lambda: here.pods.created >= wanted, f"{wanted} pods", 300)
        took = max(pod.seen for pod in here.pods.all.values()) - began
        after = cpu_seconds(pid), cpu_seconds(here.server) if here.server else 0.0
        await _ready(here, 1, 300)
        return {
            "per_s": wanted / took,
            "ready_s": time.monotonic() - began,
            "operator_cpu_s": after[0] - before[0],
            "server_cpu_s": after[1] - before[1],
        }


def swarms(count: int = 500, agents: int = 4, quiet: float = 60.0) -> dict[str, float]:
    """`ready_per_s`, then over `quiet` seconds of nothing to do: `cpu_share` (of one core), `writes`, `memory_mib`."""
    return asyncio.run(_swarms(count, agents, quiet))


async def _swarms(count: int, agents: int, quiet: float) -> dict[str, float]:
    async with scene() as here:
        operator = here.start_operator()
        await here.started(operator, "leading")
        await here.started(operator)
        assert operator.process
        pid = operator.process.pid
        ready = asyncio.create_task(_ready(here, count, 600))
        began = time.monotonic()
        limit = asyncio.Semaphore(8)

        async def create(number: int) -> None:
            async with limit:
                await here.client.create(here.swarm(f"swarm-{number:03}", agents))

        await asyncio.gather(*(create(number) for number in range(count)))
        created = time.monotonic() - began
        took = await ready - began
        busy, server = cpu_seconds(pid), cpu_seconds(here.server) if here.server else 0.0
        await here.quiet(operator)
        cpu, writes, asked, since = cpu_seconds(pid), operator.writes(), here.agents.requests, time.monotonic()
        await asyncio.sleep(quiet)
        share = (cpu_seconds(pid) - cpu) / (time.monotonic() - since)
        return {
            "ready_per_s": count / took,
            "created_s": created,
            "operator_cpu_s": busy,
            "server_cpu_s": server,
            "cpu_share": share,
            "writes": operator.writes() - writes,
            "questions_per_s": (here.agents.requests - asked) / quiet,
            "memory_mib": resident_mib(pid),
        }


class _Condition(msgspec.Struct):
    type: str
    status: str = ""


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Swarm(msgspec.Struct):
    metadata: _Meta
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Swarm


async def _ready(here: Scene, count: int, deadline: float) -> float:
    """When (monotonic) so many Swarms were ready by their own status."""
    done: set[str] = set()

    def take(swarm: Any) -> None:
        if any(c.type == "Ready" and c.status == "True" for c in swarm.status.conditions):
            done.add(swarm.metadata.name)

    async with asyncio.timeout(deadline):
        while True:
            page = await here.api.list_page("Swarm", here.namespace, limit=0)
            for item in page.items:
                take(msgspec.json.decode(item, type=_Swarm))
            version = page.metadata.resource_version
            try:
                lines = here.api.watch(
                    "Swarm", here.namespace, selector="", version=version, server_timeout=600, silence=600
                )
                if len(done) >= count:
                    return time.monotonic()
                async for line in lines:
                    event = msgspec.json.decode(line, type=_Event)
                    if event.type in ("ADDED", "MODIFIED"):
                        take(event.object)
                    if len(done) >= count:
                        return time.monotonic()
            except ApiError as error:
                if error.status != 410:
                    raise
