"""The loop round the planner: one round at a time, troubles kept to their own Swarm, the status not too often."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest

from support.operatorkit import World, make_swarm
from swarm_operator.controller import STATUS_INTERVAL, Controller
from swarm_operator.events import Note
from swarm_operator.execute import Failure, NotLeader, Outcome
from swarm_operator.kube import ApiError
from swarm_operator.metrics import Metrics
from swarm_operator.names import Key
from swarm_operator.views import SwarmView

pytestmark = [pytest.mark.looptime]

KEY = Key("default", "risk")


class Fakes:
    """Cache, executor, API and recorder over a simulated world."""

    def __init__(self, spec: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.world = World(spec)
        self.statuses: list[tuple[float, dict[str, Any]]] = []
        self.notes: list[Note] = []
        self.error: Exception | None = None
        self.refuse: ApiError | None = None
        self.executed = 0
        self.metrics = Metrics()
        self.on_news = self.on_key = lambda *_: None
        self.controller = Controller(self, self, self, self, self.metrics, clock=loop.time, now=lambda: self.world.now)  # type: ignore[arg-type]

    # the cache
    def snapshot(self, key: Key) -> Any:
        return self.world.snapshot() if key == KEY else None

    def store(self, kind: str, namespace: str) -> Any:
        return self

    def put_written(self, view: SwarmView) -> None:
        self.world.swarm = view

    # the executor
    async def execute(self, snapshot: Any, planned: Any) -> Outcome:
        self.executed += 1
        if self.error:
            raise self.error
        outcome = Outcome()
        for action in planned.actions:
            if self.refuse:
                outcome.failures.append(Failure(action, self.refuse))
            else:
                self.world.perform(action, planned)
                outcome.done.append(action)
        return outcome

    # the API
    async def apply(self, manifest: dict[str, Any], *, subresource: str = "") -> bytes:
        assert subresource == "status"
        self.statuses.append((asyncio.get_running_loop().time(), manifest["status"]))
        swarm = msgspec.structs.replace(self.world.swarm, status=manifest["status"])
        meta = {"name": "risk", "namespace": "default", "uid": swarm.uid, "resourceVersion": "2", "generation": 1}
        return json.dumps({"metadata": meta, "spec": swarm.spec, "status": manifest["status"]}).encode()

    # the recorder
    def record(self, swarm: SwarmView, notes: list[Note]) -> None:
        self.notes += notes

    async def settle(self, rounds: int = 12) -> None:
        for _ in range(rounds):
            await self.controller.reconcile(KEY)
            self.world.tick()
            await asyncio.sleep(STATUS_INTERVAL)


async def test_rounds_bring_the_world_to_the_spec_and_report_it() -> None:
    fakes = Fakes({"compute": {"replicas": 2}})
    await fakes.settle()
    assert fakes.statuses[-1][1]["compute"]["ready"] == 2
    assert {note.reason for note in fakes.notes} >= {"Created", "Updated"}


async def test_a_settled_swarm_is_not_written_to() -> None:
    fakes = Fakes({"compute": {"replicas": 1}})
    await fakes.settle()
    before = len(fakes.statuses)
    for _ in range(5):
        await fakes.controller.reconcile(KEY)
    assert len(fakes.statuses) == before


async def test_the_status_is_written_once_a_second_at_most() -> None:
    fakes = Fakes({"compute": {"replicas": 1}})
    for count in range(2, 12):
        fakes.world.edit({"compute": {"replicas": count}})
        await fakes.controller.reconcile(KEY)
        fakes.world.tick()
        await asyncio.sleep(0.2)
    times = [at for at, _ in fakes.statuses]
    assert len(times) >= 2
    assert all(later - earlier >= STATUS_INTERVAL - 1e-6 for earlier, later in itertools.pairwise(times))
    assert fakes.controller.queue._due, "what was not written yet is written later"


async def test_a_refused_action_is_reported_and_tried_again_with_back_off() -> None:
    fakes = Fakes({})
    fakes.refuse = ApiError(429, "TooManyRequests", "slow down", retry_after=9.0)
    assert await fakes.controller.reconcile(KEY) == "failed"
    degraded = next(c for c in fakes.statuses[-1][1]["conditions"] if c["type"] == "Degraded")
    assert degraded["status"] == "True"
    assert "slow down" in degraded["message"]
    assert fakes.controller.queue._due[KEY] - asyncio.get_running_loop().time() <= 9.0
    assert [note.type for note in fakes.notes][-1] == "Warning"


async def test_a_defect_in_one_swarm_is_logged_and_retried_and_the_worker_lives_on() -> None:
    fakes = Fakes({})
    fakes.error = RuntimeError("a defect")
    assert await fakes.controller._guarded(KEY) == "crash"
    fakes.error = None
    assert await fakes.controller._guarded(KEY) == "ok"


async def test_a_lost_leadership_leaves_the_key_for_the_next_time() -> None:
    fakes = Fakes({})
    fakes.error = NotLeader()
    assert await fakes.controller._guarded(KEY) == "not-leader"
    assert len(fakes.controller.queue) == 1
    assert not fakes.statuses


async def test_a_swarm_that_is_gone_or_going_is_left_alone() -> None:
    fakes = Fakes({})
    assert await fakes.controller.reconcile(Key("default", "other")) == "gone"
    fakes.world.swarm = make_swarm(deleting=True)
    assert await fakes.controller.reconcile(KEY) == "gone"
    assert not fakes.executed


async def test_a_status_for_a_successor_of_the_same_name_is_dropped() -> None:
    fakes = Fakes({})

    async def conflict(manifest: dict[str, Any], *, subresource: str = "") -> bytes:
        raise ApiError(409, "Conflict", "the UID is another one's")

    fakes.apply = conflict  # type: ignore[method-assign]
    assert await fakes.controller.reconcile(KEY) == "ok"


async def test_a_stop_waits_for_what_is_in_hand_and_takes_no_more() -> None:
    fakes = Fakes({})
    begun = asyncio.Event()
    finished: list[str] = []

    async def slow(snapshot: Any, planned: Any) -> Outcome:
        begun.set()
        await asyncio.sleep(2)
        finished.append("done")
        return Outcome()

    fakes.execute = slow  # type: ignore[method-assign]
    task = asyncio.create_task(fakes.controller.run(workers=1))
    fakes.controller.queue.add(KEY)
    await begun.wait()
    fakes.controller.queue.add(Key("default", "later"))
    await fakes.controller.drain(10)
    assert finished == ["done"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not fakes.controller.queue.working


async def test_keys_that_are_always_due_again_leave_room_for_what_they_wait_for() -> None:
    fakes = Fakes({"compute": {"replicas": 1}})
    controller, rounds, answered = fakes.controller, 0, asyncio.Event()

    async def again(key: Key) -> str:
        nonlocal rounds
        rounds += 1
        assert rounds < 1000 or answered.is_set(), "nobody else was let in"
        controller.queue.add(key)
        return "ok"

    controller.reconcile = again  # type: ignore[method-assign]
    for number in range(3):
        controller.queue.add(Key("default", f"swarm-{number}"))
    work = asyncio.create_task(controller.run())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(answered.set)
    await answered.wait()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert rounds < 1000
