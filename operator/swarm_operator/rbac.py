"""What the operator may do, in one table: from it come the manifests of `deploy/rbac/` and the chart's roles.

Least privilege, held from both sides: the operator's tests run under an account that has these rules and no more, and
the embedded API server's audit log is compared with them, so that a right that nothing uses is found as well.

What is not here: `get` on Swarms, Pods of others' namespaces, Secrets of the cluster (in namespaced mode), `*` of any
kind, finalizers (there are none), the right to make roles, and anything for the agents: their account has no token.

Run as `python -m swarm_operator.rbac` to write the manifests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from swarm_operator.api.v1alpha1 import GROUP, PLURAL

__all__ = [
    "ACCOUNT",
    "CLUSTER",
    "LEADER",
    "NAMESPACE",
    "SERVED",
    "USERS",
    "Rule",
    "cluster_wide",
    "main",
    "namespaced",
    "rule_dicts",
]

#: Names in the manifests that are applied as they are.
NAMESPACE: Final = "agentswarm"
ACCOUNT: Final = "agentswarm-operator"

_API: Final = "rbac.authorization.k8s.io"
_DIRECTORY: Final = Path(__file__).parents[2] / "deploy" / "rbac"


@dataclass(frozen=True)
class Rule:
    """A PolicyRule, and what it is for."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a Role."""
        return {"apiGroups": [self.group], "resources": [*self.resources], "verbs": [*self.verbs]}


#: In every namespace whose Swarms are served.
SERVED: Final = (
    Rule(GROUP, (PLURAL,), ("list", "watch"), "what is wanted"),
    Rule(GROUP, (f"{PLURAL}/status",), ("patch",), "what is"),
    Rule(GROUP, (f"{PLURAL}/scale",), ("update",), "the autoscaler's decisions"),
    Rule("", ("pods",), ("create", "delete", "get", "list", "patch", "watch"), "the agents"),
    Rule(
        "",
        ("configmaps",),
        ("create", "delete", "get", "list", "patch", "update", "watch"),
        "the agents' settings; the audit trail, which is only ever appended to by the version that was read",
    ),
    Rule(
        "",
        ("secrets",),
        ("create", "delete", "get", "list", "patch", "watch"),
        "the agents' keys; deleted only to be made anew, when somebody has made them immutable",
    ),
    Rule(
        "",
        ("serviceaccounts", "services"),
        ("create", "get", "list", "patch", "watch"),
        "the agents' account and addresses",
    ),
    Rule("policy", ("poddisruptionbudgets",), ("create", "get", "list", "patch", "watch"), "evictions one by one"),
    Rule(
        "apps", ("controllerrevisions",), ("create", "delete", "get", "list", "patch", "watch"), "what was rolled out"
    ),
    Rule(
        "networking.k8s.io",
        ("networkpolicies",),
        ("create", "delete", "get", "list", "patch", "watch"),
        "who may reach the agents; deleted when a Swarm asks for none any more",
    ),
    Rule("", ("events",), ("create", "patch"), "what happened, for people"),
    Rule(
        "scheduling.volcano.sh",
        ("podgroups",),
        ("create", "get", "patch"),
        "scheduling.gang: Volcano",
    ),
    Rule("scheduling.x-k8s.io", ("podgroups",), ("create", "get", "patch"), "scheduling.gang: Coscheduling"),
)

#: Of the cluster, whichever namespaces are served. `scheduling.gang: Operator` also lists the cluster's pods, to see
#: how much room there is: who serves every namespace may; in namespaced mode such a Swarm says what is lacking.
CLUSTER: Final = (
    Rule(
        "",
        ("nodes",),
        ("list", "watch"),
        "where resource agents belong, and which nodes are lost; without it only Swarms with medium Memory run",
    ),
)

#: Where the Lease is.
LEADER: Final = (Rule("coordination.k8s.io", ("leases",), ("create", "get", "update"), "one of the replicas writes"),)

#: What the cluster's own roles learn about Swarms: by name of the role that they are aggregated to.
USERS: Final = {
    "admin": Rule(
        GROUP,
        (PLURAL, f"{PLURAL}/scale"),
        ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
        "who owns a namespace",
    ),
    "edit": Rule(
        GROUP,
        (PLURAL, f"{PLURAL}/scale"),
        ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
        "who works in it",
    ),
    "view": Rule(GROUP, (PLURAL, f"{PLURAL}/scale", f"{PLURAL}/status"), ("get", "list", "watch"), "who looks at it"),
}


def rule_dicts(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """Rules as they stand in a Role."""
    return [rule.as_dict() for rule in rules]


def _role(kind: str, name: str, rules: Iterable[Rule], namespace: str = "") -> dict[str, Any]:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": f"{_API}/v1", "kind": kind, "metadata": meta, "rules": rule_dicts(rules)}


def _binding(kind: str, name: str, role_kind: str, home: str, namespace: str = "") -> dict[str, Any]:
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": f"{_API}/v1",
        "kind": kind,
        "metadata": meta,
        "roleRef": {"apiGroup": _API, "kind": role_kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
    }


def _account(home: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": home}}


def _leader(home: str) -> list[dict[str, Any]]:
    name = f"{ACCOUNT}-leader"
    return [_role("Role", name, LEADER, home), _binding("RoleBinding", name, "Role", home, home)]


def cluster_wide(home: str = NAMESPACE) -> list[dict[str, Any]]:
    """Account, roles and bindings of an operator that lives in the namespace `home` and serves all of them."""
    return [
        _account(home),
        *_leader(home),
        _role("ClusterRole", ACCOUNT, (*CLUSTER, *SERVED)),
        _binding("ClusterRoleBinding", ACCOUNT, "ClusterRole", home),
    ]


def namespaced(
    home: str = NAMESPACE, served: Sequence[str] = (NAMESPACE,), *, suffix: str = ""
) -> list[dict[str, Any]]:
    """The same of an operator that serves some namespaces.

    Args:
        suffix: tells what belongs to the whole cluster from another operator's.
    """
    nodes = f"{ACCOUNT}-nodes{suffix}"
    found = [
        _account(home),
        *_leader(home),
        _role("ClusterRole", nodes, CLUSTER),
        _binding("ClusterRoleBinding", nodes, "ClusterRole", home),
    ]
    for space in served:
        found += [
            _role("Role", ACCOUNT, SERVED, space),
            _binding("RoleBinding", ACCOUNT, "Role", home, space),
        ]
    return found


def _text(head: str, objects: Iterable[dict[str, Any]]) -> str:
    return f"# {head}\n" + yaml.safe_dump_all(objects, sort_keys=False, width=120)


def main() -> int:
    """Writes `deploy/rbac/cluster.yaml` and `deploy/rbac/namespaced.yaml`."""
    _DIRECTORY.mkdir(exist_ok=True)
    made = f"Generated by `make generate` from swarm_operator/rbac.py. The namespace {NAMESPACE} has to be there."
    (_DIRECTORY / "cluster.yaml").write_text(_text(f"An operator that serves every namespace. {made}", cluster_wide()))
    (_DIRECTORY / "namespaced.yaml").write_text(
        _text(
            f"An operator that serves its own namespace only (swarm-operator -n {NAMESPACE}). {made}",
            namespaced(),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
