"""The planner comes to what the spec says from whatever it finds, and keeps its bounds on the way."""

from __future__ import annotations

import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_pod, make_snapshot
from swarm_agents.config import Role
from swarm_operator.actions import DeletePod, Plan
from swarm_operator.api.read import read_spec
from swarm_operator.plan import agents_of, plan
from swarm_operator.revision import revision_of
from swarm_operator.rollout import budget
from swarm_operator.views import CHILD_KINDS

ROLES = st.sampled_from([Role.COMPUTE, Role.STANDBY])
PHASES = st.sampled_from(["Pending", "Running", "Running", "Running", "Failed", "Succeeded"])
NODES = ["node-a", "node-b", "node-gone"]


@st.composite
def specs(draw: st.DrawFn) -> dict[str, object]:
    surge, unavailable = draw(st.sampled_from([("25%", "25%"), (0, 1), (1, 0), (2, 2), ("100%", 0), (0, "50%")]))
    own = draw(st.integers(0, 3)) == 0  # boards of the pods' own: then there are no standby agents
    return {
        "compute": {"replicas": draw(st.integers(0, 6)), "standby": 0 if own else draw(st.integers(0, 2))},
        "transport": {"sharedMemory": {"medium": "Memory" if own else "HostPath"}},
        "suspend": draw(st.booleans() if draw(st.integers(0, 5)) == 0 else st.just(False)),
        "rollout": {"maxSurge": surge, "maxUnavailable": unavailable},
    }


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any spec, and any pods that an earlier or interrupted operator, a user or a kubelet could have left."""
    spec = draw(specs())
    world = World(spec, [make_node("node-a"), make_node("node-b", unschedulable=draw(st.booleans()))])
    parsed, _ = read_spec(spec)
    assert parsed is not None
    revision = revision_of(parsed)
    for _ in range(draw(st.integers(0, 8))):
        role = draw(ROLES)
        pod = make_pod(
            role,
            draw(st.integers(0, 7)),
            draw(st.integers(0, 2)),
            revision=draw(st.sampled_from([revision, revision, "0ld"])),
            phase=draw(PHASES),
            ready=draw(st.booleans()),
            deleting=draw(st.booleans() if draw(st.booleans()) else st.just(False)),
            node=draw(st.sampled_from(NODES)),
            owners=draw(st.sampled_from([(world.swarm.uid,), (world.swarm.uid,), (), ("another-uid",)])),
        )
        if pod.phase != "Running":
            pod = msgspec.structs.replace(pod, ready=False)
        world.add_pod(pod, tasks=draw(st.integers(0, 3)))
        if draw(st.booleans()):
            world.draining.add(pod.uid)
    for node in draw(st.sets(st.sampled_from(NODES))):
        ordinal = draw(st.integers(0, 3))
        revision_there = draw(st.sampled_from([revision, "0ld"]))
        world.add_pod(make_pod(Role.RESOURCE, ordinal, revision=revision_there, node=node, target_node=node))
    return world


def own_alive(world: World, role: Role) -> list[str]:
    return [a.pod.name for a in agents_of(world.snapshot()) if a.name.role is role and a.alive]


def available(world: World, role: Role) -> int:
    """As it is, and not as the operator has heard: an agent may be draining without its knowledge."""
    agents = [a for a in agents_of(world.snapshot()) if a.name.role is role and a.alive]
    return sum(a.pod.ready and a.pod.uid not in world.draining for a in agents)


def settle(world: World, data: st.DataObject, rounds: int = 60) -> Plan:
    """Plans and acts until nothing is left to do. At first any action may fail or be done late; then all succeed."""
    planned = plan(world.snapshot(), world.now)
    for step in range(rounds):
        planned = plan(world.snapshot(), world.now)
        actions = list(planned.actions)
        leaving = any(pod.deleting for pod in world.pods.values())
        starting = any(not agent.pod.ready for agent in agents_of(world.snapshot()) if agent.alive)
        if not actions and planned.requeue_after is None and not leaving and not starting:
            return planned
        if step < 3:  # a seed rather than a permutation: what is drawn is printed when a test fails
            chance = random.Random(data.draw(st.integers(0, 1 << 16)))
            chance.shuffle(actions)
            actions = [action for action in actions if chance.random() < 0.5]
        for action in actions:
            world.perform(action, planned)
            check_bounds(world, planned)
        world.tick(1.0 if step < 40 else 30.0)
    raise AssertionError(f"not settled: {[a.describe() for a in planned.actions]}, again in {planned.requeue_after}")


def check_bounds(world: World, planned: Plan) -> None:
    spec, _ = read_spec(world.swarm.spec)
    assert spec is not None
    for role, part in ((Role.COMPUTE, planned.compute), (Role.STANDBY, planned.standby)):
        surge = max(budget(spec.rollout.max_surge, part.desired, up=True), 0)
        assert len(own_alive(world, role)) <= max(part.desired + surge, part.current), role


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), data=st.data())
def test_from_any_observed_state_the_plans_converge_and_then_say_nothing(world: World, data: st.DataObject) -> None:
    planned = settle(world, data)
    spec, _ = read_spec(world.swarm.spec)
    assert spec is not None
    count = 0 if spec.suspend else spec.compute.replicas
    standby = 0 if spec.suspend else spec.compute.standby
    assert len(own_alive(world, Role.COMPUTE)) == count
    assert len(own_alive(world, Role.STANDBY)) == standby
    revisions = {a.pod.revision for a in agents_of(world.snapshot()) if a.alive}
    assert revisions <= {planned.revision}
    assert planned.acknowledged
    assert not any(a.draining for a in agents_of(world.snapshot()))
    assert plan(world.snapshot(), world.now + 1e6).actions == ()
    kinds = {kind for kind, _ in world.objects}
    assert kinds == {*CHILD_KINDS}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    world=worlds(), data=st.data(), after=specs(), image=st.sampled_from(["agentswarm/agent:1", "agentswarm/agent:2"])
)
def test_a_change_in_the_middle_converges_to_the_new_spec(
    world: World, data: st.DataObject, after: dict[str, object], image: str
) -> None:
    for _ in range(data.draw(st.integers(0, 4))):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    world.edit({**after, "image": image})
    planned = settle(world, data)
    assert plan(world.snapshot(), world.now).actions == ()
    assert {a.pod.revision for a in agents_of(world.snapshot()) if a.alive} <= {planned.revision}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds(), after=specs())
def test_no_plan_takes_more_available_agents_than_the_rollout_allows(world: World, after: dict[str, object]) -> None:
    """Counted over everything that one plan deletes or drains, all of it done at once."""
    world.edit({**after, "image": "agentswarm/agent:2"})
    for _ in range(25):
        planned = plan(world.snapshot(), world.now)
        before = {role: available(world, role) for role in (Role.COMPUTE, Role.STANDBY)}
        for action in planned.actions:
            world.perform(action, planned)
        spec, _ = read_spec(world.swarm.spec)
        assert spec is not None
        for role, part in ((Role.COMPUTE, planned.compute), (Role.STANDBY, planned.standby)):
            unavailable = budget(spec.rollout.max_unavailable, part.desired, up=False)
            if not budget(spec.rollout.max_surge, part.desired, up=True):
                unavailable = max(1, unavailable)
            floor = max(0, part.desired - unavailable)
            assert available(world, role) >= min(before[role], floor), role
        world.tick()


@settings(max_examples=60, deadline=None)
@given(world=worlds())
def test_a_busy_agent_that_answers_is_never_deleted(world: World) -> None:
    for _ in range(20):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            if isinstance(action, DeletePod):
                pod = world.pods.get(action.name)
                if pod and pod.uid == action.uid and pod.phase == "Running" and pod.ip and not pod.deleting:
                    assert not world.tasks[pod.uid], f"{action.describe()} while it is busy"
                    assert pod.uid in world.draining
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()


@settings(max_examples=60, deadline=None)
@given(world=worlds())
def test_the_same_snapshot_gives_the_same_plan_and_doing_it_twice_changes_nothing(world: World) -> None:
    snapshot = world.snapshot()
    planned = plan(snapshot, world.now)
    assert plan(snapshot, world.now) == planned
    for action in planned.actions:
        world.perform(action, planned)
    once = {name: (pod.phase, pod.deleting) for name, pod in world.pods.items()}
    for action in planned.actions:
        if not isinstance(action, DeletePod):
            world.perform(action, planned)
    assert {name: (pod.phase, pod.deleting) for name, pod in world.pods.items()} == once


def test_pods_that_are_being_deleted_or_have_ended_do_not_count_as_alive() -> None:
    spec = {"compute": {"replicas": 2}}
    parsed, _ = read_spec(spec)
    assert parsed is not None
    revision = revision_of(parsed)
    pods = [
        make_pod(ordinal=0, revision=revision, deleting=True),
        make_pod(ordinal=1, revision=revision, phase="Failed", ready=False, ended=500.0, created=100.0),
    ]
    planned = plan(make_snapshot(spec, pods), 1000.0)
    created = sorted(action.name for action in planned.actions if type(action).__name__ == "CreatePod")
    assert [name for name in created if "compute" in name] == ["risk-compute-0-1", "risk-compute-1-1"]
