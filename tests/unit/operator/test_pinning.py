"""What agents say of their cores comes to the conditions, and what the spec asks of them comes to the pods."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operatorkit import make_node, make_pod, make_report, make_snapshot, make_spec, make_swarm
from swarm_agents.config import Role
from swarm_operator.accept import INVALID, refusals
from swarm_operator.actions import AskAgent
from swarm_operator.agents import _Status
from swarm_operator.api.status import SwarmStatus
from swarm_operator.names import PodName
from swarm_operator.pinning import CORES_LISTED, cpu_list
from swarm_operator.placement import Extras
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest
from swarm_operator.status import status_of
from swarm_operator.views import AgentReport, PodView

OWN: dict[str, Any] = {
    "cores": "2-3",
    "exclusive": True,
    "cores_code": "Exclusive",
    "cores_reason": "own",
    "numa": (0,),
}
SHARED: dict[str, Any] = {
    "cores": "0-7", "exclusive": False, "cores_code": "NoStaticPolicy", "cores_reason": "shared", "numa": (0, 1)
}  # fmt: skip
WORLD: dict[str, Any] = {"exclusive": None, "cores_code": "Simulated", "cores_reason": "simulated: CPU 1"}


def status(spec: dict[str, Any], reports: list[dict[str, Any] | None], **fields: Any) -> dict[str, Any]:
    pods: list[PodView] = []
    said: dict[str, AgentReport] = {}
    for ordinal, report in enumerate(reports):
        pods.append(make_pod(ordinal=ordinal, **fields))
        if report is not None:
            said[pods[-1].uid] = make_report(**report)
    spec = {**spec, "compute": {"replicas": len(reports), **spec.get("compute", {})}}
    snapshot = make_snapshot(spec, pods, agents=said)
    found = status_of(snapshot, plan(snapshot, 1000.0), (), 1000.0)
    SwarmStatus.model_validate(found)
    return found


def condition(found: dict[str, Any], kind: str) -> tuple[str, str, str]:
    (one,) = [c for c in found["conditions"] if c["type"] == kind]
    return one["status"], one["reason"], one["message"]


@pytest.mark.parametrize(
    ("reports", "expected", "word"),
    [
        ([OWN, OWN], ("True", "CoresExclusive"), "All 2 agents"),
        ([OWN, SHARED], ("False", "CoresShared"), "cpuManagerPolicy: static) (risk-compute-1-0)"),
        ([OWN, WORLD], ("Unknown", "Simulated"), "risk-compute-1-0"),
        ([OWN, None], ("Unknown", "NotHeard"), "1 of 2 agents"),
        ([], ("Unknown", "NoAgents"), ""),
    ],
)
def test_the_condition_says_whose_cores_are_not_their_own_and_why(
    reports: list[dict[str, Any] | None], expected: tuple[str, str], word: str
) -> None:
    kind, reason, message = condition(status({}, reports), "Pinned")
    assert (kind, reason) == expected
    assert word in message


def test_parts_of_a_cpu_are_named_as_the_reason() -> None:
    shared = {**SHARED, "cores_code": "SharedPool"}
    message = condition(status({"compute": {"cpus": "500m"}}, [shared]), "Pinned")[2]
    assert "compute.cpus is 500m: only whole CPUs can be an agent's own" in message


def test_pinning_that_is_not_wanted_is_not_judged() -> None:
    found = status({"scheduling": {"cpuPinning": "None"}}, [SHARED])
    assert condition(found, "Pinned")[:2] == ("False", "NotWanted")


def test_an_agent_that_may_not_work_says_why_in_the_condition() -> None:
    unfit = {**SHARED, "unfit": "scheduling.cpuPinning is Required and ..."}
    found = status({"scheduling": {"cpuPinning": "Required"}}, [unfit, OWN])
    kind, reason, message = condition(found, "Pinned")
    assert (kind, reason) == ("False", "Unfit")
    assert message == "scheduling.cpuPinning is Required and ... (risk-compute-0-0)"


def test_a_thousand_agents_make_a_bounded_message_and_list_with_the_worst_first() -> None:
    found = status({}, [OWN] * 500 + [SHARED] * 500)
    message = condition(found, "Pinned")[2]
    assert "500 of 1000 agents" in message
    assert "and 497 more" in message
    assert len(message) < 400
    assert len(found["cores"]) == CORES_LISTED
    assert {entry["exclusive"] for entry in found["cores"]} == {"False"}
    assert found["cores"][0] == {
        "agent": "risk-compute-500-0", "node": "node-a", "cpus": "0-7", "exclusive": "False", "numa": "0-1",
        "reason": "shared",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([OWN], ("True", "OneNode")),
        ([OWN, SHARED], ("False", "AcrossNodes")),
        ([{**OWN, "numa": None}], ("Unknown", "NotTold")),
        ([None], ("Unknown", "NotHeard")),
    ],
)
def test_numa_alignment_is_a_condition_where_it_is_asked_for(
    reports: list[dict[str, Any] | None], expected: tuple[str, str]
) -> None:
    found = status({"scheduling": {"topology": {"numa": "Preferred"}}}, reports)
    assert condition(found, "NumaAligned")[:2] == expected
    assert not [c for c in status({}, reports)["conditions"] if c["type"] == "NumaAligned"]


def asked(spec: dict[str, Any], pod: PodView, report: AgentReport | None, now: float) -> tuple[list[str], float | None]:
    snapshot = make_snapshot(spec, [pod], agents={pod.uid: report} if report else {})
    planned = plan(snapshot, now)
    return [a.name for a in planned.actions if isinstance(a, AskAgent)], planned.requeue_after


REQUIRED = {"scheduling": {"cpuPinning": "Required"}}


def test_an_agent_that_is_not_ready_where_cores_are_required_is_asked_why_now_and_then() -> None:
    pod = make_pod(ready=False, revision=plan(make_snapshot(REQUIRED), 0.0).revision)
    assert asked(REQUIRED, pod, None, 1000.0)[0] == [pod.name]
    unfit = make_report(state="unfit", unfit="no cores", checked=1000.0)
    names, again = asked(REQUIRED, pod, unfit, 1001.0)
    assert names == []
    assert again is not None
    assert again <= 19.0
    assert asked(REQUIRED, pod, unfit, 1020.0)[0] == [pod.name]
    assert asked({}, pod, None, 1000.0)[0] == [], "elsewhere it is left to start in peace"


def test_an_agent_that_has_become_ready_is_asked_again_what_kept_it() -> None:
    pod = make_pod(revision=plan(make_snapshot(REQUIRED), 0.0).revision)
    unfit = make_report(state="unfit", unfit="no cores", checked=1000.0)
    assert asked(REQUIRED, pod, unfit, 1001.0)[0] == [pod.name]


def test_an_unfit_agent_is_not_taken_for_one_that_leaves() -> None:
    """Or it would be told to resume again and again."""
    pod = make_pod(ready=False, revision=plan(make_snapshot(REQUIRED), 0.0).revision)
    snapshot = make_snapshot(REQUIRED, [pod], agents={pod.uid: make_report(state="unfit", unfit="no cores")})
    kinds = {type(action).__name__ for action in plan(snapshot, 1001.0).actions}
    assert not kinds & {"ResumePod", "DeletePod", "DrainPod"}


@given(st.sets(st.integers(0, 200)))
def test_cpus_are_listed_as_the_kernel_does(cpus: set[int]) -> None:
    read: set[int] = set()
    for part in filter(None, cpu_list(cpus).split(",")):
        low, _, high = part.partition("-")
        read |= set(range(int(low), int(high or low) + 1))
    assert read == cpus


def test_the_agents_own_words_are_understood() -> None:
    from swarm_agents.runtime.cores import Code, Cores
    from swarm_agents.runtime.fitness import Wishes, report

    said = report(Wishes("Required", "Any"), Cores((1, 2), False, "why", Code.SHARED_POOL), (0,))
    read = msgspec.json.decode(msgspec.json.encode(said), type=_Status)
    assert (read.cores, read.cores_exclusive, read.cores_code) == ((1, 2), False, "SharedPool")
    assert (read.cores_reason, read.numa_nodes) == ("why", (0,))
    assert "cpuPinning is Required" in read.unfit


def pod_of(role: Role = Role.COMPUTE, extras: Extras | None = None, **spec: Any) -> dict[str, Any]:
    name = PodName("risk", role, 0, 0)
    return pod_manifest(make_swarm(), make_spec(**spec), name, "r", node="node-a", extras=extras or Extras())


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}


def test_compute_and_standby_agents_are_told_what_is_asked_of_their_cores() -> None:
    scheduling = {"cpuPinning": "Required", "topology": {"numa": "Preferred"}}
    for role in (Role.COMPUTE, Role.STANDBY):
        env = environment(pod_of(role, compute={"cpus": "4"}, scheduling=scheduling))
        assert (env["SWARM_CPU_PINNING"], env["SWARM_NUMA"], env["SWARM_WHOLE_CPUS"]) == ("Required", "Preferred", "4")
    assert "SWARM_CPU_PINNING" not in environment(pod_of(Role.RESOURCE, scheduling=scheduling))
    assert "SWARM_WHOLE_CPUS" not in environment(pod_of(compute={"cpus": "1500m"}))


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ({}, [("kubernetes.io/hostname", 1, "ScheduleAnyway")]),
        ({"required": True, "maxSkew": 2}, [("kubernetes.io/hostname", 2, "DoNotSchedule")]),
        (
            {"key": "topology.kubernetes.io/zone", "required": True},
            [("topology.kubernetes.io/zone", 1, "DoNotSchedule"), ("kubernetes.io/hostname", 1, "ScheduleAnyway")],
        ),
    ],
)
def test_a_spread_over_zones_is_also_one_over_the_nodes_of_each(
    topology: dict[str, Any], expected: list[tuple[str, int, str]]
) -> None:
    found = pod_of(scheduling={"topology": topology})["spec"]["topologySpreadConstraints"]
    assert [(c["topologyKey"], c["maxSkew"], c["whenUnsatisfiable"]) for c in found] == expected


def test_a_pod_that_is_packed_stays_with_its_kind_and_away_from_refusing_nodes() -> None:
    topology = {"placement": "Pack", "key": "topology.kubernetes.io/zone"}
    affinity = pod_of(extras=Extras(avoid=("bad",)), scheduling={"topology": topology})["spec"]["affinity"]
    (preferred,) = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert "nodeAffinity" in affinity


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/gpu"]
)
def test_devices_are_asked_for_by_their_plugins_name(resource: str) -> None:
    pod = pod_of(compute={"gpus": {"resource": resource, "count": 2}})
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"][resource] == resources["requests"][resource] == "2"


@pytest.mark.parametrize(
    ("spec", "field", "word"),
    [
        ({"compute": {"cpus": "500m"}, **REQUIRED}, "spec.compute.cpus", "cpuPinning: Required"),
        (
            {"compute": {"cpus": "1500m"}, "scheduling": {"topology": {"numa": "Preferred"}}},
            "spec.compute.cpus",
            "numa: Preferred",
        ),
        ({"scheduling": {"gang": "Kueue"}}, "spec.scheduling.queueName", "LocalQueue"),
        ({"scheduling": {"queueName": "q"}}, "spec.scheduling.queueName", "leave queueName out"),
        ({"scheduling": {"gang": "Operator", "queueName": "q"}}, "spec.scheduling.queueName", "has no queues"),
    ],
)
def test_what_can_not_be_had_is_refused_with_what_to_do(spec: dict[str, Any], field: str, word: str) -> None:
    (refusal,) = refusals(make_spec(**spec))
    assert (refusal.reason, refusal.field) == (INVALID, field)
    assert word in refusal.message


def placed(spec: dict[str, Any], nodes: list[Any], pods: list[PodView] | None = None) -> tuple[str, str, str]:
    snapshot = make_snapshot(spec, pods or [], nodes)
    return condition(status_of(snapshot, plan(snapshot, 1000.0), (), 1000.0), "Placed")


def test_what_no_node_could_ever_take_is_told_from_what_only_waits() -> None:
    room = {"cpu": 4000, "memory": 8 << 30, "pods": 110}
    node = make_node(allocatable=room)
    gpu = {"compute": {"gpus": {"resource": "amd.com/gpu"}}}
    assert placed(gpu, [node])[1] == "NoSuchResource"
    assert placed(gpu, [make_node(allocatable={**room, "amd.com/gpu": 1})])[1] == "Placing"
    assert placed({"compute": {"cpus": "8"}}, [node])[1] == "NoNodeLargeEnough"
    assert placed({"scheduling": {"nodeSelector": {"a": "b"}}}, [node])[1] == "NoSuchNode"
    assert placed({}, [make_node()])[1] == "Placing", "a node that tells nothing of its room is not judged"
    waiting = make_pod(node="", phase="Pending", ready=False, reason="Unschedulable", message="0/1 nodes")
    kind, reason, message = placed({}, [node], [waiting])
    assert (kind, reason) == ("False", "Unschedulable")
    assert "0/1 nodes" in message
    assert placed({"suspend": True}, [node])[:2] == ("True", "Suspended")
