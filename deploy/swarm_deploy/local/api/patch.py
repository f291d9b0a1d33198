"""The three patch types that compute a new object: JSON patch, merge patch, strategic merge patch.

(Server-side apply is the fourth, and lives in `managed`.) None of them changes its arguments.
"""

from __future__ import annotations

from typing import Any

from swarm_deploy.local.api.errors import ApiError, bad_request
from swarm_deploy.local.api.types import Type

__all__ = ["json_patch", "merge_patch", "strategic_merge_patch"]

Object = dict[str, Any]
_MOST_OPERATIONS = 10_000


def json_patch(obj: Object, operations: Any) -> Object:
    """RFC 6902.

    Raises:
        ApiError: 400 when it is no patch, 422 when it does not apply (a `test` that fails, a path that is not there).
    """
    import jsonpatch
    from jsonpointer import JsonPointerException

    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > _MOST_OPERATIONS:
        raise ApiError(
            413, f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(operations)}"
        )
    try:
        result = jsonpatch.apply_patch(obj, operations)
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, KeyError, IndexError):
        result = None
    if not isinstance(result, dict):
        # A real server says no more either.
        raise ApiError(422, "the server rejected our request due to an error in our request", details={})
    return result


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes a key, anything but an object replaces."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_DIRECTIVE = "$patch"


def strategic_merge_patch(kind: Type, target: Object, patch: Object) -> Object:
    """A merge patch that knows which lists are keyed, with the directives that kubectl sends.

    Raises:
        ApiError: 400 when a list's item lacks its merge key, or a directive is unknown.
    """
    result = _merge_map(kind, target, patch)
    return result if isinstance(result, dict) else {}


def _merge_map(kind: Type | None, target: Object, patch: Object) -> Object | None:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != _DIRECTIVE}
    if directive == "delete":
        return None
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type: {directive} in map")
    out = dict(target)
    if isinstance(retained := patch.get(_RETAIN), list):
        out = {k: v for k, v in out.items() if k in retained}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            if isinstance(out.get(name), list):
                out[name] = [v for v in out[name] if v not in value]
            continue
        inner = kind.child(key) if kind is not None else None
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            before = out.get(key)
            merged = _merge_map(inner, before if isinstance(before, dict) else {}, value)
            if merged is None:
                out.pop(key, None)
            else:
                out[key] = merged
        elif isinstance(value, list) and inner is not None and inner.merges:
            before = out.get(key)
            order = patch.get(_ORDER + key)
            out[key] = _merge_list(inner, before if isinstance(before, list) else [], value, order)
        else:
            out[key] = value
    for key, order in patch.items():
        if key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            inner = kind.child(name) if kind is not None else None
            if inner is not None and isinstance(out.get(name), list):
                out[name] = _ordered(inner, out[name], order)
    return out


def _merge_list(kind: Type, target: list[Any], patch: list[Any], order: Any) -> list[Any]:
    key = kind.merge_key
    if not key:
        return target + [v for v in patch if v not in target]
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" and len(item) == 1 for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "replace")]
    out = list(target)
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request("The order in patch list doesn't match")
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, v in enumerate(out) if isinstance(v, dict) and v.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            if index is not None:
                del out[index]
        elif index is None:
            merged = _merge_map(kind.element, {}, item)
            if merged is not None:
                out.append(merged)
        else:
            merged = _merge_map(kind.element, out[index], item)
            assert merged is not None
            out[index] = merged
    return _ordered(kind, out, order) if order else out


def _ordered(kind: Type, items: list[Any], order: Any) -> list[Any]:
    """The listed items in the listed order; others keep their place among them."""
    key = kind.merge_key

    def mark(value: Any) -> Any:
        return value.get(key) if key and isinstance(value, dict) else value

    wanted = [mark(v) for v in order]
    listed = sorted((v for v in items if mark(v) in wanted), key=lambda v: wanted.index(mark(v)))
    rest = iter(listed)
    return [next(rest) if mark(v) in wanted else v for v in items]
