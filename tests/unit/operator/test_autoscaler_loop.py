"""The autoscaler's loop: whom it asks, what it writes and under whose name, and when it leaves a Swarm alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec

from support.operatorkit import make_pod, make_snapshot, make_spec, make_swarm
from swarm_agents.config import Role
from swarm_operator.api.status import SwarmStatus
from swarm_operator.autoscaler import INTERVAL, Autoscaler
from swarm_operator.kube import ApiError
from swarm_operator.loads import NodeLoad
from swarm_operator.metrics import Metrics
from swarm_operator.names import AUTOSCALER, Key
from swarm_operator.plan import plan
from swarm_operator.status import status_of

KEY = Key("default", "risk")
BOUNDS = {"compute": {"replicas": 2, "min": 1, "max": 10}, "autoscaling": {"scaleInWindow": "20s"}}


class World:
    """A cluster as the autoscaler sees it: one Swarm, its pods, what their nodes tell, what is written."""

    def __init__(self, spec: dict[str, Any], nodes: tuple[str, ...] = ("node-a",), compute: int = 2) -> None:
        self.now = 1000.0
        self.swarm = make_swarm(msgspec.json.decode(msgspec.json.encode(spec)))
        self.pods = [
            make_pod(Role.RESOURCE, at, node=node, target_node=node, ip=f"res-{node}") for at, node in enumerate(nodes)
        ]
        self.resize(compute)
        self.loads: dict[str, NodeLoad | None] = {node: NodeLoad(node, "b", self.now) for node in nodes}
        self.asked: list[str] = []
        self.written: list[tuple[Any, ...]] = []
        self.notes: list[Any] = []
        self.keys: list[Key] = []
        self.leads = True
        self.refuse: ApiError | None = None
        self.obeys = True
        self.metrics = Metrics()
        self.scaler = self.operator()

    def resize(self, count: int) -> None:
        self.pods = [pod for pod in self.pods if "resource" in pod.name]
        self.pods += [make_pod(Role.COMPUTE, at, ip=f"com-{at}", node="node-a") for at in range(count)]

    def operator(self) -> Autoscaler:
        cache = SimpleNamespace(
            stores=lambda kind: [[self.swarm]],
            snapshot=lambda key: self.snapshot(),
            token=lambda key: "token",
            on_key=self.keys.append,
        )
        api = SimpleNamespace(scale=self.scale)
        recorder = SimpleNamespace(record=lambda swarm, notes: self.notes.extend(notes))
        agents = SimpleNamespace(load=self.load)
        clock = lambda: self.now  # noqa: E731
        return Autoscaler(api, cache, agents, recorder, self.metrics, lambda: self.leads, clock, clock)  # type: ignore[arg-type]

    def snapshot(self) -> Any:
        return make_snapshot(swarm=self.swarm, pods=self.pods, autoscaling=self.scaler.decision(self.swarm.uid))

    async def load(self, ip: str, port: int, token: str) -> bytes:
        self.asked.append(ip)
        load = self.loads.get("node-a" if ip.startswith("com-") else ip.removeprefix("res-"))
        if load is None:
            raise ConnectionRefusedError("nobody there")
        return msgspec.json.encode(msgspec.structs.replace(load, time=self.now))

    async def scale(self, kind: str, namespace: str, name: str, uid: str, replicas: int, manager: str) -> bytes:
        if self.refuse:
            raise self.refuse
        self.written.append((kind, namespace, name, uid, replicas, manager))
        if self.obeys:
            self.edit(replicas=replicas)
        return b"{}"

    def edit(self, **compute: Any) -> None:
        spec = {**self.swarm.spec, "compute": {**self.swarm.spec["compute"], **compute}}
        self.swarm = msgspec.structs.replace(self.swarm, spec=spec)

    def waits(self, count: int, age: float = 3.0, node: str = "node-a", **fields: Any) -> None:
        self.loads[node] = NodeLoad(node, "b", self.now, waiting=count, ages=((age, count),), oldest=age, **fields)

    async def go(self, seconds: float, step: float = INTERVAL) -> None:
        until = self.now + seconds
        while self.now < until:
            await asyncio.gather(*self.scaler.begin())
            await asyncio.sleep(0)  # for the tasks' own ends
            self.now += step

    def counts(self) -> list[int]:
        return [entry[4] for entry in self.written]

    def status(self) -> dict[str, Any]:
        found = status_of(self.snapshot(), plan(self.snapshot(), self.now), (), self.now)
        SwarmStatus.model_validate(found)
        return found

    def condition(self) -> dict[str, Any]:
        return next((c for c in self.status()["conditions"] if c["type"] == "Autoscaling"), {})


async def test_waiting_tasks_are_answered_by_the_scale_subresource_under_its_own_name() -> None:
    world = World(BOUNDS)
    world.waits(8, busy=2, running=2, runs=10, run_seconds=300.0)
    await world.go(2)
    assert world.written == [("Swarm", "default", "risk", world.swarm.uid, 10, AUTOSCALER)]
    assert [(note.type, note.reason) for note in world.notes] == [("Normal", "ScaledOut")]
    assert "8 of 8 tasks waited longer than 50ms" in world.notes[0].message
    assert "from 2 to 10" in world.notes[0].message


async def test_quiet_agents_leave_after_the_window_and_not_before() -> None:
    world = World(BOUNDS, compute=2)
    await world.go(20)
    assert world.counts() == []
    await world.go(2)
    assert world.counts() == [1]
    assert world.notes[-1].reason == "ScaledIn"


async def test_one_agent_a_node_is_asked_the_resource_agent_where_there_is_one() -> None:
    world = World(BOUNDS, nodes=("node-a", "node-b"))
    await world.go(1)
    assert sorted(world.asked) == ["res-node-a", "res-node-b"]
    world.pods = [pod for pod in world.pods if pod.ip != "res-node-a"]
    world.asked.clear()
    await world.go(1)
    assert sorted(world.asked) == ["com-0", "res-node-b"]


async def test_nobody_touches_the_count_without_both_bounds_or_while_suspended_or_refused() -> None:
    for spec in (
        {"compute": {"replicas": 2}},
        {**BOUNDS, "suspend": True},
        {**BOUNDS, "autoscaling": {"schedule": [{"cron": "never", "min": 3}]}},
        {"compute": {"replicas": 2, "min": 4, "max": 3}},
        {**BOUNDS, "compute": {**BOUNDS["compute"], "memory": "300Mi"}},
    ):
        world = World(spec)
        world.waits(50, busy=2, running=2)
        await world.go(40)
        assert world.written == []
        assert world.asked == []


async def test_a_replica_that_does_not_lead_asks_nobody_and_a_new_leader_begins_its_window_anew() -> None:
    world = World(BOUNDS)
    world.leads = False
    await world.go(60)
    assert world.asked == []
    world.leads = True
    await world.go(15)
    world.scaler = world.operator()  # the other replica takes over
    await world.go(19)
    assert world.counts() == []
    await world.go(3)
    assert world.counts() == [1]


async def test_a_count_outside_the_bounds_is_corrected_although_no_agent_answers() -> None:
    world = World(BOUNDS)
    world.loads["node-a"] = None
    world.edit(replicas=30)
    await world.go(2)
    assert world.counts() == [10]
    world.edit(min=12, max=20)
    await world.go(2)
    assert world.counts() == [10, 12]


async def test_while_a_node_is_silent_nothing_leaves_and_the_condition_names_it() -> None:
    world = World(BOUNDS, nodes=("node-a", "node-b"))
    world.loads["node-b"] = None
    await world.go(60)
    assert world.counts() == []
    condition = world.condition()
    assert (condition["status"], condition["reason"]) == ("False", "NoData")
    assert "node-b does not tell its load" in condition["message"]
    world.waits(300, busy=2, running=2)
    await world.go(2)
    assert world.counts()[-1] == 10, "what waits elsewhere is answered all the same"
    world.pods = [pod for pod in world.pods if pod.node != "node-b"]  # the node is gone, and its pods with it
    world.loads["node-a"] = NodeLoad("node-a", "b", 0.0)
    world.resize(10)
    await world.go(60)
    assert world.counts()[-1] == 1


async def test_a_node_whose_agents_are_still_starting_keeps_nobody_from_leaving() -> None:
    world = World(BOUNDS, nodes=("node-a", "node-b"))
    world.loads["node-b"] = None
    world.pods[1] = msgspec.structs.replace(world.pods[1], ready=False)
    assert world.pods[1].ip == "res-node-b"
    await world.go(22)
    assert world.counts() == [1]


async def test_an_answer_that_is_missed_now_and_then_does_not_begin_the_window_anew() -> None:
    world = World(BOUNDS)
    for _ in range(11):
        await world.go(1.5, step=0.5)
        kept, world.loads["node-a"] = world.loads["node-a"], None
        await world.go(0.5, step=0.5)
        world.loads["node-a"] = kept
    assert world.counts() == [1]


async def test_what_was_written_is_not_written_again_before_it_is_seen() -> None:
    world = World(BOUNDS)
    world.obeys = False
    world.waits(8, busy=2, running=2)
    await world.go(4)
    assert len(world.written) == 1
    await world.go(4)
    assert len(world.written) == 2, "nor waited for for ever"


async def test_a_refused_write_is_tried_again_and_one_swarm_that_can_not_be_written_stops_nothing() -> None:
    world = World(BOUNDS)
    world.refuse = ApiError(500, "InternalError", "not today")
    world.waits(8, busy=2, running=2, runs=10, run_seconds=300.0)
    await world.go(5)
    assert world.written == []
    assert world.notes == []
    world.refuse = None
    await world.go(5)
    assert world.counts() == [10]


async def test_the_decision_its_numbers_and_its_reason_are_in_the_status() -> None:
    world = World(BOUNDS)
    world.waits(8, busy=2, running=2, runs=10, run_seconds=300.0)
    await world.go(2)
    block, condition = world.status()["autoscaling"], world.condition()
    assert (block["desired"], block["min"], block["max"], block["waiting"], block["busy"]) == (10, 1, 10, 8, 2)
    assert block["serviceTime"] == "30s"
    assert block["queueTime"] == "3s"
    assert block["lastScaleTime"] == "1970-01-01T00:16:40Z"
    assert (condition["status"], condition["reason"]) == ("True", "ScaledOut")
    assert condition["message"] == block["message"]
    assert "waited longer than 50ms" in condition["message"]
    assert world.keys[-1] == KEY


async def test_a_quiet_swarm_has_its_status_written_once_and_not_for_every_reading() -> None:
    world = World({**BOUNDS, "compute": {"replicas": 1, "min": 1, "max": 10}}, compute=1)
    await world.go(3)
    told = len(world.keys)
    assert told == 1
    await world.go(300)
    assert len(world.keys) == told
    assert world.condition()["reason"] == "AtMin"


async def test_what_the_last_leader_said_stands_until_the_next_one_has_decided() -> None:
    world = World(BOUNDS)
    world.waits(8, busy=2, running=2)
    await world.go(2)
    before = world.status()
    world.swarm = msgspec.structs.replace(world.swarm, status=before)
    world.scaler = world.operator()
    assert world.status()["autoscaling"] == before["autoscaling"]
    assert world.condition() == next(c for c in before["conditions"] if c["type"] == "Autoscaling")


async def test_a_swarm_that_is_not_autoscaled_has_no_such_condition() -> None:
    world = World({"compute": {"replicas": 2}})
    assert world.condition() == {}
    assert "autoscaling" not in world.status()
    world = World({**BOUNDS, "suspend": True})
    assert world.condition()["reason"] == "Suspended"


async def test_metrics_follow_each_reading_and_go_with_the_swarm() -> None:
    world = World(BOUNDS)
    world.waits(8, busy=2, running=2)
    await world.go(2)
    text = world.metrics.exposition().decode()
    assert 'swarm_operator_autoscale_waiting_tasks{namespace="default",swarm="risk"} 8.0' in text
    assert 'swarm_operator_autoscales_total{result="out"} 1.0' in text
    world.swarm = msgspec.structs.replace(world.swarm, deleting=True)
    await world.go(2)
    assert "autoscale_waiting_tasks{" not in world.metrics.exposition().decode()


async def test_many_swarms_are_asked_less_often_each() -> None:
    world = World(BOUNDS, nodes=tuple(f"node-{at}" for at in range(400)))
    await world.go(2)  # the first round shows how many there are to ask
    world.asked.clear()
    await world.go(20)
    assert len(world.asked) <= 100 * 20 + 400


async def test_wishes_that_can_not_be_met_are_cut_to_the_bounds_of_now() -> None:
    spec = make_spec(compute={"min": 0, "max": 4}, autoscaling={"schedule": [{"cron": "* * * * *", "min": 3}]})
    world = World(msgspec.json.decode(spec.model_dump_json(by_alias=True, exclude_unset=True)), compute=0)
    world.edit(replicas=0)
    await world.go(2)
    assert world.counts() == [3]
    assert "* * * * *" in world.notes[0].message
