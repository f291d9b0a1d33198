"""What shape a value has, as merging and ownership see it: scalar, list (atomic, set or map) or map (struct or free).

Built-in kinds say it in their published schemas, custom ones in their CustomResourceDefinition; both end here, so that
patches, server-side apply and strict decoding are written once. A type is made when it is first looked at: a pod's has
several hundred parts, of which a request touches few.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["ANY", "Type", "builtin_type", "custom_type", "definition_name", "definitions"]

Object = dict[str, Any]

_FILE = Path(__file__).with_name("kubernetes-1.36.json")
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@cache
def definitions() -> Object:
    """The built-in kinds' schemas by name; read once, when the first is needed."""
    loaded: Object = json.loads(_FILE.read_text(encoding="utf-8"))
    return loaded


@cache
def _by_kind() -> dict[tuple[str, str, str], str]:
    return {
        (g["group"], g["version"], g["kind"]): name
        for name, schema in definitions().items()
        for g in schema.get("x-kubernetes-group-version-kind", [])
    }


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The name of a built-in kind's schema."""
    return _by_kind().get((group, version, kind))


class Type:
    """One schema. `kind` is map, list, scalar or any (of which only the value tells what it is)."""

    __slots__ = ("_children", "_element", "_root", "atomic", "keys", "kind", "schema", "unique")

    def __init__(self, schema: Object, *, root: Object | None = None) -> None:
        """`root`: the fields that every object has beside those of the schema (a custom resource's metadata)."""
        while "$ref" in schema:
            schema = definitions()[schema["$ref"].rpartition("/")[2]]
        self.schema = schema
        self._root = root or {}
        self._children: dict[str, Type | None] = {}
        self._element: Type | None = None
        kind = schema.get("type")
        preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        if kind == "array":
            self.kind = "list"
        elif kind == "object" or "properties" in schema or "additionalProperties" in schema:
            self.kind = "map"
            if not preserve and not root and "properties" not in schema and "additionalProperties" not in schema:
                # Nothing is known of what it holds: one owner for the whole.
                self.kind = "any"
        elif kind is None and not schema.get("x-kubernetes-int-or-string"):
            self.kind = "any"
        else:
            self.kind = "scalar"
        self.keys: tuple[str, ...] = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        listed = schema.get("x-kubernetes-list-type", "atomic")
        self.unique = self.kind == "list" and listed == "set"
        self.atomic = (self.kind == "list" and listed not in ("map", "set")) or (
            self.kind == "map" and schema.get("x-kubernetes-map-type") == "atomic"
        )

    def field(self, name: str) -> Type | None:
        """The declared field of that name."""
        if name not in self._children:
            schema = self._root.get(name)
            if schema is None:
                schema = self.schema.get("properties", {}).get(name)
            self._children[name] = None if schema is None else Type(schema)
        return self._children[name]

    def names(self) -> list[str]:
        """The declared fields."""
        return list({**self.schema.get("properties", {}), **self._root})

    @property
    def element(self) -> Type | None:
        """What a list holds, or a map's undeclared keys; None where a map has no undeclared keys."""
        if self._element is None:
            inner: Any = self.schema.get("items") if self.kind == "list" else self.schema.get("additionalProperties")
            if isinstance(inner, dict):
                self._element = Type(inner)
            elif (
                inner is True
                or self.kind == "any"
                or self.schema.get("x-kubernetes-preserve-unknown-fields")
                or self.kind == "list"
            ):
                self._element = ANY
        return self._element

    def child(self, name: str) -> Type | None:
        """The field of that name, or the type of an undeclared key."""
        if self.kind == "any":
            return ANY
        return self.field(name) or self.element

    def key_default(self, key: str) -> Any:
        """What a missing key of a map list's item means."""
        element = self.element
        declared = element.field(key) if element else None
        return declared.schema.get("default") if declared else None

    @property
    def merge_key(self) -> str:
        """By what strategic merge patch finds a list's items; empty where it replaces the list."""
        if "merge" in str(self.schema.get("x-kubernetes-patch-strategy", "")):
            return str(self.schema.get("x-kubernetes-patch-merge-key", ""))
        return ""

    @property
    def merges(self) -> bool:
        """Whether strategic merge patch adds to a list rather than replacing it."""
        return "merge" in str(self.schema.get("x-kubernetes-patch-strategy", "")).split(",")

    @property
    def retains_keys(self) -> bool:
        """Whether strategic merge patch may say which keys stay (`$retainKeys`)."""
        return "retainKeys" in str(self.schema.get("x-kubernetes-patch-strategy", ""))


ANY = Type({})


@cache
def _named(name: str) -> Type:
    return Type({"$ref": f"#/definitions/{name}"})


def builtin_type(group: str, version: str, kind: str) -> Type:
    """A built-in kind's type.

    Raises:
        KeyError: there is no such kind.
    """
    return _named(_by_kind()[group, version, kind])


def custom_type(schema: Object) -> Type:
    """A custom resource's type: its own schema, and the metadata that every object has."""
    root: Object = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": f"#/definitions/{OBJECT_META}"},
    }
    return Type({**schema, "type": "object"}, root=root)
