"""Reduce Kubernetes' published schemas to what this cluster serves, and write them to `kubernetes-1.36.json`.

The API server needs the schemas of the built-in kinds: to check what it is sent, to merge lists by their keys, to own
fields in server-side apply, and to let kubectl validate, explain and diff. The package `kubernetes-validate` carries
them for every version of Kubernetes, 108 MB unpacked: fit for a developer's machine, not for everybody who types
`make demo`. So the part that is needed is committed, one definition a line, and this module makes it again:

    python -m swarm_deploy.local.api.reduce_schemas

Names, types and merge keys only: the descriptions stay where they are, with the Kubernetes project
(https://github.com/kubernetes/kubernetes/tree/v1.36.0/api), so `kubectl explain pod` names fields without explaining
them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from swarm_deploy.local.api.resources import BUILT_IN

__all__ = ["TARGET", "reduce"]

TARGET = Path(__file__).with_name("kubernetes-1.36.json")
_SOURCE = "kubernetes-json-schema/v1.36.0-local/_definitions.json"

Object = dict[str, Any]

# Kinds that are no resource of their own and still travel.
_EXTRA = (
    ("autoscaling", "v1", "Scale"),
    ("policy", "v1", "Eviction"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
    ("", "v1", "DeleteOptions"),
    ("", "v1", "Status"),
)
# Written by hand in the real server too: the published form says less than the type means.
_BY_HAND: Object = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
}
# Keys of list maps that may be left out because they have a default; the published form lost it.
_DEFAULTS = {
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
}


def _kinds(definition: Object) -> set[tuple[str, str, str]]:
    return {
        (g.get("group", ""), g.get("version", ""), g.get("kind", ""))
        for g in definition.get("x-kubernetes-group-version-kind", [])
    }


def _clean(value: Any) -> Any:
    """Undo what the package did for plain JSON Schema validators, and leave the prose out.

    (Nullable types, enumerated kinds, references into its own root.)
    """
    if isinstance(value, list):
        return [_clean(v) for v in value]
    if not isinstance(value, dict):
        return value
    out = {k: _clean(v) for k, v in value.items() if k not in ("enum", "$schema", "description")}
    if isinstance(out.get("type"), list):
        out["type"] = next(t for t in out["type"] if t != "null")
    if isinstance(out.get("$ref"), str):
        out["$ref"] = out["$ref"].replace("#/$defs/", "#/definitions/")
    return out


def _references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_references, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(_references, value.values())) if value else set()
    if isinstance(value.get("$ref"), str):
        found.add(value["$ref"].rpartition("/")[2])
    return found


def reduce(source: Object) -> Object:
    """The definitions of the kinds that are served, and of all they refer to."""
    definitions: Object = source["$defs"]
    wanted = {(r.group, r.version, r.kind) for r in BUILT_IN} | {(r.group, r.version, r.list_kind) for r in BUILT_IN}
    wanted |= set(_EXTRA)
    todo = [name for name, d in definitions.items() if _kinds(d) & wanted]
    kept: Object = {}
    while todo:
        name = todo.pop()
        if name in kept:
            continue
        kept[name] = dict(_BY_HAND.get(name, {})) or _clean_definition(name, definitions[name])
        todo.extend(_references(kept[name]))
    return dict(sorted(kept.items()))


def _clean_definition(name: str, definition: Object) -> Object:
    # `enum` is also the name of a property, in the schemas of schemas: only drop it where it is a keyword.
    properties = definition.get("properties", {})
    out: Object = _clean({k: v for k, v in definition.items() if k != "properties"})
    if properties:
        out["properties"] = {p: _clean(s) for p, s in properties.items()}
    for (owner, prop), default in _DEFAULTS.items():
        if owner == name:
            out["properties"][prop]["default"] = default
    if "x-kubernetes-group-version-kind" in out and name.endswith(("DeleteOptions", "WatchEvent")):
        # These belong to every group; kubectl only asks for the first.
        out["x-kubernetes-group-version-kind"] = [{"group": "", "kind": name.rpartition(".")[2], "version": "v1"}]
    return out


def main() -> None:
    """Write the file."""
    source = json.loads((files("kubernetes_validate") / _SOURCE).read_text(encoding="utf-8"))
    kept = reduce(source)
    lines = [f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'), sort_keys=True)}" for k, v in kept.items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
