"""Agents that expect to fail are replaced before they do: new ones first, within the bounds, and never in a loop."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from support.operatorkit import World, make_node
from swarm_agents.config import Role
from swarm_operator.actions import AskAgent, CreatePod, DrainPod, Plan
from swarm_operator.events import notes_of
from swarm_operator.foresight import COOL_DOWN
from swarm_operator.names import ANNOTATION_INSTEAD
from swarm_operator.plan import agents_of, plan
from swarm_operator.status import status_of


def spec(**more: Any) -> dict[str, Any]:
    rollout = {"maxSurge": 1, "maxUnavailable": 1} | more.pop("rollout", {})
    compute = {"replicas": 4} | more.pop("compute", {})
    return {"compute": compute, "rollout": rollout, "failover": {"prediction": {}}, **more}


def turn(world: World) -> Plan:
    planned = plan(world.snapshot(), world.now)
    for action in planned.actions:
        world.perform(action, planned)
    return planned


def run(world: World, seconds: int) -> list[int]:
    """Plans for so long; how many compute agents worked at each step."""
    seen = []
    for _ in range(seconds):
        for _ in range(3):  # what was written is observed before a pod has ended
            turn(world)
        seen.append(len(working(world)))
        world.tick()
    return seen


def working(world: World, role: Role = Role.COMPUTE) -> list[str]:
    found = agents_of(world.snapshot())
    return sorted(
        a.pod.name for a in found if a.name.role is role and a.alive and a.pod.ready and a.pod.uid not in world.draining
    )


def expects(world: World, name: str, probability: float) -> None:
    """An agent reckons that, and the operator has heard of it."""
    pod = world.pods[name]
    world.failing[pod.uid] = probability
    world.reports[pod.uid] = msgspec.structs.replace(
        world.reports[pod.uid], failing=probability, failing_why="memory 95 % of its limit"
    )


def settled(manifest: dict[str, Any], nodes: int = 1) -> World:
    world = World(manifest, [make_node(f"node-{number}") for number in range(nodes)])
    run(world, 20)
    return world


def condition(world: World) -> dict[str, Any]:
    snapshot = world.snapshot()
    found = status_of(snapshot, plan(snapshot, world.now), (), world.now)["conditions"]
    return next((c for c in found if c["type"] == "FailurePredicted"), {})


def test_its_successor_takes_tasks_before_it_leaves() -> None:
    world = settled(spec(rollout={"maxUnavailable": 0}))
    expects(world, "risk-compute-1-0", 0.95)
    assert min(run(world, 12)) >= 4
    assert working(world) == ["risk-compute-0-0", "risk-compute-2-0", "risk-compute-3-0", "risk-compute-4-0"]
    run(world, 20)
    assert plan(world.snapshot(), world.now).actions == ()


def test_without_a_surge_it_leaves_first_and_the_bound_holds() -> None:
    world = settled(spec(rollout={"maxSurge": 0}))
    expects(world, "risk-compute-1-0", 0.95)
    uid = world.pods["risk-compute-1-0"].uid
    assert min(run(world, 12)) == 3
    assert len(working(world)) == 4
    assert uid not in {pod.uid for pod in world.pods.values()}
    assert [pod.name for pod in world.pods.values() if pod.instead_of == uid], "it is known whom its successor is for"


def test_below_the_threshold_it_is_only_asked_again() -> None:
    world = settled(spec())
    expects(world, "risk-compute-1-0", 0.8)
    world.tick(5.0)
    (action,) = plan(world.snapshot(), world.now).actions
    assert isinstance(action, AskAgent)
    run(world, 20)
    assert "risk-compute-1-0" in world.pods
    world.edit(spec(failover={"prediction": {"threshold": 75}}))
    run(world, 20)
    assert "risk-compute-1-0" not in world.pods


def test_without_prediction_nothing_is_done_about_it() -> None:
    world = settled(spec(failover={}))
    expects(world, "risk-compute-1-0", 1.0)
    assert plan(world.snapshot(), world.now + 60.0).actions == ()
    assert condition(world) == {}


def test_when_all_expect_to_fail_no_more_than_the_bound_are_replaced_at_a_time() -> None:
    world = settled(spec(rollout={"maxSurge": 4}))
    before = {name: pod.uid for name, pod in world.pods.items() if "compute" in name}
    for name in before:
        expects(world, name, 0.95)
    most = 0
    for _ in range(40):
        turn(world)
        world.tick()
        most = max(most, sum("compute" in name for name in world.pods))
    assert most <= 5
    assert len(working(world)) == 4
    assert not set(before.values()) & {pod.uid for pod in world.pods.values()}


def test_noise_empties_no_place_more_often_than_once_in_the_cool_down() -> None:
    """Every agent that there is says all the time that it is about to fail."""
    world = settled(spec())
    made: set[str] = set()
    for _ in range(3 * int(COOL_DOWN) // 5):
        turn(world)
        assert len(working(world)) >= 3
        for pod in world.pods.values():
            if "compute" in pod.name:
                made.add(pod.uid)
                world.failing[pod.uid] = 1.0
                if pod.uid in world.reports:
                    expects(world, pod.name, 1.0)
        world.tick(5.0)
    assert len(made) <= 4 * (1 + 3 + 1), "each of four places once in each cool-down, and one that is begun"


def test_what_was_begun_is_finished_by_another_operator_and_when_the_forecast_recedes() -> None:
    world = settled(spec(rollout={"maxUnavailable": 0}))
    expects(world, "risk-compute-1-0", 0.95)
    turn(world)
    assert world.pods["risk-compute-4-0"].instead_of == world.pods["risk-compute-1-0"].uid
    world.reports.clear()
    world.failing.clear()
    run(world, 12)
    assert "risk-compute-1-0" not in world.pods
    assert "risk-compute-4-0" in working(world)
    assert len(working(world)) == 4


def test_a_busy_agent_hands_nothing_back_for_it() -> None:
    world = settled(spec(rollout={"maxSurge": 0}))
    name = "risk-compute-1-0"
    uid = world.pods[name].uid
    world.tasks[uid] = 8
    expects(world, name, 0.99)
    for _ in range(7):
        turn(world)
        world.tick()
        assert not world.pods[name].deleting
    run(world, 6)
    assert uid not in {pod.uid for pod in world.pods.values()}


def test_standby_and_resource_agents_are_replaced_too() -> None:
    world = settled(spec(compute={"replicas": 2, "standby": 1}), nodes=2)
    fearful = [name for name in world.pods if "standby" in name or name.startswith("risk-resource-0")]
    assert len(fearful) == 2
    before = {name: pod.uid for name, pod in world.pods.items()}
    for name in fearful:
        expects(world, name, 0.95)
    run(world, 20)
    left = {pod.uid for pod in world.pods.values()}
    assert set(before.values()) - left == {before[name] for name in fearful}
    assert len(working(world, Role.STANDBY)) == 1
    assert len(working(world, Role.RESOURCE)) == 2


@pytest.mark.parametrize("more", [{"rollout": {"paused": True}}, {"suspend": True}])
def test_nothing_is_foreseen_while_the_roll_out_is_paused_or_all_is_suspended(more: dict[str, Any]) -> None:
    world = settled(spec())
    expects(world, "risk-compute-1-0", 0.95)
    world.edit(spec(**more))
    assert not [a for a in plan(world.snapshot(), world.now).actions if isinstance(a, CreatePod)]
    run(world, 5)
    assert ("risk-compute-1-0" in world.pods) == ("rollout" in more)


def test_people_are_told_which_and_why() -> None:
    world = settled(spec(rollout={"maxSurge": 0}))
    assert (condition(world)["status"], condition(world)["reason"]) == ("False", "NothingForeseen")
    expects(world, "risk-compute-1-0", 0.95)
    found = condition(world)
    assert (found["status"], found["reason"]) == ("True", "Replacing")
    assert found["message"] == "risk-compute-1-0: 95 %: memory 95 % of its limit"
    (drained,) = [action for action in turn(world).actions if isinstance(action, DrainPod)]
    (note,) = notes_of([drained], ())
    assert (note.type, note.reason) == ("Warning", "PredictedFailure")
    assert "pod risk-compute-1-0 is replaced, predicted to fail (95 %: memory 95 % of its limit)" in note.message


def test_a_successor_says_whom_it_is_for() -> None:
    world = settled(spec())
    expects(world, "risk-compute-1-0", 0.95)
    (made,) = [action for action in plan(world.snapshot(), world.now).actions if isinstance(action, CreatePod)]
    assert made.manifest["metadata"]["annotations"][ANNOTATION_INSTEAD] == world.pods["risk-compute-1-0"].uid
