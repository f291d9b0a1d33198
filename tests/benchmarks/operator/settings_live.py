"""How soon a changed live field is known to every agent.

One Swarm whose agents have all acknowledged their settings; then a live field is edited again and again, and each time
the moment counts in which the last agent has acknowledged what the edit asks for.
"""

from __future__ import annotations

import asyncio
import random
import time

from scene import Scene, scene

__all__ = ["measure"]


def measure(agents: int = 100, edits: int = 100, seed: int = 11) -> dict[str, float]:
    """`p99`, `p50` and `worst` seconds from the edit (before it is sent) to the last acknowledgement."""
    return asyncio.run(_measure(agents, edits, seed))


async def _measure(agents: int, edits: int, seed: int) -> dict[str, float]:
    rng, samples = random.Random(seed), []
    async with scene() as here:
        operator = here.start_operator()
        await here.started(operator, "leading")
        await here.started(operator)
        await here.client.create(here.swarm("live", agents))
        wanted = agents + len(here.nodes)
        await here.pods.until(lambda: here.pods.ready >= wanted, f"{wanted} ready agents", 200)
        await here.quiet(operator, 4.0)
        addresses = {pod.address for pod in here.pods.all.values()}
        for number in range(edits):
            samples.append(await _edit(here, addresses, f"{200 + number}ms"))
            await asyncio.sleep(rng.uniform(0.0, 0.5))
    samples.sort()
    return {
        "p99": samples[min(len(samples) - 1, int(len(samples) * 0.99))],
        "p50": samples[len(samples) // 2],
        "worst": samples[-1],
    }


async def _edit(here: Scene, addresses: set[str], interval: str) -> float:
    before = {here.agents.by_address[address].settings for address in addresses}
    left, last, done = set(addresses), time.monotonic(), asyncio.Event()

    def acknowledged(address: str, revision: str) -> None:
        nonlocal last
        if address in left and revision not in before:
            left.discard(address)
            last = time.monotonic()
            if not left:
                done.set()

    here.agents.on_settings = acknowledged
    began = time.monotonic()
    await here.client.merge("Swarm", "live", {"spec": {"resource": {"interval": interval}}})
    async with asyncio.timeout(60):
        await done.wait()
    return last - began
