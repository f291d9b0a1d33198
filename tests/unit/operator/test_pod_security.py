"""Which Pod Security level the pods are of: held by the standards' own controls, and said in conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.operatorkit import make_snapshot, make_spec, make_swarm
from swarm_agents.config import Role
from swarm_deploy.local.api.pod_security import asked, violations
from swarm_operator.accept import INVALID, refusals
from swarm_operator.actions import CreatePod
from swarm_operator.names import PodName
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest
from swarm_operator.status import status_of

ROOT = Path(__file__).parents[3]
MEMORY: dict[str, Any] = {"transport": {"sharedMemory": {"medium": "Memory"}}}
#: Everything that an owner may say of the pods.
USED: dict[str, Any] = {
    "state": {},
    "security": {"runAsUser": 2147483647, "runAsGroup": 1},
    "compute": {
        "gpus": {"count": 1},
        "env": [{"name": "SECRET", "secretKeyRef": {"name": "s", "key": "k"}}],
        "podTemplate": {
            "annotations": {"note": "x"},
            "runtimeClassName": "gvisor",
            "volumes": [
                {"name": "a", "configMap": {"name": "c"}},
                {"name": "b", "secret": {"name": "s"}},
                {"name": "c", "persistentVolumeClaim": {"name": "p"}},
                {"name": "d", "emptyDir": "1Gi"},
            ],
            "volumeMounts": [{"name": "d", "mountPath": "/data", "readOnly": False}],
        },
    },
    "scheduling": {"topology": {"placement": "Pack", "required": True}, "tolerations": [{"operator": "Exists"}]},
}
REFUSAL = (
    'Create Pod/risk-compute-0-0: 403 Forbidden: pods "risk-compute-0-0" is forbidden: violates PodSecurity '
    '"restricted:latest": restricted volume types (volume "swarm-shm" uses restricted volume type "hostPath")'
)


def conditions(spec: dict[str, Any], failures: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    snapshot = make_snapshot(spec)
    found = status_of(snapshot, plan(snapshot, 0.0), failures, 0.0)
    return {condition["type"]: condition for condition in found["conditions"]}


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found = [action.manifest for action in plan(make_snapshot(spec), 0.0).actions if isinstance(action, CreatePod)]
    assert found
    return found


@pytest.mark.parametrize("spec", [{}, USED], ids=["defaults", "everything"])
def test_pods_with_boards_of_their_own_are_of_the_restricted_level(spec: dict[str, Any]) -> None:
    assert refusals(make_spec(**(spec | MEMORY))) == ()
    for pod in pods(spec | MEMORY):
        assert violations(pod, "restricted") == []
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    condition = conditions(spec | MEMORY)["PodSecurity"]
    assert (condition["status"], condition["reason"]) == ("True", "RestrictedLevel")


@pytest.mark.parametrize("spec", [{}, USED], ids=["defaults", "everything"])
@pytest.mark.parametrize("role", list(Role))
def test_with_the_nodes_memory_one_volume_is_all_that_is_beyond_the_restricted_level(
    spec: dict[str, Any], role: Role
) -> None:
    pod = pod_manifest(make_swarm(), make_spec(**spec), PodName("risk", role, 0, 0), "r", node="n")
    assert [(found.reason, found.detail) for found in violations(pod, "restricted")] == [
        ("restricted volume types", 'volume "swarm-shm" uses restricted volume type "hostPath"')
    ]
    assert [found.reason for found in violations(pod, "baseline")] == ["hostPath volumes"]
    (shm,) = [volume for volume in pod["spec"]["volumes"] if "hostPath" in volume]
    pod["spec"]["volumes"].remove(shm)
    assert violations(pod, "restricted") == []


def test_a_condition_says_what_the_nodes_memory_costs_and_what_to_do() -> None:
    condition = conditions({})["PodSecurity"]
    assert (condition["status"], condition["reason"]) == ("False", "HostPathSharedMemory")
    for text in (
        "kubectl label --overwrite namespace default pod-security.kubernetes.io/enforce=privileged",
        "medium Memory",
    ):
        assert text in condition["message"]
    assert conditions({})["Degraded"]["status"] == "False", "it is no fault"
    assert conditions({"security": {"networkPolicy": 7}})["PodSecurity"]["status"] == "Unknown"


def test_a_namespace_that_refuses_the_pods_is_named_with_what_to_do() -> None:
    condition = conditions({}, (REFUSAL,))["Degraded"]
    assert (condition["status"], condition["reason"]) == ("True", "PodSecurityRefused")
    assert condition["message"].startswith(
        "The namespace's Pod Security level forbids the hostPath volume of shared memory: kubectl label --overwrite "
        "namespace default pod-security.kubernetes.io/enforce=privileged, or delete the Swarm and make it anew with "
        "transport.sharedMemory.medium Memory. "
    )
    assert REFUSAL in condition["message"], "what the API server said is there as well"
    other = conditions(MEMORY, (REFUSAL.replace("hostPath", "nfs"),))["Degraded"]
    assert (other["reason"], "hostPath" in other["message"]) == ("PodSecurityRefused", False)
    usual = conditions({}, ("Create Pod/x: 403 Forbidden: no such thing",))["Degraded"]
    assert usual["reason"] == "RequestRefused"


@pytest.mark.parametrize("group", ["compute", "resource"])
@pytest.mark.parametrize(
    "key",
    [
        "container.apparmor.security.beta.kubernetes.io/agent",
        "container.seccomp.security.alpha.kubernetes.io/agent",
        "seccomp.security.alpha.kubernetes.io/pod",
    ],
)
def test_an_annotation_can_not_take_the_confinement_off(group: str, key: str) -> None:
    (refusal,) = refusals(make_spec(**{group: {"podTemplate": {"annotations": {key: "unconfined"}}}}))
    assert (refusal.reason, refusal.field) == (INVALID, f"spec.{group}.podTemplate.annotations")
    assert key in refusal.message


def test_the_example_of_a_restricted_namespace_is_one() -> None:
    namespace, swarm = yaml.safe_load_all((ROOT / "deploy" / "examples" / "restricted.yaml").read_text())
    assert asked(namespace["metadata"]["labels"], "enforce") == ("restricted", "latest")
    assert swarm["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert refusals(make_spec(**swarm["spec"])) == ()
    for pod in pods(swarm["spec"]):
        assert violations(pod, "restricted") == []
