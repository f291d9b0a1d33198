"""The operator may die at any moment: another, or the next, comes to the same end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.clusters import TestCluster
from support.operatorlive import Client, Operator, swarm

MANY = 60


def many(**compute: Any) -> dict[str, Any]:
    """Compute agents that no scheduler takes, and no resource agents: nothing but the operator acts."""
    return swarm(
        compute={"replicas": MANY, **compute},
        scheduling={"schedulerName": "nobody", "nodeSelector": {"agentswarm.dev/test": "none"}},
    )


async def compute(client: Client) -> list[str]:
    return sorted(name for name in await client.names("Pod") if "-compute-" in name)


async def test_killed_in_the_middle_of_a_scale_up_it_comes_to_the_same_end(
    client: Client, start: Callable[..., Operator]
) -> None:
    first = start("--no-leader-election")
    await client.until(lambda: said(first, "synced"))
    await client.create(many())

    async def begun() -> int:
        return len(await compute(client))

    await client.until(begun, "the first pods", 30)
    first.kill()
    left = await compute(client)
    start("--no-leader-election")

    async def complete() -> bool:
        return len(await compute(client)) >= MANY

    await client.until(complete, "the rest")
    assert await compute(client) == sorted(f"risk-compute-{n}-0" for n in range(MANY)), "no agent twice, none missing"
    assert set(left) <= set(await compute(client)), "what was made before is kept"

    async def reported() -> bool:
        status = (await client.get("Swarm", "risk")).get("status") or {}
        return status.get("replicas") == MANY

    await client.until(reported)
    kinds = ("ConfigMap", "Secret", "ServiceAccount", "PodDisruptionBudget", "ControllerRevision")
    assert [len(await client.list(kind)) for kind in kinds] == [1] * 5
    assert len(await client.list("Service")) == 2


async def said(operator: Operator, message: str) -> bool:
    return operator.said(message)


async def test_a_restart_changes_nothing_in_a_swarm_that_is_as_it_should_be(
    client: Client, start: Callable[..., Operator]
) -> None:
    first = start("--no-leader-election")
    await client.create(many(replicas=3))

    async def reported() -> bool:
        status = (await client.get("Swarm", "risk")).get("status") or {}
        return status.get("replicas") == 3

    await client.until(reported)

    async def settled() -> bool:
        # no scheduler looks at these pods, which is said when one would have
        return (await client.condition("risk", "Degraded")).get("reason") == "NoScheduler"

    await client.until(settled)
    assert first.stop() == 0
    before = {pod["metadata"]["uid"]: pod["metadata"]["resourceVersion"] for pod in await client.list("Pod")}
    second = start("--no-leader-election")
    await client.until(lambda: said(second, "synced"))
    await asyncio.sleep(1.0)  # it has everything it needs to do something wrong
    assert second.writes() == 0
    after = {pod["metadata"]["uid"]: pod["metadata"]["resourceVersion"] for pod in await client.list("Pod")}
    assert after == before


async def test_a_swarm_deleted_while_the_operator_is_down_leaves_nothing(
    client: Client, start: Callable[..., Operator]
) -> None:
    operator = start("--no-leader-election")
    await client.create(many(replicas=3))

    async def made() -> bool:
        return len(await compute(client)) == 3 and len(await client.list("Service")) == 2

    await client.until(made)
    operator.kill()
    await client.delete("Swarm", "risk")
    assert await client.find("Swarm", "risk") is None, "no finalizer holds it"
    kinds = ("Pod", "Service", "ConfigMap", "Secret", "ServiceAccount", "PodDisruptionBudget", "ControllerRevision")

    async def gone() -> bool:
        return not [item for kind in kinds for item in await client.list(kind)]

    await client.until(gone, "the garbage collector", 60)
    start("--no-leader-election")
    await client.create(many(replicas=2))
    await client.until(lambda: has(client, 2), "a new Swarm of the same name")


async def has(client: Client, count: int) -> bool:
    return len(await compute(client)) == count


async def test_of_two_replicas_the_second_takes_over_in_five_seconds(
    client: Client, start: Callable[..., Operator]
) -> None:
    first = start()
    await client.until(lambda: said(first, "leading"))
    second = start()
    await client.until(lambda: said(second, "synced"))
    await client.create(many(replicas=2))
    await client.until(lambda: has(client, 2))
    assert second.writes() == 0, "a replica that does not lead writes nothing"
    assert second.http("/readyz") == "ok\n", "it is warm"
    first.kill()
    begun = time.monotonic()
    await client.until(lambda: said(second, "leading"), deadline=8)
    assert time.monotonic() - begun < 6.0  # 5 s, and what a busy machine adds
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 4}}})
    await client.until(lambda: has(client, 4))
    third = start()
    await client.until(lambda: said(third, "synced"))
    assert second.stop() == 0
    await client.until(lambda: said(third, "leading"), "a clean stop hands over at once", 3)


async def test_it_serves_several_namespaces_and_leaves_others_alone(
    client: Client, start: Callable[..., Operator], cluster: TestCluster
) -> None:
    other = Client(client.api, f"{client.namespace}-b")
    foreign = Client(client.api, f"{client.namespace}-c")
    for each in (other, foreign):
        cluster.kubectl("create", "namespace", each.namespace)
    try:
        start("--no-leader-election", namespaces=(other.namespace,))
        for each in (client, other, foreign):
            await each.create(many(replicas=2))
        await client.until(lambda: has(client, 2))
        await client.until(lambda: has(other, 2))
        assert not await compute(foreign)
    finally:
        for each in (other, foreign):
            cluster.kubectl("delete", "namespace", each.namespace, "--wait=false")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("swarm-operator"))
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--kubeconfig", "/nonexistent"), 1, "--kubeconfig"),
        (("--http-bind", "nowhere"), 2, "write HOST:PORT"),
    ],
)
def test_a_bad_option_is_answered_with_what_to_do(words: tuple[str, ...], code: int, says: str) -> None:
    done = run(*words)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_says_so(cluster: TestCluster, namespace: str) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--kubeconfig", str(cluster.kubeconfig), "-n", namespace, "--http-bind", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
    assert "choose another" in done.stderr
