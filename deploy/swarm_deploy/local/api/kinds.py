"""How kinds differ once they are decoded: what admission adds, what is set by the server, what may not be written.

One `Strategy` a kind, found by `strategy_of`. Everything the kinds have in common (names, versions, ownership,
deletion) is in `writes`. The order of a write is: defaults, ownership of fields, admission, what the server sets,
validation; so what admission adds is owned by nobody, as in a real server.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from swarm_deploy.local.api import pod_security, quota
from swarm_deploy.local.api.crd import definition_causes
from swarm_deploy.local.api.errors import Cause, forbidden
from swarm_deploy.local.api.meta import generate_name
from swarm_deploy.local.api.quantity import parse_quantity
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.validation import builtin_causes, builtin_update_causes

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["PROTECTED", "Strategy", "pod_grace", "qos_class", "strategy_of"]

Object = dict[str, Any]

#: Namespaces that are there from the start and stay.
PROTECTED = ("default", "kube-node-lease", "kube-public", "kube-system")
_SERVICE_NET = "10.96"


@dataclass(frozen=True, slots=True)
class Strategy:
    """One kind's ways. The functions may change the object they are given; nobody else holds it."""

    #: Raises its `metadata.generation` when its spec changes.
    counts: bool = False
    #: May be replaced without saying which version was read.
    unconditional: bool = True
    #: A DELETE that takes effect at once answers with the object rather than with a Status.
    returns_deleted: bool = False
    #: The status a new object has whatever was sent; None keeps what was sent.
    status: Object | None = None
    admit: Callable[[Api, Object], list[str]] | None = None
    prepare: Callable[[Api, Object], None] | None = None
    prepare_update: Callable[[Api, Object, Object], None] | None = None
    causes: Callable[[Object], list[Cause]] | None = None
    update_causes: Callable[[Object, Object], list[Cause]] | None = None


# -- pods -----------------------------------------


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the pod's requests and limits for CPU and memory."""
    any_set, guaranteed = False, True
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name)
            if any(v is not None and parse_quantity(v) > 0 for v in (limit, request)):
                any_set = True
            if limit is None or request is None or parse_quantity(limit) != parse_quantity(request):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


def _admit_pod(api: Api, obj: Object) -> list[str]:
    spec, meta = obj["spec"], obj["metadata"]
    _service_account(api, obj)
    tolerations = spec.get("tolerations") or []
    for key in _TOLERATED:
        held = any(
            t.get("key", key) in (key, "") and t.get("effect", "NoExecute") in ("NoExecute", "") for t in tolerations
        )
        if not held:
            tolerations = [
                *tolerations,
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ]
    spec["tolerations"] = tolerations
    name = spec.get("priorityClassName")
    priority, policy = 0, "PreemptLowerPriority"
    if name:
        held_class = api.store.get("priorityclasses.scheduling.k8s.io", "", name)
        if name in _SYSTEM_PRIORITIES:
            priority = _SYSTEM_PRIORITIES[name]
        elif held_class is None:
            raise forbidden("pods", "", meta.get("name", ""), f"no PriorityClass with name {name} was found")
        else:
            priority, policy = held_class["value"], held_class.get("preemptionPolicy", policy)
    if spec.get("priority") not in (None, priority):
        text = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission"
        )
        text += f" controller computed {priority} from the given PriorityClass name"
        raise forbidden("pods", "", meta.get("name", ""), text)
    spec["priority"] = priority
    spec.setdefault("preemptionPolicy", policy)
    warnings = _pod_security(api, obj)
    quota.admit(api, obj)  # last, as in a real server: what is refused otherwise takes nothing
    return warnings


def _pod_security(api: Api, obj: Object) -> list[str]:
    """Refuse what the namespace's Pod Security level does not admit; returns what it warns of."""
    meta = obj["metadata"]
    namespace = api.store.get("namespaces", "", meta["namespace"]) or {}
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    for mode in ("enforce", "warn"):
        level, version = pod_security.asked(labels, mode)
        found = ", ".join(map(str, pod_security.violations(obj, level)))
        if found and mode == "enforce":
            text = f'violates PodSecurity "{level}:{version}": {found}'
            raise forbidden("pods", "", meta.get("name") or meta.get("generateName", ""), text)
        if found:
            return [f'would violate PodSecurity "{level}:{version}": {found}']
    return []


def _service_account(api: Api, obj: Object) -> None:
    spec, meta = obj["spec"], obj["metadata"]
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = api.store.get("serviceaccounts", meta["namespace"], name)
    if account is None:
        text = f'error looking up service account {meta["namespace"]}/{name}: serviceaccount "{name}" not found'
        raise forbidden("pods", "", meta.get("name", ""), text)
    mount = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    missing = [c for c in containers if all(m.get("mountPath") != where for m in c.get("volumeMounts") or ())]
    if not mount or not missing:
        return
    volume = generate_name("kube-api-access-")
    for container in missing:
        container["volumeMounts"] = [
            *(container.get("volumeMounts") or ()),
            {"name": volume, "readOnly": True, "mountPath": where},
        ]
    sources: list[Object] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    spec["volumes"] = [
        *(spec.get("volumes") or ()),
        {"name": volume, "projected": {"sources": sources, "defaultMode": 420}},
    ]


def _prepare_pod(api: Api, obj: Object) -> None:
    del api
    obj["status"] = {"phase": "Pending", "qosClass": _safe_qos(obj["spec"])}


def _safe_qos(spec: Object) -> str:
    try:
        return qos_class(spec)
    except ValueError:
        return "BestEffort"  # validation refuses the quantity right after


def _prepare_pod_update(api: Api, obj: Object, old: Object) -> None:
    del api
    # Where a pod runs and with what it was admitted is settled; these come back if a client leaves them out.
    for name in ("nodeName", "serviceAccountName", "serviceAccount", "priority", "preemptionPolicy", "tolerations"):
        if name in old["spec"] and name not in obj["spec"]:
            obj["spec"][name] = old["spec"][name]


def pod_grace(pod: Object, asked: int | None) -> int:
    """How many seconds a pod has to end. One that does not run, or is on no node, has none."""
    if not pod["spec"].get("nodeName") or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return max(asked, 0) if asked >= 0 else 1
    return int(pod["spec"].get("terminationGracePeriodSeconds", 30))


# -- services -----------------------------------------


def _prepare_service(api: Api, obj: Object) -> None:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return
    if not spec.get("clusterIP"):
        used = {s["spec"].get("clusterIP") for s in api.store.list("services")}
        # Deterministic, so that tests and people see the same; 10.96.0.1 is the API server's.
        spec["clusterIP"] = next(
            a for n in range(10, 65_000) if (a := f"{_SERVICE_NET}.{n // 256}.{n % 256}") not in used
        )
    spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _prepare_service_update(api: Api, obj: Object, old: Object) -> None:
    del api
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not obj["spec"].get(name) and name in old["spec"]:
            obj["spec"][name] = old["spec"][name]


def _admit_service(api: Api, obj: Object) -> list[str]:
    del api
    if obj["spec"].get("clusterIP") != "None":
        return ["the embedded cluster routes no service addresses: connect to the addresses in the Service's Endpoints"]
    return []


# -- the others -----------------------------------------


def _prepare_namespace(api: Api, obj: Object) -> None:
    del api
    obj["spec"].setdefault("finalizers", [])
    if "kubernetes" not in obj["spec"]["finalizers"]:
        obj["spec"]["finalizers"].append("kubernetes")
    obj["status"] = {"phase": "Active"}


def _prepare_namespace_update(api: Api, obj: Object, old: Object) -> None:
    del api
    obj["spec"] = {**obj["spec"], "finalizers": old["spec"].get("finalizers", [])}
    if not obj["spec"]["finalizers"]:
        del obj["spec"]["finalizers"]


def _prepare_definition(api: Api, obj: Object) -> None:
    del api
    stored = [v["name"] for v in obj["spec"].get("versions") or () if v.get("storage")]
    obj["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


def _budget_status(api: Api, obj: Object) -> None:
    del api
    obj["status"] = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}


def _secret_text(obj: Object) -> list[Cause]:
    causes = builtin_causes("Secret", obj)
    kind, data = obj.get("type"), obj.get("data") or {}
    needed = {
        "kubernetes.io/tls": ("tls.crt", "tls.key"),
        "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    }.get(kind or "", ())
    causes += [Cause("FieldValueRequired", "Required value", f"data[{key}]") for key in needed if key not in data]
    if kind == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" in data:
        try:
            base64.b64decode(data[".dockerconfigjson"])
        except ValueError:
            text = 'Invalid value: "<secret contents redacted>": illegal base64 data'
            causes.append(Cause("FieldValueInvalid", text, "data[.dockerconfigjson]"))
    return causes


_STRATEGIES = {
    "pods": Strategy(
        counts=True,
        returns_deleted=True,
        admit=_admit_pod,
        prepare=_prepare_pod,
        prepare_update=_prepare_pod_update,
    ),
    "services": Strategy(
        returns_deleted=True,
        status={"loadBalancer": {}},
        admit=_admit_service,
        prepare=_prepare_service,
        prepare_update=_prepare_service_update,
    ),
    "namespaces": Strategy(prepare=_prepare_namespace, prepare_update=_prepare_namespace_update),
    "serviceaccounts": Strategy(returns_deleted=True),
    "podtemplates": Strategy(counts=True, returns_deleted=True),
    "secrets": Strategy(causes=_secret_text),
    "poddisruptionbudgets.policy": Strategy(counts=True, unconditional=False, prepare=_budget_status),
    "leases.coordination.k8s.io": Strategy(unconditional=False),
    "endpointslices.discovery.k8s.io": Strategy(counts=True),
    "networkpolicies.networking.k8s.io": Strategy(counts=True),
    "customresourcedefinitions.apiextensions.k8s.io": Strategy(
        counts=True,
        unconditional=False,
        prepare=_prepare_definition,
        causes=definition_causes,
        update_causes=lambda new, old: [c for c in definition_causes(new, old) if c not in definition_causes(new)],
    ),
}

_CUSTOM = Strategy(counts=True, unconditional=False)


def strategy_of(resource: Resource) -> Strategy:
    """The ways of a kind."""
    if resource.custom:
        return _CUSTOM
    strategy = _STRATEGIES.get(resource.qualified, Strategy())
    kind = resource.kind
    if strategy.causes is None:
        strategy = replace(strategy, causes=lambda obj: builtin_causes(kind, obj))
    if strategy.update_causes is None:
        strategy = replace(strategy, update_causes=lambda new, old: builtin_update_causes(kind, new, old))
    return strategy
