"""The rules in `x-kubernetes-validations`, by the library `common-expression-language`.

A rule is compiled when its CustomResourceDefinition is accepted, and a definition whose rules do not compile is
refused: a rule that silently never ran would be worse than none. What the library can't do is found there too
(optional field selection `.?`, and the libraries `format`, `ip`, `cidr` and `url` of Kubernetes).

Two differences from a real server remain, and both err towards accepting a definition that a real one refuses: there is
no static type checker (but a field that the schema lacks is found), and the cost of a rule is not estimated. So a
definition that is meant for real clusters has to be tried on one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from swarm_deploy.local.api.errors import Cause, shown
from swarm_deploy.local.api.quantity import parse_quantity

__all__ = ["check_rules", "rule_causes"]

Object = dict[str, Any]

_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_FUNCTIONS = frozenset(
    [
        "isSorted",
        "sum",
        "min",
        "max",
        "indexOf",
        "lastIndexOf",
        "find",
        "findAll",
        "quantity",
        "isQuantity",
        "isLessThan",
        "isGreaterThan",
        "compareTo",
        "asInteger",
        "asApproximateFloat",
        "isInteger",
        "isURL",
    ]
)
_REASONS = {
    "": ("FieldValueInvalid", "Invalid value: {}"),
    "FieldValueInvalid": ("FieldValueInvalid", "Invalid value: {}"),
    "FieldValueForbidden": ("FieldValueForbidden", "Forbidden: {}"),
    "FieldValueRequired": ("FieldValueRequired", "Required value: {}"),
    "FieldValueDuplicate": ("FieldValueDuplicate", "Duplicate value: {}"),
}


def _functions() -> dict[str, Callable[..., Any]]:
    """The functions that Kubernetes adds to the language."""

    def comparable(values: list[Any]) -> list[Any]:
        return list(values)

    def is_sorted(values: list[Any]) -> bool:
        listed = comparable(values)
        return all(a <= b for a, b in itertools.pairwise(listed))

    def total(values: list[Any]) -> Any:
        listed = comparable(values)
        if listed and isinstance(listed[0], timedelta):
            return sum(listed, timedelta())
        return sum(listed)

    def first(where: Any, what: Any) -> int:
        if isinstance(where, str):
            return where.find(what)
        return next((i for i, v in enumerate(where) if v == what), -1)

    def last(where: Any, what: Any) -> int:
        if isinstance(where, str):
            return where.rfind(what)
        return next((i for i in range(len(where) - 1, -1, -1) if where[i] == what), -1)

    def find(text: str, pattern: str) -> str:
        found = re.search(pattern, text)
        return found.group(0) if found else ""

    def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
        found = [m.group(0) for m in re.finditer(pattern, text)]
        return found if limit < 0 else found[:limit]

    def quantity(text: str) -> str:
        parse_quantity(text)
        return text

    def is_quantity(text: str) -> bool:
        try:
            parse_quantity(text)
        except ValueError:
            return False
        return True

    def amount(value: Any) -> Decimal:
        return parse_quantity(value) if isinstance(value, str) else Decimal(value)

    return {
        "isSorted": is_sorted,
        "sum": total,
        "min": lambda *v: min(v[0] if len(v) == 1 else v),
        "max": lambda *v: max(v[0] if len(v) == 1 else v),
        "indexOf": first,
        "lastIndexOf": last,
        "find": find,
        "findAll": find_all,
        "quantity": quantity,
        "isQuantity": is_quantity,
        "isLessThan": lambda a, b: amount(a) < amount(b),
        "isGreaterThan": lambda a, b: amount(a) > amount(b),
        "compareTo": lambda a, b: (amount(a) > amount(b)) - (amount(a) < amount(b)),
        "asInteger": lambda a: int(amount(a)),
        "asApproximateFloat": lambda a: float(amount(a)),
        "isInteger": lambda a: amount(a) == int(amount(a)),
        "isURL": lambda t: bool(re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://[^\s/]+|^/", t)),
    }


def _context() -> Any:
    import cel
    from cel.stdlib import add_stdlib_to_context

    context = cel.Context()
    add_stdlib_to_context(context)
    for name, function in _functions().items():
        context.add_function(name, function)
    return context


@lru_cache(maxsize=1024)
def _program(rule: str) -> Any:
    import cel

    return cel.compile(rule)


@lru_cache(maxsize=1)
def _known_functions() -> frozenset[str]:
    standard = (
        "size has all exists exists_one map filter contains startsWith endsWith matches int uint double string bytes"
    )
    standard += " timestamp duration type dyn bool getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear"
    standard += " getHours getMinutes getSeconds getMilliseconds"
    return frozenset(standard.split()) | frozenset(_context().functions) | _FUNCTIONS


# -- when a definition is accepted -----------------------------------------


def check_rules(schema: Object, path: str) -> list[Cause]:
    """What is wrong with the rules of a schema and of all below it."""
    causes: list[Cause] = []
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        here = f"{path}.x-kubernetes-validations[{index}]"
        for part in ("rule", "messageExpression"):
            if rule.get(part) and (wrong := _wrong(schema, rule[part])):
                text = f"Invalid value: {_quoted(rule[part])}: compilation failed: {wrong}"
                causes.append(Cause("FieldValueInvalid", text, f"{here}.{part}"))
        if rule.get("optionalOldSelf"):
            text = "Forbidden: the embedded cluster can't evaluate rules with optionalOldSelf"
            causes.append(Cause("FieldValueForbidden", text, f"{here}.optionalOldSelf"))
    for name, inner in (schema.get("properties") or {}).items():
        causes += check_rules(inner, f"{path}.properties[{name}]")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            causes += check_rules(schema[part], f"{path}.{part}")
    return causes


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def _wrong(schema: Object, rule: str) -> str:
    try:
        program = _program(rule)
    except Exception as e:  # the library raises ValueError for syntax, and a panic's error for what it can't parse
        return f"ERROR: <input>: {str(e).partition(': ')[2] or e}"
    names = set(program.variables())
    bound = set(re.findall(r"\.(?:all|exists|exists_one|map|filter)\(\s*(\w+)\s*,", rule))
    unknown = sorted(
        names - {"self", "oldSelf", "int", "uint", "double", "string", "bool", "bytes", "type", "list", "map"}
    )
    unknown = [
        n
        for n in unknown
        if n not in bound and n.partition(".")[0] not in ("math", "sets", "base64", "strings", "lists")
    ]
    if unknown:
        return f"ERROR: <input>: undeclared reference to '{unknown[0]}' (in container '')"
    for name in program.functions():
        if name[0].isalpha() and name.rpartition(".")[2] not in {f.rpartition(".")[2] for f in _known_functions()}:
            return f"ERROR: <input>: undeclared reference to '{name}' (in container '')"
    bare = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "''", rule)
    for chain in re.findall(r"\b(?:self|oldSelf)((?:\.\w+)+(?:\s*\()?)", bare):
        if missing := _missing_field(schema, chain):
            return f"ERROR: <input>: undefined field '{missing}'"
    return ""


def _missing_field(schema: Object, chain: str) -> str:
    """The first field of a selection that the schema does not declare."""
    parts = chain.rstrip("( ").split(".")[1:]
    if chain.endswith("("):
        parts = parts[:-1]
    for part in parts:
        properties = schema.get("properties")
        if not properties:
            other = schema.get("additionalProperties")
            if not isinstance(other, dict):
                return ""
            schema = other
            continue
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return ""
        inner = next((s for n, s in properties.items() if _escape(n) == part), None)
        if inner is None:
            return "" if part in ("metadata", "apiVersion", "kind") else part
        schema = inner
    return ""


# -- when an object is written -----------------------------------------


def _escape(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    if name.isidentifier() and "__" not in name:
        return name
    name = name.replace("__", "__underscores__")
    return name.replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")


def _value(schema: Object, value: Any) -> Any:
    """A value as a rule sees it: fields by their escaped names, times as times, numbers as doubles."""
    if isinstance(value, dict):
        properties, other = schema.get("properties"), schema.get("additionalProperties")
        if properties:
            out = {_escape(k): _value(properties[k], v) for k, v in value.items() if k in properties}
            if "metadata" in value and "metadata" not in properties:
                meta = value["metadata"] or {}
                out["metadata"] = {k: meta[k] for k in ("name", "generateName") if k in meta}
            for name in ("apiVersion", "kind"):
                if name in value:
                    out.setdefault(name, value[name])
            return out
        return {k: _value(other if isinstance(other, dict) else {}, v) for k, v in value.items()}
    if isinstance(value, list):
        items = schema.get("items")
        return [_value(items if isinstance(items, dict) else {}, v) for v in value]
    if schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and schema.get("type") == "string":
        return _text(schema.get("format", ""), value)
    return value


def _text(form: str, value: str) -> Any:
    if form in ("date-time", "datetime"):
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return value
    if form == "duration":
        units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
        parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", value)
        seconds = sum(float(n) * units[u] for n, u in parts)
        return timedelta(seconds=-seconds if value.startswith("-") else seconds)
    return value


_NONE: Any = object()


def rule_causes(schema: Object, value: Any, old: Any = None) -> list[Cause]:
    """The rules that an object breaks. `old` is what it replaces: a value that did not change is not blamed again."""
    causes: list[Cause] = []
    _walk(schema, value, _NONE if old is None else old, "", causes)
    return causes


def _walk(schema: Object, value: Any, old: Any, path: str, causes: list[Cause]) -> None:
    if value is None:
        return
    rules = schema.get("x-kubernetes-validations")
    if rules and not (old is not _NONE and old == value):
        seen = _value(schema, value)
        before = _value(schema, old) if old is not _NONE else _NONE
        for rule in rules:
            _evaluate(rule, value, seen, before, path, causes)
    if isinstance(value, dict):
        properties, other = schema.get("properties") or {}, schema.get("additionalProperties")
        for key in sorted(value):
            inner = properties.get(key) or (other if isinstance(other, dict) else None)
            if inner is not None:
                was = old.get(key, _NONE) if isinstance(old, dict) else _NONE
                _walk(inner, value[key], was, f"{path}.{key}" if path else key, causes)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
        for index, item in enumerate(value):
            was = _counterpart(item, old, keys)
            _walk(schema["items"], item, was, f"{path}[{index}]", causes)


def _counterpart(item: Any, old: Any, keys: list[str] | None) -> Any:
    """What an item of a list was before; only a map list tells."""
    if not keys or not isinstance(old, list) or not isinstance(item, dict):
        return _NONE
    mark = [item.get(k) for k in keys]
    return next((o for o in old if isinstance(o, dict) and [o.get(k) for k in keys] == mark), _NONE)


def _evaluate(rule: Object, value: Any, seen: Any, before: Any, path: str, causes: list[Cause]) -> None:
    program = _program(rule["rule"])
    transition = "oldSelf" in program.variables()
    if transition and before is _NONE:
        return
    context = _context_shared()
    context.add_variable("self", seen)
    if before is not _NONE:
        context.add_variable("oldSelf", before)
    where = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").removeprefix(".")
    try:
        holds = program.execute(context)
    except Exception as e:  # the library raises whatever Python exception is nearest
        text = f"no such key: {e.args[0]}" if isinstance(e, KeyError) and e.args else str(e).partition("\n")[0]
        causes.append(
            Cause("FieldValueInvalid", f"Invalid value: {text} evaluating rule: {rule['rule']}", path or "<nil>")
        )
        return
    if holds is True:
        return
    reason, form = _REASONS.get(rule.get("reason", ""), _REASONS[""])
    message = _computed(rule, context)
    if message is None:
        message = str(rule.get("message") or f"failed rule: {rule['rule']}")
        # A message that was computed shows the value itself, if it wants to; a value with parts is never shown.
        if reason == "FieldValueInvalid" and not isinstance(value, dict | list):
            form = f"Invalid value: {shown(value)}: {{}}"
    text = form.replace("{}", message) if reason != "FieldValueDuplicate" else f"Duplicate value: {shown(value)}"
    causes.append(Cause(reason, text, where or "<nil>"))


@lru_cache(maxsize=1)
def _context_shared() -> Any:
    # One context for all: its functions are Python callables that cost more to register than a rule to run.
    return _context()


def _computed(rule: Object, context: Any) -> str | None:
    """What `messageExpression` says; None where there is none, or it says nothing that can be shown."""
    if not rule.get("messageExpression"):
        return None
    try:
        text = _program(rule["messageExpression"]).execute(context)
    except Exception:  # as a real server: a message that can't be made falls back on the fixed one
        return None
    return text if isinstance(text, str) and text.strip() and "\n" not in text else None
