"""The status says what is, why, and what to do; its times change when its answers do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from support.clusters import CRD
from support.operatorkit import World, make_node, make_pod, make_report, make_snapshot, make_swarm
from swarm_agents.config import Role
from swarm_deploy.local.api.structural import default
from swarm_operator.api.status import SwarmStatus
from swarm_operator.keyrecord import KeyState, Record, Stage
from swarm_operator.plan import plan
from swarm_operator.revision import revision_of
from swarm_operator.snapshot import Snapshot
from swarm_operator.status import status_of

NOW = 1_700_000_000.0
(VERSION,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
STATUS_SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]


def status(snapshot: Snapshot, failures: tuple[str, ...] = (), now: float = NOW) -> dict[str, Any]:
    found = status_of(snapshot, plan(snapshot, now), failures, now)
    SwarmStatus.model_validate(found)  # what the CRD allows, and nothing else
    assert default(STATUS_SCHEMA, found) == found, "else an operator that is started anew would write it again"
    return found


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    (one,) = [c for c in found["conditions"] if c["type"] == kind]
    return one


def settled(spec: dict[str, Any]) -> World:
    world = World(spec, now=NOW)
    for _ in range(15):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    return world


def test_a_settled_swarm_is_ready_and_says_nothing_is_wrong() -> None:
    found = status(settled({"compute": {"replicas": 3, "standby": 1}}).snapshot())
    assert [(c["type"], c["status"]) for c in found["conditions"]] == [
        ("Accepted", "True"),
        ("Ready", "True"),
        ("Progressing", "False"),
        ("Degraded", "False"),
        ("Suspended", "False"),
        ("PodSecurity", "False"),
        ("KeysRenewing", "Unknown"),
        ("Placed", "True"),
        ("Pinned", "Unknown"),
        ("TopologyRejected", "False"),
    ]
    assert condition(found, "Ready")["reason"] == "Running"
    assert found["replicas"] == found["compute"]["ready"] == 3
    assert found["standby"]["ready"] == 1
    assert found["resource"]["ready"] == 2
    assert found["observedSettings"] == found["settings"] != ""
    assert found["selector"] == "agentswarm.dev/role=compute,agentswarm.dev/swarm=risk"


def test_a_new_swarm_says_what_it_waits_for() -> None:
    found = status(make_snapshot({"compute": {"replicas": 2}}))
    ready = condition(found, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "WaitingForAgents")
    assert "0 of 2 compute agents are ready" in ready["message"]
    assert condition(found, "Progressing")["reason"] == "Scaling"


def test_a_suspended_swarm_says_so_in_a_condition_of_its_own_once_its_agents_are_gone() -> None:
    found = status(make_snapshot({"suspend": True}))
    assert condition(found, "Ready")["reason"] == "Suspended"
    assert condition(found, "Suspended")["status"] == "True"
    leaving = condition(status(make_snapshot({"suspend": True}, [make_pod()])), "Suspended")
    assert (leaving["status"], leaving["reason"]) == ("False", "Stopping")
    assert "1 agents are still leaving" in leaving["message"]
    assert condition(status(make_snapshot({})), "Suspended")["reason"] == "NotSuspended"
    refused = condition(status(make_snapshot({"compute": {"replicas": "x"}})), "Suspended")
    assert refused["status"] == "Unknown"


def test_every_condition_speaks_of_the_generation_that_was_examined() -> None:
    found = status(make_snapshot(swarm=make_swarm({}, generation=7, status={"observedGeneration": 9})))
    assert {c["observedGeneration"] for c in found["conditions"]} == {7} == {found["observedGeneration"]}


def test_a_swarm_without_a_node_says_which_fields_to_look_at() -> None:
    ready = condition(status(make_snapshot({}, nodes=[])), "Ready")
    assert ready["reason"] == "NoNodes"
    assert "scheduling.nodeSelector" in ready["message"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("ImagePullBackOff", "ImageMissing"),
        ("CrashLoopBackOff", "AgentsFailing"),
        ("Unschedulable", "Unschedulable"),
    ],
)
def test_a_pod_that_is_stuck_degrades_the_swarm_with_its_name_and_reason(reason: str, kind: str) -> None:
    pod = make_pod(phase="Pending", ready=False, reason=reason, message="no such image")
    degraded = condition(status(make_snapshot({}, [pod])), "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", kind)
    assert f"risk-compute-0-0: {reason} (no such image)" in degraded["message"]


def test_what_the_api_server_refused_is_in_the_status() -> None:
    degraded = condition(status(make_snapshot({}), ("Create Pod/x: no such thing (403 Forbidden)",)), "Degraded")
    assert degraded["reason"] == "RequestRefused"
    assert "no such thing" in degraded["message"]


def test_a_long_list_of_troubles_stays_within_bounds() -> None:
    found = status(make_snapshot({}), tuple(f"trouble {n} " + "x" * 500 for n in range(50)))
    assert len(condition(found, "Degraded")["message"]) <= 1000
    assert "and 47 more" in status(make_snapshot({}), tuple(f"t{n}" for n in range(50)))["conditions"][3]["message"]


def test_an_agent_that_does_not_become_ready_in_time_stops_the_progress() -> None:
    spec = {"compute": {"replicas": 1}, "rollout": {"progressDeadline": "30s"}}
    snapshot = make_snapshot(spec)
    assert snapshot.spec is not None
    pod = make_pod(revision=revision_of(snapshot.spec), ready=False, created=NOW - 31)
    progressing = condition(status(make_snapshot(spec, [pod])), "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")


def test_a_paused_rollout_says_so() -> None:
    pods = [make_pod(revision="0ld"), make_pod(Role.RESOURCE, revision="0ld")]
    progressing = condition(status(make_snapshot({"rollout": {"paused": True}}, pods)), "Progressing")
    assert progressing["reason"] == "RolloutPaused"


def test_settings_count_as_observed_when_every_agent_has_acknowledged_them() -> None:
    world = settled({"compute": {"replicas": 2}})
    before = status(world.snapshot())
    world.edit({"compute": {"replicas": 2}, "failover": {"deadAfter": "3s"}})
    world.swarm = msgspec.structs.replace(world.swarm, status=before)
    after = status(world.snapshot())
    assert after["settings"] != before["settings"]
    assert after["observedSettings"] == before["settings"], "what they run by now"
    assert condition(after, "Progressing")["reason"] == "PushingSettings"


def test_settings_that_no_agent_has_had_are_not_observed() -> None:
    found = status(make_snapshot({"compute": {"replicas": 2}}))
    assert found["settings"]
    assert found["observedSettings"] == ""


def test_a_condition_of_another_writer_needs_no_generation() -> None:
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
    assert "default" not in conditions["items"]["properties"]["observedGeneration"]
    assert "observedGeneration" not in conditions["items"]["required"]


def test_transition_times_are_kept_until_the_answer_changes() -> None:
    spec = {"compute": {"replicas": 1}}
    first = status(make_snapshot(spec))
    again = make_snapshot(swarm=make_swarm(spec, status=first))
    later = status(again, now=NOW + 100)
    times = {c["type"]: c["lastTransitionTime"] for c in first["conditions"]}
    assert {c["type"]: c["lastTransitionTime"] for c in later["conditions"]} == times
    suspended = make_snapshot(swarm=make_swarm({"compute": {"replicas": 1}, "suspend": True}, status=first))
    changed = status(suspended, now=NOW + 100)
    assert condition(changed, "Ready")["lastTransitionTime"] == times["Ready"], "still not ready"
    assert condition(changed, "Progressing")["lastTransitionTime"] != times["Progressing"]


def test_the_status_of_a_settled_swarm_does_not_change_by_itself() -> None:
    world = settled({"compute": {"replicas": 1}})
    first = status(world.snapshot())
    world.swarm = msgspec.structs.replace(world.swarm, status=first)
    world.tick(1000)
    assert status(world.snapshot(), now=NOW + 1000) == first


def test_draining_agents_are_counted_apart() -> None:
    pods = [make_pod(ordinal=n) for n in range(2)]
    agents = {pods[0].uid: make_report(state="draining", drain_since=1.0)}
    found = status(make_snapshot({"compute": {"replicas": 1}}, pods, [make_node()], agents=agents))
    assert found["compute"]["draining"] == 1
    assert found["compute"]["ready"] == 1


@pytest.mark.parametrize("stage", Stage)
def test_the_keys_are_told_by_their_fingerprints_in_every_stage_of_their_renewal(stage: Stage) -> None:
    following = "f" * 16 if stage.has_next else ""
    keys = KeyState((), "h" * 40, "a" * 16, "n" * 40, following, Record(int(NOW) - 60, stage, int(NOW)))
    found = status(make_snapshot(make_swarm(), keys=keys))
    assert found["keys"] == {
        "fingerprint": "a" * 16,
        "nextFingerprint": following,
        "madeAt": "2023-11-14T22:12:20Z",
        "renewals": 0,
        "stage": str(stage),
    }
    assert condition(found, "KeysRenewing")["status"] == str(stage is not Stage.STEADY)
