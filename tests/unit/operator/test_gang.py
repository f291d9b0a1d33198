"""All compute agents start together or none does, whoever sees to it; what comes later comes singly."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import msgspec
import pytest

from support.operatorkit import make_node, make_pod, make_snapshot, make_spec, make_swarm
from swarm_operator.actions import (
    Action,
    CreatePod,
    DeletePod,
    DrainPod,
    EnsurePodGroup,
    FailGang,
    LiftGate,
    Plan,
    StartGang,
)
from swarm_operator.gang import KUEUE_GATE, GangView, GroupState, Label, Survey, digest_of, pod_group
from swarm_operator.names import ANNOTATION_GANG, GANG_GATE
from swarm_operator.plan import plan
from swarm_operator.status import status_of
from swarm_operator.views import PodView, pod_view

NODES = [make_node("node-a"), make_node("node-b")]


def spec_of(kind: str, replicas: int = 4, **scheduling: Any) -> dict[str, Any]:
    return {"compute": {"replicas": replicas}, "scheduling": {"gang": kind, **scheduling}}


def created(planned: Plan) -> dict[str, dict[str, Any]]:
    return {a.name: a.manifest for a in planned.actions if isinstance(a, CreatePod) and "-compute-" in a.name}


def of_kind(planned: Plan, *kinds: type[Action]) -> list[Any]:
    return [a for a in planned.actions if isinstance(a, kinds)]


def placed(snapshot: Any, now: float) -> dict[str, Any]:
    conditions = status_of(snapshot, plan(snapshot, now), (), now)["conditions"]
    return next(c for c in conditions if c["type"] == "Placed")


def as_observed(manifest: dict[str, Any], **fields: Any) -> PodView:
    """A pod that was made from a manifest, as it is seen while it waits."""
    meta = {**manifest["metadata"], "uid": f"uid-{manifest['metadata']['name']}", "resourceVersion": "1"}
    view = pod_view(msgspec.json.encode({**manifest, "metadata": meta}))
    return msgspec.structs.replace(view, **({"created": 1000.0} | fields))


def first_pods(spec: dict[str, Any], gang: GangView | None = None, **fields: Any) -> list[PodView]:
    planned = plan(make_snapshot(spec, [], NODES, gang=gang or GangView()), 1000.0)
    return [as_observed(manifest, **fields) for manifest in created(planned).values()]


# -- the operator's own gate


def test_the_first_pods_are_made_behind_a_gate_and_know_their_group() -> None:
    pods = created(plan(make_snapshot(spec_of("Operator"), [], NODES), 1000.0))
    assert len(pods) == 4
    groups = {pod["metadata"]["annotations"][ANNOTATION_GANG] for pod in pods.values()}
    (label,) = (Label.parse(text) for text in groups)
    assert label is not None
    assert (label.size, label.attempt) == (4, 0)
    for pod in pods.values():
        assert pod["spec"]["schedulingGates"] == [{"name": GANG_GATE}]
        kubernetes_validate.validate(pod, "1.36", strict=True)


def test_standby_and_resource_agents_are_in_no_group() -> None:
    spec = spec_of("Operator") | {"compute": {"replicas": 2, "standby": 1}}
    planned = plan(make_snapshot(spec, [], NODES), 1000.0)
    others = [a.manifest for a in of_kind(planned, CreatePod) if "-compute-" not in a.name]
    assert len(others) == 3
    assert not any("schedulingGates" in pod["spec"] for pod in others)


def test_room_is_looked_for_once_the_group_is_complete_and_not_before() -> None:
    pods = first_pods(spec_of("Operator"))
    assert of_kind(plan(make_snapshot(spec_of("Operator"), pods[:3], NODES), 1001.0), StartGang) == []
    (action,) = of_kind(plan(make_snapshot(spec_of("Operator"), pods, NODES), 1001.0), StartGang)
    assert {name for name, _ in action.pods} == {pod.name for pod in pods}
    assert action.demand.count == 4
    assert action.demand.request == {"cpu": 1000, "memory": 512 << 20, "pods": 1}
    assert "4 agents" in action.describe()


@pytest.mark.parametrize(
    ("topology", "key", "spread"),
    [
        ({"placement": "Spread"}, "", 1),
        ({"placement": "Spread", "required": True, "maxSkew": 2, "key": "zone"}, "zone", 2),
        ({"placement": "Pack", "required": True}, "kubernetes.io/hostname", 0),
        ({"placement": "Any", "required": True}, "", 0),
    ],
)
def test_a_required_placement_is_part_of_the_room_that_is_looked_for(
    topology: dict[str, Any], key: str, spread: int
) -> None:
    spec = spec_of("Operator", topology=topology)
    (action,) = of_kind(plan(make_snapshot(spec, first_pods(spec), NODES), 1001.0), StartGang)
    assert (action.demand.key, action.demand.spread if key else spread) == (key, spread)


def test_without_room_none_starts_the_condition_counts_and_it_is_looked_again_later() -> None:
    spec, pods = spec_of("Operator"), first_pods(spec_of("Operator"))
    gang = GangView(survey=Survey(pods[0].gang, 1001.0, room=3))
    snapshot = make_snapshot(spec, pods, NODES, gang=gang)
    planned = plan(snapshot, 1002.0)
    assert of_kind(planned, StartGang, LiftGate) == []
    assert planned.requeue_after == pytest.approx(4.0)
    found = placed(snapshot, 1002.0)
    assert (found["status"], found["reason"]) == ("False", "GangWaiting")
    assert "room for 3 of 4 agents: none is started" in found["message"]
    assert of_kind(plan(snapshot, 1006.0), StartGang)
    # a group that has waited for long is looked at once a minute
    late = make_snapshot(spec, pods, NODES, gang=GangView(survey=Survey(pods[0].gang, 9000.0, room=3)))
    assert not of_kind(plan(late, 9055.0), StartGang)
    assert of_kind(plan(late, 9060.0), StartGang)


def test_a_lifting_that_was_interrupted_is_finished() -> None:
    spec, pods = spec_of("Operator"), first_pods(spec_of("Operator"))
    pods[0] = msgspec.structs.replace(pods[0], gates=())
    planned = plan(make_snapshot(spec, pods, NODES), 1001.0)
    assert [a.name for a in of_kind(planned, LiftGate)] == [pod.name for pod in pods[1:]]
    assert of_kind(planned, StartGang, DeletePod) == []


def test_what_comes_after_the_start_is_not_gated() -> None:
    spec, pods = spec_of("Operator"), first_pods(spec_of("Operator"), gates=(), node="node-a", bound=1001.0)
    snapshot = make_snapshot(spec, pods[:3], NODES)
    (pod,) = created(plan(snapshot, 1002.0)).values()
    assert "schedulingGates" not in pod["spec"]


def test_agents_of_which_some_found_no_node_in_time_are_all_taken_back() -> None:
    spec, pods = spec_of("Operator"), first_pods(spec_of("Operator"), gates=())
    running = {"node": "node-a", "bound": 1001.0, "phase": "Running", "ip": "10.0.0.9", "ready": True}
    torn = [msgspec.structs.replace(pod, **running) for pod in pods[:3]] + pods[3:]
    patient = plan(make_snapshot(spec, torn, NODES), 1030.0)
    assert of_kind(patient, FailGang, DeletePod) == []
    assert patient.requeue_after is not None
    assert patient.requeue_after <= 1.0

    marking = plan(make_snapshot(spec, torn, NODES), 1031.0)
    assert {a.name for a in of_kind(marking, FailGang)} == {pod.name for pod in torn}
    assert created(marking) == {}

    # a mark that went missing is made up for before any of them goes
    some = [msgspec.structs.replace(pod, gang_failed=True) for pod in torn[:2]] + torn[2:]
    again = plan(make_snapshot(spec, some, NODES), 1032.0)
    assert {a.name for a in of_kind(again, FailGang)} == {pod.name for pod in torn[2:]}
    assert of_kind(again, DrainPod, DeletePod) == []

    marked = [msgspec.structs.replace(pod, gang_failed=True) for pod in torn]
    snapshot = make_snapshot(spec, marked, NODES)
    planned = plan(snapshot, 1032.0)
    assert {a.name for a in of_kind(planned, DrainPod)} == {pod.name for pod in torn[:3]}
    assert {a.name for a in of_kind(planned, DeletePod)} == {torn[3].name}
    assert created(planned) == {}
    assert placed(snapshot, 1032.0)["reason"] == "GangFailed"

    # when they are on their way out the group is made anew, waits, and is tried later
    going = [msgspec.structs.replace(pod, deleting=True) for pod in marked[:3]]
    again = created(plan(make_snapshot(spec, going, NODES), 1033.0))
    assert len(again) == 4
    labels = {pod["metadata"]["annotations"][ANNOTATION_GANG] for pod in again.values()}
    (label,) = (Label.parse(text) for text in labels)
    assert label is not None
    assert label.attempt == 1
    assert str(label) != pods[0].gang
    waiting = [as_observed(pod, created=1033.0) for pod in again.values()]
    snapshot = make_snapshot(spec, waiting, NODES)
    assert of_kind(plan(snapshot, 1037.0), StartGang) == []
    assert placed(snapshot, 1037.0)["reason"] == "GangBackOff"
    assert of_kind(plan(snapshot, 1038.0), StartGang)


def test_a_running_swarm_of_which_an_agent_is_lost_is_no_failed_group() -> None:
    spec, pods = spec_of("Operator"), first_pods(spec_of("Operator"), gates=(), node="node-a", bound=1001.0)
    replacement = make_pod(ordinal=3, incarnation=1, node="", phase="Pending", ready=False, revision=pods[0].revision)
    planned = plan(make_snapshot(spec, [*pods[:3], replacement], NODES), 5000.0)
    assert of_kind(planned, FailGang, DeletePod, DrainPod) == []


def test_another_count_before_the_start_makes_the_group_anew() -> None:
    pods = first_pods(spec_of("Operator"))
    fewer = plan(make_snapshot(spec_of("Operator", 3), pods, NODES), 1002.0)
    assert len(of_kind(fewer, DeletePod)) == 4
    assert of_kind(fewer, StartGang) == []


def test_a_gate_of_a_gang_that_is_not_wanted_any_more_is_lifted() -> None:
    pods = first_pods(spec_of("Operator"))
    spec = {"compute": {"replicas": 4}, "rollout": {"paused": True}}
    planned = plan(make_snapshot(spec, pods, NODES), 1002.0)
    assert len(of_kind(planned, LiftGate)) == 4


def test_another_start_is_another_group() -> None:
    spec = spec_of("Operator")
    first = first_pods(spec)[0].gang
    later = created(plan(make_snapshot(None, [], NODES, swarm=make_swarm(spec, generation=3)), 2000.0))
    assert {pod["metadata"]["annotations"][ANNOTATION_GANG] for pod in later.values()} != {first}


# -- Kueue


def kueue(replicas: int = 4) -> dict[str, Any]:
    return spec_of("Kueue", replicas, queueName="team-a")


def test_kueues_start_is_one_pod_group_with_its_gate() -> None:
    for pod in created(plan(make_snapshot(kueue(), [], NODES), 1000.0)).values():
        meta = pod["metadata"]
        assert meta["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
        assert meta["labels"]["kueue.x-k8s.io/pod-group-name"].startswith("risk-")
        assert meta["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "4"
        assert meta["annotations"]["kueue.x-k8s.io/retriable-in-group"] == "false", (
            "a lost agent must not hold the rest"
        )
        assert meta["annotations"]["kueue.x-k8s.io/role-hash"] == plan(make_snapshot(kueue()), 0.0).revision
        assert pod["spec"]["schedulingGates"] == [{"name": KUEUE_GATE}]
        kubernetes_validate.validate(pod, "1.36", strict=True)


def test_what_comes_after_kueues_start_is_a_workload_by_itself() -> None:
    pods = first_pods(kueue(), gates=(), node="node-a", bound=1001.0)
    (pod,) = created(plan(make_snapshot(kueue(), pods[:3], NODES), 1002.0)).values()
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert "kueue.x-k8s.io/pod-group-name" not in pod["metadata"]["labels"]
    assert "kueue.x-k8s.io/pod-group-total-count" not in pod["metadata"].get("annotations", {})


def test_a_pod_that_is_missing_from_the_group_is_made_with_the_same_name_and_count() -> None:
    pods = first_pods(kueue())
    (pod,) = created(plan(make_snapshot(kueue(), pods[1:], NODES), 1002.0)).values()
    assert pod["metadata"]["annotations"][ANNOTATION_GANG] == pods[1].gang


def test_a_group_whose_size_has_changed_before_the_start_is_made_anew() -> None:
    """Kueue takes no group whose members name different counts."""
    pods = first_pods(kueue())
    planned = plan(make_snapshot(kueue(6), pods, NODES), 1002.0)
    assert len(of_kind(planned, DeletePod)) == 4
    counts = {p["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"] for p in created(planned).values()}
    assert counts == {"6"}


def test_pods_that_kueue_does_not_manage_wait_and_say_so() -> None:
    pods = first_pods(kueue())
    found = placed(make_snapshot(kueue(), pods, NODES), 1002.0)
    assert found["reason"] == "GangSchedulerMissing"
    assert "managedJobsNamespaceSelector" in found["message"]
    managed = [msgspec.structs.replace(p, labels={**p.labels, "kueue.x-k8s.io/managed": "true"}) for p in pods]
    found = placed(make_snapshot(kueue(), managed, NODES), 1002.0)
    assert (found["reason"], "queue team-a" in found["message"]) == ("GangWaiting", True)


# -- Volcano and coscheduling

GROUPS = [("Volcano", "scheduling.volcano.sh/v1beta1"), ("Coscheduling", "scheduling.x-k8s.io/v1alpha1")]


def written(spec: dict[str, Any], members: int, at: float = 1000.0) -> GangView:
    return GangView(group=GroupState(digest_of(pod_group(make_swarm(spec), make_spec(**spec), members)), at))


@pytest.mark.parametrize(("kind", "api"), GROUPS)
def test_the_pod_group_is_written_first_and_has_all_as_its_least_members(kind: str, api: str) -> None:
    spec = spec_of(kind)
    planned = plan(make_snapshot(spec, [], NODES), 1000.0)
    (action,) = of_kind(planned, EnsurePodGroup)
    assert created(planned) == {}
    assert (action.manifest["apiVersion"], action.manifest["spec"]["minMember"]) == (api, 4)
    assert action.manifest["spec"]["minResources"] == {"cpu": "4000m", "memory": str(4 * (512 << 20))}
    assert action.manifest["metadata"]["ownerReferences"][0]["uid"] == make_swarm().uid
    after = plan(make_snapshot(spec, [], NODES, gang=written(spec, 4)), 1001.0)
    assert len(created(after)) == 4
    assert of_kind(after, EnsurePodGroup) == []


def test_volcanos_pods_name_their_group_queue_and_scheduler() -> None:
    spec = spec_of("Volcano", queueName="q", topology={"numa": "Required"})
    for pod in created(plan(make_snapshot(spec, [], NODES, gang=written(spec, 4)), 1001.0)).values():
        assert pod["metadata"]["annotations"]["scheduling.k8s.io/group-name"] == "risk"
        assert pod["metadata"]["annotations"]["scheduling.volcano.sh/queue-name"] == "q"
        assert pod["metadata"]["annotations"]["volcano.sh/numa-topology-policy"] == "single-numa-node"
        assert pod["spec"]["schedulerName"] == "volcano"
    assert pod_group(make_swarm(spec), make_spec(**spec), 4)["spec"]["queue"] == "q"


def test_coschedulings_pods_name_their_group_by_a_label_and_keep_the_schedulers_name() -> None:
    spec = spec_of("Coscheduling", schedulerName="scheduler-plugins-scheduler")
    for pod in created(plan(make_snapshot(spec, [], NODES, gang=written(spec, 4)), 1001.0)).values():
        assert pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] == "risk"
        assert pod["spec"]["schedulerName"] == "scheduler-plugins-scheduler"


@pytest.mark.parametrize(("kind", "api"), GROUPS)
def test_once_an_agent_has_a_node_the_others_come_singly(kind: str, api: str) -> None:
    spec = spec_of(kind)
    pods = first_pods(spec, written(spec, 4), node="node-a", bound=1001.0)
    (action,) = of_kind(plan(make_snapshot(spec, pods, NODES, gang=written(spec, 4)), 1002.0), EnsurePodGroup)
    assert action.manifest["spec"] == {"minMember": 1}
    # and what is missing is made as soon as the group says so
    planned = plan(make_snapshot(spec, pods[:3], NODES, gang=written(spec, 1, 1002.0)), 1003.0)
    assert len(created(planned)) == 1


@pytest.mark.parametrize(("kind", "api"), GROUPS)
def test_a_scheduler_that_is_not_installed_is_a_condition_and_is_looked_for_again(kind: str, api: str) -> None:
    spec = spec_of(kind)
    digest = digest_of(pod_group(make_swarm(spec), make_spec(**spec), 4))
    gang = GangView(group=GroupState(digest, 1000.0, f"the cluster has no PodGroup of {api}: install it"))
    snapshot = make_snapshot(spec, [], NODES, gang=gang)
    planned = plan(snapshot, 1001.0)
    assert created(planned) == {}
    assert of_kind(planned, EnsurePodGroup) == []
    assert planned.requeue_after == pytest.approx(14.0)
    assert [a.name for a in of_kind(planned, CreatePod)], "resource agents are made all the same"
    found = placed(snapshot, 1001.0)
    assert (found["status"], found["reason"]) == ("False", "GangSchedulerMissing")
    assert api in found["message"]
    assert of_kind(plan(snapshot, 1015.0), EnsurePodGroup)


def test_a_suspended_swarm_asks_for_no_group() -> None:
    for kind in ("Operator", "Volcano", "Coscheduling"):
        spec = spec_of(kind) | {"suspend": True}
        planned = plan(make_snapshot(spec, [], NODES), 1000.0)
        assert of_kind(planned, EnsurePodGroup, StartGang, CreatePod) == []


@pytest.mark.parametrize("text", ["", "a/b", "a/1", "a/x/0", "a/1/x", "a/1/2/3"])
def test_an_annotation_that_somebody_else_wrote_is_no_group(text: str) -> None:
    assert Label.parse(text) is None
