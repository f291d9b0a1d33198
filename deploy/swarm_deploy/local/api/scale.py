"""The scale subresource: one number, wherever the CustomResourceDefinition says it lies."""

from __future__ import annotations

from typing import Any

from swarm_deploy.local.api.errors import Cause, invalid_value
from swarm_deploy.local.api.fields import Path
from swarm_deploy.local.api.resources import Resource

__all__ = ["scale_causes", "scale_of", "scale_path", "with_replicas"]

Object = dict[str, Any]


def _paths(resource: Resource) -> Object:
    paths: Object = ((resource.definition or {}).get("subresources") or {}).get("scale") or {}
    return paths


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def scale_path(resource: Resource) -> Path:
    """The field that holds the wanted count."""
    return tuple(f"f:{part}" for part in _paths(resource)["specReplicasPath"].strip(".").split("."))


def scale_causes(resource: Resource, obj: Object) -> list[Cause]:
    """What is wrong with the counts. A real server checks them beside the schema, and so says some things twice."""
    paths = _paths(resource)
    causes = []
    for path in (paths.get("specReplicasPath"), paths.get("statusReplicasPath")):
        if not path:
            continue
        value = _at(obj, path)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            kind = {str: "string", bool: "bool", float: "float64"}.get(type(value), type(value).__name__)
            text = f"{path} accessor error: {value} is of the type {kind}, expected int64"
            causes.append(invalid_value(path, 0, text))
        elif value < 0:
            causes.append(invalid_value(path, value, "should be a non-negative integer"))
        elif value > 2**31 - 1:
            causes.append(invalid_value(path, value, "should be less than or equal to 2147483647"))
    selector = paths.get("labelSelectorPath")
    if selector and not isinstance(_at(obj, selector), str | None):
        value = _at(obj, selector)
        causes.append(
            invalid_value(selector, "", f"{selector} accessor error: {value} is of the type map, expected string")
        )
    return causes


def scale_of(resource: Resource, obj: Object) -> Object:
    """An object as autoscaling/v1 Scale."""
    paths = _paths(resource)
    meta = obj["metadata"]
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = _at(obj, paths["specReplicasPath"])
    status: Object = {"replicas": _at(obj, paths["statusReplicasPath"]) or 0}
    selector = _at(obj, paths["labelSelectorPath"]) if paths.get("labelSelectorPath") else None
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in shown if k in meta},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def with_replicas(resource: Resource, obj: Object, replicas: int) -> Object:
    """The object with another count."""
    parts = _paths(resource)["specReplicasPath"].strip(".").split(".")

    def put(value: Any, rest: list[str]) -> Any:
        if not rest:
            return replicas
        held = dict(value) if isinstance(value, dict) else {}
        held[rest[0]] = put(held.get(rest[0]), rest[1:])
        return held

    result: Object = put(obj, parts)
    return result
