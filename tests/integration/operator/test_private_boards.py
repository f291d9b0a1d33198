"""Swarms whose pods have boards of their own: at work, with agents, hubs and pods that die, scaled while it is busy.

On a real cluster SWARM_TEST_IMAGE names the agents' image; without it these tests run on the embedded cluster alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from support.clusters import TestCluster
from support.kubectl import Kubectl
from support.load import Load
from support.operatorlive import Client, Operator, swarm
from swarm_agents.client import Connection, Swarm
from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, SETTINGS_FILE, decode_settings
from swarm_deploy.connect import resolve

IMAGE = os.environ.get("SWARM_TEST_IMAGE", "agentswarm/agent:0.1.0")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)] + (
    [] if "SWARM_TEST_IMAGE" in os.environ else [pytest.mark.embedded]
)

PATIENCE = 240.0
BOTH = (AGENT_PORT, HUB_AGENT_PORT)


def manifest(agents: int) -> dict[str, Any]:
    made = swarm(
        image=IMAGE,
        compute={"replicas": agents, "cpus": "100m", "memory": "256Mi"},
        resource={"memory": "256Mi"},
        transport={"sharedMemory": {"medium": "Memory", "size": "16Mi", "taskSlots": 256, "maxMembers": 16}},
    )
    made["spec"]["imagePullPolicy"] = "IfNotPresent"
    return made


class Private:
    """A swarm of private boards, and its agents as their own HTTP shows them."""

    def __init__(self, client: Client, cluster: TestCluster) -> None:
        self.client, self.cluster = client, cluster
        self.loads: list[Load] = []
        self._token = ""

    async def ready(self, agents: int) -> None:
        async def check() -> bool:
            found = await self.client.get("Swarm", "risk")
            status = found.get("status") or {}
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return bool(
                status.get("observedGeneration") == found["metadata"]["generation"]
                and status["compute"]["ready"] == agents == status["compute"]["current"]
                and (conditions["Ready"], conditions["Progressing"]) == ("True", "False")
                and status["observedSettings"] == status["settings"] != ""
            )

        await self.client.until(check, f"{agents} agents", PATIENCE)

    async def begin(self, agents: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(self.cluster.kubeconfig))
        await self.client.create(manifest(agents))
        await self.ready(agents)
        secret = await self.client.get("Secret", "risk-keys")
        self._token = base64.b64decode(secret["data"]["token"]).decode()

    def find(self) -> Connection:
        found = resolve(f"{self.client.namespace}/risk")
        assert found is not None
        assert found.board is None, "nobody but a pod's own containers can reach its board"
        return found

    async def load(self) -> Load:
        self.loads.append(await asyncio.to_thread(Load, self.find, board=False))
        return self.loads[-1]

    async def pods(self) -> list[dict[str, Any]]:
        return [pod for pod in await self.client.list("Pod") if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, pod: dict[str, Any], port: int, path: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{pod['status']['podIP']}:{port}{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    def pid(self, pod: dict[str, Any], port: int) -> int:
        """Of the agent of the moment behind this port."""
        events = self.ask(pod, port, "/v1/events?after=0")["events"]
        return int([event["agent_pid"] for event in events if event["event"] == "AgentReady"][-1])

    async def went_on(self, load: Load, answers: int = 40) -> None:
        """Waits for so many more answers."""
        wanted = len(load.answers) + answers

        async def check() -> bool:
            return len(load.answers) >= wanted

        await self.client.until(check, f"{answers} more answers: {load.errors[:3]}", 60.0)


@pytest.fixture
async def private(client: Client, cluster: TestCluster) -> AsyncIterator[Private]:
    made = Private(client, cluster)
    yield made
    for load in made.loads:
        await asyncio.to_thread(load.stop, 5.0)
    await client.delete("Swarm", "risk")


def said(load: Load) -> dict[str, Any]:
    load.stop()
    return {"sent": load.sent, "lost": load.lost(), "doubled": load.doubled(), "errors": list(map(str, load.errors))}


async def test_pods_with_boards_of_their_own_are_one_swarm_in_a_restricted_namespace(
    private: Private,
    client: Client,
    cluster: TestCluster,
    kubectl: Kubectl,
    start: Callable[..., Operator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kubectl("label", "namespace", client.namespace, "pod-security.kubernetes.io/enforce=restricted")
    start("--no-leader-election")
    await private.begin(2, monkeypatch)
    pods = await private.pods()
    assert [[c["name"] for c in pod["spec"]["containers"]] for pod in pods] == [["agent", "hub"]] * 2
    assert all(c["ready"] for pod in pods for c in pod["status"]["containerStatuses"])
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert not [v for pod in pods for v in pod["spec"]["volumes"] if "hostPath" in v]

    # the user reads it where users look
    text = kubectl("describe", "swarm", "risk").out
    assert "PodSecurity" in text
    assert "RestrictedLevel" in text
    assert "Every pod is of the restricted Pod Security level." in text

    # a client that knows one hub reaches the cores of both pods
    one = await asyncio.to_thread(private.find)
    alone = msgspec.structs.replace(one, hubs=one.hubs[:1])

    def compute() -> tuple[list[int], set[str]]:
        with Swarm.connect(alone) as swarm:
            futures = swarm.submit_many("core.sleep", [0.05] * 64)
            echoes = list(swarm.map("core.echo", range(100)))
            assert all(future.exception(60) is None for future in futures)
            return echoes, {future.info.agent for future in futures}

    echoes, agents = await asyncio.to_thread(compute)
    assert echoes == list(range(100))
    assert agents == {pod["metadata"]["name"] for pod in pods}

    # and REST through the other
    def rest() -> Any:
        target = msgspec.structs.replace(one, hubs=tuple(msgspec.structs.replace(h, address="") for h in one.hubs[1:]))
        with Swarm.connect(target) as swarm:
            return swarm.run("core.echo", 7, timeout=30)

    assert await asyncio.to_thread(rest) == 7

    # live settings reach both agents of each pod
    await client.merge("Swarm", "risk", {"spec": {"failover": {"deadAfter": "2s"}}})
    await private.ready(2)
    wanted = (await client.get("Swarm", "risk"))["status"]["settings"]
    assert {private.ask(pod, port, "/v1/status")["settings"] for pod in pods for port in BOTH} == {wanted}
    roles = sorted(private.ask(pod, port, "/v1/status")["role"] for pod in pods for port in BOTH)
    assert roles == ["compute", "compute", "resource", "resource"]


async def test_nothing_is_lost_when_an_agent_a_hub_and_pods_die(
    private: Private, client: Client, start: Callable[..., Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    start("--no-leader-election")
    await private.begin(3, monkeypatch)
    load = await private.load()
    await private.went_on(load)
    pods = await private.pods()
    for port in BOTH:
        pid = await asyncio.to_thread(private.pid, pods[0], port)
        os.kill(pid, signal.SIGKILL)
        await private.went_on(load)
        assert await asyncio.to_thread(private.pid, pods[0], port) != pid
    # one at once, and one in order: as an eviction ends it, unknown to the operator
    for pod, grace in ((pods[1], 0), (pods[2], 30)):
        lost = pod["metadata"]
        body = {"gracePeriodSeconds": grace, "preconditions": {"uid": lost["uid"]}}
        await client.api.request("DELETE", f"/api/v1/namespaces/{client.namespace}/pods/{lost['name']}", body=body)
        await private.went_on(load)
        await private.ready(3)
        assert lost["uid"] not in {pod["metadata"]["uid"] for pod in await private.pods()}
    found = await asyncio.to_thread(said, load)
    assert (found["lost"], found["doubled"], found["errors"]) == (0, 0, []), found


async def test_a_busy_swarm_is_scaled_out_and_in_and_loses_nothing(
    private: Private, client: Client, start: Callable[..., Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = start("--no-leader-election")
    await private.begin(1, monkeypatch)
    loads = [await private.load(), await private.load()]
    for agents in (3, 1, 2):
        await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": agents}}})
        await private.ready(agents)
        for load in loads:
            await private.went_on(load, 20)
        begun = time.monotonic()

        async def gone(agents: int = agents) -> bool:
            return len(await client.list("Pod")) == agents

        await client.until(gone, f"{agents} pods, after {time.monotonic() - begun:.0f} s", PATIENCE)
    config = await client.get("ConfigMap", "risk-settings")
    hubs = decode_settings(config["data"][SETTINGS_FILE]).hubs
    assert {hub.node for hub in hubs} == {pod["metadata"]["name"] for pod in await private.pods()}
    for load in loads:
        found = await asyncio.to_thread(said, load)
        assert (found["lost"], found["doubled"], found["errors"]) == (0, 0, []), found
        assert found["sent"] > 100
    said_by = " ".join(str(line.get("message")) for line in operator.lines())
    assert said_by.count("; drained)") == 2, "each that left had said that it was empty"
    assert "still busy" not in said_by
