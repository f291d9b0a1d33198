"""A node that refuses pods is avoided longer and longer; the record is bounded, and is the refused pods themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_pod, make_snapshot
from swarm_operator.actions import CreatePod, DeletePod, Plan
from swarm_operator.plan import plan
from swarm_operator.rejections import AVOID, EPISODES, KEPT, delay, is_rejection, rejections
from swarm_operator.status import status_of
from swarm_operator.views import PodView, pod_view


def refused(ordinal: int = 0, incarnation: int = 0, at: float = 1000.0, node: str = "node-a", **more: Any) -> PodView:
    given = {"reason": "TopologyAffinityError", "message": "Resources cannot be allocated with Topology locality"}
    return make_pod(
        ordinal=ordinal, incarnation=incarnation, phase="Failed", ready=False, ip="", node=node,
        created=at - 1, ended=at, **(given | more),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("TopologyAffinityError", True),
        ("SMTAlignmentError", True),
        ("UnexpectedAdmissionError", True),
        ("OutOfcpu", True),
        ("OutOfnvidia.com/gpu", True),
        ("OutOfmemory", True),
        ("Evicted", False),
        ("Error", False),
        ("OOMKilled", False),
        ("", False),
    ],
)
def test_what_a_kubelet_refuses_is_told_from_what_failed_by_itself(reason: str, expected: bool) -> None:
    assert is_rejection(refused(reason=reason)) is expected
    assert not is_rejection(msgspec.structs.replace(refused(reason=reason), phase="Running"))


def test_the_time_doubles_with_each_refusal_up_to_five_minutes() -> None:
    assert [delay(n) for n in range(1, 8)] == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_a_node_is_avoided_and_then_tried_again_and_remembered_for_as_long_again() -> None:
    pods = [refused(0, 0, 1000.0), refused(0, 1, 1020.0)]
    assert rejections(pods, 1021.0).nodes == ("node-a",)
    assert rejections(pods, 1021.0).avoided[0].until == 1040.0
    assert rejections(pods, 1040.0).nodes == ()
    assert rejections(pods, 1059.0).kept == {"uid-risk-compute-0-0", "uid-risk-compute-0-1"}
    assert rejections(pods, 1060.0).kept == frozenset()
    # tried again within its memory, and refused again: the third time is longer
    third = rejections([*pods, refused(0, 2, 1045.0)], 1046.0)
    assert third.avoided[0].until == 1085.0


def test_pods_that_were_put_on_a_node_at_once_are_one_refusal_and_one_is_kept() -> None:
    found = rejections([refused(i, 0, 1000.0 + i / 10) for i in range(20)], 1003.0)
    assert found.kept == {"uid-risk-compute-0-0"}
    assert found.avoided[0].times == 1


def test_without_the_pods_that_are_not_kept_the_record_says_the_same() -> None:
    pods = [refused(i, 0, 1000.0 + i) for i in range(30)]
    found = rejections(pods, 1031.0)
    again = rejections([pod for pod in pods if pod.uid in found.kept], 1031.0)
    assert again == found


@settings(max_examples=100, deadline=None)
@given(
    data=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 400)), max_size=300),
    now=st.integers(1000, 2500),
)
def test_the_record_is_bounded_whatever_was_refused(data: list[tuple[int, int]], now: int) -> None:
    pods = [refused(i, 0, 1000.0 + at, f"node-{node}") for i, (node, at) in enumerate(data)]
    found = rejections(pods, float(now))
    assert len(found.kept) <= KEPT
    assert len(found.avoided) <= KEPT
    per_node: dict[str, int] = {}
    for pod in pods:
        if pod.uid in found.kept:
            per_node[pod.node] = per_node.get(pod.node, 0) + 1
    assert all(count <= EPISODES for count in per_node.values())
    assert all(0 < avoided.until - now <= AVOID[1] + 400 for avoided in found.avoided)


def test_new_pods_are_kept_from_the_node_by_their_affinity_and_are_made_at_once() -> None:
    spec = {"compute": {"replicas": 1, "standby": 1}}
    nodes = [make_node("node-a"), make_node("node-b")]
    planned = plan(make_snapshot(spec, [refused()], nodes), 1000.5)
    made = {a.name: a.manifest for a in planned.actions if isinstance(a, CreatePod)}
    assert {"risk-compute-0-1", "risk-standby-0-0"} <= set(made)
    for name in ("risk-compute-0-1", "risk-standby-0-0"):
        (term,) = made[name]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
            "nodeSelectorTerms"
        ]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node-a"]}]}
    assert not any(isinstance(a, DeletePod) for a in planned.actions), "the refused pod is the record"
    assert planned.requeue_after is not None
    assert planned.requeue_after <= 10.0


def test_several_avoided_nodes_are_a_requirement_each() -> None:
    """The API server takes exactly one value in a field's requirement."""
    pods = [refused(0, 0, 1000.0, "node-a"), refused(1, 0, 1000.0, "node-b")]
    planned = plan(make_snapshot({"compute": {"replicas": 2}}, pods, [make_node("node-c")]), 1001.0)
    pod = next(a.manifest for a in planned.actions if isinstance(a, CreatePod) and "compute" in a.name)
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    fields = affinity["nodeSelectorTerms"][0]["matchFields"]
    assert [field["values"] for field in fields] == [["node-a"], ["node-b"]]


def test_a_packed_pod_keeps_its_affinity_to_others_beside_the_nodes_that_it_avoids() -> None:
    spec = {"compute": {"replicas": 1}, "scheduling": {"topology": {"placement": "Pack", "required": True}}}
    planned = plan(make_snapshot(spec, [refused()]), 1001.0)
    pod = next(a.manifest for a in planned.actions if isinstance(a, CreatePod) and "compute" in a.name)
    assert set(pod["spec"]["affinity"]) == {"nodeAffinity", "podAffinity"}


def test_a_pod_that_waits_is_made_anew_when_a_node_that_it_avoids_may_be_tried_again() -> None:
    spec = {"compute": {"replicas": 1}}
    waiting = make_pod(
        ordinal=0, incarnation=1, phase="Pending", ready=False, ip="", node="", avoids=("node-a",), created=1000.0,
        revision=plan(make_snapshot(spec), 0.0).revision,
    )  # fmt: skip
    pods = [refused(), waiting]
    during = plan(make_snapshot(spec, pods), 1005.0)
    assert not any(isinstance(a, DeletePod) for a in during.actions)
    after = plan(make_snapshot(spec, pods), 1010.0)
    assert [a.name for a in after.actions if isinstance(a, DeletePod)] == ["risk-compute-0-1"]


def test_when_it_is_forgotten_the_refused_pod_is_deleted() -> None:
    planned = plan(make_snapshot({"compute": {"replicas": 1}}, [refused()]), 1021.0)
    assert [a.name for a in planned.actions if isinstance(a, DeletePod)] == ["risk-compute-0-0"]


def test_a_swarm_that_is_suspended_keeps_no_record() -> None:
    planned = plan(make_snapshot({"suspend": True}, [refused()]), 1001.0)
    assert [a.name for a in planned.actions if isinstance(a, DeletePod)] == ["risk-compute-0-0"]


def conditions(spec: dict[str, Any], pods: list[PodView], now: float) -> dict[str, dict[str, Any]]:
    snapshot = make_snapshot(spec, pods)
    return {c["type"]: c for c in status_of(snapshot, plan(snapshot, now), (), now)["conditions"]}


def test_a_condition_names_node_reason_and_until_when() -> None:
    found = conditions({"compute": {"replicas": 1}}, [refused()], 1001.0)["TopologyRejected"]
    assert (found["status"], found["reason"]) == ("True", "TopologyAffinityError")
    assert "node-a" in found["message"]
    assert "avoided until 00:16:50Z" in found["message"]
    assert conditions({}, [], 1001.0)["TopologyRejected"]["status"] == "False"


def test_the_conditions_message_stays_the_same_while_nothing_happens() -> None:
    """Or it would be written every second."""
    first = conditions({"compute": {"replicas": 1}}, [refused()], 1001.0)["TopologyRejected"]["message"]
    assert conditions({"compute": {"replicas": 1}}, [refused()], 1008.0)["TopologyRejected"]["message"] == first


def test_the_time_of_a_refusal_is_when_the_pod_was_bound() -> None:
    """No container ever ended, and a gated pod may have been made long before."""
    pod = pod_view(
        msgspec.json.encode(
            {
                "metadata": {"name": "risk-compute-0-0", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"nodeName": "node-a"},
                "status": {
                    "phase": "Failed",
                    "reason": "TopologyAffinityError",
                    "conditions": [
                        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T01:00:00Z"}
                    ],
                },
            }
        )
    )
    assert pod.ended - pod.created == 3600.0
    assert is_rejection(pod)


class Refusing(World):
    """A cluster in which the kubelets of some nodes refuse every agent, and whose scheduler always takes them first."""

    bad: frozenset[str] = frozenset()
    attempts: int = 0

    def tick(self, seconds: float = 1.0) -> None:
        for name, pod in list(self.pods.items()):
            if pod.phase != "Pending" or pod.target_node or pod.deleting:
                continue
            allowed = [n.name for n in self.nodes if n.name not in pod.avoids]
            wanted = sorted(allowed, key=lambda n: (n not in self.bad, n))
            if not wanted:
                continue
            if wanted[0] in self.bad:
                self.attempts += 1
                self.pods[name] = msgspec.structs.replace(
                    pod, phase="Failed", reason="TopologyAffinityError", node=wanted[0], ended=self.now
                )
            else:
                self.pods[name] = msgspec.structs.replace(pod, node=wanted[0])
        held = {name: pod for name, pod in self.pods.items() if pod.phase == "Pending" and not pod.node}
        held = {name: pod for name, pod in held.items() if not pod.target_node and not pod.deleting}
        for name in held:
            del self.pods[name]
        super().tick(seconds)
        self.pods.update(held)


def run(world: World, seconds: int) -> Plan:
    planned = plan(world.snapshot(), world.now)
    for _ in range(seconds):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    return planned


@settings(max_examples=15, deadline=None)
@given(bad=st.sets(st.sampled_from(["node-a", "node-b"]), max_size=1), count=st.integers(1, 4))
def test_agents_come_up_on_the_nodes_that_take_them_after_few_refusals(bad: set[str], count: int) -> None:
    world = Refusing({"compute": {"replicas": count}}, [make_node(n) for n in ("node-a", "node-b", "node-c")])
    world.bad = frozenset(bad)
    run(world, 40)
    ready = [p for p in world.pods.values() if p.ready and "-compute-" in p.name]
    assert len(ready) == count
    assert not {p.node for p in ready} & bad
    assert world.attempts <= count * len(bad), "no agent is put on a node twice that has refused"
    world.now += 1000.0
    run(world, 2)
    assert not [p for p in world.pods.values() if p.phase == "Failed"], "all refused pods are collected in the end"


def test_a_cluster_that_refuses_everywhere_is_tried_less_and_less() -> None:
    world = Refusing({"compute": {"replicas": 3}}, [make_node("node-a"), make_node("node-b")])
    world.bad = frozenset({"node-a", "node-b"})
    most = 0
    per_quarter = []
    for _ in range(4):
        world.attempts = 0
        for _ in range(15):
            run(world, 20)
            most = max(most, sum(p.phase == "Failed" for p in world.pods.values()))
        per_quarter.append(world.attempts)
    assert per_quarter[-1] < per_quarter[0]
    assert per_quarter[-1] <= 3 * 2 * 2, f"about one try a node and five minutes: {per_quarter}"
    assert most <= 2 * EPISODES + 3
    assert [a for a in plan(world.snapshot(), world.now).actions if isinstance(a, CreatePod)] == []
