"""What `swarm-operator check` asks for, and what it makes of the answers."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml

from swarm_operator import rbac
from swarm_operator.api.crd import crd
from swarm_operator.check import Row, Scope, check, differences, mend, scopes, table
from swarm_operator.kube import ApiError

SERVED = {
    **crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
    "x-kubernetes-group-version-kind": [{"group": "agentswarm.dev", "kind": "Swarm", "version": "v1alpha1"}],
}
LISTED = {"resources": [{"name": "swarms"}, {"name": "swarms/status"}, {"name": "swarms/scale"}]}


class Answers:
    """An API server that allows what it is told to, and whose definition of Swarms is as it is given."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "/version": {"gitVersion": "v1.36.0"},
            "/apis/agentswarm.dev/v1alpha1": LISTED,
            "/openapi/v3/apis/agentswarm.dev/v1alpha1": {"components": {"schemas": {"x": {}, "y": SERVED}}},
        } | answers
        self.refused: set[tuple[str, str]] = set()
        self.asked: set[tuple[str, str, str, str]] = set()

    async def request(self, method: str, path: str, kind: str = "", **more: Any) -> bytes:
        if path.endswith("/selfsubjectreviews"):
            return json.dumps({"status": {"userInfo": {"username": "system:serviceaccount:home:op"}}}).encode()
        if path.endswith("/selfsubjectaccessreviews"):
            about = more["body"]["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            self.asked.add((about.get("namespace", ""), about["group"], resource, about["verb"]))
            return json.dumps({"status": {"allowed": (resource, about["verb"]) not in self.refused}}).encode()
        answer = self.answers[path]
        if isinstance(answer, ApiError):
            raise answer
        return json.dumps(answer).encode()


def rights(namespace: str, *tables: tuple[rbac.Rule, ...]) -> set[tuple[str, str, str, str]]:
    return {
        (namespace, rule.group, resource, verb)
        for rules in tables
        for rule in rules
        for resource in rule.resources
        for verb in rule.verbs
    }


async def test_every_right_of_the_table_is_asked_for_where_it_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    api: Any = Answers()
    assert await check(api, [], "home") == 0
    assert api.asked == rights("", rbac.CLUSTER, rbac.SERVED) | rights("home", rbac.LEADER)
    api.asked.clear()
    assert await check(api, ["a", "b"], "") == 0
    assert api.asked == rights("", rbac.CLUSTER) | rights("a", rbac.SERVED) | rights("b", rbac.SERVED)
    assert "FAIL" not in capsys.readouterr().out


async def test_what_lacks_is_granted_by_the_printed_command_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    api: Any = Answers()
    api.refused = {("pods", "delete"), ("swarms/status", "patch"), ("leases", "update")}
    assert await check(api, ["home"], "home") == 3
    out = capsys.readouterr().out
    objects = list(yaml.safe_load_all(out.partition("<<'END'\n")[2].rpartition("END")[0]))
    (role, binding) = objects
    assert role["rules"] == [
        {"apiGroups": ["agentswarm.dev"], "resources": ["swarms/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update"]},
    ]
    assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "home")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "op", "namespace": "home"}]
    assert "kubectl apply --server-side" not in out


def test_a_later_mending_leaves_what_an_earlier_one_has_granted() -> None:
    names = {
        yaml.safe_load_all(
            mend([Scope("", rules)], "system:serviceaccount:a:b").split("\n", 1)[1].rpartition("END")[0]
        ).__next__()["metadata"]["name"]
        for rules in (rbac.SERVED[:1], rbac.SERVED[1:2])
    }
    assert len(names) == 2
    assert "kind: User" in mend([Scope("", rbac.CLUSTER)], "jane")


async def test_a_definition_that_is_not_there_is_named_with_how_to_apply_it(capsys: pytest.CaptureFixture[str]) -> None:
    api: Any = Answers(**{"/apis/agentswarm.dev/v1alpha1": ApiError(404, "NotFound", "no such thing")})
    assert await check(api, [], "") == 1
    out = capsys.readouterr().out
    assert "missing: swarms.agentswarm.dev in version v1alpha1" in out
    assert "kubectl apply --server-side --force-conflicts -f deploy/crds/swarms.agentswarm.dev.yaml" in out


async def test_a_definition_of_another_release_is_told_by_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    other = copy.deepcopy(SERVED)
    gone = other["properties"]["spec"]["properties"]["security"]["properties"].pop("networkPolicy")
    assert differences(other) == (["spec.security.networkPolicy"], [])
    api: Any = Answers(**{"/openapi/v3/apis/agentswarm.dev/v1alpha1": {"components": {"schemas": {"y": other}}}})
    assert await check(api, [], "") == 1
    assert "missing: spec.security.networkPolicy, which this operator serves" in capsys.readouterr().out
    newer = copy.deepcopy(SERVED)
    newer["properties"]["spec"]["properties"]["compute"]["properties"]["env"]["items"]["properties"]["more"] = gone
    assert differences(newer) == ([], ["spec.compute.env[].more"])
    api.answers["/openapi/v3/apis/agentswarm.dev/v1alpha1"] = {"components": {"schemas": {"y": newer}}}
    assert await check(api, [], "") == 1
    out = capsys.readouterr().out
    assert "this one does not know spec.compute.env[].more" in out
    assert "kubectl apply" not in out, "the newer definition stays"
    assert "helm upgrade" in out


async def test_a_server_that_does_not_describe_its_definitions_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/openapi/v3/apis/agentswarm.dev/v1alpha1"
    api: Any = Answers(**{path: ApiError(403, "Forbidden", "not for you")})
    assert await check(api, [], "") == 0
    assert "its fields can't be compared: not for you" in capsys.readouterr().out


def test_scopes_hold_each_rule_once_where_it_counts() -> None:
    assert [(s.namespace, s.rules) for s in scopes([], "home")] == [
        ("", (*rbac.CLUSTER, *rbac.SERVED)),
        ("home", rbac.LEADER),
    ]


def test_the_table_stands_in_columns() -> None:
    lines = table([Row("a", "cluster", "x"), Row("long", "namespace b", missing="y")]).splitlines()
    assert lines == ["ok    a     cluster      x", "FAIL  long  namespace b  missing: y"]
