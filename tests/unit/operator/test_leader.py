"""One writes, the other is warm: election by a Lease, on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from swarm_operator.kube import ApiError
from swarm_operator.leader import DURATION, RENEW_DEADLINE, Leader

pytestmark = [pytest.mark.looptime]


class Leases:
    """One Lease, with the optimistic locking of the API server."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.writes = self.reads = 0

    def _check(self) -> None:
        if self.down:
            raise ApiError(0, "Unreachable", "no answer")

    async def get(self, kind: str, namespace: str, name: str) -> bytes:
        self._check()
        self.reads += 1
        if self.lease is None:
            raise ApiError(404, "NotFound", "no lease")
        return json.dumps(self.lease).encode()

    async def create(self, manifest: dict[str, Any]) -> bytes:
        self._check()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._put(manifest)

    async def replace(self, manifest: dict[str, Any]) -> bytes:
        self._check()
        assert self.lease is not None
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed meanwhile")
        return self._put(manifest)

    def _put(self, manifest: dict[str, Any]) -> bytes:
        self.version += 1
        self.writes += 1
        meta = {**manifest["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**manifest, "metadata": meta}
        return json.dumps(self.lease).encode()

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


class Replica:
    def __init__(self, leases: Leases, name: str) -> None:
        self.leader = Leader(leases, "default", name, asyncio.get_running_loop().time)  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.leader.run())

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        await self.kill()
        await self.leader.release()


async def test_one_of_two_leads_and_goes_on_leading() -> None:
    leases = Leases()
    replicas = [Replica(leases, name) for name in "ab"]
    for _ in range(40):
        await asyncio.sleep(0.5)
        assert sum(r.leader.leads() for r in replicas) == 1
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 0
    for replica in replicas:
        await replica.kill()


async def test_the_other_takes_over_within_five_seconds_of_a_kill() -> None:
    leases = Leases()
    first = Replica(leases, "a")
    await asyncio.sleep(0.1)
    second = Replica(leases, "b")
    await asyncio.sleep(3)
    assert first.leader.leads()
    await first.kill()
    begun = asyncio.get_running_loop().time()
    await second.leader.elected.wait()
    assert asyncio.get_running_loop().time() - begun < 5.0
    assert leases.holder == "b"
    await second.kill()


async def test_the_other_takes_over_at_once_after_a_clean_stop() -> None:
    leases = Leases()
    first = Replica(leases, "a")
    await asyncio.sleep(0.1)
    second = Replica(leases, "b")
    await asyncio.sleep(3)
    await first.stop()
    begun = asyncio.get_running_loop().time()
    await second.leader.elected.wait()
    assert asyncio.get_running_loop().time() - begun < 1.0
    await second.kill()


async def test_two_never_lead_at_once_even_when_one_is_cut_off() -> None:
    leases, cut = Leases(), Leases()
    first, second = Replica(leases, "a"), Replica(leases, "b")
    await asyncio.sleep(3)
    leader, other = (first, second) if first.leader.leads() else (second, first)
    cut.down = True
    leader.leader._api = cut  # type: ignore[assignment]  # the network between it and the API server is gone
    for _ in range(200):
        await asyncio.sleep(0.05)
        assert not (first.leader.leads() and second.leader.leads())
    assert other.leader.leads()
    assert not leader.leader.elected.is_set()
    await first.kill()
    await second.kill()


async def test_an_answer_that_was_long_on_its_way_does_not_make_a_second_leader_early() -> None:
    now, leases = [100.0], Leases()
    first, second = (Leader(leases, "default", name, lambda: now[0]) for name in "ab")  # type: ignore[arg-type]
    await first._round()
    quick = leases.get

    async def late(kind: str, namespace: str, name: str) -> bytes:
        now[0] += 1.0
        await first._round()  # a renewal after the other has asked, and before it is answered
        now[0] += 0.2
        return await quick(kind, namespace, name)

    leases.get = late  # type: ignore[method-assign]
    await second._round()
    leases.get = quick  # type: ignore[method-assign]
    begun = now[0]
    while not second.leads():
        now[0] += 0.05
        await second._round()
        assert not (first.leads() and second.leads())
    assert now[0] - begun < DURATION + 0.1, "and it does take over"


async def test_a_leader_asks_once_a_renewal_and_notices_when_its_lease_was_changed() -> None:
    leases = Leases()
    only = Replica(leases, "a")
    await asyncio.sleep(2)
    reads = leases.reads
    await asyncio.sleep(10)
    assert leases.reads == reads, "a leader's renewal needs no look"
    assert leases.lease is not None
    leases._put({**leases.lease, "spec": {**leases.lease["spec"], "holderIdentity": "somebody", "renewTime": "now"}})
    await asyncio.sleep(RENEW_DEADLINE + 0.1)
    assert not only.leader.leads()
    await only.kill()


async def test_a_server_that_hangs_costs_the_leadership_and_not_the_replica() -> None:
    leases, stuck = Leases(), Leases()
    only = Replica(leases, "a")
    await asyncio.sleep(2)

    async def never(*_: Any) -> bytes:
        await asyncio.sleep(3600)
        raise AssertionError

    stuck.get, stuck.replace = never, never  # type: ignore[method-assign]
    only.leader._api = stuck  # type: ignore[assignment]
    await asyncio.sleep(5)
    assert not only.leader.leads()
    assert not only.leader.elected.is_set()
    only.leader._api = leases  # type: ignore[assignment]
    await asyncio.sleep(3)
    assert only.leader.leads()
    await only.kill()


async def test_a_leader_that_comes_back_in_time_goes_on() -> None:
    leases = Leases()
    only = Replica(leases, "a")
    await asyncio.sleep(2)
    leases.down = True
    await asyncio.sleep(RENEW_DEADLINE - 1.5)
    leases.down = False
    await asyncio.sleep(2)
    assert only.leader.leads()
    await only.kill()


async def test_a_conflict_is_no_renewal() -> None:
    leases = Leases()
    only = Replica(leases, "a")
    await asyncio.sleep(2)

    async def conflict(manifest: dict[str, Any]) -> bytes:
        raise ApiError(409, "Conflict", "changed meanwhile")

    leases.replace = conflict  # type: ignore[method-assign]
    await asyncio.sleep(DURATION + 1)
    assert not only.leader.leads()
    assert not only.leader.elected.is_set()
    await only.kill()
