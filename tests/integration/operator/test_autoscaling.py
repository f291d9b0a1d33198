"""The number of compute agents follows the load, as real agents tell it; or another autoscaler owns it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from support.clusters import TestCluster
from support.kubectl import Kubectl
from support.load import Load
from support.operatorlive import Client, Operator, swarm
from swarm_agents.client import Connection
from swarm_deploy.connect import resolve
from swarm_operator.kube import RESOURCES, ApiError

IMAGE = os.environ.get("SWARM_TEST_IMAGE", "agentswarm/agent:0.1.0")
PATIENCE = 150.0


async def replicas(client: Client) -> int:
    return int((await client.get("Swarm", "risk"))["spec"]["compute"]["replicas"])


async def compute_pods(client: Client) -> list[dict[str, Any]]:
    return [
        pod
        for pod in await client.list("Pod", "agentswarm.dev/role=compute")
        if "deletionTimestamp" not in pod["metadata"]
    ]


async def test_an_hpa_or_keda_can_own_the_replicas_by_the_scale_subresource(
    client: Client, kubectl: Kubectl, start: Callable[..., Operator]
) -> None:
    operator = start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 2}))
    path = RESOURCES["Swarm"].path(client.namespace, "risk", "scale")

    async def counted(count: int) -> dict[str, Any]:
        async def there() -> Any:
            scale = msgspec.json.decode(await client.api.request("GET", path))
            return scale if scale["status"]["replicas"] == count == len(await compute_pods(client)) else None

        return dict(await client.until(there, f"{count} agents"))

    scale = await counted(2)
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
    # what an HPA finds the pods by, whose use it averages: the compute agents and nobody else
    chosen = {pod["metadata"]["name"] for pod in await client.list("Pod", scale["status"]["selector"])}
    assert chosen == {pod["metadata"]["name"] for pod in await compute_pods(client)}

    # an HPA reads the Scale, changes it and puts it back
    body = {**scale, "spec": {"replicas": 4}}
    await client.api.request("PUT", path, query={"fieldManager": "horizontal-pod-autoscaler"}, body=body)
    await counted(4)
    kubectl("scale", "swarm/risk", "--replicas=1")
    await counted(1)
    kubectl("scale", "swarm/risk", "--replicas=0")
    await counted(0)
    managers = {
        (entry["manager"], entry.get("subresource"))
        for entry in (await client.get("Swarm", "risk"))["metadata"]["managedFields"]
    }
    assert ("agentswarm-autoscaler", "scale") not in managers
    assert await client.condition("risk", "Autoscaling") == {}
    assert not [line for line in operator.lines() if line.get("message") == "scaled"]


async def test_the_count_of_another_swarm_of_the_same_name_is_not_written(client: Client) -> None:
    await client.create(swarm(compute={"replicas": 2}))
    with pytest.raises(ApiError) as refused:
        await client.api.scale("Swarm", client.namespace, "risk", "another-uid", 5, "agentswarm-autoscaler")
    assert refused.value.status == 409
    assert await replicas(client) == 2


async def test_bounds_hold_for_everybody_and_a_schedule_raises_the_lower_one(
    client: Client, start: Callable[..., Operator]
) -> None:
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 9, "min": 2, "max": 4}))

    async def count(wanted: int) -> bool:
        return await replicas(client) == wanted

    await client.until(lambda: count(4), "the upper bound to be kept")
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 0}}})
    await client.until(lambda: count(2), "the lower bound to be kept")
    always = {"schedule": [{"cron": "* * * * *", "timeZone": "Europe/Zurich", "duration": "1h", "min": 3}]}
    await client.merge("Swarm", "risk", {"spec": {"autoscaling": always}})
    await client.until(lambda: count(3), "the schedule to raise it")
    await client.until(lambda: _pods(client, 3), "its pods")
    owners = [
        entry
        for entry in (await client.get("Swarm", "risk"))["metadata"]["managedFields"]
        if entry["manager"] == "agentswarm-autoscaler"
    ]
    assert [entry["subresource"] for entry in owners] == ["scale"]
    assert owners[0]["fieldsV1"] == {"f:spec": {"f:compute": {"f:replicas": {}}}}

    never = {"schedule": [{"cron": "0 25 * * *", "min": 3}]}
    await client.merge("Swarm", "risk", {"spec": {"autoscaling": never}})

    async def refused() -> Any:
        accepted = await client.condition("risk", "Accepted")
        return accepted if accepted.get("status") == "False" else None

    accepted = await client.until(refused, "the schedule to be refused")
    assert accepted["reason"] == "Invalid"
    assert "spec.autoscaling.schedule[0].cron" in accepted["message"]


async def _pods(client: Client, count: int) -> bool:
    return len(await compute_pods(client)) == count


@pytest.fixture
async def loads(client: Client, cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Makes clients that keep the swarm busy; all are ended with the test."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    made: list[Load] = []

    def find() -> Connection:
        found = resolve(f"{client.namespace}/risk")
        assert found is not None
        return found

    async def begin(**options: Any) -> Load:
        load = await asyncio.to_thread(lambda: Load(find, **options))
        made.append(load)
        return load

    yield begin
    for load in made:
        await asyncio.to_thread(load.stop, 5.0)
    await client.delete("Swarm", "risk")


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.timeout(580)
async def test_agents_come_with_the_load_and_leave_with_it_to_none_and_back_and_no_task_is_lost(
    client: Client, kubectl: Kubectl, start: Callable[..., Operator], loads: Any
) -> None:
    operator = start("--no-leader-election")
    manifest = swarm(
        image=IMAGE,
        compute={"replicas": 1, "min": 0, "max": 3, "cpus": "100m"},
        autoscaling={"targetQueueTime": "50ms", "scaleInWindow": "8s"},
        transport={"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 32}},
    )
    manifest["spec"]["imagePullPolicy"] = "IfNotPresent"
    await client.create(manifest)

    async def hubs() -> bool:
        return int(((await client.get("Swarm", "risk")).get("status") or {}).get("resource", {}).get("ready", 0)) == 2

    async def agents(count: int) -> bool:
        status = (await client.get("Swarm", "risk")).get("status") or {}
        return bool(
            await replicas(client) == count
            and status.get("compute", {}).get("ready") == count == len(await compute_pods(client))
        )

    await client.until(hubs, "the hubs", PATIENCE)
    # nothing to do: the only agent leaves when a window is over
    await client.until(lambda: agents(0), "an idle swarm to go to zero", PATIENCE)

    # work that waits at a hub wakes it, and as much as it is makes it grow to the most that are allowed
    load = await loads(board=False, window=12, seconds=0.4)
    await client.until(lambda: agents(3), "the swarm to grow", PATIENCE)

    async def told(reason: str) -> Any:
        condition = await client.condition("risk", "Autoscaling")
        return condition if condition.get("reason") == reason else None

    limited = await client.until(lambda: told("AtMax"), "the bound to be told", PATIENCE)
    assert "compute.max is 3" in limited["message"]
    described = kubectl("describe", "swarm", "risk").out
    for text in ("Autoscaling", "AtMax", "ScaledOut", "Service Time", "Arrivals Per Second", "waited longer than 50ms"):
        assert text in described, described
    await asyncio.to_thread(load.stop)
    assert load.answers
    assert (load.lost(), load.doubled(), load.errors) == (0, 0, [])

    # less to do: one task after the other needs one agent, and the others are drained while it works
    load = await loads(board=False, window=1, seconds=0.3)
    await client.until(lambda: agents(1), "the swarm to shrink under a small load", PATIENCE)
    assert "drained)" in " ".join(str(line["message"]) for line in operator.lines())
    await asyncio.to_thread(load.stop)
    assert (load.lost(), load.doubled(), load.errors) == (0, 0, [])

    await client.until(lambda: agents(0), "the swarm to go to zero again", PATIENCE)
    # and from zero by a task that is put on a node's board by a program there
    load = await loads(board=True, window=1, seconds=0.05)
    await client.until(lambda: agents(1), "a task on the board to wake the swarm", PATIENCE)
    await asyncio.to_thread(load.stop)
    assert load.answers
    assert (load.lost(), load.doubled(), load.errors) == (0, 0, [])
    status = (await client.get("Swarm", "risk"))["status"]["autoscaling"]
    assert (status["min"], status["max"]) == (0, 3)
    assert status["lastScaleTime"]
    assert 'swarm_operator_autoscales_total{result="out"}' in operator.http("/metrics")
