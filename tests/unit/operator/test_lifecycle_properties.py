"""Rolls, roll-backs and predicted failures together, whatever is lost, seen late, or forgotten meanwhile."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_spec
from swarm_agents.config import Role
from swarm_operator.actions import DeletePod, Plan
from swarm_operator.plan import agents_of, plan
from swarm_operator.revision import revision_of
from swarm_operator.rollout import budget
from swarm_operator.snapshot import Snapshot

BOUNDS = [("25%", "25%"), (0, 1), (1, 0), (2, 2), ("100%", 0), (0, "50%")]
GOOD, OTHER = "agent:good", "agent:other"


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    surge, unavailable = draw(st.sampled_from(BOUNDS))
    rollout = {"maxSurge": surge, "maxUnavailable": unavailable, "autoRollback": True, "progressDeadline": "20s"}
    return {
        "compute": {"replicas": draw(st.integers(1, 5)), "standby": draw(st.integers(0, 1))},
        "rollout": rollout,
        "failover": {"prediction": {}},
    }


SPECS = specs()
SEEDS = st.integers(0, 1 << 16).map(random.Random)


class Life:
    """A swarm of a good revision that is edited to one of which some agents, or all, never become ready."""

    def __init__(self, spec: dict[str, Any], chance: random.Random) -> None:
        self.chance = chance
        self.world = World({**spec, "image": GOOD}, [make_node("node-a"), make_node("node-b")])
        for _ in range(25):
            self.turn()
        self.world.edit({**spec, "image": OTHER, "compute": {**spec["compute"], "replicas": chance.randint(1, 5)}})
        self.other = revision_of(make_spec(**self.world.swarm.spec))
        bad = chance.choice(["none", "all", "even", "refused"])
        self.bad = bad != "none"
        if bad == "refused":
            self.world.admits = lambda manifest: self.other not in str(manifest)
        elif bad != "none":
            self.world.broken = lambda pod: (
                pod.revision == self.other and (bad == "all" or int(pod.name.split("-")[-2]) % 2 == 0)
            )
        self.seen: list[Snapshot] = []

    def turn(self, snapshot: Snapshot | None = None, loss: float = 0.0) -> Plan:
        world = self.world
        planned = plan(snapshot or world.snapshot(), world.now)
        actions = [action for action in planned.actions if self.chance.random() >= loss]
        self.chance.shuffle(actions)
        for action in actions:
            if world.stands(action):
                self.before(action)
            world.perform(action, planned)
        world.tick()
        return planned

    def before(self, action: Any) -> None:
        """A busy agent that answers is never deleted."""
        pod = self.world.pods.get(action.name)
        if isinstance(action, DeletePod) and pod is not None and pod.uid == action.uid and not pod.deleting:
            assert not (pod.phase == "Running" and pod.ready and self.world.tasks.get(pod.uid)), action.describe()

    def disturb(self) -> None:
        """Tasks come, forecasts are made, the operator is started anew."""
        world, chance = self.world, self.chance
        for pod in world.pods.values():
            if chance.random() < 0.2 and pod.uid not in world.draining and pod.ready and not pod.deleting:
                world.tasks[pod.uid] = chance.randint(0, 4)
            if chance.random() < 0.2:
                world.failing[pod.uid] = chance.choice([0.0, 0.6, 0.95])
            report = world.reports.get(pod.uid)
            if report is not None and chance.random() < 0.5:
                world.reports[pod.uid] = msgspec.structs.replace(report, failing=world.failing.get(pod.uid, 0.0))
        if chance.random() < 0.1:
            world.reports.clear()
            world.refused = None

    def available(self, role: Role) -> int:
        agents = [a for a in agents_of(self.world.snapshot()) if a.name.role is role and a.alive]
        return sum(a.pod.ready and a.pod.uid not in self.world.draining for a in agents)

    def settle(self) -> Plan:
        """Nothing disturbs any more."""
        self.world.failing.clear()
        for uid, report in self.world.reports.items():
            self.world.reports[uid] = msgspec.structs.replace(report, failing=0.0)
        for _ in range(250):
            still = all(pod.ready and not pod.deleting for pod in self.world.pods.values())
            planned = self.turn()
            if not planned.actions and planned.requeue_after is None and still:
                return planned
        raise AssertionError(
            f"not settled: {[a.describe() for a in planned.actions]}, again in {planned.requeue_after}"
        )


#: An agent that was let go on was deleted for having been drained before.
LET_GO_ON = {
    "compute": {"replicas": 5, "standby": 1},
    "rollout": {"maxSurge": 0, "maxUnavailable": 1, "autoRollback": True, "progressDeadline": "20s"},
    "failover": {"prediction": {}},
}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(spec=LET_GO_ON, chance=random.Random(562))
@given(spec=SPECS, chance=SEEDS)
def test_rolls_and_roll_backs_converge_whatever_is_lost_or_seen_late(
    spec: dict[str, Any], chance: random.Random
) -> None:
    life = Life(spec, chance)
    world = life.world
    for _ in range(45):
        life.disturb()
        life.seen = [*life.seen[-3:], world.snapshot()]
        life.turn(chance.choice(life.seen), loss=0.3)
    planned = life.settle()
    assert plan(world.snapshot(), world.now + 1e6).actions == ()
    assert planned.course is not None
    assert life.bad or planned.course.revision == life.other
    alive = [agent for agent in agents_of(world.snapshot()) if agent.alive]
    assert {agent.pod.revision for agent in alive} == {planned.course.revision}
    assert sum(agent.name.role is Role.COMPUTE for agent in alive) == make_spec(**world.swarm.spec).compute.replicas
    if planned.course.revision != life.other:
        assert planned.course.failed
        assert all(agent.pod.ready for agent in alive)
    assert planned.acknowledged


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS, chance=SEEDS)
def test_no_step_of_ours_takes_more_agents_than_the_bounds_allow(spec: dict[str, Any], chance: random.Random) -> None:
    """Rolling, rolling back and replacing for what is foreseen, all at the same time."""
    life = Life(spec, chance)
    world = life.world
    for _ in range(60):
        life.disturb()
        snapshot = world.snapshot()
        planned = plan(snapshot, world.now)
        before = {role: life.available(role) for role in (Role.COMPUTE, Role.STANDBY)}
        for action in planned.actions:
            life.before(action)
            world.perform(action, planned)
        rollout = make_spec(**world.swarm.spec).rollout
        for role, part in ((Role.COMPUTE, planned.compute), (Role.STANDBY, planned.standby)):
            unavailable = budget(rollout.max_unavailable, part.desired, up=False)
            surge = budget(rollout.max_surge, part.desired, up=True)
            floor = max(0, part.desired - (unavailable if surge else max(1, unavailable)))
            assert life.available(role) >= min(before[role], floor), role
            alive = [a for a in agents_of(world.snapshot()) if a.name.role is role and a.alive]
            assert len(alive) <= max(part.desired + surge, part.current), role
        world.tick()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS, chance=SEEDS)
def test_a_revision_that_failed_is_never_gone_forth_to_again(spec: dict[str, Any], chance: random.Random) -> None:
    life = Life(spec, chance)
    failed = False
    for _ in range(80):
        life.disturb()
        made = life.turn(loss=0.2)
        assert made.course is not None
        failed = failed or bool(made.course.failed)
        assert not failed or made.course.revision != life.other
