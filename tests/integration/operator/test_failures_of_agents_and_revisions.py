"""With agents that run: one that keeps dying is replaced in time, and a revision that can't run is gone back from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from support.operatorlive import UNPULLABLE, Client, Operator, swarm

pytestmark = [pytest.mark.slow, pytest.mark.embedded]

READY = 90.0


def compute(pods: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those that are not on their way out, by UID."""
    return {
        pod["metadata"]["uid"]: pod
        for pod in pods
        if "-compute-" in pod["metadata"]["name"] and "deletionTimestamp" not in pod["metadata"]
    }


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def agents_of(pod: str, namespace: str) -> Iterator[psutil.Process]:
    """The agent processes in a pod of the embedded cluster: their parents have the pod's environment, too."""
    for process in psutil.process_iter():
        try:
            env, parent = process.environ(), process.parent()
            mine = env.get("POD_NAME") == pod and env.get("SWARM_NAMESPACE") == namespace
            if mine and parent is not None and parent.environ().get("POD_NAME") == pod:
                yield process
        except (psutil.Error, OSError):
            continue


async def settled(client: Client) -> dict[str, Any] | None:
    """The Swarm's status, if it speaks of its spec and says that all is ready and nothing is going on."""
    found = await client.get("Swarm", "risk")
    status = found.get("status") or {}
    conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
    fresh = status.get("observedGeneration") == found["metadata"]["generation"]
    calm = fresh and conditions.get("Ready") == "True" and conditions.get("Progressing") == "False"
    return dict(status) if calm else None


async def test_an_agent_that_keeps_dying_and_a_revision_that_can_not_run_are_replaced(
    client: Client, start: Callable[..., Operator]
) -> None:
    operator = start("--no-leader-election")
    manifest = swarm(
        image="agentswarm/agent:0.1.0",
        compute={"replicas": 1, "cpus": "100m"},
        transport={"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 16}},
        failover={"prediction": {"threshold": 60}},
        rollout={"maxSurge": 1, "maxUnavailable": 0, "autoRollback": True, "progressDeadline": "10s"},
    )
    manifest["spec"]["imagePullPolicy"] = "IfNotPresent"
    await client.create(manifest)
    await client.until(lambda: settled(client), "the first agents", READY)
    (before,) = compute(await client.list("Pod")).values()
    seen: list[int] = []

    async def observed() -> dict[str, dict[str, Any]]:
        found = compute(await client.list("Pod"))
        seen.append(sum(map(is_ready, found.values())))
        return found

    # it dies twice, is there again in no time, and expects to die once more
    name, killed = before["metadata"]["name"], set()

    async def kill_another() -> bool:
        for process in agents_of(name, client.namespace):
            if process.pid not in killed:
                killed.add(process.pid)
                process.kill()
                break
        return len(killed) >= 2

    await client.until(kill_another, "two agents to be killed")

    async def replaced() -> bool:
        found = await observed()
        return before["metadata"]["uid"] not in found and bool(await settled(client))

    await client.until(replaced, "the agent to be replaced", READY)
    said = " ".join(str(line["message"]) for line in operator.lines())
    assert f"pod {name} is replaced, predicted to fail (" in said
    assert "its process died 2 times" in said
    (after,) = compute(await client.list("Pod")).values()
    assert after["metadata"]["annotations"]["agentswarm.dev/instead-of"] == before["metadata"]["uid"]

    # an image that no node can have; the operator is killed while it waits for it
    seen.clear()
    good = (await client.get("Swarm", "risk"))["status"]["revision"]
    await client.merge("Swarm", "risk", {"spec": {"image": UNPULLABLE}})

    async def begun() -> bool:
        return len(await observed()) == 2

    await client.until(begun, "an agent of the new revision")
    operator.kill()
    start("--no-leader-election")

    async def rolled_back() -> bool:
        found = await observed()
        said = await client.condition("risk", "RolledBack")
        return said.get("status") == "True" and set(found) == {after["metadata"]["uid"]}

    await client.until(rolled_back, "the roll-back", READY)
    assert min(seen) >= 1, "with maxUnavailable 0 an agent is always there"
    found = await client.condition("risk", "RolledBack")
    assert good in found["message"]
    assert "not ready within 10 s: risk-compute-" in found["message"]
    status = await client.until(lambda: settled(client), "rest", READY)
    assert status["revision"] == good
    assert "RolledBack" in {event["reason"] for event in await client.list("Event", selector="")}
    await client.delete("Swarm", "risk")
