"""Structural schemas and CEL rules: what they drop, fill in and refuse, in a real server's words."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.local_api import make_definition
from swarm_deploy.local.api.cel import check_rules, rule_causes
from swarm_deploy.local.api.crd import definition_causes
from swarm_deploy.local.api.defaults import default_builtin
from swarm_deploy.local.api.structural import default, list_causes, prune, validate

Object = dict[str, Any]

SCHEMA: Object = make_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def of(**properties: Any) -> Object:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def said(schema: Object, **spec: Any) -> list[str]:
    return [str(c) for c in validate(schema, {"spec": spec})]


# -- pruning and defaults


def test_unknown_fields_are_dropped_and_named() -> None:
    obj = {
        "apiVersion": "v",
        "kind": "K",
        "metadata": {"name": "x", "nonsense": 1},
        "spec": {
            "size": 1,
            "nonsense": 2,
            "parts": [{"id": "a", "x": 1}],
            "notes": {"any": "v"},
            "free": {"a": {"b": 1}},
        },
        "more": 1,
    }
    before = deepcopy(obj)
    pruned, unknown = prune(SCHEMA, obj)
    assert sorted(unknown) == ["metadata.nonsense", "more", "spec.nonsense", "spec.parts[0].x"]
    assert pruned["spec"] == {"size": 1, "parts": [{"id": "a"}], "notes": {"any": "v"}, "free": {"a": {"b": 1}}}
    assert obj == before


def test_defaults_are_filled_in_at_every_depth_and_never_over_a_value() -> None:
    schema = of(
        a={"type": "integer", "default": 3},
        deep={"type": "object", "default": {}, "properties": {"b": {"type": "string", "default": "x"}}},
        items={"type": "array", "items": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}}},
        map={
            "type": "object",
            "additionalProperties": {"type": "object", "properties": {"d": {"type": "integer", "default": 2}}},
        },
        maybe={"type": "string", "nullable": True, "default": "y"},
        plain={"type": "string"},
    )
    given_spec = {"a": 0, "items": [{}], "map": {"k": {}}, "maybe": None, "plain": None}
    assert default(schema, {"spec": given_spec})["spec"] == {
        "a": 0,
        "deep": {"b": "x"},
        "items": [{"c": 1}],
        "map": {"k": {"d": 2}},
        "maybe": None,
    }
    assert default(schema, {"spec": {"a": None}})["spec"]["a"] == 3, "a null that may not be null is as good as absent"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.text("ab", max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["size", "spare", "colour", "parts", "id", "tags", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(json_values)
def test_pruning_and_defaulting_are_final_and_nothing_breaks_validation(spec: Any) -> None:
    obj = {"spec": spec}
    pruned, _ = prune(SCHEMA, obj)
    assert prune(SCHEMA, pruned) == (pruned, [])
    filled = default(SCHEMA, pruned)
    assert default(SCHEMA, filled) == filled
    validate(SCHEMA, filled)
    list_causes(SCHEMA, filled)


# -- validation


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        (
            {"type": "integer", "minimum": 0},
            -1,
            "spec.f: Invalid value: -1: spec.f in body should be greater than or equal to 0",
        ),
        (
            {"type": "integer", "maximum": 3},
            4,
            "spec.f: Invalid value: 4: spec.f in body should be less than or equal to 3",
        ),
        (
            {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            0,
            "spec.f: Invalid value: 0: spec.f in body should be greater than 0",
        ),
        ({"type": "integer", "multipleOf": 5}, 7, "spec.f: Invalid value: 7: spec.f in body should be a multiple of 5"),
        ({"type": "integer"}, "x", 'spec.f: Invalid value: "string": spec.f in body must be of type integer: "string"'),
        (
            {"type": "integer", "format": "int32"},
            1.5,
            'spec.f: Invalid value: "float64": spec.f in body must be of type int32: "float64"',
        ),
        ({"type": "object"}, [], 'spec.f: Invalid value: "array": spec.f in body must be of type object: "array"'),
        ({"type": "string", "maxLength": 1}, "ab", "spec.f: Too long: may not be more than 1 byte"),
        (
            {"type": "string", "minLength": 2},
            "a",
            'spec.f: Invalid value: "a": spec.f in body should be at least 2 chars long',
        ),
        ({"type": "string", "pattern": "^b"}, "a", "spec.f: Invalid value: \"a\": spec.f in body should match '^b'"),
        ({"type": "string", "enum": ["x", "y"]}, "a", 'spec.f: Unsupported value: "a": supported values: "x", "y"'),
        (
            {"type": "string", "format": "date-time"},
            "noon",
            'spec.f: Invalid value: "noon": spec.f in body must be of type date-time: "noon"',
        ),
        (
            {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
            [1, 2],
            "spec.f: Too many: 2: must have at most 1 item",
        ),
        (
            {"type": "array", "minItems": 1, "items": {"type": "integer"}},
            [],
            "spec.f: Invalid value: 0: spec.f in body should have at least 1 items",
        ),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 1}},
            [1, 0],
            "spec.f[1]: Invalid value: 0: spec.f[1] in body should be greater than or equal to 1",
        ),
        (
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
            {},
            "spec.f.a: Required value",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"k": "x"},
            'spec.f.k: Invalid value: "string": spec.f.k in body must be of type integer: "string"',
        ),
        (
            {"x-kubernetes-int-or-string": True},
            1.5,
            'spec.f: Invalid value: "number": spec.f in body must be of type integer,string: "number"',
        ),
        (
            {"type": "integer", "not": {"enum": [3]}},
            3,
            'spec.f: Invalid value: 3: "spec.f" must not validate the schema (not)',
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_the_known_words(schema: Object, value: Any, text: str) -> None:
    assert said(of(f=schema), f=value) == [text]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "number"}, 3),
        ({"type": "integer"}, 3.0),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "50%"),
        ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00.5+02:00"),
        ({"type": "string", "format": "no-such-format"}, "anything"),
        ({"type": "string", "maxLength": 2}, "äö"),
        ({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 1}]}, 7),
        ({"type": "integer", "anyOf": [{"minimum": 5}, {"multipleOf": 2}]}, 6),
    ],
)
def test_a_value_that_fits_is_not_refused(schema: Object, value: Any) -> None:
    assert said(of(f=schema), f=value) == []


def test_logic_over_schemas_is_checked() -> None:
    either = {"type": "integer", "oneOf": [{"minimum": 5}, {"multipleOf": 2}]}
    assert "must validate one and only one schema (oneOf). Found 2 valid alternatives" in said(of(f=either), f=6)[0]
    assert "Found none valid" in said(of(f=either), f=3)[0]
    assert (
        "must validate at least one schema (anyOf)"
        in said(of(f={"type": "integer", "anyOf": [{"minimum": 5}]}), f=3)[0]
    )
    assert "must validate all the schemas (allOf)" in said(of(f={"type": "integer", "allOf": [{"minimum": 5}]}), f=3)[0]


def test_an_item_that_stands_twice_is_named() -> None:
    obj = {"spec": {"parts": [{"id": "a"}, {"id": "b"}, {"id": "a"}], "tags": ["x", "x"]}}
    assert [str(c) for c in list_causes(SCHEMA, obj)] == [
        'spec.parts[2]: Duplicate value: {"id":"a"}',
        'spec.tags[1]: Duplicate value: "x"',
    ]


# -- rules


def ruled(rule: str, value: Any, old: Any = None, schema: Object | None = None, **more: Any) -> list[str]:
    inner = {**(schema or {"type": "integer"}), "x-kubernetes-validations": [{"rule": rule, **more}]}
    before = None if old is None else {"spec": {"f": old}}
    return [str(c) for c in rule_causes(of(f=inner), {"spec": {"f": value}}, before)]


def test_a_rule_that_holds_says_nothing_and_one_that_does_not_is_quoted() -> None:
    assert ruled("self > 1", 2) == []
    assert ruled("self > 1", 0) == ["spec.f: Invalid value: 0: failed rule: self > 1"]
    assert ruled("self > 1", 0, message="too few") == ["spec.f: Invalid value: 0: too few"]


def test_a_computed_message_stands_for_itself_and_falls_back_on_the_fixed_one() -> None:
    assert ruled("self > 1", 0, message="fixed", messageExpression="'got ' + string(self)") == [
        "spec.f: Invalid value: got 0"
    ]
    assert ruled("self > 1", 0, message="fixed", messageExpression="string(self / 0)") == [
        "spec.f: Invalid value: 0: fixed"
    ]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("FieldValueForbidden", "spec.f: Forbidden: no"),
        ("FieldValueRequired", "spec.f: Required value: no"),
        ("FieldValueDuplicate", "spec.f: Duplicate value: 0"),
        ("FieldValueInvalid", "spec.f: Invalid value: 0: no"),
    ],
)
def test_a_rule_may_give_its_reason(reason: str, text: str) -> None:
    assert ruled("self > 1", 0, message="no", reason=reason) == [text]


def test_a_rule_on_the_change_is_asked_on_a_change_only() -> None:
    assert ruled("self >= oldSelf", 1) == []
    assert ruled("self >= oldSelf", 1, 2, message="may only grow") == ["spec.f: Invalid value: 1: may only grow"]
    assert ruled("self >= oldSelf", 3, 2) == []


def test_what_did_not_change_is_not_blamed_again() -> None:
    assert ruled("self > 10", 1, 1) == []


def test_the_items_of_a_keyed_list_are_compared_with_themselves() -> None:
    item = {
        "type": "object",
        "properties": {"id": {"type": "string"}, "n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n", "message": "may only grow"}],
    }
    schema = of(
        f={"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]}
    )
    old = {"spec": {"f": [{"id": "a", "n": 5}, {"id": "b", "n": 1}]}}
    new = {"spec": {"f": [{"id": "b", "n": 2}, {"id": "a", "n": 4}, {"id": "c", "n": 0}]}}
    assert [str(c) for c in rule_causes(schema, new, old)] == ["spec.f[1]: Invalid value: may only grow"]


@pytest.mark.parametrize(
    ("rule", "schema", "value"),
    [
        ("self.all(x, x > 0)", {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ("self.isSorted()", {"type": "array", "items": {"type": "string"}}, ["a", "b"]),
        (
            "self.sum() == 3 && self.min() == 1 && self.max() == 2",
            {"type": "array", "items": {"type": "integer"}},
            [1, 2],
        ),
        ("self.indexOf('b') == 1", {"type": "array", "items": {"type": "string"}}, ["a", "b"]),
        ("self.find('[0-9]+') == '12'", {"type": "string"}, "a12b"),
        ("quantity(self).isGreaterThan(quantity('1Mi'))", {"type": "string"}, "1Gi"),
        ("isQuantity(self)", {"type": "string"}, "100m"),
        ("self > timestamp('2026-01-01T00:00:00Z')", {"type": "string", "format": "date-time"}, "2026-06-01T00:00:00Z"),
        ("self > duration('1m')", {"type": "string", "format": "duration"}, "1h"),
        ("self / 2.0 == 1.5", {"type": "number"}, 3),
        (
            "has(self.a) && !has(self.b)",
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
            {"a": 1},
        ),
        (
            "self.__namespace__ == 'x'",
            {"type": "object", "properties": {"namespace": {"type": "string"}}},
            {"namespace": "x"},
        ),
        ("self.a__dash__b == 1", {"type": "object", "properties": {"a-b": {"type": "integer"}}}, {"a-b": 1}),
        ("self['k'] == 'v'", {"type": "object", "additionalProperties": {"type": "string"}}, {"k": "v"}),
        ("self.lowerAscii() == 'ab' && self.split('').size() == 2", {"type": "string"}, "aB"),
    ],
)
def test_the_functions_and_types_of_rules_work(rule: str, schema: Object, value: Any) -> None:
    assert ruled(rule, value, schema=schema) == []
    assert ruled(f"!({rule})", value, schema=schema) != [], "and the rule can fail"


def test_a_rule_that_fails_to_run_refuses_the_object() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    (text,) = ruled("self.a > 0", {}, schema=schema)
    assert text.startswith("spec.f: Invalid value: no such key: a evaluating rule")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("self >", "compilation failed"),
        ("self.nothing > 0", "undefined field 'nothing'"),
        ("other > 0", "undeclared reference to 'other'"),
        ("noSuchFunction(self.a)", "undeclared reference to 'noSuchFunction'"),
        ("self.?a.orValue(1) > 0", "compilation failed"),
    ],
)
def test_a_rule_that_can_not_work_is_refused_with_its_definition(rule: str, why: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": rule}]}
    (cause,) = check_rules(schema, "p")
    assert cause.field == "p.x-kubernetes-validations[0].rule"
    assert why in cause.text


# -- definitions


def refused(change: Any) -> list[str]:
    definition = default_builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition", make_definition())
    change(definition)
    return [str(c) for c in definition_causes(definition)]


def schema_of(definition: Object) -> Object:
    schema: Object = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_a_good_definition_is_accepted() -> None:
    assert refused(lambda d: None) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["metadata"].update(name="x.y"), 'must be spec.names.plural+"."+spec.group'),
        (lambda d: d["spec"].update(scope="Everywhere"), 'Unsupported value: "Everywhere"'),
        (lambda d: d["spec"].update(versions=[]), "must have at least one version"),
        (lambda d: d["spec"]["versions"][0].update(storage=False), "exactly one version marked as storage version"),
        (lambda d: d["spec"]["versions"][0].pop("schema"), "schemas are required"),
        (lambda d: d["spec"].update(conversion={"strategy": "Webhook"}), "the embedded cluster calls no webhooks"),
        (lambda d: d["spec"]["names"].update(shortNames=["Wg"]), "spec.names.shortNames[0]: Invalid value"),
        (lambda d: schema_of(d).update(type="array"), "must be object at the root"),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["size"].pop("type"),
            "must not be empty for specified",
        ),
        (lambda d: schema_of(d)["properties"]["spec"].update(additionalProperties=True), "mutually exclusive"),
        (lambda d: schema_of(d)["properties"]["spec"].update({"$ref": "#/x"}), "$ref is not supported"),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["size"].update(default="x"),
            "must be of type integer",
        ),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["name"].update(pattern="("),
            "valid regular expression",
        ),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["parts"].pop("x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["parts"]["items"].pop("required"),
            "must have a default or be a required property",
        ),
        (
            lambda d: d["spec"]["versions"][0]["additionalPrinterColumns"][0].update(jsonPath="spec.size"),
            "must be a simple json path starting with .",
        ),
        (
            lambda d: d["spec"]["versions"][0]["subresources"]["scale"].update(specReplicasPath=".status.x"),
            "should be a json path under .spec",
        ),
        (
            lambda d: schema_of(d)["properties"]["spec"]["properties"]["size"].update(anyOf=[{"type": "integer"}]),
            "must be empty to be structural",
        ),
    ],
)
def test_a_bad_definition_is_refused_with_the_reason(change: Any, text: str) -> None:
    assert any(text in said_text for said_text in refused(change)), refused(change)
