"""What a user does with a running swarm, from Python, from the shell and over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from support.product import Running
from swarm_agents.client import AsyncSwarm, Connection, Swarm
from swarm_agents.client.connection import resolve

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]


@pytest.fixture
def connection(product: Running, monkeypatch: pytest.MonkeyPatch) -> Connection:
    for name, value in product.env.items():
        monkeypatch.setenv(name, value)
    return resolve(None)


@pytest.fixture
def swarm(connection: Connection) -> Iterator[Swarm]:
    with Swarm.connect(connection) as connected:
        yield connected


def eventually(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.05)
    return found


def test_a_task_is_answered_and_says_who_computed_it(swarm: Swarm) -> None:
    future = swarm.submit("core.echo", {"a": np.arange(3)}, priority="critical")
    assert np.array_equal(future.result(timeout=20)["a"], np.arange(3))
    assert future.info is not None
    assert future.info.agent.startswith("small-compute-")
    assert future.info.attempts == 1


def test_map_gives_the_results_in_order(swarm: Swarm) -> None:
    blocks = [np.full(1000, i, np.uint8) for i in range(50)]
    roots = [bytes(np.asarray(r)) if not isinstance(r, bytes) else r for r in swarm.map("hash.sha256_tree", blocks)]
    assert len(roots) == 50
    assert len(set(roots)) == 50
    assert all(len(root) == hashlib.sha256().digest_size for root in roots)


def test_the_asyncio_face_does_the_same(connection: Connection) -> None:
    async def use() -> list[Any]:
        async with await AsyncSwarm.connect(connection) as swarm:
            return list(await asyncio.gather(*(swarm.submit("core.echo", i) for i in range(20))))

    assert asyncio.run(use()) == list(range(20))


def test_a_hub_serves_a_client_that_is_on_no_node(connection: Connection) -> None:
    import msgspec

    elsewhere = msgspec.structs.replace(connection, board=None)
    with Swarm.connect(elsewhere) as swarm:
        assert swarm.run("core.echo", "over TCP", timeout=20) == "over TCP"


def test_tasks_of_a_killed_agent_are_answered_once_by_another(swarm: Swarm) -> None:
    futures = [swarm.submit("core.sleep", 0.3) for _ in range(8)]
    victim = eventually(lambda: next((a for a in _computes(swarm) if a["running"] and _ours(a["pid"])), None))
    os.kill(victim["pid"], signal.SIGKILL)
    infos = []
    for future in futures:
        future.result(timeout=60)
        infos.append(future.info)
    assert max(info.attempts for info in infos) >= 2, "the killed agent had a task in hand"
    back = eventually(
        lambda: next((a for a in _computes(swarm) if a["name"] == victim["name"] and a["state"] == "alive"), None)
    )
    assert back["epoch"] > victim["epoch"]


def _computes(swarm: Swarm) -> list[dict[str, Any]]:
    return [m for m in swarm.info()["members"] if m["role"] == "compute"]


def _ours(pid: int) -> bool:
    """Whether this process is an agent of this test's cluster, so that nothing else is ever killed."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"SWARM_NAME=small\0" in file.read()
    except OSError:
        return False


def test_rest_runs_a_kernel_and_wants_the_token(connection: Connection) -> None:
    url = next(hub.rest for hub in connection.hubs)
    body = json.dumps({"kernel": "core.echo", "args": [[1, 2]]}).encode()

    def post(token: str) -> Any:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/run", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    assert [1, 2] in post(connection.token).values()
    with pytest.raises(urllib.error.HTTPError) as refused:
        post("wrong")
    assert refused.value.code == 401
    refused.value.close()


def test_every_pod_serves_metrics_and_logs_in_json(product: Running, swarm: Swarm) -> None:
    swarm.run("core.noop", timeout=20)
    pods = product.kubectl.get("pods", "-l", "agentswarm.dev/swarm=small")["items"]
    assert len(pods) == 5  # two compute, a standby, a resource agent on each of two nodes
    for pod in pods:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9402/metrics", timeout=10) as answer:
            assert "swarm_agent_up" in answer.read().decode()
        name = pod["metadata"]["name"]
        lines = product.kubectl("logs", name).out.splitlines()
        records = [json.loads(line) for line in lines]
        assert records, f"{name} has logged nothing"
        assert {"time", "level", "event", "swarm", "agent"} <= set(records[-1])


def test_the_command_line_runs_a_kernel_and_shows_the_agents(product: Running) -> None:
    ran = product.swarm("run", "core.echo", '{"x": [1, 2.5, "three"]}')
    assert (ran.returncode, json.loads(ran.stdout)) == (0, {"x": [1, 2.5, "three"]}), ran.stderr
    listed = product.swarm("agents", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    names = [agent["name"] for node in json.loads(listed.stdout) for agent in node["agents"]]
    assert sum("-compute-" in name for name in names) == 2
    assert sum("-resource-" in name for name in names) == 2
    shown = product.swarm("top", "--once")
    assert shown.returncode == 0, shown.stderr
    assert all(name in shown.stdout for name in names)
    assert "small" in product.swarm("status").stdout


def test_scaling_adds_agents_and_takes_them_away_by_drain(product: Running, swarm: Swarm) -> None:
    kubectl = product.kubectl

    def ready() -> int:
        return int(kubectl.get("swarm", "small").get("status", {}).get("compute", {}).get("ready", 0))

    def pods() -> int:
        return len(kubectl.get("pods", "-l", "agentswarm.dev/swarm=small,agentswarm.dev/role=compute")["items"])

    futures = [swarm.submit("core.sleep", 0.1) for _ in range(100)]
    kubectl("scale", "swarm/small", "--replicas=3")
    eventually(lambda: ready() == 3, 60)
    kubectl("scale", "swarm/small", "--replicas=2")
    eventually(lambda: pods() == 2 and ready() == 2, 60)
    for future in futures:
        future.result(timeout=60)
    assert max(f.info.attempts for f in futures if f.info) == 1, "a drained agent finishes what it has begun"


def test_a_live_field_reaches_the_agents_without_a_restart(product: Running) -> None:
    kubectl = product.kubectl
    before = {p["metadata"]["uid"] for p in kubectl.get("pods", "-l", "agentswarm.dev/swarm=small")["items"]}
    kubectl("patch", "swarm", "small", "--type=merge", "-p", '{"spec":{"resource":{"interval":"200ms"}}}')
    generation = kubectl.get("swarm", "small")["metadata"]["generation"]

    def settled() -> bool:
        status = kubectl.get("swarm", "small")["status"]
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        return bool(status.get("observedGeneration") == generation and ready["status"] == "True")

    eventually(settled, 30)
    after = {p["metadata"]["uid"] for p in kubectl.get("pods", "-l", "agentswarm.dev/swarm=small")["items"]}
    assert after == before
