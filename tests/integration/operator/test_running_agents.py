"""With agents that run: settings pushed and acknowledged, agents rolled, drained before they leave, and replaced.

On a real cluster SWARM_TEST_IMAGE names the agents' image; without it these tests run on the embedded cluster alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from support.fieldtable import LIVE, merged
from support.operatorlive import Client, Operator, swarm

IMAGE = os.environ.get("SWARM_TEST_IMAGE", "agentswarm/agent:0.1.0")
pytestmark = [pytest.mark.slow] + ([] if "SWARM_TEST_IMAGE" in os.environ else [pytest.mark.embedded])

READY = 90.0


def running(**spec: Any) -> dict[str, Any]:
    compute = {"replicas": 1, "cpus": "100m"} | spec.pop("compute", {})
    memory = {"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 16}}
    made = swarm(image=IMAGE, compute=compute, transport=memory, **spec)
    made["spec"]["imagePullPolicy"] = "IfNotPresent"
    return made


async def status(client: Client) -> dict[str, Any]:
    return dict((await client.get("Swarm", "risk")).get("status") or {})


async def ready(client: Client, agents: int) -> bool:
    generation = (await client.get("Swarm", "risk"))["metadata"]["generation"]
    found = await status(client)
    conditions = {c["type"]: c for c in found.get("conditions", ())}
    return bool(
        found.get("observedGeneration") == generation
        and found.get("compute", {}).get("ready") == agents == found["compute"]["current"]
        and conditions["Ready"]["status"] == "True"
        and conditions["Progressing"]["status"] == "False"
        and found["observedSettings"] == found["settings"] != ""
    )


async def pods(client: Client) -> dict[str, str]:
    """UID by name, of those that are not on their way out."""
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in await client.list("Pod")
        if "deletionTimestamp" not in pod["metadata"]
    }


async def test_the_life_of_a_swarm(client: Client, start: Callable[..., Operator]) -> None:
    operator = start("--no-leader-election")
    await client.create(running())
    await client.until(lambda: ready(client, 1), "the first agents", READY)
    first, before = await pods(client), await status(client)

    # every live field that agents run by: pushed and acknowledged, no pod is touched
    live: dict[str, Any] = {}
    for entry in LIVE.values():
        if entry.agents and not entry.count and not entry.base:
            live = merged(live, entry.patch)
    assert {"failover", "resource", "runtime", "compute"} <= set(live)
    await client.merge("Swarm", "risk", {"spec": live})

    async def acknowledged() -> bool:
        found = await status(client)
        return found["observedSettings"] == found["settings"] != before["settings"]

    await client.until(acknowledged, "the settings to be acknowledged")
    assert await pods(client) == first
    assert (await status(client))["revision"] == before["revision"]

    # scale-out, then scale-in: the victim is drained, says that it is empty, and is deleted by name
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 2}}})
    await client.until(lambda: ready(client, 2), "the second agent", READY)
    assert first.items() <= (await pods(client)).items()
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 1}}})
    await client.until(lambda: ready(client, 1), "the second agent to leave", READY)
    said = " ".join(str(line["message"]) for line in operator.lines())
    assert "Draining pod risk-compute-" in said
    assert "(scaled in to 1; drained)" in said

    # a pod that is lost is replaced under another name
    (lost,) = [name for name in await pods(client) if "-compute-" in name]
    await client.api.request("DELETE", f"/api/v1/namespaces/{client.namespace}/pods/{lost}")

    async def replaced() -> bool:
        return lost not in await pods(client) and await ready(client, 1)

    await client.until(replaced, "the lost agent to be replaced", READY)

    # suspended: no agent, everything else is kept
    secret = await client.get("Secret", "risk-keys")
    await client.merge("Swarm", "risk", {"spec": {"suspend": True}})

    async def nobody() -> bool:
        return not await client.list("Pod")

    await client.until(nobody, "all agents to leave", READY)
    assert (await client.get("Secret", "risk-keys"))["data"] == secret["data"]
    await client.delete("Swarm", "risk")


async def test_a_rolling_change_replaces_running_agents_within_its_bounds(
    client: Client, start: Callable[..., Operator]
) -> None:
    start("--no-leader-election")
    await client.create(running(rollout={"maxSurge": 1, "maxUnavailable": 0}))
    await client.until(lambda: ready(client, 1), "the first agents", READY)
    before = await pods(client)
    revision = (await status(client))["revision"]
    await client.merge("Swarm", "risk", {"spec": {"runtime": {"threads": 1}}})
    seen: list[int] = []

    async def rolled() -> bool:
        found = await client.list("Pod")
        compute = [pod for pod in found if "-compute-" in pod["metadata"]["name"]]
        up = [
            pod
            for pod in compute
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))
        ]
        seen.append(len(up))
        return (await status(client))["revision"] != revision and await ready(client, 1)

    await client.until(rolled, "the new revision", READY)
    assert min(seen) >= 1, "with maxUnavailable 0 an agent is always there"
    assert not set((await pods(client)).values()) & set(before.values())
