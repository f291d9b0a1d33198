"""Sets of fields, and the four things that managing fields needs done with them by type.

A set of fields is a frozenset of paths; a path is a tuple of elements written as in `managedFields`: `f:spec` a
field, `k:{"name":"c"}` an item of a map list, `v:"x"` one of a set. So union, difference and intersection are the
language's own.

The rules are those of structured-merge-diff, which real servers use: what counts as changed or added (`compare`),
what an applied configuration claims (`claims`), how it is merged into the live object (`merge`), and what is left
after taking fields away (`remove`). Two of them look odd and are deliberate: a container that is new is itself a
member (so that its owner may remove it), and an item of a list always is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from swarm_deploy.local.api.types import Type

__all__ = [
    "Comparison",
    "Fields",
    "Path",
    "Undeclared",
    "claims",
    "compare",
    "decode",
    "encode",
    "merge",
    "remove",
    "show",
    "with_named",
]

Object = dict[str, Any]
Path = tuple[str, ...]
Fields = frozenset[Path]

_ABSENT: Any = object()


class Undeclared(Exception):  # noqa: N818 - it is what was found, and becomes a refusal one level up
    """A value does not fit its type; the message says where."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a write did."""

    added: Fields
    modified: Fields
    removed: Fields

    @property
    def same(self) -> bool:
        """Whether it did nothing."""
        return not (self.added or self.modified or self.removed)


# -- the written form -----------------------------------------


def encode(fields: Iterable[Path]) -> Object:
    """A set as `fieldsV1` holds it."""
    root: Object = {}
    for path in sorted(fields, key=len):
        node = root
        for element in path[:-1]:
            below = node.get(element)
            if below is None:
                below = node[element] = {}
            elif not below:
                # It was a member without children; now the dot has to say so.
                below["."] = {}
            node = below
        node.setdefault(path[-1], {})
    return _ordered(root)


def _ordered(node: Object) -> Object:
    return {k: _ordered(node[k]) for k in sorted(node)}


def decode(written: Object) -> Fields:
    """The set that `fieldsV1` holds."""
    out: set[Path] = set()

    def walk(node: Object, path: Path) -> None:
        for key, below in node.items():
            if key == ".":
                out.add(path)
            elif not below:
                out.add((*path, key))
            else:
                walk(below, (*path, key))

    walk(written, ())
    return frozenset(out)


def show(path: Path) -> str:
    """A path as messages show it: `.spec.containers[name="c"].image`."""
    text = ""
    for element in path:
        kind, value = element[0], element[2:]
        if kind == "f":
            text += f".{value}"
        elif kind == "k":
            pairs = ",".join(f"{k}={json.dumps(v)}" for k, v in sorted(json.loads(value).items()))
            text += f"[{pairs}]"
        elif kind == "v":
            text += f"[={value}]"
        else:
            text += f"[{value}]"
    return text


def _item(kind: Type, item: Any, where: Path, index: int = 0) -> str:
    """The path element of a list's item."""
    if kind.keys:
        if not isinstance(item, dict):
            raise Undeclared(
                f"{show(where)}: element {index}: associative list with keys may not have non-map elements"
            )
        keys = {}
        for key in kind.keys:
            value = item.get(key)
            if value is None:
                value = kind.key_default(key)
            if value is None:
                raise Undeclared(
                    f"{show(where)}: element {index}: associative list with keys has an element that omits key field "
                    f'"{key}" (and doesn\'t have default value)'
                )
            keys[key] = value
        return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True)
    return "v:" + json.dumps(item, separators=(",", ":"), sort_keys=True)


def _items(kind: Type, value: Any, where: Path, *, strict: bool = False) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for index, item in enumerate(value or ()):
        element = _item(kind, item, where, index)
        if strict and element in out:
            raise Undeclared(f"{show((*where, element))}: duplicate entries for key")
        out.setdefault(element, item)
    return out


def _shape(kind: Type | None, value: Any) -> str:
    """Whether to treat a value as map, list or leaf. The value decides where the type does not say."""
    if kind is None:
        return "leaf"
    if isinstance(value, dict) and kind.kind in ("map", "any"):
        return "leaf" if kind.atomic else "map"
    if isinstance(value, list) and kind.kind == "list":
        return "leaf" if kind.atomic else "list"
    return "leaf"


# -- comparing -----------------------------------------


def compare(kind: Type, old: Any, new: Any) -> Comparison:
    """What changed from one object to another."""
    added: set[Path] = set()
    modified: set[Path] = set()
    removed: set[Path] = set()

    def leaf(old: Any, new: Any, path: Path) -> None:
        if old is _ABSENT:
            added.add(path)
        elif new is _ABSENT:
            removed.add(path)
        elif old != new:
            modified.add(path)

    def walk(kind: Type | None, old: Any, new: Any, path: Path) -> None:
        if old is new:
            return
        there = new if new is not _ABSENT and new is not None else old
        shape = _shape(kind, there)
        other = old if there is new else new
        if shape != "leaf" and not (other is _ABSENT or other is None or type(other) is type(there)):
            shape = "leaf"
        if shape == "leaf" or (not old and not new) or (old is _ABSENT and not new) or (new is _ABSENT and not old):
            leaf(old, new, path)
            return
        assert kind is not None
        before: dict[str, Any]
        after: dict[str, Any]
        if shape == "map":
            before = old if isinstance(old, dict) else {}
            after = new if isinstance(new, dict) else {}
            for key in {**before, **after}:
                walk(kind.child(key), before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, f"f:{key}"))
        else:
            before = _items(kind, old if isinstance(old, list) else [], path)
            after = _items(kind, new if isinstance(new, list) else [], path)
            for element in {**before, **after}:
                walk(kind.element, before.get(element, _ABSENT), after.get(element, _ABSENT), (*path, element))
        if old is _ABSENT:
            added.add(path)
        elif new is _ABSENT:
            removed.add(path)

    walk(kind, old, new, ())
    return Comparison(frozenset(added) - {()}, frozenset(modified) - {()}, frozenset(removed) - {()})


# -- applying -----------------------------------------


def claims(kind: Type, value: Any) -> Fields:
    """The fields that an applied configuration names.

    Raises:
        Undeclared: it names one that the type does not have, or repeats a list's item.
    """
    out: set[Path] = set()

    def walk(kind: Type, value: Any, path: Path) -> None:
        shape = _shape(kind, value)
        if value is not None and kind.kind in ("map", "list", "scalar") and not _fits(kind, value):
            raise Undeclared(f"{show(path)}: expected {_expected(kind)}, got {_got(value)}")
        if shape == "leaf":
            out.add(path)
        elif shape == "map":
            for key, below in value.items():
                inner = kind.child(key)
                here = (*path, f"f:{key}")
                if inner is None:
                    raise Undeclared(f"{show(here)}: field not declared in schema")
                walk(inner, below, here)
                if below is None or below == {} or (kind.kind == "any" or kind.field(key) is None):
                    out.add(here)
        else:
            element = kind.element
            assert element is not None
            for name, item in _items(kind, value, path, strict=True).items():
                walk(element, item, (*path, name))
                out.add((*path, name))

    walk(kind, value, ())
    return frozenset(out) - {()}


def _fits(kind: Type, value: Any) -> bool:
    if kind.kind == "map":
        return isinstance(value, dict)
    if kind.kind == "list":
        return isinstance(value, list)
    return not isinstance(value, dict | list)


def _expected(kind: Type) -> str:
    return {"map": "map", "list": "list"}.get(kind.kind, str(kind.schema.get("type", "scalar")))


def _got(value: Any) -> str:
    return f"&{{{json.dumps(value)}}}" if not isinstance(value, dict | list) else type(value).__name__


def merge(kind: Type, live: Any, config: Any) -> Any:
    """The live object with an applied configuration laid over it; neither is changed."""
    if config is None:
        return live
    shape = _shape(kind, config)
    if shape == "map":
        out = dict(live) if isinstance(live, dict) else {}
        for key, value in config.items():
            inner = kind.child(key)
            if inner is None or key not in out:
                # A key that is new is still walked, so that the result shares nothing with the configuration.
                out[key] = value if inner is None else merge(inner, None, value)
            elif value is None:
                out[key] = None
            else:
                out[key] = merge(inner, out[key], value)
        return out
    if shape == "list":
        return _merge_list(kind, live if isinstance(live, list) else [], config)
    return config


def _merge_list(kind: Type, live: list[Any], config: list[Any]) -> list[Any]:
    """Shared items in the configuration's order; those only the live list has keep their place among them."""
    element = kind.element
    assert element is not None
    ours, theirs = _items(kind, config, ()), _items(kind, live, ())
    out: list[Any] = []
    rest = iter(ours.items())
    for name, item in theirs.items():
        if name not in ours:
            out.append(item)
            continue
        for own, value in rest:
            out.append(merge(element, theirs.get(own), value))
            if own in theirs:
                break
    out.extend(merge(element, theirs.get(own), value) for own, value in rest)
    return out


def with_named(kind: Type, fields: Fields) -> Fields:
    """The set, and every declared field on the way to its members."""
    out = set(fields)
    for path in fields:
        at: Type | None = kind
        for index, element in enumerate(path):
            if at is None:
                break
            below: Type | None
            if element[0] == "f":
                name = element[2:]
                below = at.child(name)
                if at.kind == "map" and at.field(name) is not None:
                    out.add(path[: index + 1])
            else:
                below = at.element
            at = below
    return frozenset(out)


def present(kind: Type, value: Any) -> Fields:
    """The fields an object has: `claims` for an object that is there already and may hold what its type lacks."""
    out: set[Path] = set()

    def walk(kind: Type | None, value: Any, path: Path) -> None:
        shape = _shape(kind, value)
        if shape == "leaf" or kind is None:
            out.add(path)
        elif shape == "map":
            for key, below in value.items():
                here = (*path, f"f:{key}")
                walk(kind.child(key), below, here)
                if below is None or below == {} or (kind.kind == "any" or kind.field(key) is None):
                    out.add(here)
        else:
            for name, item in _items(kind, value, path).items():
                walk(kind.element, item, (*path, name))
                out.add((*path, name))

    walk(kind, value, ())
    return frozenset(out) - {()}


def remove(kind: Type, value: Any, fields: Fields) -> Any:
    """The object without those fields; what they leave empty goes with them."""
    tree: dict[str, Any] = {}
    for path in fields:
        node = tree
        for element in path[:-1]:
            node = node.setdefault(element, {})
        node.setdefault(path[-1], {})[""] = True
    return _remove(kind, value, tree)


def _remove(kind: Type | None, value: Any, tree: dict[str, Any]) -> Any:
    shape = _shape(kind, value)
    if kind is None or shape == "leaf" or not tree:
        return value
    if shape == "map":
        out: Object = {}
        for key, below in value.items():
            node = tree.get(f"f:{key}")
            if node is None:
                out[key] = below
            elif "" not in node:
                rest = _remove(kind.child(key), below, node)
                if rest is not None:
                    out[key] = rest
        return out or None
    kept = []
    for item in value:
        node = tree.get(_item(kind, item, ()))
        if node is None:
            kept.append(item)
        elif "" not in node:
            rest = _remove(kind.element, item, node)
            if rest is not None:
                kept.append(rest)
    return kept or None
