"""CustomResourceDefinitions: which are accepted, and what resources they make.

The schema must be structural, as in a real server; what makes it so is checked with the real one's words where people
meet them. Definitions that ask for what is not provided (conversion by webhook) are refused.
"""

from __future__ import annotations

import re
from typing import Any

from swarm_deploy.local.api.cel import check_rules
from swarm_deploy.local.api.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported_value,
)
from swarm_deploy.local.api.meta import dns_label, dns_subdomain
from swarm_deploy.local.api.resources import CUSTOM_VERBS, Resource, Subresource
from swarm_deploy.local.api.structural import validate

__all__ = ["FINALIZER", "accepted_status", "definition_causes", "resources_of", "schema_of", "terminating"]

Object = dict[str, Any]

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_COLUMN_TYPES = ["boolean", "date", "integer", "number", "string"]
_COLUMN_FORMATS = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"]
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_STATUS_VERBS = ("get", "patch", "update")


def schema_of(version: Object) -> Object:
    """The structural schema of one version."""
    schema: Object = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    return schema


def _rank(name: str) -> tuple[int, int, int, str]:
    """Stable before beta before alpha, newer before older: the order in which clients prefer versions."""
    match = _VERSION.fullmatch(name)
    if not match:
        return (3, 0, 0, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), name)


def resources_of(definition: Object) -> tuple[Resource, ...]:
    """What a definition serves once its names are accepted, the preferred version first."""
    spec, names = definition["spec"], definition["spec"]["names"]
    out = []
    for version in sorted((v for v in spec["versions"] if v.get("served")), key=lambda v: _rank(v["name"])):
        sub = version.get("subresources") or {}
        subresources = []
        if "status" in sub:
            subresources.append(Subresource("status", names["kind"], _STATUS_VERBS, spec["group"], version["name"]))
        if "scale" in sub:
            subresources.append(Subresource("scale", "Scale", _STATUS_VERBS, "autoscaling", "v1"))
        out.append(
            Resource(
                group=spec["group"],
                version=version["name"],
                plural=names["plural"],
                kind=names["kind"],
                namespaced=spec["scope"] == "Namespaced",
                singular=names["singular"],
                verbs=CUSTOM_VERBS,
                short_names=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                subresources=tuple(subresources),
                list_kind=names["listKind"],
                definition=version,
            )
        )
    return tuple(out)


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> Object:
    return {"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}


def accepted_status(definition: Object, others: list[Object], now: str) -> Object:
    """The status that says whether its names are free, and whether it is served."""
    spec = definition["spec"]
    names = spec["names"]
    taken: dict[str, str] = {}
    for other in others:
        if other["metadata"]["name"] == definition["metadata"]["name"] or other["spec"]["group"] != spec["group"]:
            continue
        theirs = other["spec"]["names"]
        for name in (theirs["plural"], theirs["singular"], *(theirs.get("shortNames") or ())):
            taken[name] = "names"
        taken[theirs["kind"]] = taken[theirs["listKind"]] = "kinds"
    clash = next(
        (
            (reason, name)
            for reason, listed in (
                ("PluralConflict", [names["plural"]]),
                ("SingularConflict", [names["singular"]]),
                ("ShortNamesConflict", names.get("shortNames") or []),
                ("KindConflict", [names["kind"]]),
                ("ListKindConflict", [names["listKind"]]),
            )
            for name in listed
            if name in taken
        ),
        None,
    )
    before = {c["type"]: c for c in (definition.get("status") or {}).get("conditions") or ()}
    if clash:
        conditions = [
            _condition("NamesAccepted", "False", clash[0], f'"{clash[1]}" is already in use', now),
            _condition("Established", "False", "NotAccepted", "not all names are accepted", now),
        ]
        accepted = {"plural": "", "kind": ""}
    else:
        conditions = [
            _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found", now),
            _condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted", now),
        ]
        accepted = dict(names)
    for condition in conditions:
        was = before.get(condition["type"])
        if was and was["status"] == condition["status"]:
            condition["lastTransitionTime"] = was["lastTransitionTime"]
    conditions += [c for t, c in before.items() if t not in ("NamesAccepted", "Established")]
    stored = list((definition.get("status") or {}).get("storedVersions") or ())
    stored += [v["name"] for v in spec["versions"] if v.get("storage") and v["name"] not in stored]
    return {"conditions": conditions, "acceptedNames": accepted, "storedVersions": stored}


def terminating(definition: Object, reason: str, message: str, now: str) -> Object:
    """The status of a definition that is being deleted."""
    status = dict(definition.get("status") or {})
    kept = [c for c in status.get("conditions") or () if c["type"] != "Terminating"]
    was = next((c for c in status.get("conditions") or () if c["type"] == "Terminating"), None)
    since = was["lastTransitionTime"] if was else now
    status["conditions"] = [*kept, _condition("Terminating", "True", reason, message, since)]
    return status


# -- which are accepted -----------------------------------------


def definition_causes(obj: Object, old: Object | None = None) -> list[Cause]:
    """What is wrong with a definition."""
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    causes: list[Cause] = []
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if obj["metadata"].get("name") != wanted:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", obj["metadata"].get("name", ""), text))
    if not spec.get("group"):
        causes.append(required("spec.group"))
    elif wrong := dns_subdomain(spec["group"]):
        causes.append(invalid_value("spec.group", spec["group"], wrong))
    elif "." not in spec["group"]:
        causes.append(invalid_value("spec.group", spec["group"], "should be a domain with at least one dot"))
    annotations = obj["metadata"].get("annotations") or {}
    if (
        spec.get("group", "").endswith((".k8s.io", ".kubernetes.io"))
        and "api-approved.kubernetes.io" not in annotations
    ):
        text = 'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111'
        causes.append(required("metadata.annotations[api-approved.kubernetes.io]", text))
    if not spec.get("scope"):
        causes.append(required("spec.scope"))
    elif spec["scope"] not in ("Cluster", "Namespaced"):
        causes.append(unsupported_value("spec.scope", spec["scope"], ["Cluster", "Namespaced"]))
    causes += _names(names, "spec.names")
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy not in ("None", "Webhook"):
        causes.append(unsupported_value("spec.conversion.strategy", strategy or "", ["None", "Webhook"]))
    elif strategy == "Webhook":
        text = "the embedded cluster calls no webhooks; only strategy None"
        causes.append(forbidden_field("spec.conversion.strategy", text))
    causes += _versions(spec.get("versions") or [])
    if old is not None:
        if spec.get("scope") != old["spec"].get("scope"):
            causes.append(invalid_value("spec.scope", spec.get("scope"), "field is immutable"))
        for name in ("plural", "kind"):
            if names.get(name) != old["spec"]["names"].get(name):
                causes.append(invalid_value(f"spec.names.{name}", names.get(name), "field is immutable"))
        stored = (old.get("status") or {}).get("storedVersions") or []
        present = [v.get("name") for v in spec.get("versions") or ()]
        for index, name in enumerate(stored):
            if name not in present:
                text = "must remain in spec.versions"
                causes.append(invalid_value(f"status.storedVersions[{index}]", name, text))
    return causes


def _names(names: Object, path: str) -> list[Cause]:
    causes = []
    for part in ("plural", "singular", "kind", "listKind"):
        value = names.get(part)
        if not value:
            causes.append(required(f"{path}.{part}"))
        elif wrong := dns_label(value if part in ("plural", "singular") else value.lower()):
            causes.append(invalid_value(f"{path}.{part}", value, wrong))
    for part in ("shortNames", "categories"):
        for index, value in enumerate(names.get(part) or ()):
            if wrong := dns_label(value):
                causes.append(invalid_value(f"{path}.{part}[{index}]", value, wrong))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(invalid_value(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))
    return causes


def _versions(versions: list[Object]) -> list[Cause]:
    causes: list[Cause] = []
    if not versions:
        causes.append(required("spec.versions", "must have at least one version"))
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name", "")
        if wrong := dns_label(name):
            causes.append(invalid_value(f"{path}.name", name, wrong))
        if name in seen:
            causes.append(invalid_value("spec.versions", name, "must contain unique version names"))
        seen.add(name)
        schema = schema_of(version)
        if not schema:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            here = f"{path}.schema.openAPIV3Schema"
            if schema.get("type") != "object":
                text = "must be object at the root"
                causes.append(
                    invalid_value(f"{here}.type", schema.get("type", ""), text)
                    if schema.get("type")
                    else required(f"{here}.type", text)
                )
            causes += _structural(schema, here, root=True)
            causes += check_rules(schema, here)
        causes += _subresources(version.get("subresources") or {}, f"{path}.subresources")
        causes += _columns(version.get("additionalPrinterColumns") or [], f"{path}.additionalPrinterColumns")
    stored = [v for v in versions if v.get("storage")]
    if versions and len(stored) != 1:
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", len(versions), text))
    return causes


def _subresources(subresources: Object, path: str) -> list[Cause]:
    scale = subresources.get("scale")
    if scale is None:
        return []
    causes = []
    for part, start in (("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")):
        value = scale.get(part)
        if not value:
            causes.append(required(f"{path}.scale.{part}"))
        elif not value.startswith(f"{start}."):
            text = f"should be a json path under {start}"
            causes.append(invalid_value(f"{path}.scale.{part}", value, text))
        elif not re.fullmatch(r"(\.[A-Za-z_][-A-Za-z0-9_]*)+", value):
            text = "cannot use array notation or anything but simple fields"
            causes.append(invalid_value(f"{path}.scale.{part}", value, text))
    value = scale.get("labelSelectorPath")
    if value and not value.startswith((".spec.", ".status.")):
        text = "should be a json path under either .status or .spec"
        causes.append(invalid_value(f"{path}.scale.labelSelectorPath", value, text))
    return causes


def _columns(columns: list[Object], path: str) -> list[Cause]:
    causes = []
    for index, column in enumerate(columns):
        here = f"{path}[{index}]"
        if not column.get("name"):
            causes.append(required(f"{here}.name"))
        if column.get("type") not in _COLUMN_TYPES:
            causes.append(unsupported_value(f"{here}.type", column.get("type", ""), _COLUMN_TYPES))
        if column.get("format") and column["format"] not in _COLUMN_FORMATS:
            causes.append(unsupported_value(f"{here}.format", column["format"], _COLUMN_FORMATS))
        if not column.get("jsonPath"):
            causes.append(required(f"{here}.jsonPath"))
        elif not column["jsonPath"].startswith("."):
            text = "must be a simple json path starting with ."
            causes.append(invalid_value(f"{here}.jsonPath", column["jsonPath"], text))
    return causes


_FORBIDDEN = {
    "$ref": "$ref is not supported",
    "definitions": "definitions is not supported",
    "dependencies": "dependencies is not supported",
    "patternProperties": "patternProperties is not supported",
    "additionalItems": "additionalItems is not supported",
    "id": "id is not supported",
    "$schema": "$schema is not supported",
    "deprecated": "deprecated is not supported",
    "discriminator": "discriminator is not supported",
    "readOnly": "readOnly is not supported",
    "writeOnly": "writeOnly is not supported",
    "xml": "xml is not supported",
}
_VALUE_ONLY = ("type", "additionalProperties", "default", "description", "nullable", "title")


def _structural(schema: Object, path: str, *, root: bool = False, logic: bool = False) -> list[Cause]:
    """What makes a schema unstructural: a value whose type, or whose fields, it does not settle."""
    causes: list[Cause] = []
    for word, text in _FORBIDDEN.items():
        if schema.get(word):
            causes.append(forbidden_field(f"{path}.{word}", text))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden_field(f"{path}.uniqueItems", text))
    if logic:
        for word in _VALUE_ONLY:
            if schema.get(word) not in (None, "", False):
                causes.append(forbidden_field(f"{path}.{word}", "must be empty to be structural"))
    else:
        kind = schema.get("type")
        free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
        if not kind and not free and not root:
            causes.append(required(f"{path}.type", "must not be empty for specified object fields"))
        if kind and kind not in ("object", "array", "string", "integer", "number", "boolean"):
            options = ["array", "boolean", "integer", "number", "object", "string"]
            causes.append(unsupported_value(f"{path}.type", kind, options))
        if kind == "array" and not schema.get("items"):
            causes.append(required(f"{path}.items", "must be specified"))
        if schema.get("properties") and schema.get("additionalProperties"):
            text = "additionalProperties and properties are mutually exclusive"
            causes.append(forbidden_field(f"{path}.additionalProperties", text))
        if root:
            for name, rule in ((schema.get("properties") or {}).get("metadata") or {}).items():
                if name not in ("type", "properties", "description"):
                    text = "must not specify anything other than name and generateName,"
                    text += " but metadata is implicitly specified"
                    causes.append(forbidden_field(f"{path}.properties[metadata]", text))
                    del rule
                    break
        causes += _lists(schema, path)
        if "default" in schema:
            if root:
                causes.append(forbidden_field(f"{path}.default", "must not be set at the root"))
            causes += [
                Cause(c.reason, c.text, f"{path}.default" + (f".{c.field}" if c.field else ""))
                for c in validate(schema, schema["default"], "")
            ]
        if "pattern" in schema:
            try:
                re.compile(schema["pattern"])
            except re.error as e:
                text = f"must be a valid regular expression, but isn't: {e}"
                causes.append(invalid_value(f"{path}.pattern", schema["pattern"], text))
    for name, inner in sorted((schema.get("properties") or {}).items()):
        causes += _structural(inner, f"{path}.properties[{name}]", logic=logic)
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            causes += _structural(schema[word], f"{path}.{word}", logic=logic)
    for word in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(schema.get(word) or ()):
            if not (schema.get("x-kubernetes-int-or-string") and word in ("anyOf", "allOf")):
                causes += _structural(inner, f"{path}.{word}[{index}]", logic=True)
    if isinstance(schema.get("not"), dict):
        causes += _structural(schema["not"], f"{path}.not", logic=True)
    return causes


def _lists(schema: Object, path: str) -> list[Cause]:
    causes: list[Cause] = []
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys")
    if kind is not None and kind not in ("atomic", "set", "map"):
        causes.append(unsupported_value(f"{path}.x-kubernetes-list-type", kind, ["atomic", "map", "set"]))
    if kind is not None and schema.get("type") != "array":
        text = "must be array if x-kubernetes-list-type is specified"
        causes.append(invalid_value(f"{path}.type", schema.get("type", ""), text))
    if kind == "map":
        items = schema.get("items") or {}
        if not keys:
            text = "must not be empty if x-kubernetes-list-type is map"
            causes.append(required(f"{path}.x-kubernetes-list-map-keys", text))
        seen: set[str] = set()
        for index, key in enumerate(keys or ()):
            here = f"{path}.x-kubernetes-list-map-keys[{index}]"
            declared = (items.get("properties") or {}).get(key)
            if declared is None:
                text = "entries must all be names of item properties"
                causes.append(invalid_value(f"{path}.x-kubernetes-list-map-keys", key, text))
            elif key not in (items.get("required") or ()) and "default" not in declared:
                text = "this property is in x-kubernetes-list-map-keys,"
                text += " so it must have a default or be a required property"
                causes.append(required(f"{path}.items.properties[{key}].default", text))
            if key in seen:
                causes.append(duplicate(here, key))
            seen.add(key)
    elif keys:
        text = "must be empty if x-kubernetes-list-type is not map"
        causes.append(invalid_value(f"{path}.x-kubernetes-list-map-keys", keys, text))
    if schema.get("x-kubernetes-map-type") not in (None, "granular", "atomic"):
        options = ["atomic", "granular"]
        causes.append(unsupported_value(f"{path}.x-kubernetes-map-type", schema["x-kubernetes-map-type"], options))
    return causes
