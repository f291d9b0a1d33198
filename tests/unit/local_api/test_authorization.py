"""Roles and bindings of the embedded cluster decide what an account may do, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from swarm_deploy.local.api.authorization import ADMIN, Authorizer, Request, groups_of
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.store import Store

ACCOUNT = "system:serviceaccount:home:worker"
RBAC = "rbac.authorization.k8s.io"


def role(kind: str, name: str, namespace: str = "", *, labels: dict[str, str] | None = None, **rule: Any) -> Any:
    meta = {"name": name, "labels": labels or {}} | ({"namespace": namespace} if namespace else {})
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]} | rule]
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": meta, "rules": rules}


def binding(which: str, role_kind: str, role_name: str, namespace: str = "", **subject: str) -> Any:
    meta = {"name": role_name} | ({"namespace": namespace} if namespace else {})
    who = subject or {"kind": "ServiceAccount", "name": "worker", "namespace": "home"}
    ref = {"apiGroup": RBAC, "kind": role_kind, "name": role_name}
    return {"apiVersion": f"{RBAC}/v1", "kind": which, "metadata": meta, "roleRef": ref, "subjects": [who]}


@pytest.fixture
def api() -> Api:
    api = Api(Store())
    for name in ("home", "away"):
        api.create(api.resource("namespaces"), "", {"metadata": {"name": name}}, manager="test")
    return api


def put(api: Api, *objects: Any) -> None:
    for each in objects:
        resource = api.resource(f"{each['kind'].lower()}s.{RBAC}")
        api.create(resource, each["metadata"].get("namespace", ""), each, manager="test")


def allowed(
    api: Api, verb: str, plural: str = "pods", namespace: str = "home", user: str = ACCOUNT, **more: str
) -> bool:
    return Authorizer(api).allows(user, Request(verb, more.pop("group", ""), plural, namespace=namespace, **more))


def test_the_administrator_may_do_everything_and_an_account_nothing_by_itself(api: Api) -> None:
    assert allowed(api, "delete", "secrets", user=ADMIN)
    assert not allowed(api, "get")
    assert groups_of(ACCOUNT) == ("system:serviceaccounts", "system:serviceaccounts:home", "system:authenticated")


def test_a_role_holds_in_its_own_namespace_and_for_what_it_names(api: Api) -> None:
    put(api, role("Role", "r", "home"), binding("RoleBinding", "Role", "r", "home"))
    assert allowed(api, "get")
    assert not allowed(api, "list")
    assert not allowed(api, "get", "secrets")
    assert not allowed(api, "get", subresource="log")
    assert not allowed(api, "get", namespace="away")
    assert not allowed(api, "get", group="apps")
    assert not allowed(api, "get", user="system:serviceaccount:away:worker")


def test_a_cluster_role_holds_where_it_is_bound(api: Api) -> None:
    put(
        api,
        role("ClusterRole", "c", resources=["pods", "pods/log"]),
        binding("RoleBinding", "ClusterRole", "c", "away"),
    )
    assert allowed(api, "get", namespace="away")
    assert allowed(api, "get", namespace="away", subresource="log")
    assert not allowed(api, "get")
    put(api, binding("ClusterRoleBinding", "ClusterRole", "c"))
    assert allowed(api, "get")
    assert allowed(api, "get", namespace="")


def test_names_and_wildcards_count_as_in_kubernetes(api: Api) -> None:
    put(api, role("Role", "r", "home", resourceNames=["mine"]), binding("RoleBinding", "Role", "r", "home"))
    assert allowed(api, "get", name="mine")
    assert not allowed(api, "get", name="other")
    assert not allowed(api, "get")
    put(api, role("Role", "all", "away", verbs=["*"], resources=["*"], apiGroups=["*"]))
    put(api, binding("RoleBinding", "Role", "all", "away"))
    assert allowed(api, "delete", "swarms", "away", group="agentswarm.dev", subresource="status")


def test_groups_aggregation_and_the_role_that_is_always_there(api: Api) -> None:
    put(
        api,
        {
            **role("ClusterRole", "sum"),
            "rules": None,
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]},
        },
        role("ClusterRole", "part", labels={"to": "sum"}),
        binding("ClusterRoleBinding", "ClusterRole", "sum", kind="Group", name="system:serviceaccounts:home"),
    )
    assert allowed(api, "get")
    assert not allowed(api, "get", user="system:serviceaccount:away:worker")
    put(api, binding("RoleBinding", "ClusterRole", "cluster-admin", "away"))
    assert allowed(api, "delete", "secrets", "away")


def test_a_refusal_says_who_may_not_do_what_and_where(api: Api) -> None:
    with pytest.raises(ApiError) as refused:
        Authorizer(api).check(ACCOUNT, Request("patch", "agentswarm.dev", "swarms", "status", "home", "risk"))
    assert refused.value.code == 403
    assert refused.value.status["message"] == (
        'swarms.agentswarm.dev "risk" is forbidden: User "system:serviceaccount:home:worker" cannot patch resource '
        '"swarms/status" in API group "agentswarm.dev" in the namespace "home"'
    )
    with pytest.raises(ApiError) as refused:
        Authorizer(api).check(ACCOUNT, Request("list", "", "nodes"))
    assert refused.value.status["message"].endswith('cannot list resource "nodes" in API group "" at the cluster scope')


def test_reviews_answer_what_would_be_decided(api: Api) -> None:
    put(api, role("Role", "r", "home"), binding("RoleBinding", "Role", "r", "home"))
    authorizer = Authorizer(api)
    asked = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "home"}}}
    assert authorizer.review("SelfSubjectAccessReview", asked, ACCOUNT) == {"allowed": True}
    asked["spec"]["resourceAttributes"]["verb"] = "delete"
    assert authorizer.review("SelfSubjectAccessReview", asked, ACCOUNT) == {"allowed": False}
    asked["spec"]["user"] = ADMIN
    assert authorizer.review("SubjectAccessReview", asked, ACCOUNT) == {"allowed": True}
    rules = authorizer.review("SelfSubjectRulesReview", {"spec": {"namespace": "home"}}, ACCOUNT)
    assert rules["resourceRules"] == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    assert allowed(api, "create", "selfsubjectaccessreviews", "", group="authorization.k8s.io")
    assert not allowed(api, "create", "subjectaccessreviews", "", group="authorization.k8s.io")
