"""A bad Swarm is refused by the API server with the field and the reason, and nothing of it is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.kubectl import Kubectl, manifest
from support.swarms import swarm

pytestmark = pytest.mark.kubectl


def env(count: int) -> list[dict[str, str]]:
    return [{"name": f"V{n}", "value": "x"} for n in range(count)]


# name of the case: the spec, the field that the refusal names, the reason it gives
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": (
        {"compute": {"replicas": 1, "replicaz": 2}},
        '"spec.compute.replicaz"',
        "strict decoding error: unknown field",
    ),
    "text for a number": (
        {"compute": {"replicas": "many"}},
        "spec.compute.replicas",
        'must be of type integer: "string"',
    ),
    "number for an object": ({"compute": 3}, "spec.compute", 'must be of type object: "integer"'),
    "fraction for a whole number": (
        {"compute": {"replicas": 1.5}},
        "spec.compute.replicas",
        'must be of type int32: "float64"',
    ),
    "below the minimum": (
        {"compute": {"replicas": -1}},
        "spec.compute.replicas: Invalid value: -1",
        "should be greater than or equal to 0",
    ),
    "above the maximum": (
        {"compute": {"replicas": 5001}},
        "spec.compute.replicas: Invalid value: 5001",
        "should be less than or equal to 5000",
    ),
    "not one of the choices": (
        {"imagePullPolicy": "Sometimes"},
        'spec.imagePullPolicy: Unsupported value: "Sometimes"',
        'supported values: "Always", "IfNotPresent", "Never"',
    ),
    "text of the wrong form": (
        {"compute": {"cpus": "lots"}},
        'spec.compute.cpus: Invalid value: "lots"',
        "should match '^([1-9]",
    ),
    "text too long": ({"image": "x" * 513}, "spec.image: Too long", "may not be more than 512"),
    "text too short": ({"image": ""}, "spec.image", "should be at least 1 chars long"),
    "too many items": ({"compute": {"env": env(65)}}, "spec.compute.env: Too many: 65", "must have at most 64 items"),
    "the same key twice in a list": (
        {"compute": {"env": [*env(1), *env(1)]}},
        "spec.compute.env[1]: Duplicate value",
        '"name":"V0"',
    ),
    "required field missing": (
        {"compute": {"env": [{"value": "x"}]}},
        "spec.compute.env[0].name: Required value",
        "Required value",
    ),
    "null": ({"compute": {"env": None, "replicas": "1"}}, "spec.compute.replicas", "must be of type integer"),
    "rule on a value": (
        {"compute": {"env": [{"name": "SWARM_NAME", "value": "x"}]}},
        "spec.compute.env[0].name: Invalid value",
        "are set by the operator; choose another name",
    ),
    "rule over two fields": (
        {"failover": {"heartbeatInterval": "300ms"}},
        "spec.failover: Invalid value",
        "heartbeatInterval must be shorter than suspectAfter, and that shorter than deadAfter",
    ),
    "rule on a duration": (
        {"runtime": {"spin": "2h"}},
        'spec.runtime.spin: Invalid value: "2h"',
        "must be a duration from 0us to 100ms, such as 50us",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_swarm_is_refused_with_the_field_and_the_reason(kubectl: Kubectl, case: str) -> None:
    spec, field, reason = BAD[case]
    error = kubectl.refused("apply", "-f", "-", stdin=manifest(swarm(**spec)))
    assert field in error
    assert reason in error
    assert kubectl.get("swarms")["items"] == [], "a refused object is not kept"


@pytest.mark.parametrize("case", ["above the maximum", "rule over two fields", "text for a number"])
def test_server_side_apply_refuses_the_same(kubectl: Kubectl, case: str) -> None:
    spec, field, _ = BAD[case]
    error = kubectl.refused("apply", "--server-side", "-f", "-", stdin=manifest(swarm(**spec)))
    assert field in error or "expected" in error, error  # a wrong type is refused earlier there, in other words
    assert kubectl.get("swarms")["items"] == []


def test_every_fault_is_named_at_once(kubectl: Kubectl) -> None:
    bad = swarm(compute={"replicas": -1, "standby": 1001}, imagePullPolicy="Sometimes")
    error = kubectl.refused("apply", "-f", "-", stdin=manifest(bad))
    for field in ("spec.compute.replicas", "spec.compute.standby", "spec.imagePullPolicy"):
        assert field in error


def test_a_swarm_without_a_spec_is_refused(kubectl: Kubectl) -> None:
    bad = swarm()
    del bad["spec"]
    assert "spec: Required value" in kubectl.refused("apply", "-f", "-", stdin=manifest(bad))


@pytest.mark.parametrize("name", ["Risk", "a_b", "x" * 41, "1st", "a.b"])
def test_a_name_that_can_not_begin_a_pods_name_is_refused(kubectl: Kubectl, name: str) -> None:
    error = kubectl.refused("create", "-f", "-", stdin=manifest(swarm(name)))
    assert "metadata.name" in error
    assert kubectl.get("swarms")["items"] == []


def test_a_field_given_twice_is_refused(kubectl: Kubectl) -> None:
    text = manifest(swarm()).replace('"replicas": 2', '"replicas": 2, "replicas": 3')
    path = f"/apis/agentswarm.dev/v1alpha1/namespaces/{kubectl.namespace}/swarms"  # raw: kubectl itself would drop one
    error = kubectl.refused("create", "--raw", f"{path}?fieldValidation=Strict", "-f", "-", stdin=text)
    assert 'strict decoding error: duplicate field "spec.compute.replicas"' in error
    assert kubectl.get("swarms")["items"] == []


def test_without_validation_an_unknown_field_is_dropped_and_a_warning_says_so_on_request(kubectl: Kubectl) -> None:
    bad = manifest(swarm(nonsense=1))
    warned = kubectl("create", "--validate=warn", "-f", "-", stdin=bad)
    assert 'Warning: unknown field "spec.nonsense"' in warned.err
    assert "nonsense" not in kubectl.get("swarm", "risk")["spec"]
    kubectl("delete", "swarm", "risk")
    ignored = kubectl("create", "--validate=ignore", "-f", "-", stdin=bad)
    assert "unknown field" not in ignored.err
    assert "nonsense" not in kubectl.get("swarm", "risk")["spec"]


def test_a_change_of_what_is_fixed_is_refused_and_the_object_stays(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    before = kubectl.get("swarm", "risk")
    patch = json.dumps({"spec": {"transport": {"sharedMemory": {"size": "128Mi"}}}})
    error = kubectl.refused("patch", "swarm", "risk", "--type=merge", "-p", patch)
    assert "spec.transport.sharedMemory: Invalid value" in error
    assert "shared memory can't be changed while agents use it" in error
    assert kubectl.get("swarm", "risk") == before


@pytest.mark.parametrize("kind", ["merge", "json"])
def test_a_patch_to_a_bad_state_is_refused_and_the_object_stays(kubectl: Kubectl, kind: str) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    before = kubectl.get("swarm", "risk")
    patch: Any = {"spec": {"compute": {"replicas": -3}}}
    if kind == "json":
        patch = [{"op": "replace", "path": "/spec/compute/replicas", "value": -3}]
    error = kubectl.refused("patch", "swarm", "risk", f"--type={kind}", "-p", json.dumps(patch))
    assert "spec.compute.replicas: Invalid value: -3" in error
    assert kubectl.get("swarm", "risk") == before


def test_a_bad_status_is_refused_too(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    patch = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "Maybe"}]}})
    error = kubectl.refused("patch", "swarm", "risk", "--type=merge", "--subresource=status", "-p", patch)
    assert 'status.conditions[0].status: Unsupported value: "Maybe"' in error
    assert "status.conditions[0].reason: Required value" in error


def test_creating_what_exists_is_refused(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=manifest(swarm()))
    error = kubectl.refused("create", "-f", "-", stdin=manifest(swarm()))
    assert '(AlreadyExists): error when creating "STDIN": swarms.agentswarm.dev "risk" already exists' in error


def test_a_swarm_in_a_namespace_that_does_not_exist_is_refused(kubectl: Kubectl) -> None:
    error = kubectl.within("nowhere").refused("create", "-f", "-", stdin=manifest(swarm()))
    assert 'namespaces "nowhere" not found' in error


def test_a_version_that_is_not_served_is_refused(kubectl: Kubectl) -> None:
    bad = swarm() | {"apiVersion": "agentswarm.dev/v9"}
    error = kubectl.refused("apply", "-f", "-", stdin=manifest(bad))
    assert 'no matches for kind "Swarm" in version "agentswarm.dev/v9"' in error
