"""`swarm-operator check`: whether a cluster has what this operator needs, under the account that it would run by.

Rights are asked for one by one, by SelfSubjectAccessReview, which every account may: nothing is tried out, so nothing
is written and nothing has to be there. The rules are the table of `rbac`, from which the shipped roles are made. What
is missing is printed with the command that mends it, made of what is missing alone, so that an administrator can see
what it grants.

The Swarm's definition is compared by the API's own description of it (OpenAPI, which every account may read as well): a
field that one side knows and the other does not tells that the two are of different releases. A definition is not
upgraded by who upgrades the operator's image, and a field that the API server drops is a field that does nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from swarm_operator import rbac
from swarm_operator.api.crd import crd
from swarm_operator.api.v1alpha1 import API_VERSION, GROUP, PLURAL, VERSION
from swarm_operator.kube import Api, ApiError
from swarm_operator.rbac import Rule

__all__ = ["Row", "Scope", "check", "differences", "mend", "scopes", "table"]

_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_SELF: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_AT_ONCE: Final = 16
#: Fields that a line names.
_NAMED: Final = 5
_DEFINITION: Final = "definition of Swarms"
_APPLY_CRD: Final = (
    f"kubectl apply --server-side --force-conflicts -f deploy/crds/{PLURAL}.{GROUP}.yaml"
    "  # or: helm upgrade, whose chart brings it"
)
#: How the line of a definition begins that is ahead of the operator.
_NEWER: Final = "an operator of its release: this one does not know"
_UPGRADE: Final = "helm upgrade RELEASE charts/agentswarm  # or: the operator's image of the definition's release"


@dataclass(frozen=True)
class Scope:
    """Rules that are to hold in one namespace, or in all of the cluster (the empty one)."""

    namespace: str
    rules: tuple[Rule, ...]

    @property
    def where(self) -> str:
        """For people."""
        return f"namespace {self.namespace}" if self.namespace else "cluster"


@dataclass(frozen=True)
class Row:
    """A line of the table. `missing` is empty where all is well."""

    what: str
    where: str
    found: str = ""
    missing: str = ""


def scopes(namespaces: Sequence[str], lease_namespace: str) -> list[Scope]:
    """What has to be granted where. `lease_namespace` is empty where no Lease is taken."""
    served = [Scope(space, rbac.SERVED) for space in namespaces] or [Scope("", (*rbac.CLUSTER, *rbac.SERVED))]
    cluster = [Scope("", rbac.CLUSTER)] if namespaces else []
    return [*cluster, *served, *([Scope(lease_namespace, rbac.LEADER)] if lease_namespace else [])]


async def check(api: Api, namespaces: Sequence[str], lease_namespace: str) -> int:
    """Prints the table and what mends what is missing; returns how many lines lack something.

    Raises:
        ApiError: the API server can't be reached, or does not answer such questions.
    """
    version = msgspec.json.decode(await api.request("GET", "/version")).get("gitVersion", "")
    user = await _user(api)
    rows = [Row("API server", "cluster", version), Row("account", "cluster", user or "unknown"), await _definition(api)]
    commands = [_UPGRADE if rows[-1].missing.startswith(_NEWER) else _APPLY_CRD] if rows[-1].missing else []
    lacking: list[Scope] = []
    limit = asyncio.Semaphore(_AT_ONCE)
    for scope in scopes(namespaces, lease_namespace):
        refused: list[Rule] = []
        for rule in scope.rules:
            for resource in rule.resources:
                verbs = await _refused(api, scope.namespace, rule, resource, limit)
                missing = f"{', '.join(verbs)} (for: {rule.why})" if verbs else ""
                rows.append(Row(_qualified(rule, resource), scope.where, ", ".join(rule.verbs), missing))
                refused += [Rule(rule.group, (resource,), verbs, rule.why)] if verbs else []
        lacking += [Scope(scope.namespace, tuple(refused))] if refused else []
    print(table(rows))
    commands += [mend(lacking, user)] if lacking else []
    wrong = sum(bool(row.missing) for row in rows)
    if commands:
        print(f"\n{wrong} of {len(rows)} lines lack something. An administrator mends it by:\n")
        print("\n\n".join(commands))
    return wrong


def _qualified(rule: Rule, resource: str) -> str:
    plural, slash, subresource = resource.partition("/")
    return f"{plural}.{rule.group}{slash}{subresource}" if rule.group else resource


def table(rows: Sequence[Row]) -> str:
    """The lines under each other."""
    what, where = (max(len(getattr(row, name)) for row in rows) for name in ("what", "where"))
    return "\n".join(
        f"{'FAIL' if row.missing else 'ok':<5} {row.what:<{what}}  {row.where:<{where}}  "
        + (f"missing: {row.missing}" if row.missing else row.found)
        for row in rows
    )


async def _user(api: Api) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = msgspec.json.decode(await api.request("POST", _SELF, "SelfSubjectReview", body=body))
    except ApiError:
        return ""
    return str(answer["status"]["userInfo"].get("username", ""))


async def _refused(api: Api, namespace: str, rule: Rule, resource: str, limit: asyncio.Semaphore) -> tuple[str, ...]:
    async def ask(verb: str) -> bool:
        plural, _, subresource = resource.partition("/")
        about = {"verb": verb, "group": rule.group, "resource": plural}
        about |= {"subresource": subresource} if subresource else {}
        about |= {"namespace": namespace} if namespace else {}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        }
        async with limit:
            answer = await api.request("POST", _REVIEWS, "SelfSubjectAccessReview", body=body)
        return bool(msgspec.json.decode(answer)["status"].get("allowed"))

    allowed = await asyncio.gather(*map(ask, rule.verbs))
    return tuple(verb for verb, may in zip(rule.verbs, allowed, strict=True) if not may)


async def _definition(api: Api) -> Row:
    try:
        listed = msgspec.json.decode(await api.request("GET", f"/apis/{API_VERSION}"))
    except ApiError as error:
        if error.status != 404:
            raise
        return Row(_DEFINITION, "cluster", missing=f"{PLURAL}.{GROUP} in version {VERSION}")
    wanted = {PLURAL, f"{PLURAL}/status", f"{PLURAL}/scale"}
    lacking = wanted - {entry["name"] for entry in listed.get("resources") or ()}
    if lacking:
        return Row(_DEFINITION, "cluster", missing=", ".join(sorted(lacking)))
    try:
        document = msgspec.json.decode(await api.request("GET", f"/openapi/v3/apis/{API_VERSION}"))
    except ApiError as error:
        return Row(_DEFINITION, "cluster", f"{API_VERSION}; its fields can't be compared: {error}")
    kind = {"group": GROUP, "kind": "Swarm", "version": VERSION}
    schemas = document["components"]["schemas"].values()
    (served,) = (schema for schema in schemas if kind in (schema.get("x-kubernetes-group-version-kind") or ()))
    older, newer = differences(served)
    if older:
        return Row(_DEFINITION, "cluster", missing=f"{_named(older)}, which this operator serves: it is older")
    if newer:
        return Row(_DEFINITION, "cluster", missing=f"{_NEWER} {_named(newer)}")
    return Row(_DEFINITION, "cluster", f"{API_VERSION}, of this release")


def differences(served: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Fields of the spec that the served schema lacks, and those that only it has."""
    own = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    here, there = set(_fields(own, "spec")), set(_fields(served.get("properties", {}).get("spec", {}), "spec"))
    return sorted(here - there), sorted(there - here)


def _fields(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _fields(child, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from _fields(schema["items"], f"{path}[]")


def _named(fields: Sequence[str]) -> str:
    more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
    return f"{', '.join(fields[:_NAMED])}{more}"


def mend(lacking: Iterable[Scope], user: str) -> str:
    """A command that grants an account what it lacks, and no more."""
    space, _, name = user.removeprefix("system:serviceaccount:").partition(":")
    subject: dict[str, Any] = {"kind": "User", "name": user or rbac.ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}
    if user.startswith("system:serviceaccount:"):
        subject = {"kind": "ServiceAccount", "name": name, "namespace": space}
    rules: dict[str, list[dict[str, Any]]] = {}
    for scope in lacking:
        rules.setdefault(scope.namespace, []).extend(rbac.rule_dicts(scope.rules))
    objects = []
    for where, granted in rules.items():
        kind = "Role" if where else "ClusterRole"
        # named by what it grants: a later mending must not take back what an earlier one has granted
        digest = hashlib.blake2b(json.dumps(granted).encode(), digest_size=3).hexdigest()
        meta = {"name": f"{name or rbac.ACCOUNT}-further-{digest}"} | ({"namespace": where} if where else {})
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": meta["name"]}
        head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
        objects.append({**head, "kind": kind, "rules": granted})
        objects.append({**head, "kind": f"{kind}Binding", "roleRef": ref, "subjects": [subject]})
    # by way of JSON: YAML would write one subject as an anchor and references to it
    documents = yaml.safe_dump_all(json.loads(json.dumps(objects)), sort_keys=False, width=120)
    return f"kubectl apply -f - <<'END'\n{documents}END"
