"""How long nobody writes when the leading replica is killed.

Two replicas, one Swarm. The leader is killed at a random instant of its renewal, and in the same moment the Swarm is
scaled out by one; what counts is the time until the new pod exists, which only the other replica can have made. Then a
new second replica is started, and so on.
"""

from __future__ import annotations

import asyncio
import random
import time

from scene import scene

__all__ = ["takeover"]


def takeover(kills: int = 6, seed: int = 7) -> dict[str, float]:
    """`worst` and `median` seconds from the SIGKILL to the first pod that the second replica created; `clean`: the
    worst when the leader is ended by SIGTERM instead."""
    return asyncio.run(_takeover(kills, seed))


async def _takeover(kills: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    samples: dict[bool, list[float]] = {True: [], False: []}
    async with scene() as here:
        leader = here.start_operator()
        await here.started(leader, "leading")
        await here.started(leader)
        replicas = 2
        await here.client.create(here.swarm("ha", replicas))
        for number in range(2 * kills):
            clean = bool(number % 2)
            second = here.start_operator()
            await here.started(second)
            wanted = replicas + len(here.nodes)
            await here.pods.until(lambda wanted=wanted: here.pods.ready >= wanted, f"{wanted} agents", 30)
            await here.quiet(leader, 1.5)
            await asyncio.sleep(rng.uniform(0.0, 2.0))
            made = here.pods.created
            replicas += 1
            assert leader.process
            began = time.monotonic()
            if clean:
                leader.process.terminate()
            else:
                leader.kill()
            await here.client.merge("Swarm", "ha", {"spec": {"compute": {"replicas": replicas}}})
            await here.pods.until(lambda made=made: here.pods.created > made, "a pod of the new leader", 30)
            samples[clean].append(max(pod.seen for pod in here.pods.all.values()) - began)
            if clean:
                leader.process.wait(20)
            leader = second
    killed = sorted(samples[False])
    return {"worst": killed[-1], "median": killed[len(killed) // 2], "clean": max(samples[True]), "kills": len(killed)}
