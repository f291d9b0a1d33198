"""What a large Swarm costs: how soon one edited pod among thousands is repaired, and the operator's memory.

- `repairs`: labels of single pods are edited, one after the other; a repair is over when the API server shows the
  pod with its label again.
- `memory`: the operator's resident memory while it watches many agents, all of them ready and acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import time

from fakes import FakePod
from scene import Scene, cpu_seconds, resident_mib, scene

from swarm_operator.kube import RESOURCES

__all__ = ["memory", "repairs"]

_LABEL = "agentswarm.dev/role"
#: The API's bound on one Swarm's compute agents.
_MOST = 5000


async def _filled(here: Scene, agents: int, each: int) -> tuple[int, float]:
    """An operator that has made so many agents, in Swarms of `each`, and is quiet; its process and how long it took."""
    operator = here.start_operator()
    await here.started(operator, "leading")
    await here.started(operator)
    began = time.monotonic()
    for number in range(agents // each):
        await here.client.create(here.swarm(f"big-{number:02}", each))
    await here.pods.until(lambda: here.pods.ready >= agents, f"{agents} ready agents", 400)
    took = time.monotonic() - began
    await here.quiet(operator, deadline=180.0)
    assert operator.process
    return operator.process.pid, took


def repairs(agents: int = 5000, edits: int = 100, seed: int = 5) -> dict[str, float]:
    """`p99`, `p50`, `worst` (seconds) of single edits, and the processor time that each costs the operator."""
    return asyncio.run(_repairs(agents, edits, seed))


async def _repairs(agents: int, edits: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    samples: list[float] = []
    async with scene() as here:
        pid, took = await _filled(here, agents, min(agents, _MOST))
        pods = sorted(here.pods.all.values(), key=lambda pod: pod.name)
        before = cpu_seconds(pid)
        for _ in range(edits):
            pod = rng.choice(pods)
            wanted = pod.labels[_LABEL]
            mended = asyncio.Event()
            edited = False

            def look(kind: str, seen: FakePod, pod: FakePod = pod, wanted: str = wanted) -> None:
                nonlocal edited
                if seen.uid == pod.uid and kind == "MODIFIED":
                    edited = edited or seen.labels.get(_LABEL) != wanted
                    if edited and seen.labels.get(_LABEL) == wanted:
                        mended.set()  # noqa: B023 - this round's

            here.pods.on_event = look
            began = time.monotonic()
            path = RESOURCES["Pod"].path(here.namespace, pod.name)
            patch = {"metadata": {"labels": {_LABEL: "edited"}}}
            kind = "application/merge-patch+json"
            await here.api.request("PATCH", path, "Pod", body=patch, content_type=kind)
            async with asyncio.timeout(30):
                await mended.wait()
            samples.append(time.monotonic() - began)
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        spent = cpu_seconds(pid) - before
        samples.sort()
        return {
            "p99": samples[min(len(samples) - 1, int(len(samples) * 0.99))],
            "p50": samples[len(samples) // 2],
            "worst": samples[-1],
            "cpu_each_s": spent / edits,
            "filled_s": took,
            "memory_mib": resident_mib(pid),
        }


def memory(agents: int = 10_000, each: int = 500) -> dict[str, float]:
    """`resident` and `most` (MiB) with so many agents."""
    return asyncio.run(_memory(agents, each))


async def _memory(agents: int, each: int) -> dict[str, float]:
    async with scene() as here:
        pid, took = await _filled(here, agents, each)
        cpu, since = cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(10.0)
        return {
            "resident": resident_mib(pid),
            "most": resident_mib(pid, "VmHWM"),
            "filled_s": took,
            "idle_cpu_share": (cpu_seconds(pid) - cpu) / (time.monotonic() - since),
        }
