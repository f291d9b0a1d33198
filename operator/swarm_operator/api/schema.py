"""From pydantic's JSON schema to what a CustomResourceDefinition takes: a structural schema.

A structural schema has no `$ref`, no `anyOf` that carries types, no `title`, no `const`, and every node has a type.
Optional fields (`T | None`) lose their null: in Kubernetes a field that is unset is absent. Object defaults are filled
with `{}`, so that the API server completes them field by field and `kubectl get -o yaml` shows every default. The
default of an object with CEL rules is written out: the API server tries the rules on it before it completes it.

Rejected: `kube-custom-resource`, which brings its own base class and registry for what are these few lines.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from swarm_operator.api.fields import BOUNDS, CHANGE, RULES, Model

__all__ = ["structural"]

_DROPPED: Final = frozenset({"title", "additionalProperties", "$defs", CHANGE, BOUNDS, "const", "anyOf", "default"})
#: What JSON Schema says and a structural schema may keep as it is.
_KEPT_ORDER: Final = ("description", "type", "format", "enum", "default", "nullable")


def structural(model: type[BaseModel], rules: dict[type[Model], list[dict[str, Any]]]) -> dict[str, Any]:
    """The structural schema of `model`, with the CEL rules of `rules` on the objects they belong to."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    by_name = {cls.__name__: list(found) for cls, found in rules.items()}
    return _convert(raw, raw.get("$defs", {}), by_name)


def _convert(node: dict[str, Any], defs: dict[str, Any], rules: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    own_rules: list[dict[str, Any]] = list(node.get(RULES, ()))
    has_default, default = "default" in node, node.get("default")
    node = dict(node)
    # `T | None` and references are one hop away from what they mean; what stands beside them wins.
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            name = node.pop("$ref").rsplit("/", 1)[-1]
            own_rules += rules.get(name, [])
            node = {**defs[name], **node}
        else:
            options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
            if len(options) == 1:
                node = {**options[0], **{k: v for k, v in node.items() if k != RULES}}
                own_rules += [rule for rule in options[0].get(RULES, ()) if rule not in own_rules]
            elif not node.get("x-kubernetes-int-or-string"):
                raise ValueError(f"a union has no structural schema: {options}")
    if "const" in node:
        node["enum"] = [node["const"]]
    out: dict[str, Any] = {}
    if has_default and default is not None:
        out["default"] = {} if isinstance(default, dict) else default
    for key, value in node.items():
        if key in _DROPPED or key == RULES:
            continue
        if key == "properties":
            out[key] = {name: _convert(child, defs, rules) for name, child in value.items()}
        elif key == "items":
            out[key] = _convert(value, defs, rules)
        else:
            out[key] = value
    # Arrays and maps are left out rather than defaulted to empty: an apply that lists none then changes nothing.
    if out.get("default") == [] or (out.get("default") == {} and "properties" not in out):
        del out["default"]
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        out["additionalProperties"] = _convert(extra, defs, rules)
    elif node.get("type") == "object" and "properties" not in node:
        patterns = node.get("patternProperties")
        value = next(iter(patterns.values())) if patterns else {"type": "string"}
        out["additionalProperties"] = _convert(value, defs, rules)
    # pydantic writes the bounds of a map's keys as propertyNames, which a structural schema can't hold, but a rule can:
    # their length, that is, not a pattern, as the API server holds keys for unbounded when it estimates what matching
    # them costs
    own_rules += _key_rules(out.pop("propertyNames", {}))
    out.pop("patternProperties", None)
    if own_rules:
        out[RULES] = own_rules
        if out.get("default") == {}:
            out["default"] = _defaults(out)
    if out.get("type") == "integer" and "format" not in out:
        out["format"] = "int64" if out.get("maximum", 0) > 2**31 - 1 else "int32"
    ordered = {key: out[key] for key in _KEPT_ORDER if key in out}
    return ordered | {key: out[key] for key in sorted(out) if key not in ordered}


def _key_rules(names: dict[str, Any]) -> list[dict[str, Any]]:
    low, high = names.get("minLength", 0), names.get("maxLength")
    if high is None:
        return []
    rule = f"self.all(k, size(k) >= {low} && size(k) <= {high})"
    return [{"rule": rule, "message": f"write keys of {low} to {high} characters"}]


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """What the API server would make of `{}`: the defaults of the properties, and of theirs."""
    found = {name: child for name, child in schema.get("properties", {}).items() if "default" in child}
    return {name: _defaults(child) if child["default"] == {} else child["default"] for name, child in found.items()}
