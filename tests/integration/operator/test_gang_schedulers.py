"""Gangs with the schedulers themselves, where the cluster of SWARM_TEST_KUBECONFIG has them.

Kueue: its controller with the integration `pod`. Coscheduling: a second scheduler named `scheduler-plugins-scheduler`,
as the project's own chart installs it, and its controller. The pods never run: to be given a node is what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from kubernetes.utils.quantity import parse_quantity

from support.operatorlive import Client, Operator, swarm
from swarm_operator.kube import ApiError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KUEUE = "/apis/kueue.x-k8s.io/v1beta1"
SCHEDULER = "scheduler-plugins-scheduler"
MERGE = "application/merge-patch+json"
#: Seconds: the schedulers look again at their own pace.
LIMIT = 90.0
#: The coscheduling plugin does not look again when a pod goes: its pods wait for the scheduler's own round, each 5 min.
ROUND = 420.0


async def served(client: Client, path: str) -> bool:
    try:
        await client.api.request("GET", path)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


async def compute(client: Client) -> list[dict[str, Any]]:
    return [
        pod
        for pod in await client.list("Pod", "agentswarm.dev/role=compute")
        if "deletionTimestamp" not in pod["metadata"]
    ]


def placed(pods: list[dict[str, Any]]) -> int:
    return sum("nodeName" in pod["spec"] for pod in pods)


def all_placed(client: Client, count: int) -> Callable[[], Any]:
    async def check() -> bool:
        pods = await compute(client)
        return len(pods) == count == placed(pods)

    return check


class Queue:
    """A ClusterQueue with a LocalQueue in the test's namespace, both of one name."""

    def __init__(self, client: Client) -> None:
        self._api, self.name, self._namespace = client.api, client.namespace, client.namespace

    async def create(self, cpu: str) -> None:
        flavor = {"metadata": {"name": self.name}, "spec": {}}
        queue = {"metadata": {"name": self.name}, "spec": {"namespaceSelector": {}, **self._quota(cpu)}}
        local = {"metadata": {"name": self.name}, "spec": {"clusterQueue": self.name}}
        await self._post("resourceflavors", {"kind": "ResourceFlavor", **flavor})
        await self._post("clusterqueues", {"kind": "ClusterQueue", **queue})
        await self._post(f"namespaces/{self._namespace}/localqueues", {"kind": "LocalQueue", **local})

    async def allow(self, cpu: str) -> None:
        path = f"{KUEUE}/clusterqueues/{self.name}"
        await self._api.request("PATCH", path, body={"spec": self._quota(cpu)}, content_type=MERGE)

    async def delete(self) -> None:
        for path in (f"namespaces/{self._namespace}/localqueues", "clusterqueues", "resourceflavors"):
            await self._api.request("DELETE", f"{KUEUE}/{path}/{self.name}")

    async def workloads(self) -> list[dict[str, Any]]:
        data = await self._api.request("GET", f"{KUEUE}/namespaces/{self._namespace}/workloads")
        return list(msgspec.json.decode(data)["items"])

    def _quota(self, cpu: str) -> dict[str, Any]:
        amounts = {"cpu": cpu, "memory": "100Gi", "ephemeral-storage": "100Gi"}
        resources = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
        flavors = [{"name": self.name, "resources": resources}]
        return {"resourceGroups": [{"coveredResources": list(amounts), "flavors": flavors}]}

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        body = {"apiVersion": "kueue.x-k8s.io/v1beta1", **body}
        await self._api.request("POST", f"{KUEUE}/{path}", body=body)


@pytest.fixture
async def queue(client: Client) -> AsyncIterator[Queue]:
    if not await served(client, f"{KUEUE}/clusterqueues"):
        pytest.skip("this cluster has no Kueue")
    made = Queue(client)
    await made.create("50m")
    yield made
    await made.delete()


async def test_kueue_admits_a_gang_whole_and_what_comes_later_singly(
    client: Client, queue: Queue, start: Callable[..., Operator]
) -> None:
    start("--no-leader-election", everywhere=True)
    small = {"replicas": 3, "cpus": "20m", "memory": "400Mi"}
    await client.create(swarm(compute=small, scheduling={"gang": "Kueue", "queueName": queue.name}))

    def holding(workload: dict[str, Any]) -> set[str]:
        conditions = workload.get("status", {}).get("conditions", ())
        return {each["type"] for each in conditions if each["status"] == "True"}

    async def refused() -> bool:
        conditions = [each for load in await queue.workloads() for each in load.get("status", {}).get("conditions", ())]
        return any(each["type"] == "QuotaReserved" and each["status"] == "False" for each in conditions)

    await client.until(refused, "Kueue to say that there is no quota for the group", LIMIT)
    assert len(await queue.workloads()) == 1, "the start is one workload"
    pods = await compute(client)
    assert (len(pods), placed(pods)) == (3, 0), "quota for two of three: none starts"
    assert (await client.condition("risk", "Placed"))["reason"] == "GangWaiting"

    async def settled() -> bool:
        return not await client.list("Pod", "agentswarm.dev/role=compute")

    await client.merge("Swarm", "risk", {"spec": {"suspend": True}})
    await client.until(settled, "the pods of a group that was never admitted to go", LIMIT)
    await client.merge("Swarm", "risk", {"spec": {"suspend": False}})

    await queue.allow("70m")
    await client.until(all_placed(client, 3), "all three to have a node", LIMIT)

    await queue.allow("100m")
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 4}}})
    await client.until(all_placed(client, 4), "the fourth to have a node", LIMIT)
    admitted = [each for each in await queue.workloads() if "Finished" not in holding(each)]
    assert len(admitted) == 2, "who comes later is a workload of its own"

    await client.merge("Swarm", "risk", {"spec": {"suspend": True}})
    await client.until(settled, "Kueue to let go of the pods of a suspended swarm", LIMIT)
    await client.merge("Swarm", "risk", {"spec": {"suspend": False}})
    await client.until(all_placed(client, 4), "the resumed swarm to start whole", LIMIT)
    await client.delete("Swarm", "risk")
    await client.until(settled, "the pods of a deleted swarm to go", LIMIT)


async def free_millicores(client: Client, node: dict[str, Any]) -> int:
    """What the node's pods have not requested of its processors."""
    free = parse_quantity(node["status"]["allocatable"]["cpu"])
    page = await client.api.list_page("Pod", "", selector="")
    for pod in (msgspec.json.decode(item) for item in page.items):
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and pod["status"]["phase"] in ("Pending", "Running"):
            asked = (each.get("resources", {}).get("requests", {}) for each in pod["spec"]["containers"])
            free -= sum((parse_quantity(each.get("cpu", "0")) for each in asked), Decimal(0))
    return math.floor(free * 1000)


def blocker(node: str, millicores: int) -> dict[str, Any]:
    """Holds its share of the node for as long as it is there; it never runs, and is to be gone at once."""
    container = {
        "name": "none",
        "image": "example.com/no/such:image",
        "imagePullPolicy": "Never",
        "resources": {"requests": {"cpu": f"{millicores}m"}},
    }
    spec = {
        "containers": [container],
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "blocker"}, "spec": spec}


async def test_coscheduling_starts_a_gang_whole_once_there_is_room(
    client: Client, start: Callable[..., Operator]
) -> None:
    if not await served(client, "/apis/scheduling.x-k8s.io/v1alpha1/podgroups"):
        pytest.skip("this cluster has no coscheduling plugin")
    start("--no-leader-election", everywhere=True)
    node = (await client.list("Node", ""))[0]
    host = node["metadata"]["labels"]["kubernetes.io/hostname"]
    free = await free_millicores(client, node)
    await client.create(blocker(host, free // 2))

    async def blocked() -> Any:
        return (await client.get("Pod", "blocker"))["spec"].get("nodeName")

    await client.until(blocked, "half of the node to be taken", LIMIT)
    await client.create(
        swarm(
            compute={"replicas": 3, "cpus": f"{free // 5}m", "memory": "400Mi"},
            scheduling={
                "gang": "Coscheduling",
                "schedulerName": SCHEDULER,
                "nodeSelector": {"kubernetes.io/hostname": host},
            },
        )
    )

    async def refused() -> bool:
        pods = await compute(client)
        conditions = [each for pod in pods for each in pod["status"].get("conditions", ())]
        unfit = [each for each in conditions if each["type"] == "PodScheduled" and each["status"] == "False"]
        return len(unfit) == 3

    await client.until(refused, "the scheduler to have looked at each of three", LIMIT)
    assert placed(await compute(client)) == 0, "room for two of three: none starts"

    await client.delete("Pod", "blocker")
    await client.until(all_placed(client, 3), "all three to have a node", ROUND)
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 4}}})
    await client.until(all_placed(client, 4), "the fourth, which comes singly, to have a node", ROUND)
