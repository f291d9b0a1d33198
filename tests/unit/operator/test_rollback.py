"""A revision whose agents do not become ready is gone back from, once, within the bounds, whoever is the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_pod, make_spec, make_swarm
from swarm_agents.config import Role
from swarm_operator.actions import MarkRevision, Plan
from swarm_operator.events import notes_of
from swarm_operator.history import HISTORY, records
from swarm_operator.names import ANNOTATION_READY
from swarm_operator.plan import agents_of, plan
from swarm_operator.revision import revision_of, rolling_part, with_rolling
from swarm_operator.status import status_of
from swarm_operator.views import PodView

GOOD, BAD, BETTER = "agent:good", "agent:bad", "agent:better"
DEADLINE = 60.0


def spec(image: str, *, replicas: int = 4, auto: bool = True, **more: Any) -> dict[str, Any]:
    rollout = {"autoRollback": auto, "progressDeadline": "60s", "maxSurge": 1, "maxUnavailable": 1}
    return {
        "image": image,
        "compute": {"replicas": replicas} | more.pop("compute", {}),
        "rollout": rollout | more.pop("rollout", {}),
        **more,
    }


def revision(manifest: dict[str, Any]) -> str:
    return revision_of(make_spec(**manifest))


def of(manifest: dict[str, Any]) -> Callable[[PodView], bool]:
    """Pods of the manifest's revision."""
    wanted = revision(manifest)
    return lambda pod: pod.revision == wanted


def turn(world: World) -> Plan:
    """One plan, carried out."""
    planned = plan(world.snapshot(), world.now)
    for action in planned.actions:
        world.perform(action, planned)
    return planned


def run(world: World, seconds: int, check: Callable[[], None] = lambda: None) -> Plan:
    planned = turn(world)
    for _ in range(seconds):
        check()
        world.tick()
        planned = turn(world)
    return planned


def running(world: World) -> dict[str, int]:
    """Agents that are ready, by revision."""
    found: dict[str, int] = {}
    for agent in agents_of(world.snapshot()):
        if agent.available and agent.name.role is Role.COMPUTE:
            found[agent.pod.revision] = found.get(agent.pod.revision, 0) + 1
    return found


def conditions(world: World) -> dict[str, dict[str, Any]]:
    snapshot = world.snapshot()
    found = status_of(snapshot, plan(snapshot, world.now), (), world.now)["conditions"]
    return {condition["type"]: condition for condition in found}


@pytest.fixture
def world() -> World:
    """Four agents of a good revision, which has proven itself."""
    one = World(spec(GOOD), [make_node("node-a"), make_node("node-b")])
    one.broken = of(spec(BAD))
    run(one, 20)
    assert [record.ready for record in records(one.snapshot())] == [True]
    return one


def test_a_bad_image_is_rolled_back_and_never_takes_down_more_than_the_bound(world: World) -> None:
    names = {name for name in world.pods if "compute" in name}
    world.edit(spec(BAD))
    least: list[int] = []
    run(world, 100, lambda: least.append(sum(running(world).values())))
    assert min(least) >= 3
    assert running(world) == {revision(spec(GOOD)): 4}
    assert len(names & set(world.pods)) >= 3, "agents that worked are not made anew"
    found = conditions(world)
    assert (found["RolledBack"]["status"], found["RolledBack"]["reason"]) == ("True", "RevisionFailed")
    for word in (revision(spec(BAD)), revision(spec(GOOD)), "not ready within 60 s", "autoRollback to false"):
        assert word in found["RolledBack"]["message"]
    assert found["Ready"]["status"] == "True"
    assert (found["Progressing"]["status"], found["Progressing"]["reason"]) == ("False", "RolledBack")
    assert (found["Degraded"]["status"], found["Degraded"]["reason"]) == ("True", "RolledBack")


def test_after_a_roll_back_nothing_is_done_any_more(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    for _ in range(50):
        planned = turn(world)
        assert planned.actions == ()
        assert planned.requeue_after is None
        world.tick(3600.0)


def test_it_goes_back_whenever_the_operator_is_started_anew(world: World) -> None:
    """What an operator knows by heart is lost after every single plan."""

    def restart() -> None:
        world.reports.clear()
        world.refused = None

    world.edit(spec(BAD))
    run(world, 120, restart)
    run(world, 20)
    assert running(world) == {revision(spec(GOOD)): 4}
    assert conditions(world)["RolledBack"]["status"] == "True"


def test_live_fields_are_taken_from_the_spec_all_the_time(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    world.edit(spec(BAD, replicas=6, runtime={"logLevel": "debug"}, compute={"standby": 1}))
    planned = run(world, 20)
    assert running(world) == {revision(spec(GOOD)): 6}
    assert planned.settings is not None
    assert planned.settings.runtime.log_level == "debug"
    assert planned.standby.ready == 1


def test_another_edit_is_tried_afresh_and_becomes_what_would_be_gone_back_to(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    world.edit(spec(BETTER))
    run(world, 40)
    assert running(world) == {revision(spec(BETTER)): 4}
    assert conditions(world)["RolledBack"]["reason"] == "AsSpecified"
    assert not any(record.failed for record in records(world.snapshot()))
    world.edit(spec(BAD))
    run(world, 100)
    assert running(world) == {revision(spec(BETTER)): 4}


def test_a_revision_that_failed_is_tried_again_after_the_spec_was_another(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    world.edit(spec(GOOD))
    run(world, 30)
    world.broken = lambda pod: False
    world.edit(spec(BAD))
    run(world, 40)
    assert running(world) == {revision(spec(BAD)): 4}


def test_without_auto_rollback_it_stays_as_it_is_and_with_it_again_the_same_is_tried_again(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    world.edit(spec(BAD, auto=False))
    run(world, 100)
    assert running(world) == {revision(spec(GOOD)): 3}
    assert "RolledBack" not in conditions(world)
    assert conditions(world)["Progressing"]["reason"] == "ProgressDeadlineExceeded"
    world.broken = lambda pod: False
    run(world, 3)
    world.edit(spec(BAD))
    run(world, 40)
    assert running(world) == {revision(spec(BAD)): 4}


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    one = World(spec(BAD))
    one.broken = of(spec(BAD))
    run(one, 100)
    assert running(one) == {}
    found = conditions(one)
    assert (found["RolledBack"]["status"], found["RolledBack"]["reason"]) == ("False", "NothingToGoBackTo")
    assert found["Progressing"]["reason"] == "ProgressDeadlineExceeded"
    one.broken = lambda pod: False
    run(one, 20)
    assert conditions(one)["RolledBack"]["reason"] == "AsSpecified"


def test_an_edit_at_the_very_moment_when_all_agents_are_ready_can_be_gone_back_from() -> None:
    one = World(spec(GOOD))
    one.broken = of(spec(BAD))
    while running(one) != {revision(spec(GOOD)): 4}:
        run(one, 1)
    one.edit(spec(BAD, replicas=5))
    run(one, 100)
    assert running(one) == {revision(spec(GOOD)): 5}


def test_what_is_gone_back_to_and_does_not_work_any_more_is_not_gone_forth_from(world: World) -> None:
    world.broken = lambda pod: pod.name not in before
    before = set(world.pods)
    world.edit(spec(BAD))
    run(world, 200)
    revisions = {pod.revision for pod in world.pods.values()}
    assert revisions == {revision(spec(GOOD))}
    assert sum(running(world).values()) >= 3


@pytest.mark.parametrize(
    ("surge", "unavailable", "least"), [(1, 0, 4), (0, 1, 3), (0, "50%", 2), ("100%", 0, 4), (2, 2, 2)]
)
def test_the_way_there_and_back_keeps_every_bound(surge: Any, unavailable: Any, least: int) -> None:
    bounds = {"maxSurge": surge, "maxUnavailable": unavailable}
    one = World(spec(GOOD, rollout=bounds))
    bad = revision(spec(BAD, rollout=bounds))
    one.broken = lambda pod: pod.revision == bad and int(pod.name.split("-")[-2]) % 2 == 0
    run(one, 20)
    one.edit(spec(BAD, rollout=bounds))
    seen: list[int] = []
    run(one, 150, lambda: seen.append(sum(running(one).values())))
    assert min(seen) >= least
    assert running(one) == {revision(spec(GOOD)): 4}


def test_agents_that_start_again_and_again_fail_their_revision(world: World) -> None:
    """Each start is ready for a moment, so that none is ever unready for long."""
    world.broken = lambda pod: False
    bad = of(spec(BAD))
    world.edit(spec(BAD))
    for step in range(120):
        turn(world)
        world.tick()
        for name, pod in world.pods.items():
            if bad(pod) and pod.phase == "Running":
                up = step % 4 == 0
                world.pods[name] = msgspec.structs.replace(
                    pod, ready=up, ready_changed=world.now, restarts=pod.restarts + up
                )
        assert sum(running(world).values()) >= 2
    assert running(world) == {revision(spec(GOOD)): 4}


def test_a_short_restart_after_the_deadline_does_not_fail_a_revision(world: World) -> None:
    slow = spec(BETTER, rollout={"maxSurge": 0})
    world.edit(slow)
    run(world, 3)
    (new,) = [name for name, pod in world.pods.items() if of(slow)(pod) and "compute" in name][:1]
    world.edit(spec(BETTER, rollout={"maxSurge": 0, "paused": True}))
    run(world, 90)
    world.edit(slow)
    pod = world.pods[new]
    world.pods[new] = msgspec.structs.replace(pod, ready=False, ready_changed=world.now, restarts=1)
    run(world, 40)
    assert running(world) == {revision(slow): 4}


def test_a_node_that_is_down_is_not_held_against_a_revision() -> None:
    one = World(spec(GOOD), [make_node("node-a"), make_node("node-b")])
    run(one, 20)
    one.edit(spec(BETTER))
    run(one, 4)
    one.nodes[1] = make_node("node-b", ready=False, unready_since=0.0)
    for name, pod in one.pods.items():
        if pod.node == "node-b":
            one.pods[name] = msgspec.structs.replace(pod, ready=False, ready_changed=one.now)
    one.broken = lambda pod: pod.node == "node-b"
    run(one, 150)
    assert not any(record.failed for record in records(one.snapshot()))


def test_agents_that_find_no_room_when_all_are_new_are_not_held_against_the_revision(world: World) -> None:
    world.edit(spec(BETTER))
    run(world, 8)
    full = make_pod(
        ordinal=9,
        revision=revision(spec(BETTER)),
        phase="Pending",
        ready=False,
        node="",
        ip="",
        reason="Unschedulable",
        created=world.now,
    )
    world.edit(spec(BETTER, replicas=5))
    for _ in range(100):
        world.pods[full.name] = full  # whatever the simulation makes of it
        turn(world)
        world.tick()
    found = {record.revision: record for record in records(world.snapshot())}
    assert found[revision(spec(BETTER))].ready
    assert not found[revision(spec(BETTER))].failed


def test_pods_that_the_api_server_refuses_fail_their_revision(world: World) -> None:
    bad = revision(spec(BAD))
    world.admits = lambda manifest: bad not in str(manifest)
    world.edit(spec(BAD))
    run(world, 100)
    assert running(world) == {revision(spec(GOOD)): 4}
    assert "refused for 60 s: pods are forbidden" in conditions(world)["RolledBack"]["message"]


def test_pods_that_every_kubelet_refuses_fail_their_revision(world: World) -> None:
    world.edit(spec(BAD))
    for _ in range(40):
        turn(world)
        world.tick(5.0)
        for name, pod in world.pods.items():
            if of(spec(BAD))(pod) and pod.phase == "Running":
                world.pods[name] = msgspec.structs.replace(
                    pod, phase="Failed", ready=False, reason="TopologyAffinityError", ended=world.now
                )
        if conditions(world)["RolledBack"]["status"] == "True":
            break
    run(world, 30)
    assert running(world) == {revision(spec(GOOD)): 4}


def test_nothing_is_judged_while_the_roll_out_is_paused(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 5)
    world.edit(spec(BAD, rollout={"paused": True}))
    run(world, 200)
    assert not any(record.failed for record in records(world.snapshot()))
    world.edit(spec(BAD))
    run(world, 100)
    assert conditions(world)["RolledBack"]["status"] == "True"


def test_when_the_revision_to_go_back_to_is_deleted_what_runs_goes_on_running(world: World) -> None:
    world.edit(spec(BAD))
    run(world, 100)
    world.objects.pop(("ControllerRevision", f"risk-{revision(spec(GOOD))}"))
    run(world, 100)
    assert running(world) == {revision(spec(GOOD)): 4}
    found = conditions(world)
    assert found["RolledBack"]["reason"] == "NothingToGoBackTo"
    assert "Correct the spec" in found["RolledBack"]["message"]


def test_the_revision_that_can_be_gone_back_to_is_never_pruned(world: World) -> None:
    world.edit(spec(BAD, suspend=True))
    run(world, 10)  # no pod is left that would keep its revision
    for number in range(HISTORY + 3):
        world.edit(spec(f"agent:{number}", suspend=True))
        run(world, 2)
    kept = {record.revision: record for record in records(world.snapshot())}
    assert len(kept) <= HISTORY + 2
    assert kept[revision(spec(GOOD))].ready


def test_a_revision_of_another_swarm_or_of_nonsense_is_not_gone_back_to(world: World) -> None:
    good = records(world.snapshot())[0].view
    for uid, data in (("another", good.body["data"]), (world.swarm.uid, {"spec": {"image": 5}})):
        one = World(spec(GOOD))
        one.broken = of(spec(BAD))
        body = {
            **good.body,
            "data": data,
            "metadata": {**good.body["metadata"], "annotations": {ANNOTATION_READY: "x"}},
        }
        one.objects["ControllerRevision", good.name] = msgspec.structs.replace(good, owners=(uid,), body=body)
        one.edit(spec(BAD))
        run(one, 100)
        assert conditions(one)["RolledBack"]["reason"] == "NothingToGoBackTo"


def test_people_are_told_once_that_it_is_rolled_back_and_why(world: World) -> None:
    world.edit(spec(BAD))
    told = []
    for _ in range(100):
        planned = plan(world.snapshot(), world.now)
        told += [note for note in notes_of(planned.actions, ()) if note.reason == "RolledBack"]
        assert all(action.describe() for action in planned.actions if isinstance(action, MarkRevision))
        turn(world)
        world.tick()
    (note,) = told
    assert note.type == "Warning"
    assert "not ready within 60 s: risk-compute-" in note.message


# Putting a revision's rolling part into a spec again.


def full(image: str, replicas: int) -> dict[str, Any]:
    return {
        "image": image,
        "imagePullSecrets": [{"name": "pull"}],
        "compute": {
            "replicas": replicas,
            "min": 1,
            "max": 9,
            "cpus": 2,
            "gpus": {"count": 2},
            "env": [{"name": "A", "value": "b"}],
            "podTemplate": {"labels": {"team": "x"}},
        },
        "scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "topology": {"placement": "Pack"}},
        "autoscaling": {"maxStep": replicas},
        "failover": {"prediction": {"threshold": 95}},
        "state": {"sizeLimit": "2Gi", "checkpointInterval": f"{replicas}s"},
        "security": {"keyRotation": "24h", "runAsUser": 1000},
    }


def pairs() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    shapes = [{}, full("a:1", 3), full("a:2", 4), {"compute": {"gpus": {}}}, {"state": {}}, spec(GOOD), spec(BAD)]
    for earlier in shapes:
        for now in shapes:
            yield earlier, now


@settings(max_examples=60, deadline=None)
@given(pair=st.sampled_from(list(pairs())))
def test_rolling_fields_of_one_and_live_fields_of_another(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    earlier, now = (make_spec(**one) for one in pair)
    both = with_rolling(now, rolling_part(earlier))
    assert both is not None
    assert revision_of(both) == revision_of(earlier)
    assert both.compute.replicas == now.compute.replicas
    assert both.autoscaling == now.autoscaling
    assert both.failover == now.failover
    assert both.rollout == now.rollout
    assert both.security.key_rotation == now.security.key_rotation
    assert both.compute.gpus == earlier.compute.gpus
    assert with_rolling(both, rolling_part(now)) is not None
    assert make_swarm(both.model_dump(by_alias=True, exclude_none=True))


@pytest.mark.parametrize("part", [{"image": 5}, {"compute": "x"}, {"compute": {"cpus": "many"}}, {"transport": []}])
def test_a_part_that_is_none_gives_no_spec(part: dict[str, Any]) -> None:
    assert with_rolling(make_spec(), part) is None
