"""What was edited by hand is seen, and what was added where it harms is removed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operatorkit import World
from swarm_operator.actions import Apply, EnsureKeys
from swarm_operator.drift import covers, excess
from swarm_operator.plan import plan


def test_what_others_added_elsewhere_is_left_alone() -> None:
    assert covers({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3})


@pytest.mark.parametrize(
    ("desired", "observed"),
    [({"a": 1}, {"a": 2}), ({"a": 1}, {}), ({"a": [1, 2]}, {"a": [1]}), ({"a": {"b": 1}}, {"a": None})],
)
def test_a_missing_or_changed_field_is_seen(desired: Any, observed: Any) -> None:
    assert not covers(desired, observed)


JSON = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_anything_covers_itself(value: Any) -> None:
    assert covers(value, copy.deepcopy(value))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


@given(
    desired=st.dictionaries(
        st.sampled_from("abc"), st.integers(0, 2) | st.dictionaries(st.sampled_from("xy"), st.just(1))
    ),
    added=st.dictionaries(st.sampled_from("cdef"), st.integers(0, 2)),
)
def test_an_apply_and_the_removal_leave_exactly_what_is_wanted(desired: dict[str, Any], added: dict[str, Any]) -> None:
    observed = {"data": {**added, **desired}}
    patch = excess({"data": desired}, observed, [("data",)])
    assert merged(observed, patch)["data"] == desired


def test_a_list_with_a_foreign_item_is_replaced_whole() -> None:
    ours, theirs = {"name": "rest", "port": 7480}, {"name": "rest", "port": 81}
    assert excess({"p": [ours]}, {"p": [theirs]}, [("p",)]) == {"p": [ours]}
    assert excess({"p": [ours]}, {"p": [ours, theirs]}, [("p",)]) == {"p": [ours]}
    assert excess({"p": [ours]}, {"p": [{**ours, "nodePort": 3}]}, [("p",)]) == {}, "what is merely completed stays"


def converged() -> World:
    world = World({"compute": {"replicas": 1}})
    for _ in range(20):  # an agent proves itself for ten seconds
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    assert plan(world.snapshot(), world.now).actions == ()
    return world


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *steps, last = path.split("/")
        for step in steps:
            body = body[step] if not isinstance(body, list) else body[int(step)]
        if isinstance(body, list):
            body.insert(int(last), value)
        elif value is None:
            del body[last]
        else:
            body[last] = value

    return change


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("ServiceAccount", "risk", edit("automountServiceAccountToken", True)),
        ("ConfigMap", "risk-settings", edit("data/settings.json", "{}")),
        ("ConfigMap", "risk-settings", edit("data/more", "x")),
        ("ConfigMap", "risk-settings", edit("metadata/labels/app.kubernetes.io~name", None)),
        ("Service", "risk-agents", edit("spec/publishNotReadyAddresses", False)),
        ("Service", "risk", edit("spec/selector/extra", "x")),
        ("Service", "risk", edit("spec/ports/0/port", 81)),
        ("PodDisruptionBudget", "risk", edit("spec/minAvailable", 7)),
        ("PodDisruptionBudget", "risk", edit("metadata/ownerReferences", None)),
        ("NetworkPolicy", "risk", edit("spec/policyTypes", ["Ingress"])),
        ("NetworkPolicy", "risk", edit("spec/podSelector", {"matchLabels": {"agentswarm.dev/role": "compute"}})),
        ("NetworkPolicy", "risk", edit("spec/ingress/0/from/3", {"namespaceSelector": {}})),
        ("NetworkPolicy", "risk", edit("spec/ingress/0/ports", None)),
        ("NetworkPolicy", "risk", edit("spec/egress/2", {})),
        ("NetworkPolicy", "risk", edit("spec/egress", None)),
        ("Secret", "risk-keys", edit("data/more", "eA==")),
        ("Secret", "risk-keys", edit("type", "mine")),
    ],
    ids=lambda v: v if isinstance(v, str) else "edit",
)
def test_every_edit_of_a_child_is_planned_away(kind: str, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    world = converged()
    view = world.objects[kind, name]
    body = copy.deepcopy(view.body)
    labels = body["metadata"]["labels"]
    body["metadata"]["labels"] = {k.replace("/", "~"): v for k, v in labels.items()}
    change(body)
    body["metadata"]["labels"] = {k.replace("~", "/"): v for k, v in body["metadata"]["labels"].items()}
    owners = tuple(o["uid"] for o in body["metadata"].get("ownerReferences", ()))
    world.objects[kind, name] = type(view)(
        view.kind, view.namespace, view.name, view.uid, view.resource_version, owners, False, body
    )
    (action,) = plan(world.snapshot(), world.now).actions
    assert isinstance(action, Apply | EnsureKeys)
    assert (action.kind, action.name, action.exists) == (kind, name, True)


@pytest.mark.parametrize(
    "kind", ["ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "Secret", "NetworkPolicy"]
)
def test_every_deleted_child_is_planned_anew(kind: str) -> None:
    world = converged()
    gone = [key for key in world.objects if key[0] == kind]
    for key in gone:
        del world.objects[key]
    planned = plan(world.snapshot(), world.now)
    assert {(a.kind, a.name) for a in planned.actions if isinstance(a, Apply | EnsureKeys)} >= set(gone)


def test_a_child_of_an_earlier_swarm_is_waited_for() -> None:
    world = converged()
    for key, view in world.objects.items():
        world.objects[key] = type(view)(
            view.kind, view.namespace, view.name, view.uid, view.resource_version, ("earlier",), False, view.body
        )
    planned = plan(world.snapshot(), world.now)
    assert not [a for a in planned.actions if isinstance(a, Apply) and a.kind != "ControllerRevision"]
    assert any("an earlier Swarm" in text for text in planned.blocked)
