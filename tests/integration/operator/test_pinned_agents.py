"""Running agents say whose their cores are: required and not had, they are not ready and the Swarm says why.

What the embedded cluster's cores are worth depends on the machine: two nodes of four CPUs each are simulated ones of
their own where there are eight real ones, and overlap where there are fewer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from support.operatorlive import Client, Operator, swarm

IMAGE = os.environ.get("SWARM_TEST_IMAGE", "agentswarm/agent:0.1.0")
pytestmark = [pytest.mark.slow, pytest.mark.embedded]

READY = 90.0
ENOUGH = len(os.sched_getaffinity(0)) >= 8


def running(**scheduling: Any) -> dict[str, Any]:
    made = swarm(
        image=IMAGE,
        compute={"replicas": 1, "cpus": "1"},
        transport={"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 16}},
        scheduling=scheduling,
    )
    made["spec"]["imagePullPolicy"] = "IfNotPresent"
    return made


async def test_required_cores_and_preferred_ones(client: Client, start: Callable[..., Operator]) -> None:
    start("--no-leader-election")
    await client.create(running(cpuPinning="Required", nodeSelector={"kubernetes.io/hostname": "node-2"}))

    async def judged() -> dict[str, Any] | None:
        found = await client.condition("risk", "Pinned")
        return found if found.get("reason") in ("Unfit", "Simulated") else None

    found = await client.until(judged, "the agent's word", READY)
    if ENOUGH:
        assert (found["status"], found["reason"]) == ("Unknown", "Simulated")
    else:
        assert (found["status"], found["reason"]) == ("False", "Unfit")
        assert "scheduling.cpuPinning is Required" in found["message"]
        assert "risk-compute-0-0" in found["message"]
        (pod,) = [p for p in await client.list("Pod") if "-compute-" in p["metadata"]["name"]]
        conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
        assert conditions["Ready"] == "False"
        assert (await client.condition("risk", "Ready"))["status"] == "False"

        async def told() -> bool:
            return any(event["reason"] == "PlacementUnmet" for event in await client.list("Event", ""))

        await client.until(told, "the Event")
    (cores,) = (await client.get("Swarm", "risk"))["status"]["cores"]
    assert cores["agent"] == "risk-compute-0-0"
    assert cores["exclusive"] == ("Unknown" if ENOUGH else "False")
    assert cores["cpus"]

    await client.merge("Swarm", "risk", {"spec": {"scheduling": {"cpuPinning": "Preferred"}}})

    async def ready() -> bool:
        found = await client.get("Swarm", "risk")
        conditions = {c["type"]: c for c in found["status"]["conditions"]}
        return bool(
            conditions["Ready"]["status"] == "True"
            and conditions["Progressing"]["status"] == "False"
            and conditions["Pinned"]["reason"] == ("Simulated" if ENOUGH else "CoresShared")
        )

    await client.until(ready, "the swarm with preferred cores", READY)
    await client.delete("Swarm", "risk")
