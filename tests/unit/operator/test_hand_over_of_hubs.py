"""A node keeps a hub at work while its resource agent is replaced by one of another revision."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.operatorkit import World, make_node
from swarm_agents.config import Role
from swarm_operator.actions import CreatePod, DeletePod, DrainPod
from swarm_operator.plan import agents_of, plan

SPEC = {"compute": {"replicas": 1}, "image": "agent:old"}
SURGE = {"maxSurge": 1, "maxUnavailable": 0}


def rolling(nodes: int = 1, **rollout: Any) -> World:
    """A swarm that has settled, whose image was changed."""
    world = World({**SPEC, "rollout": rollout}, [make_node(f"n{n}") for n in range(nodes)])
    for _ in range(12):
        turn(world)
    world.edit({**SPEC, "rollout": rollout, "image": "agent:new"})
    return world


def turn(world: World) -> list[Any]:
    planned = plan(world.snapshot(), world.now)
    for action in planned.actions:
        world.perform(action, planned)
    world.tick()
    return [action for action in planned.actions if "-resource-" in action.name]


def hubs(world: World) -> list[Any]:
    return [agent for agent in agents_of(world.snapshot()) if agent.name.role is Role.RESOURCE and agent.alive]


def at_work(world: World) -> int:
    return sum(agent.available for agent in hubs(world))


def revisions(world: World) -> set[str]:
    return {agent.pod.revision for agent in hubs(world)}


def test_the_successor_is_made_on_the_same_node_and_the_old_hub_leaves_when_it_has_started():
    world = rolling(**SURGE)
    (old,) = hubs(world)
    seen: list[Any] = []
    idle = 0
    for _ in range(12):
        seen += turn(world)
        idle += at_work(world) == 0
    (created,) = [action for action in seen if isinstance(action, CreatePod)]
    assert created.name == "risk-resource-0-1"
    first_drain = next(at for at, action in enumerate(seen) if isinstance(action, DrainPod))
    assert seen.index(created) < first_drain
    assert [action.name for action in seen if isinstance(action, DeletePod)] == [old.pod.name]
    (new,) = hubs(world)
    assert (new.pod.target_node, new.available) == ("n0", True)
    assert idle <= 2, "while the old one is gone and the new one opens its ports: two ticks of this clock"


def test_the_old_hub_stays_at_work_while_its_successor_does_not_start():
    world = rolling(**SURGE)
    world.broken = lambda pod: pod.name == "risk-resource-0-1"
    for _ in range(60):
        assert not [action for action in turn(world) if isinstance(action, DrainPod | DeletePod)]
        assert at_work(world) == 1
    world.broken = lambda pod: False
    for _ in range(12):
        turn(world)
    assert len(revisions(world)) == at_work(world) == 1


def test_where_there_is_no_room_for_two_the_old_hub_leaves_first():
    world = rolling(**SURGE)
    (old,) = hubs(world)

    def unplaced() -> None:
        """The scheduler finds no room while both are there."""
        if old.pod.name in world.pods and (pod := world.pods.get("risk-resource-0-1")):
            world.pods[pod.name] = msgspec.structs.replace(pod, phase="Pending", node="", bound=0.0, started=False)

    for _ in range(40):
        turn(world)
        unplaced()
    assert revisions(world) != {old.pod.revision}
    assert at_work(world) == 1


def test_where_its_node_refuses_the_successor_the_old_hub_leaves_first_and_no_pod_is_made_again_and_again():
    world = rolling(**SURGE)
    (old,) = hubs(world)
    made = 0
    for _ in range(40):
        made += sum(isinstance(action, CreatePod) for action in turn(world))
        for name, pod in list(world.pods.items()):
            if old.pod.name in world.pods and name.startswith("risk-resource-0-") and name != old.pod.name:
                refused = {"phase": "Failed", "reason": "OutOfcpu", "ready": False, "ended": world.now}
                world.pods[name] = msgspec.structs.replace(pod, **refused)
    assert made == 2
    assert revisions(world) != {old.pod.revision}
    assert at_work(world) == 1


def test_no_more_nodes_have_two_hubs_than_surge_allows():
    world = rolling(nodes=8, **SURGE)
    for _ in range(80):
        turn(world)
        assert len(hubs(world)) <= 9
        assert at_work(world) >= 7
    assert len(revisions(world)) == 1
    assert at_work(world) == 8


def test_without_surge_the_old_hub_leaves_first():
    world = rolling(maxSurge=0, maxUnavailable=1)
    for _ in range(12):
        turn(world)
        assert len(hubs(world)) <= 1
    assert at_work(world) == 1


@pytest.mark.parametrize("after", range(1, 8))
def test_an_edit_taken_back_at_any_moment_comes_to_one_hub_of_the_old_revision(after: int):
    world = rolling(**SURGE)
    (old,) = hubs(world)
    for _ in range(after):
        turn(world)
    world.edit({**SPEC, "rollout": SURGE})
    for _ in range(20):
        turn(world)
    assert revisions(world) == {old.pod.revision}
    assert at_work(world) == len(hubs(world)) == 1


def test_a_roll_that_is_paused_goes_no_further():
    world = rolling(**SURGE)
    turn(world)
    world.edit({**SPEC, "rollout": {**SURGE, "paused": True}, "image": "agent:new"})
    for _ in range(10):
        assert not [action for action in turn(world) if isinstance(action, DrainPod | DeletePod)]
    assert at_work(world) == 1
