"""The whole operator behind an API server that is not well: whatever it does, the same end is come to."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from support.faultproxy import Fault, FaultProxy, Seen
from support.operatorlive import Client, Operator, swarm
from swarm_operator.kube import ApiError

POD = "agentswarm.dev/role"


def many(name: str = "risk", replicas: int = 4) -> dict[str, Any]:
    """Compute agents that no scheduler takes, and no resource agents: nothing but the operator acts."""
    return swarm(
        name,
        compute={"replicas": replicas},
        scheduling={"schedulerName": "nobody", "nodeSelector": {"agentswarm.dev/test": "none"}},
    )


@pytest.fixture
async def proxy(client: Client) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(client.api) as one:
        yield one


@pytest.fixture
async def behind(client: Client, proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Callable[..., Operator]]:
    """Starts operators behind the proxy, or another one."""
    started: list[Operator] = []

    def begin(*options: str, by: FaultProxy | None = None) -> Operator:
        path = (by or proxy).kubeconfig(tmp_path / f"kubeconfig-{len(started)}", client.namespace)
        started.append(Operator(path, tmp_path, [client.namespace], *options).start())
        return started[-1]

    yield begin
    ended = [operator for operator in started if operator.process and operator.process.poll() is not None]
    for operator in started:
        if operator.process and operator.process.poll() is None:
            operator.process.send_signal(signal.SIGCONT)
            operator.kill()
    assert not ended, ended[0].log.read_text()[-2000:]


async def compute(client: Client, name: str = "risk") -> list[str]:
    return sorted(pod for pod in await client.names("Pod") if pod.startswith(f"{name}-compute-"))


async def complete(client: Client, name: str = "risk", replicas: int = 4) -> bool:
    """All pods, each once, and a status that says so and refuses nothing."""
    pods = await compute(client, name)
    status = (await client.get("Swarm", name)).get("status") or {}
    degraded = await client.condition(name, "Degraded")
    return (
        pods == [f"{name}-compute-{n}-0" for n in range(replicas)]
        and status.get("replicas") == replicas
        and degraded.get("status") == "False"
    )


async def said(operator: Operator, message: str) -> bool:
    return operator.said(message)


def later() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)


FAULTS: dict[str, Callable[[], Fault]] = {
    "409 conflict": lambda: Fault(status=409, reason="Conflict"),
    "410 gone": lambda: Fault(status=410, reason="Expired"),
    "422 invalid": lambda: Fault(status=422, reason="Invalid"),
    "429 with seconds": lambda: Fault(status=429, reason="TooManyRequests", headers={"Retry-After": "1"}),
    "429 with a date": lambda: Fault(status=429, reason="TooManyRequests", headers={"Retry-After": later()}),
    "500": lambda: Fault(status=500, reason="InternalError"),
    "503": lambda: Fault(status=503, reason="ServiceUnavailable"),
    "504": lambda: Fault(status=504, reason="Timeout"),
    "connection reset": lambda: Fault(reset=True),
    "answer lost": lambda: Fault(reset_after=True),
    "answer cut off": lambda: Fault(truncate=True),
    "slow answer": lambda: Fault(delay=0.7),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_with_a_third_of_the_requests_failing_a_swarm_is_made_and_scaled(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator], fault: str
) -> None:
    rng, done = random.Random(fault), 0

    def sometimes(seen: Seen) -> Fault | None:
        nonlocal done
        if rng.random() < 1 / 3:
            done += 1
            return FAULTS[fault]()
        return None

    proxy.fault = sometimes
    operator = behind("--no-leader-election")
    await client.create(many())

    async def at_work() -> bool:
        return len(await compute(client)) >= 2 and done >= 8

    await client.until(at_work, "the first pods, and faults", 60)
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 6}}})

    async def grown() -> bool:
        return len(await compute(client)) == 6

    await client.until(grown, f"six pods in spite of {fault}", 90)
    proxy.fault = lambda seen: None
    await client.until(lambda: complete(client, replicas=6), "a status without reproach", 60)
    assert not operator.said("reconcile crashed"), operator.log.read_text()[-2000:]


async def test_what_happens_while_every_watch_is_broken_again_and_again_is_made_good(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator]
) -> None:
    behind("--no-leader-election")
    await client.create(many())
    await client.until(lambda: complete(client), "the swarm")
    dropped = 0
    for number in range(4):
        dropped += proxy.drop_watches()
        await client.delete("Pod", f"risk-compute-{number}-0")
        dropped += proxy.drop_watches()

    async def back() -> bool:
        return len(await compute(client)) == 4

    await client.until(back, "pods that were deleted while no watch ran")
    assert dropped >= 9, "each kind's watch was broken"


async def test_a_watch_whose_history_is_gone_misses_nothing(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator]
) -> None:
    behind("--no-leader-election")
    await client.create(many())
    await client.until(lambda: complete(client), "the swarm")
    gone = 0

    def expired(seen: Seen) -> Fault | None:
        nonlocal gone
        gone += seen.watch
        return Fault(status=410, reason="Expired") if seen.watch and gone <= 20 else None

    proxy.fault = expired
    proxy.drop_watches()
    await client.delete("Pod", "risk-compute-2-0")

    async def back() -> bool:
        return len(await compute(client)) == 4 and gone > 9

    await client.until(back, "the pod that was deleted")


async def test_a_swarm_whose_requests_all_fail_does_not_hold_up_another(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator]
) -> None:
    proxy.fault = lambda seen: (
        Fault(status=500, reason="InternalError") if "/broken" in seen.path and seen.method != "GET" else None
    )
    behind("--no-leader-election")
    await client.create(many("broken", 2))

    async def tried() -> bool:
        return len([s for s in proxy.seen if "/broken" in s.path and s.method != "GET"]) >= 3

    await client.until(tried, "attempts")
    for number in range(5):
        await client.create(many(f"well-{number}", 2))
    begun = time.monotonic()
    for number in range(5):
        await client.until(lambda number=number: complete(client, f"well-{number}", 2), f"well-{number}")
    # one attempt writes many objects at once: how often it was made shows in the one that was tried most
    tries = Counter((seen.method, seen.path) for seen in proxy.writes(begun) if "/broken" in seen.path)
    most = max(tries.values(), default=0)
    assert most <= 4 * (1 + (time.monotonic() - begun)), f"tried {most} times: with back-off, not in a loop"
    proxy.fault = lambda seen: None
    await client.until(lambda: complete(client, "broken", 2), "the broken one, once it is mended", 90)


async def test_a_422_is_shown_in_the_condition(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator]
) -> None:
    refuse = Fault(status=422, reason="Invalid")
    proxy.fault = lambda seen: refuse if seen.method == "POST" and seen.path.endswith("/pods") else None
    operator = behind("--no-leader-election")
    await client.until(lambda: said(operator, "synced"))
    await client.create(many())

    async def told() -> bool:
        condition = await client.condition("risk", "Degraded")
        return condition.get("status") == "True" and "injected" in condition.get("message", "")

    await client.until(told, "the refusal in Degraded", 10)


async def test_a_leader_that_was_frozen_for_ten_seconds_writes_nothing_after_another_took_over(
    client: Client, proxy: FaultProxy, behind: Callable[..., Operator]
) -> None:
    async with FaultProxy(client.api) as other:
        first = behind()
        await client.until(lambda: said(first, "leading"))
        second = behind(by=other)
        await client.until(lambda: said(second, "synced"))
        await client.create(many(replicas=8))
        await client.until(lambda: complete(client, replicas=8), "the swarm")
        edits = asyncio.create_task(_edit(client))
        try:
            await asyncio.sleep(1.0)
            assert proxy.writes(time.monotonic() - 1.0), "it has something to write all the time"
            assert first.process
            first.process.send_signal(signal.SIGSTOP)
            frozen = time.monotonic()
            await client.until(lambda: said(second, "leading"), "the takeover", 10)

            async def wrote() -> bool:
                return bool(other.writes())

            await client.until(wrote, "a write of the new leader", 10)
            taken_over = other.writes()[0].at
            await asyncio.sleep(max(0.0, frozen + 10.0 - time.monotonic()))
            first.process.send_signal(signal.SIGCONT)
            await client.until(lambda: said(first, "leadership lost"), "it notices", 10)
            await asyncio.sleep(2.0)
        finally:
            edits.cancel()
            await asyncio.gather(edits, return_exceptions=True)
        assert proxy.writes(taken_over) == [], "two leaders have written"
        assert not other.writes(0.0)[0].at < frozen, "the second wrote before it led"
        assert other.writes(taken_over + 5.0), "and the second goes on"


async def _edit(client: Client) -> None:
    """Gives the leader something to repair, all the time."""
    number = 0
    while True:
        number += 1
        try:
            await client.merge("Pod", f"risk-compute-{number % 8}-0", {"metadata": {"labels": {POD: "edited"}}})
        except ApiError as error:
            if error.status not in (0, 404, 409):
                raise
        await asyncio.sleep(0.05)
