"""Structural schemas of custom resources at work: dropping what they do not know, filling defaults in, and
validating.

In that order a request passes them, as in a real server: fields that the schema does not have are dropped (and named,
for `fieldValidation`), then defaults are filled in, then what is there is validated. The wording of a refusal is the
one that a real server gives, field path and all: people search for it, and programs compare it.

Validation is written here rather than left to `jsonschema`, because that library's errors carry neither the words nor
the kinds of cause (`FieldValueTypeInvalid`, `FieldValueTooLong`...) that Kubernetes promises, and mapping them back
took more code.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from swarm_deploy.local.api.errors import Cause, duplicate, invalid_value, required, shown, unsupported_value
from swarm_deploy.local.api.types import Type, builtin_type, definitions

__all__ = ["default", "list_causes", "prune", "validate"]

Object = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_ROOT = ("apiVersion", "kind", "metadata")


# -- pruning -----------------------------------------


def prune(schema: Object, obj: Object) -> tuple[Object, list[str]]:
    """The object without the fields its schema lacks, and their paths. The argument stays as it is."""
    unknown: list[str] = []
    out = _prune(schema, obj, "", unknown, root=True)
    meta = out.get("metadata")
    if isinstance(meta, dict):
        out["metadata"] = prune_typed(Type({"$ref": f"#/definitions/{_META}"}), meta, "metadata", unknown)
    return out, unknown


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _prune(schema: Object, value: Any, path: str, unknown: list[str], *, root: bool = False) -> Any:
    if isinstance(value, dict):
        if schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
            return value
        properties: Object = schema.get("properties", {})
        other = schema.get("additionalProperties")
        if schema.get("x-kubernetes-embedded-resource"):
            properties = {**properties, "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _FREE}
        keep = schema.get("x-kubernetes-preserve-unknown-fields")
        out: Object = {}
        for key, inner in value.items():
            if root and key in _ROOT:
                out[key] = inner
            elif key in properties:
                out[key] = _prune(properties[key], inner, _join(path, key), unknown)
            elif isinstance(other, dict):
                out[key] = _prune(other, inner, _join(path, key), unknown)
            elif other is True or keep:
                out[key] = inner
            else:
                unknown.append(_join(path, key))
        return out
    if isinstance(value, list) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        # Also where no list is expected, as an object where none is: what its objects hold is unknown.
        return [_prune(schema.get("items") or {}, item, f"{path}[{i}]", unknown) for i, item in enumerate(value)]
    return value


_FREE: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def prune_typed(kind: Type, value: Any, path: str, unknown: list[str]) -> Any:
    """The same for a built-in type: what it does not declare is dropped and named."""
    if isinstance(value, dict) and kind.kind == "map":
        out: Object = {}
        for key, inner in value.items():
            below = kind.child(key)
            if below is None:
                unknown.append(_join(path, key))
            else:
                out[key] = prune_typed(below, inner, _join(path, key), unknown)
        return out
    if isinstance(value, list) and kind.kind == "list" and kind.element is not None:
        element = kind.element
        return [prune_typed(element, item, f"{path}[{i}]", unknown) for i, item in enumerate(value)]
    return value


# -- defaults -----------------------------------------


def default(schema: Object, value: Any) -> Any:
    """The value with the defaults of its schema filled in, without touching the argument."""
    if isinstance(value, dict):
        properties: Object = schema.get("properties", {})
        out = dict(value)
        for key, inner in properties.items():
            if "default" in inner and (key not in out or (out[key] is None and not inner.get("nullable"))):
                out[key] = _fresh(inner["default"])
            elif key in out and out[key] is None and not inner.get("nullable") and "default" not in inner:
                # A null that may not be null is as good as absent.
                if not inner.get("x-kubernetes-preserve-unknown-fields"):
                    del out[key]
                continue
            if key in out:
                out[key] = default(inner, out[key])
        other = schema.get("additionalProperties")
        if isinstance(other, dict):
            for key in [key for key in out if key not in properties]:
                inner_value = out[key]
                if inner_value is None and not other.get("nullable"):
                    if "default" not in other:
                        if not other.get("x-kubernetes-preserve-unknown-fields"):
                            del out[key]
                        continue
                    inner_value = _fresh(other["default"])
                out[key] = default(other, inner_value)
        return out
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [default(schema["items"], item) for item in value]
    return value


def _fresh(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _fresh(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_fresh(v) for v in value]
    return value


# -- validation -----------------------------------------

_GO_TYPES = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return _GO_TYPES.get(type(value), "object")


def _is(value: Any, wanted: str) -> bool:
    actual = _type_of(value)
    return actual == wanted or (wanted == "number" and actual == "integer")


@lru_cache(maxsize=512)
def _regex(pattern: str) -> re.Pattern[str]:
    # Go's \z is Python's \Z, and so is its $: in Python a newline may follow. What else schemas use of RE2 is the same.
    return re.compile(re.sub(r"(?<!\\)\$(?![^\[]*\])", r"\\Z", pattern.replace(r"\z", r"\Z")))


_DATE_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$")
_DURATION = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*$|^0$")


def _date_time(text: str) -> bool:
    if not _DATE_TIME.match(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()).replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _date(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007 - a date has no zone
    except ValueError:
        return False
    return True


def _ip(version: int) -> Any:
    def check(text: str) -> bool:
        import ipaddress

        try:
            return ipaddress.ip_address(text).version == version
        except ValueError:
            return False

    return check


# The formats of which schemas for swarms make use; a real server ignores those it does not know, and so does this one.
_FORMATS: dict[str, Any] = {
    "date-time": _date_time,
    "datetime": _date_time,
    "date": _date,
    "duration": lambda t: bool(_DURATION.match(t)),
    "uuid": lambda t: bool(re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", t)),
    "ipv4": _ip(4),
    "ipv6": _ip(6),
    "byte": lambda t: bool(re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", t)) and len(t) % 4 == 0,
    "email": lambda t: bool(re.fullmatch(r"[^@\s]+@[^@\s]+", t)),
    "uri": lambda t: bool(re.match(r"^[A-Za-z][A-Za-z0-9+.-]*:", t)),
    "hostname": lambda t: bool(
        re.fullmatch(r"(?=.{1,253}$)([A-Za-z0-9](-*[A-Za-z0-9])*)(\.[A-Za-z0-9](-*[A-Za-z0-9])*)*", t)
    ),
}


def _number(value: float) -> str:
    """A number as Go's %v prints it."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e21 else repr(value)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _too_long(path: str, most: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {_plural(most, 'byte')}", path)


def _too_many(path: str, actual: int, most: int) -> Cause:
    return Cause("FieldValueTooMany", f"Too many: {actual}: must have at most {_plural(most, 'item')}", path)


def _wrong_type(path: str, value: Any, wanted: str, form: str = "") -> Cause:
    actual = _type_of(value)
    if form and not isinstance(value, str | list):
        # Where a format says more than the type, the real one compares formats.
        wanted, actual = form, {"number": "float64", "integer": "int64"}.get(actual, "")
    text = f'Invalid value: "{actual}": {path or "<nil>"} in body must be of type {wanted}: "{actual}"'
    return Cause("FieldValueTypeInvalid", text, path)


def validate(schema: Object, value: Any, path: str = "") -> list[Cause]:
    """What is wrong with a value, in the order of its fields' names."""
    causes: list[Cause] = []
    _check(schema, value, path, causes, root=not path)
    return causes


def _check(schema: Object, value: Any, path: str, causes: list[Cause], *, root: bool = False) -> None:
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not (_is(value, "integer") or isinstance(value, str)):
            causes.append(_wrong_type(path, value, "integer,string"))
            return
    elif (wanted := schema.get("type")) and not _is(value, wanted):
        causes.append(_wrong_type(path, value, wanted, schema.get("format", "")))
        return
    name = path or "<nil>"
    if "enum" in schema and not any(_equal(value, allowed) for allowed in schema["enum"]):
        causes.append(unsupported_value(path, value, [_plain(a) for a in schema["enum"]]))
    if isinstance(value, str):
        _check_string(schema, value, path, name, causes)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        _check_number(schema, value, path, name, causes)
    elif isinstance(value, list):
        _check_list(schema, value, path, name, causes)
    elif isinstance(value, dict):
        _check_map(schema, value, path, name, causes, root=root)
    _check_logic(schema, value, path, name, causes, root=root)


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _check_string(schema: Object, value: str, path: str, name: str, causes: list[Cause]) -> None:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if most is not None and len(value) > most:
        causes.append(_too_long(path, most))
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, value, f"{name} in body should be at least {least} chars long"))
    if "pattern" in schema and not _regex(schema["pattern"]).search(value):
        causes.append(invalid_value(path, value, f"{name} in body should match '{schema['pattern']}'"))
    check = _FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        causes.append(invalid_value(path, value, f"{name} in body must be of type {schema['format']}: {shown(value)}"))


def _check_number(schema: Object, value: float, path: str, name: str, causes: list[Cause]) -> None:
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if schema.get("format") in ("int32", "int64"):
        bits = 31 if schema["format"] == "int32" else 63
        if not -(2**bits) <= value < 2**bits:
            kind = schema["format"]
            causes.append(invalid_value(path, value, f"{name} in body must be of type {kind}: {shown(str(value))}"))
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        than = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(invalid_value(path, value, f"{name} in body should be {than} {_number(low)}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        than = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.append(invalid_value(path, value, f"{name} in body should be {than} {_number(high)}"))
    if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
        causes.append(invalid_value(path, value, f"{name} in body should be a multiple of {_number(step)}"))


def _check_list(schema: Object, value: list[Any], path: str, name: str, causes: list[Cause]) -> None:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if most is not None and len(value) > most:
        causes.append(_too_many(path, len(value), most))
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, len(value), f"{name} in body should have at least {least} items"))
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            _check(items, item, f"{path}[{index}]", causes)


def _check_map(schema: Object, value: Object, path: str, name: str, causes: list[Cause], *, root: bool) -> None:
    least, most = schema.get("minProperties"), schema.get("maxProperties")
    if most is not None and len(value) > most:
        causes.append(_too_many(path, len(value), most))
    if least is not None and len(value) < least:
        causes.append(invalid_value(path, len(value), f"{name} in body should have at least {least} properties"))
    causes += [required(_join(path, key)) for key in schema.get("required", ()) if key not in value]
    properties = schema.get("properties", {})
    other = schema.get("additionalProperties")
    for key in sorted(value):
        if root and key in _ROOT:
            continue
        inner = properties.get(key)
        if inner is None and isinstance(other, dict):
            inner = other
        if inner is not None:
            _check(inner, value[key], _join(path, key), causes)


def _check_logic(schema: Object, value: Any, path: str, name: str, causes: list[Cause], *, root: bool) -> None:
    def passes(part: Object) -> list[Cause]:
        found: list[Cause] = []
        _check(part, value, path, found, root=root)
        return found

    shown_name = shown(name)
    if "allOf" in schema:
        failed = [found for part in schema["allOf"] if (found := passes(part))]
        if failed:
            causes.append(invalid_value(path, _echo(value), f"{shown_name} must validate all the schemas (allOf)"))
            causes.extend(failed[0])
    if "anyOf" in schema and all(results := [passes(part) for part in schema["anyOf"]]):
        causes.append(invalid_value(path, _echo(value), f"{shown_name} must validate at least one schema (anyOf)"))
        causes += _fewest(results)
    if "oneOf" in schema:
        results = [passes(part) for part in schema["oneOf"]]
        matches = sum(not found for found in results)
        if matches != 1:
            detail = "Found none valid" if not matches else f"Found {matches} valid alternatives"
            text = f"{shown_name} must validate one and only one schema (oneOf). {detail}"
            causes.append(invalid_value(path, _echo(value), text))
            if not matches:
                causes += _fewest(results)
    if "not" in schema and not passes(schema["not"]):
        causes.append(invalid_value(path, _echo(value), f"{shown_name} must not validate the schema (not)"))


def _fewest(results: list[list[Cause]]) -> list[Cause]:
    return min(results, key=len)


def _echo(value: Any) -> Any:
    return value if not isinstance(value, dict | list) else _type_of(value)


def list_causes(schema: Object, value: Any, path: str = "") -> list[Cause]:
    """Items that stand twice in a list that is a set, or a map by key."""
    causes: list[Cause] = []
    if isinstance(value, dict):
        properties, other = schema.get("properties", {}), schema.get("additionalProperties")
        for key in sorted(value):
            inner = properties.get(key) or (other if isinstance(other, dict) else None)
            if inner is not None:
                causes += list_causes(inner, value[key], _join(path, key))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys", [])
        seen: list[Any] = []
        for index, item in enumerate(value):
            here = f"{path}[{index}]"
            if kind == "set":
                mark = item
            elif kind == "map" and isinstance(item, dict):
                mark = {k: item[k] for k in keys if k in item}
            else:
                mark = None
            if mark is not None:
                if mark in seen:
                    causes.append(duplicate(here, mark))
                seen.append(mark)
            causes += list_causes(schema["items"], item, here)
    return causes


# -- built-in kinds -----------------------------------------


def type_mismatch(group: str, version: str, kind: str, obj: Object) -> str:
    """Where an object does not fit its built-in type, in the words of Go's JSON decoder; empty when it fits."""
    return mismatch(builtin_type(group, version, kind), obj, "", kind)


def mismatch(kind: Type, value: Any, path: str, owner: str) -> str:
    if value is None or kind.kind == "any":
        return ""
    if kind.kind == "map":
        if not isinstance(value, dict):
            return _cannot(value, owner, path, "object")
        named = str(kind.schema.get("x-go", "")) or owner
        for key, inner in value.items():
            below = kind.child(key)
            if below is not None and (found := mismatch(below, inner, _join(path, key), named)):
                return found
        return ""
    if kind.kind == "list":
        if not isinstance(value, list):
            return _cannot(value, owner, path, "array")
        for item in value:
            if kind.element is not None and (found := mismatch(kind.element, item, path, owner)):
                return found
        return ""
    wanted = kind.schema.get("type")
    loose = kind.schema.get("format") == "int-or-string" or kind.schema is definitions().get(_QUANTITY)
    if wanted == "string" and not isinstance(value, str) and not (loose and _is(value, "number")):
        return _cannot(value, owner, path, "string")
    if wanted == "integer" and not _is(value, "integer"):
        return _cannot(value, owner, path, str(kind.schema.get("format", "int")))
    if wanted == "number" and not _is(value, "number"):
        return _cannot(value, owner, path, "float64")
    if wanted == "boolean" and not isinstance(value, bool):
        return _cannot(value, owner, path, "bool")
    return ""


_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_JSON_WORDS = {
    "object": "object",
    "array": "array",
    "string": "string",
    "boolean": "bool",
    "integer": "number",
    "number": "number",
}


def _cannot(value: Any, owner: str, path: str, wanted: str) -> str:
    return f"json: cannot unmarshal {_JSON_WORDS[_type_of(value)]} into Go struct field {owner}.{path} of type {wanted}"
