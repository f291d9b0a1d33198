"""What is not done yet is refused by name; what is not refused is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import swarm_operator
from support.operatorkit import make_snapshot, make_spec
from swarm_operator.accept import INVALID, NOT_IMPLEMENTED, refusals
from swarm_operator.actions import Plan
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.plan import plan
from swarm_operator.status import status_of

USES: dict[str, dict[str, Any]] = {
    "spec.security.allowPickle": {"security": {"allowPickle": True}},
}


@pytest.mark.parametrize("field", USES)
def test_a_field_that_is_not_done_yet_is_named_in_a_condition_and_nothing_is_touched(field: str) -> None:
    snapshot = make_snapshot(USES[field])
    planned = plan(snapshot, 0.0)
    assert planned.actions == ()
    conditions = {c["type"]: c for c in status_of(snapshot, planned, (), 0.0)["conditions"]}
    assert conditions["Accepted"]["status"] == "False"
    assert conditions["Accepted"]["reason"] == NOT_IMPLEMENTED
    assert field in conditions["Accepted"]["message"]
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == NOT_IMPLEMENTED


def test_a_plain_spec_is_accepted() -> None:
    assert refusals(make_spec()) == ()


def test_memory_that_can_not_hold_the_board_is_refused_with_what_to_do() -> None:
    (refusal,) = refusals(make_spec(compute={"memory": "300Mi"}))
    assert (refusal.reason, refusal.field) == (INVALID, "spec.compute.memory")
    assert "raise it or make the arena smaller" in refusal.message


def _fields(model: type[BaseModel], path: str = "spec") -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        alias = f"{path}.{info.alias or name}"
        inner = [a for a in (info.annotation, *getattr(info.annotation, "__args__", ())) if isinstance(a, type)]
        models = [a for a in inner if issubclass(a, BaseModel)]
        yield alias, name
        for found in models:
            yield from _fields(found, alias)


SOURCES = "\n".join(
    path.read_text()
    for path in Path(swarm_operator.__file__).parent.glob("*.py")
    if path.name not in ("views.py", "main.py")
)


@pytest.mark.parametrize(("path", "name"), list(_fields(SwarmSpec)), ids=lambda v: v if "." in v else "")
def test_every_field_is_read_by_the_operator_or_refused(path: str, name: str) -> None:
    """A field that is accepted and does nothing is the worst of answers."""
    refused = any(path == field or path.startswith(f"{field}.") for field in USES)
    assert refused or f".{name}" in SOURCES, f"{path} is neither read nor refused"


def test_a_swarm_that_can_not_be_read_says_why_in_its_conditions() -> None:
    snapshot = make_snapshot({"compute": {"replicas": "many"}})
    assert isinstance(plan(snapshot, 0.0), Plan)
    conditions = {c["type"]: c for c in status_of(snapshot, plan(snapshot, 0.0), (), 0.0)["conditions"]}
    assert conditions["Accepted"]["reason"] == INVALID
    assert "spec.compute.replicas" in conditions["Accepted"]["message"]
