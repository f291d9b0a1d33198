"""An operator that may not read nodes starts, serves what needs none, keeps what there is, and says what is lacking."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec

from support.operatorkit import World, make_node
from swarm_agents.config import Role
from swarm_operator.agents import Agents
from swarm_operator.cache import Cache
from swarm_operator.keys import KeyMemory
from swarm_operator.kube import ApiError
from swarm_operator.plan import agents_of, plan
from swarm_operator.status import status_of


def run(world: World, seconds: int = 20) -> None:
    for _ in range(seconds):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()


def conditions(world: World) -> dict[str, dict[str, Any]]:
    snapshot = world.snapshot()
    found = status_of(snapshot, plan(snapshot, world.now), (), world.now)["conditions"]
    return {condition["type"]: condition for condition in found}


def on_nodes(world: World) -> dict[str, str]:
    found = agents_of(world.snapshot())
    return {a.pod.target_node: a.pod.uid for a in found if a.name.role is Role.RESOURCE and a.alive}


def test_resource_agents_stay_where_they_are_when_the_right_is_taken_away() -> None:
    world = World({"compute": {"replicas": 1}}, [make_node("node-a"), make_node("node-b")])
    run(world)
    before = on_nodes(world)
    assert set(before) == {"node-a", "node-b"}
    world.nodes_known = False
    assert plan(world.snapshot(), world.now).actions == ()
    run(world, 5)
    assert on_nodes(world) == before
    assert conditions(world)["Ready"]["status"] == "True"
    found = conditions(world)["Degraded"]
    assert (found["status"], found["reason"]) == ("True", "NodesUnreadable")
    assert "agentswarm-operator-nodes" in found["message"]
    (lost,) = [pod for pod in world.pods.values() if pod.target_node == "node-b"]
    world.pods[lost.name] = msgspec.structs.replace(lost, phase="Failed", ready=False, ended=world.now)
    run(world, 15)
    assert set(on_nodes(world)) == {"node-a", "node-b"}, "one that ended is made anew where it was"
    world.nodes_known = True
    run(world, 3)
    assert conditions(world)["Degraded"]["status"] == "False"


def test_a_new_swarm_on_nodes_says_what_it_lacks() -> None:
    world = World({"compute": {"replicas": 1}})
    world.nodes_known = False
    run(world)
    assert on_nodes(world) == {}
    found = conditions(world)["Ready"]
    assert (found["status"], found["reason"]) == ("False", "NodesUnreadable")
    assert "list and watch on nodes" in found["message"]
    assert "medium Memory" in found["message"]


def test_a_swarm_with_boards_of_its_own_needs_no_nodes() -> None:
    world = World({"compute": {"replicas": 2}, "transport": {"sharedMemory": {"medium": "Memory"}}})
    world.nodes_known = False
    run(world)
    assert conditions(world)["Ready"]["status"] == "True"
    assert conditions(world)["Degraded"]["status"] == "False"


class _Server:
    """An API server without objects that refuses nodes for as long as it is told to."""

    def __init__(self) -> None:
        self.refuses = True

    async def list_page(self, kind: str, namespace: str, **_: Any) -> Any:
        if kind == "Node" and self.refuses:
            raise ApiError(403, "Forbidden", "nodes is forbidden")
        return SimpleNamespace(items=[], metadata=SimpleNamespace(resource_version="1", continue_=""))

    async def watch(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(3600)
        yield b""


async def test_the_operator_starts_without_nodes_and_takes_them_once_it_may() -> None:
    server, now = _Server(), 1000.0
    cache = Cache(server, ("one", "two"), Agents(lambda: 0.0), KeyMemory(), lambda: now)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(reflector.run()) for reflector in cache.reflectors]
    try:
        await asyncio.wait_for(cache.synced(), 5)
        assert not cache.nodes_known
        now = 1100.0
        for reflector in cache.reflectors:
            if reflector.kind != "Node":
                reflector._heard = now
        assert cache.age() == 0.0, "what may not be read does not make the operator look dead"
        server.refuses = False
        await asyncio.wait_for(asyncio.gather(*(r.synced.wait() for r in cache.reflectors)), 5)
        assert cache.nodes_known
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
