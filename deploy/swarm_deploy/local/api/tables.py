"""`kubectl get`: lists as tables, with the columns that a real server prints.

A server renders tables so that every client shows the same. For built-in kinds the columns are given here; for custom
ones by `additionalPrinterColumns`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from swarm_deploy.local.api import network_policies
from swarm_deploy.local.api.durations import human_duration
from swarm_deploy.local.api.jsonpath import find
from swarm_deploy.local.api.meta import parse_time
from swarm_deploy.local.api.resources import Resource

__all__ = ["columns_of", "partial", "table"]

Object = dict[str, Any]
_Cells = Callable[[Object, float], list[Any]]

_NAME_TEXT = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a"
    " client to request the generation of an appropriate name automatically. Name is primarily intended for creation"
    " idempotence and configuration definition. Cannot be updated. More info:"
    " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
_AGE_TEXT = "How long ago the object was created."


def _column(spec: str) -> Object:
    """`Name`, `Name:integer`, with a trailing `*` for the wide table only."""
    wide = spec.endswith("*")
    name, _, kind = spec.removesuffix("*").partition(":")
    text = _NAME_TEXT if name == "Name" else _AGE_TEXT if name == "Age" else f"{name} of the object."
    return {
        "name": name,
        "type": kind or "string",
        "format": "name" if name == "Name" else "",
        "description": text,
        "priority": int(wide),
    }


# -- cells -----------------------------------------


def _age(obj: Object, now: float) -> str:
    return _since(obj["metadata"].get("creationTimestamp"), now)


def _since(when: str | None, now: float) -> str:
    if not when:
        return "<unknown>"
    return human_duration(now - parse_time(when))


def _selector(labels: Object | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or "<none>"


def _label_selector(selector: Object | None) -> str:
    if selector is None:
        return "<none>"
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for e in selector.get("matchExpressions") or ():
        values = ",".join(sorted(e.get("values") or ()))
        forms = {
            "In": f"{e['key']} in ({values})",
            "NotIn": f"{e['key']} notin ({values})",
            "Exists": e["key"],
            "DoesNotExist": f"!{e['key']}",
        }
        parts.append(forms[e["operator"]])
    return ",".join(parts) or "<none>"


def _or(value: Any, otherwise: str = "<none>") -> Any:
    return otherwise if value in (None, "", []) else value


def pod_status(pod: Object) -> tuple[str, int, int, int, str]:
    """What a pod's status comes to: word, ready containers, containers, restarts, time of the last restart."""
    status, spec = pod.get("status", {}), pod.get("spec", {})
    reason = status.get("reason") or status.get("phase", "")
    containers = spec.get("containers") or []
    ready = restarts = 0
    last = ""
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initialising = False
    for index, held in enumerate(status.get("initContainerStatuses") or ()):
        restarts += held.get("restartCount", 0)
        state = held.get("state", {})
        ended = state.get("terminated")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if ended is not None:
            reason = f"Init:{ended.get('reason') or _exit(ended)}"
        elif state.get("waiting", {}).get("reason") not in (None, "", "PodInitializing"):
            reason = f"Init:{state['waiting']['reason']}"
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        initialising = True
        break
    if not initialising:
        running = False
        restarts = 0
        for held in reversed(status.get("containerStatuses") or ()):
            restarts += held.get("restartCount", 0)
            last = max(last, (held.get("lastState", {}).get("terminated") or {}).get("finishedAt") or "")
            state = held.get("state", {})
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting is not None and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended is not None:
                reason = ended.get("reason") or _exit(ended)
            elif held.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            reason = "Running" if conditions.get("Ready", {}).get("status") == "True" else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return reason, ready, len(containers), restarts, last


def _exit(ended: Object) -> str:
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _pod(pod: Object, now: float) -> list[Any]:
    word, ready, total, restarts, last = pod_status(pod)
    shown = f"{restarts} ({_since(last, now)} ago)" if restarts and last else str(restarts)
    gates = pod.get("spec", {}).get("readinessGates") or []
    held = {c["type"] for c in pod.get("status", {}).get("conditions") or () if c["status"] == "True"}
    open_gates = f"{sum(g['conditionType'] in held for g in gates)}/{len(gates)}" if gates else "<none>"
    ips = pod.get("status", {}).get("podIPs") or []
    return [
        pod["metadata"]["name"],
        f"{ready}/{total}",
        word,
        shown,
        _age(pod, now),
        ips[0]["ip"] if ips else _or(pod.get("status", {}).get("podIP")),
        _or(pod.get("spec", {}).get("nodeName")),
        _or(pod.get("status", {}).get("nominatedNodeName")),
        open_gates,
    ]


def _service(obj: Object, now: float) -> list[Any]:
    spec = obj["spec"]
    ports = ",".join(
        f"{p['port']}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p['port']}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    )
    external = ",".join(spec.get("externalIPs") or ()) or (spec.get("externalName") or "<none>")
    return [
        obj["metadata"]["name"],
        spec.get("type"),
        _or(spec.get("clusterIP")),
        external,
        ports or "<none>",
        _age(obj, now),
        _selector(spec.get("selector")),
    ]


def _node(obj: Object, now: float) -> list[Any]:
    status, meta = obj.get("status", {}), obj["metadata"]
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if obj.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    roles = sorted(k.removeprefix(prefix) for k in meta.get("labels") or {} if k.startswith(prefix))
    addresses = {a["type"]: a["address"] for a in reversed(status.get("addresses") or ())}
    info = status.get("nodeInfo", {})
    return [
        meta["name"],
        ",".join(words),
        ",".join(roles) or "<none>",
        _age(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        f"{info['kernelVersion']} ({info.get('architecture', '')})" if info.get("kernelVersion") else "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _event(obj: Object, now: float) -> list[Any]:
    about = obj.get("involvedObject", {})
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    source = obj.get("source") or {}
    parts = [source.get("component") or obj.get("reportingComponent", "")]
    if source.get("host") or obj.get("reportingInstance"):
        parts.append(source.get("host") or obj.get("reportingInstance", ""))
    return [
        _since(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        ", ".join(p for p in parts if p),
        obj.get("message", "").strip(),
        _since(first, now),
        series.get("count") or obj.get("count") or 1,
        obj["metadata"]["name"],
    ]


def _budget(obj: Object, now: float) -> list[Any]:
    spec = obj.get("spec", {})
    return [
        obj["metadata"]["name"],
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        obj.get("status", {}).get("disruptionsAllowed", 0),
        _age(obj, now),
    ]


def _slice(obj: Object, now: float) -> list[Any]:
    ports = ",".join(str(p.get("port", "*")) for p in obj.get("ports") or ()) or "<unset>"
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    shown = ",".join(addresses[:3]) + (f" + {len(addresses) - 3} more..." if len(addresses) > 3 else "")
    return [obj["metadata"]["name"], obj.get("addressType"), ports, shown or "<unset>", _age(obj, now)]


def _endpoints(obj: Object, now: float) -> list[Any]:
    shown = [
        f"{a['ip']}:{p['port']}"
        for s in obj.get("subsets") or ()
        for a in s.get("addresses") or ()
        for p in s.get("ports") or ()
    ]
    text = ",".join(shown[:3]) + (f" + {len(shown) - 3} more..." if len(shown) > 3 else "")
    return [obj["metadata"]["name"], text or "<none>", _age(obj, now)]


def _revision(obj: Object, now: float) -> list[Any]:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    kind = "<none>"
    if owner:
        group = owner["apiVersion"].rpartition("/")[0]
        kind = (
            f"{owner['kind'].lower()}.{group}/{owner['name']}" if group else f"{owner['kind'].lower()}/{owner['name']}"
        )
    return [obj["metadata"]["name"], kind, obj.get("revision", 0), _age(obj, now)]


def _named(*cells: Callable[[Object], Any]) -> _Cells:
    """Name, some cells, age."""

    def make(obj: Object, now: float) -> list[Any]:
        return [obj["metadata"]["name"], *(cell(obj) for cell in cells), _age(obj, now)]

    return make


def _created(obj: Object, now: float) -> list[Any]:
    del now
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _size(*parts: str) -> Callable[[Object], int]:
    return lambda obj: sum(len(obj.get(p) or ()) for p in parts)


def _role_ref(obj: Object) -> str:
    ref = obj.get("roleRef", {})
    return f"{ref.get('kind')}/{ref.get('name')}"


def _subjects(kind: str) -> Callable[[Object], str]:
    def cell(obj: Object) -> str:
        found = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
        return ", ".join(f"{s['namespace']}/{s['name']}" if s.get("namespace") else s["name"] for s in found)

    return cell


def _binding(obj: Object, now: float) -> list[Any]:
    people = [_subjects(k)(obj) for k in ("User", "Group", "ServiceAccount")]
    return [obj["metadata"]["name"], _role_ref(obj), _age(obj, now), *people]


# Resource -> its columns and how to fill them. The kinds that stay empty here need columns only.
_BUILT_IN: dict[str, tuple[str, _Cells | None]] = {
    "pods": ("Name Ready Status Restarts Age IP* Node* Nominated_Node* Readiness_Gates*", _pod),
    "services": ("Name Type Cluster-IP External-IP Port(s) Age Selector*", _service),
    "nodes": (
        "Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*",
        _node,
    ),
    "events": ("Last_Seen Type Reason Object Subobject* Source* Message First_Seen* Count* Name*", _event),
    "configmaps": ("Name Data Age", _named(_size("data", "binaryData"))),
    "secrets": ("Name Type Data Age", _named(lambda o: o.get("type", ""), _size("data"))),
    "serviceaccounts": ("Name Secrets Age", _named(_size("secrets"))),
    "namespaces": ("Name Status Age", _named(lambda o: o.get("status", {}).get("phase", ""))),
    "endpoints": ("Name Endpoints Age", _endpoints),
    "endpointslices.discovery.k8s.io": ("Name AddressType Ports Endpoints Age", _slice),
    "poddisruptionbudgets.policy": (
        "Name Min_Available Max_Unavailable Allowed_Disruptions:integer Age",
        _budget,
    ),
    "networkpolicies.networking.k8s.io": ("Name Pod-Selector Age", _named(network_policies.pod_selector)),
    "leases.coordination.k8s.io": (
        "Name Holder Age",
        _named(lambda o: o.get("spec", {}).get("holderIdentity", "")),
    ),
    "controllerrevisions.apps": ("Name Controller Revision Age", _revision),
    "priorityclasses.scheduling.k8s.io": (
        "Name Value Global-Default:boolean Age PreemptionPolicy",
        lambda o, now: [
            o["metadata"]["name"],
            o.get("value", 0),
            bool(o.get("globalDefault")),
            _age(o, now),
            o.get("preemptionPolicy", ""),
        ],
    ),
    "podtemplates": (
        "Name Containers Images Pod_Labels",
        lambda o, now: [
            o["metadata"]["name"],
            ",".join(c["name"] for c in o.get("template", {}).get("spec", {}).get("containers") or ()),
            ",".join(c["image"] for c in o.get("template", {}).get("spec", {}).get("containers") or ()),
            _selector(o.get("template", {}).get("metadata", {}).get("labels")),
        ],
    ),
    "roles.rbac.authorization.k8s.io": ("Name Created_At", _created),
    "clusterroles.rbac.authorization.k8s.io": ("Name Created_At", _created),
    "rolebindings.rbac.authorization.k8s.io": ("Name Role Age Users* Groups* ServiceAccounts*", _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": ("Name Role Age Users* Groups* ServiceAccounts*", _binding),
    "customresourcedefinitions.apiextensions.k8s.io": ("Name Created_At", _created),
    "replicationcontrollers": (
        "Name Desired:integer Current:integer Ready:integer Age Containers* Images* Selector*",
        None,
    ),
    "replicasets.apps": (
        "Name Desired:integer Current:integer Ready:integer Age Containers* Images* Selector*",
        None,
    ),
    "deployments.apps": ("Name Ready Up-to-date Available Age Containers* Images* Selector*", None),
    "statefulsets.apps": ("Name Ready Age Containers* Images*", None),
    "daemonsets.apps": (
        "Name Desired:integer Current:integer Ready:integer Up-to-date:integer Available:integer Node_Selector Age"
        " Containers* Images* Selector*",
        None,
    ),
    "horizontalpodautoscalers.autoscaling": ("Name Reference Targets MinPods MaxPods Replicas Age", None),
    "cronjobs.batch": (
        "Name Schedule Timezone Suspend:boolean Active:integer Last_Schedule Age Containers* Images* Selector*",
        None,
    ),
    "jobs.batch": ("Name Status Completions Duration Age Containers* Images* Selector*", None),
}


# By these clients grey out the rows of pods that have ended.
_ENDED = {
    "Succeeded": {
        "type": "Completed",
        "status": "True",
        "reason": "Succeeded",
        "message": "The pod has completed successfully.",
    },
    "Failed": {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},
}


def columns_of(resource: Resource) -> list[Object]:
    """The column definitions of a kind's table."""
    if resource.definition is not None:
        return [_column("Name"), *(_custom_column(c) for c in _custom_columns(resource))]
    spec, _ = _BUILT_IN.get(resource.qualified, ("Name Age", None))
    return [_column(c.replace("_", " ")) for c in spec.split()]


def _custom_columns(resource: Resource) -> list[Object]:
    columns: list[Object] = (resource.definition or {}).get("additionalPrinterColumns") or []
    return columns or [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]


def _custom_column(column: Object) -> Object:
    text = column.get("description") or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
    return {
        "name": column["name"],
        "type": column["type"],
        "format": column.get("format", ""),
        "description": text,
        "priority": column.get("priority", 0),
    }


def _custom_cell(column: Object, obj: Object, now: float) -> Any:
    found = find(obj, column["jsonPath"])
    if not found:
        return None
    value = found[0] if len(found) == 1 else ",".join(_text(v) for v in found)
    kind = column["type"]
    if kind == "date":
        try:
            return _since(str(value), now)
        except ValueError:
            return "<invalid>"
    if kind == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | bool):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def partial(obj: Object) -> Object:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def table(
    resource: Resource,
    items: list[Object],
    now: float,
    *,
    meta: Object,
    include: str = "Metadata",
    columns: bool = True,
) -> Object:
    """Objects as a meta.k8s.io/v1 Table.

    Args:
        meta: the list's metadata.
        include: what rows carry beside their cells: None, Metadata or Object.
        columns: whether to define them; a watch does so once.
    """
    rows = []
    for obj in items:
        if resource.definition is not None:
            cells = [obj["metadata"]["name"], *(_custom_cell(c, obj, now) for c in _custom_columns(resource))]
        else:
            make = _BUILT_IN.get(resource.qualified, ("", None))[1] or _named()
            cells = make(obj, now)
        row: Object = {"cells": cells}
        if resource.qualified == "pods" and (ended := _ENDED.get(obj.get("status", {}).get("phase", ""))):
            row["conditions"] = [ended]
        if include == "Object":
            row["object"] = obj
        else:
            row["object"] = partial(obj) if include != "None" else None
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns_of(resource) if columns else None,
        "rows": rows,
    }
