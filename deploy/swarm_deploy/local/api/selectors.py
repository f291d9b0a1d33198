"""Label and field selectors, as queries carry them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from swarm_deploy.local.api.errors import bad_request
from swarm_deploy.local.api.resources import Resource

__all__ = ["field_matcher", "label_matcher", "matches_labels"]

Object = dict[str, Any]
Matcher = Callable[[Object], bool]

_TERM = re.compile(r"\s*(!?)\s*([A-Za-z0-9_./-]+)\s*(?:(in|notin)\s*\(([^)]*)\)|(==|=|!=|>|<)\s*([^,]*?))?\s*(?:,|$)")


def _parse(text: str) -> list[tuple[str, str, tuple[str, ...]]]:
    out = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match or match.end() == position:
            raise bad_request(f"unable to parse requirement: found '{text[position:]}', expected: identifier")
        negated, key, word, listed, sign, value = match.groups()
        if word:
            out.append((word, key, tuple(v.strip() for v in listed.split(","))))
        elif sign:
            out.append((sign, key, (value.strip(),)))
        else:
            out.append(("!" if negated else "exists", key, ()))
        position = match.end()
    return out


def _holds(operator: str, key: str, values: tuple[str, ...], labels: dict[str, str]) -> bool:
    has = key in labels
    if operator in ("=", "==", "in"):
        return has and labels[key] in values
    if operator in ("!=", "notin"):
        return not has or labels[key] not in values
    if operator == "exists":
        return has
    if operator == "!":
        return not has
    try:
        left, right = int(labels[key]), int(values[0])
    except (KeyError, ValueError):
        return False
    return left > right if operator == ">" else left < right


@lru_cache(maxsize=1024)
def label_matcher(text: str) -> Matcher | None:
    """A test of an object's labels; None when everything passes.

    Raises:
        ApiError: 400 when it can't be read.
    """
    if not text:
        return None
    terms = _parse(text)

    def matches(obj: Object) -> bool:
        labels = obj.get("metadata", {}).get("labels") or {}
        return all(_holds(op, key, values, labels) for op, key, values in terms)

    return matches


def matches_labels(selector: Object | None, labels: dict[str, str]) -> bool:
    """Whether labels fit a LabelSelector (`matchLabels`, `matchExpressions`); None fits nothing, an empty one all."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    return all(
        _holds(operators.get(e["operator"], "in"), e["key"], tuple(e.get("values") or ()), labels)
        for e in selector.get("matchExpressions") or ()
    )


# What a server indexes beside name and namespace; anything else is refused, as there.
_EVENT = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
]
_REGARDING = [f.replace("involvedObject", "regarding") for f in _EVENT if f not in ("source", "reportingComponent")]
_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        [
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    ),
    "events": frozenset(_EVENT),
    "events.events.k8s.io": frozenset([*_REGARDING, "reportingController"]),
    "nodes": frozenset(["spec.unschedulable"]),
    "namespaces": frozenset(["status.phase", "name"]),
    "secrets": frozenset(["type"]),
    "services": frozenset(["spec.clusterIP", "spec.type"]),
    "replicasets.apps": frozenset(["status.replicas"]),
    "replicationcontrollers": frozenset(["status.replicas"]),
    "jobs.batch": frozenset(["status.successful"]),
    "certificatesigningrequests.certificates.k8s.io": frozenset(["spec.signerName"]),
    "resourceslices.resource.k8s.io": frozenset(["spec.nodeName", "spec.driver"]),
}


def _selectable(resource: Resource) -> frozenset[str]:
    extra = _FIELDS.get(resource.qualified, frozenset())
    if resource.definition is not None:
        extra |= {f["jsonPath"].lstrip(".") for f in resource.definition.get("selectableFields", ())}
    return extra | {"metadata.name", "metadata.namespace"}


def _field(obj: Object, path: str) -> str:
    if path == "source":
        path = "source.component"
    if path == "name":
        path = "metadata.name"
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def field_matcher(resource: Resource, text: str) -> Matcher | None:
    """A test of an object's fields; None when everything passes.

    Raises:
        ApiError: 400 when it can't be read, or names a field that this kind can't be selected by.
    """
    if not text:
        return None
    allowed = _selectable(resource)
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        match = re.match(r"^([^=!]+)(==|=|!=)(.*)$", part)
        if not match:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        key, sign, value = match[1].strip(), match[2], match[3].replace("\\,", ",")
        if key not in allowed:
            if resource.custom:
                raise bad_request(f"field label not supported: {key}")
            raise bad_request(f'field label "{key}" not supported for {resource.kind}')
        terms.append((key, sign != "!=", value))

    def matches(obj: Object) -> bool:
        return all((_field(obj, key) == value) == wanted for key, wanted, value in terms)

    return matches
