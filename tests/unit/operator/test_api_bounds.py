"""Every bound of the schema refuses what it is for, and the operator's own models refuse the same, path and all."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.badspecs import CHECKED, FULL, SCHEMA, Case, cases, random_spec, refusals_of_the_schema, walk
from support.operatorkit import make_snapshot
from swarm_operator.api.read import read_spec
from swarm_operator.plan import plan
from swarm_operator.status import status_of

CASES = list(cases())
#: What a schema may say without refusing anything.
_SILENT = {"description", "default", "format", "properties", "items", "additionalProperties", "nullable"}
_SILENT |= {"x-kubernetes-list-map-keys", "x-kubernetes-validations", "x-kubernetes-map-type"}


def nodes(schema: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    found = {path: schema}
    for name, child in schema.get("properties", {}).items():
        found |= nodes(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            found |= nodes(schema[word], f"{path}{'[]' if word == 'items' else '{}'}")
    return found


NODES = nodes(SCHEMA["properties"]["spec"], "spec")


def test_the_full_spec_is_valid_and_has_every_field_of_the_api() -> None:
    assert refusals_of_the_schema(FULL) == []
    assert read_spec(FULL)[1] == ""
    covered = set()
    for steps, node, _ in walk(SCHEMA["properties"]["spec"], FULL):
        assert isinstance(node, dict)
        path, at = "spec", SCHEMA["properties"]["spec"]
        for step in steps:
            if isinstance(step, int):
                path, at = f"{path}[]", at["items"]
            elif step in at.get("properties", {}):
                path, at = f"{path}.{step}", at["properties"][step]
            else:
                path, at = f"{path}{{}}", at["additionalProperties"]
        covered.add(path)
    assert covered == set(NODES), "a field of the API stands not in FULL, so its bounds have no case"


def test_every_keyword_of_the_schema_that_bounds_has_cases() -> None:
    assert {word for node in NODES.values() for word in node} <= _SILENT | CHECKED


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bound_refuses_with_the_fields_path_in_the_schema_and_in_the_models(case: Case) -> None:
    said = refusals_of_the_schema(case.spec)
    assert [text for text in said if text.startswith(case.path) and case.says in text], said
    parsed, wrong = read_spec(case.spec)
    assert parsed is None, "`swarm plan` accepts what the API server refuses"
    # a list as a whole is the business of the object that holds it
    holder = case.path.rsplit(".", 1)[0] if case.keyword.startswith("x-kubernetes-list") else case.path
    assert wrong.startswith(holder), wrong


def _both(spec: dict[str, Any]) -> tuple[list[str], str]:
    said, (parsed, wrong) = refusals_of_the_schema(spec), read_spec(spec)
    assert (parsed is None) == bool(said), f"the schema says {said}, the models say {wrong!r}"
    return said, wrong


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_the_schema_and_the_models_agree_on_any_spec_and_none_crashes_the_planner(seed: int) -> None:
    spec = random_spec(random.Random(seed))
    said, wrong = _both(spec)
    if said:
        assert all(text.startswith("spec") for text in said)
        assert wrong.startswith("spec")
    snapshot = make_snapshot(spec)
    planned = plan(snapshot, 0.0)
    found = status_of(snapshot, planned, (), 0.0)
    accepted = next(c for c in found["conditions"] if c["type"] == "Accepted")
    if said:
        assert planned.actions == ()
        assert accepted["status"] == "False"
        assert "spec" in accepted["message"]


def test_at_least_a_hundred_of_three_hundred_random_specs_are_invalid() -> None:
    chance = random.Random(5)
    assert sum(bool(refusals_of_the_schema(random_spec(chance))) for _ in range(300)) > 100


@pytest.mark.parametrize(
    "spec",
    [
        {"compute": {"replicas": 2**70}},
        {"compute": {"env": [{"name": "A", "value": "\ud800"}]}},
    ],
)
def test_what_no_json_can_hold_is_refused_too(spec: dict[str, Any]) -> None:
    parsed, wrong = read_spec(spec)
    assert parsed is None
    assert wrong.startswith("spec")


@pytest.mark.parametrize(
    "spec",
    [
        {"scheduling": {"tolerations": [{"value": "\n"}]}},
        {"scheduling": {"priorityClassName": "high\n"}},
    ],
)
def test_the_schema_and_the_models_refuse_what_looks_like_nothing(spec: dict[str, Any]) -> None:
    assert refusals_of_the_schema(spec)
    assert read_spec(spec)[0] is None


def test_the_schema_and_the_models_leave_out_an_entry_that_is_null_as_a_real_server_does() -> None:
    spec = {"compute": {"podTemplate": {"labels": {"a": None, "b": "c"}}}}
    assert refusals_of_the_schema(spec) == []
    parsed, _ = read_spec(spec)
    assert parsed is not None
    assert parsed.compute.pod_template.labels == {"b": "c"}
