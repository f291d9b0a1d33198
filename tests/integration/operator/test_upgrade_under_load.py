"""A busy swarm is rolled: no task is lost or doubled, no fewer agents take part than the spec says, and it goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from support.clusters import TestCluster
from support.load import Load
from support.operatorlive import Client, Operator, swarm
from swarm_agents.client import Connection
from swarm_agents.config import AGENT_PORT
from swarm_deploy.connect import resolve

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.timeout(380)]

AGENTS = 3
PATIENCE = 170.0


def spec(**more: Any) -> dict[str, Any]:
    made = swarm(
        image="agentswarm/agent:1",
        compute={"replicas": AGENTS, "cpus": "100m"},
        transport={"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 32}},
        **more,
    )
    made["spec"]["imagePullPolicy"] = "IfNotPresent"
    return made


class Busy:
    """A swarm at work, and what can be seen of it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.loads: list[Load] = []
        self._token = ""
        #: How many compute agents took tasks, at each look.
        self.working: list[int] = []

    async def begin(self, cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        secret = await self.client.get("Secret", "risk-keys")
        self._token = base64.b64decode(secret["data"]["token"]).decode()

        def find() -> Connection:
            found = resolve(f"{self.client.namespace}/risk")
            assert found is not None
            return found

        for board in (True, False):
            self.loads.append(await asyncio.to_thread(Load, find, board=board))

    async def pods(self) -> list[dict[str, Any]]:
        return [pod for pod in await self.client.list("Pod") if "-compute-" in pod["metadata"]["name"]]

    async def look(self) -> None:
        """Counts the agents that take tasks. A change between two questions is no lack: it is looked twice."""
        counts = []
        for _ in range(2):
            addresses = [pod.get("status", {}).get("podIP", "") for pod in await self.pods()]
            states = await asyncio.gather(
                *(asyncio.to_thread(self._state, address) for address in addresses if address)
            )
            counts.append(states.count("ready"))
        self.working.append(max(counts))

    def _state(self, address: str) -> str:
        request = urllib.request.Request(
            f"http://{address}:{AGENT_PORT}/v1/status", headers={"Authorization": f"Bearer {self._token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(json.load(answer)["state"])
        except (OSError, ValueError, urllib.error.URLError):
            return ""

    async def settled(self, revision: str) -> bool:
        """Whether all agents are of another revision than this one, and ready."""
        found = await self.client.get("Swarm", "risk")
        status = found.get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
        return bool(
            status.get("revision") != revision
            and status.get("observedGeneration") == found["metadata"]["generation"]
            and conditions.get("Ready") == "True"
            and conditions.get("Progressing") == "False"
        )

    async def steady(self, seconds: float) -> float:
        """Answers a second while nothing happens."""
        begun = time.monotonic()
        await asyncio.sleep(seconds)
        return self.rate(begun, time.monotonic())

    def rate(self, since: float, until: float) -> float:
        return sum(load.rate(since, until) for load in self.loads)

    async def rolled(self, revision: str, meanwhile: Callable[[], Any] | None = None) -> float:
        """Answers a second until the roll is over."""
        begun = time.monotonic()
        while not await self.settled(revision):
            assert time.monotonic() - begun < PATIENCE, "the roll does not come to an end"
            await self.look()
            if meanwhile is not None:
                await meanwhile()
        return self.rate(begun, time.monotonic())

    def check(self, before: float, during: float, floor: int) -> None:
        for load in self.loads:
            load.stop()
        counts = {
            "sent": sum(load.sent for load in self.loads),
            "answered": sum(len(load.answers) for load in self.loads),
            "lost": sum(load.lost() for load in self.loads),
            "doubled": sum(load.doubled() for load in self.loads),
            "errors": [str(error) for load in self.loads for error in load.errors][:3],
        }
        print(
            f"\n{counts} before={before:.1f}/s during={during:.1f}/s working={min(self.working)}..{max(self.working)}"
        )
        assert (counts["lost"], counts["doubled"], counts["errors"]) == (0, 0, []), counts
        assert counts["sent"] > 100, "else nothing was going on"
        assert min(self.working) >= floor
        # Generous: those who work share a core or two with those who start.
        assert during >= 0.5 * before * floor / AGENTS


@pytest.fixture
async def busy(client: Client) -> AsyncIterator[Busy]:
    made = Busy(client)
    yield made
    for load in made.loads:
        await asyncio.to_thread(load.stop, 5.0)
    await client.delete("Swarm", "risk")


async def test_a_new_image_is_rolled_through_a_busy_swarm(
    client: Client, cluster: TestCluster, busy: Busy, start: Callable[..., Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    start("--no-leader-election")
    await client.create(spec(rollout={"maxSurge": 1, "maxUnavailable": 0}))
    await client.until(lambda: busy.settled(""), "the first agents", PATIENCE)
    old = {pod["metadata"]["uid"] for pod in await client.list("Pod")}
    revision = (await client.get("Swarm", "risk"))["status"]["revision"]
    await busy.begin(cluster, monkeypatch)
    before = await busy.steady(5.0)

    await client.merge("Swarm", "risk", {"spec": {"image": "agentswarm/agent:2"}})
    during = await busy.rolled(revision)

    pods = [pod for pod in await client.list("Pod") if "deletionTimestamp" not in pod["metadata"]]
    assert not {pod["metadata"]["uid"] for pod in pods} & old
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"agentswarm/agent:2"}
    after = await busy.steady(3.0)
    assert after >= 0.5 * before, "it goes on as before"
    await asyncio.to_thread(busy.check, before, during, AGENTS)


async def test_a_roll_goes_on_where_a_killed_operator_left_it(
    client: Client, cluster: TestCluster, busy: Busy, start: Callable[..., Operator], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = start("--no-leader-election")
    await client.create(spec(rollout={"maxSurge": 0, "maxUnavailable": 1}))
    await client.until(lambda: busy.settled(""), "the first agents", PATIENCE)
    revision = (await client.get("Swarm", "risk"))["status"]["revision"]
    await busy.begin(cluster, monkeypatch)
    before = await busy.steady(5.0)
    killed: list[int] = []

    async def kill() -> None:
        """In the midst of it: one agent is on its way out and another has not come yet."""
        fresh = [pod for pod in await busy.pods() if pod["metadata"]["labels"]["agentswarm.dev/revision"] != revision]
        if fresh and not killed:
            operator.kill()
            killed.append(len(fresh))
            await asyncio.sleep(1.0)
            start("--no-leader-election")

    await client.merge("Swarm", "risk", {"spec": {"runtime": {"threads": 1}}})
    during = await busy.rolled(revision, kill)

    assert killed
    assert killed[0] < AGENTS, "the operator was killed before the last one was replaced"
    await asyncio.to_thread(busy.check, before, during, AGENTS - 1)
