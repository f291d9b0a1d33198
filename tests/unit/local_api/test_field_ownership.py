"""Who owns which field: sets, what counts as a change, and server-side apply by the rules of structured-merge-diff."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.api import fields as fs
from swarm_deploy.local.api import managed
from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.api.types import builtin_type, custom_type

Object = dict[str, Any]

POD = builtin_type("", "v1", "Pod")
MAP = builtin_type("", "v1", "ConfigMap")
KIND = custom_type(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "colour": {"type": "string"},
                    "deep": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
                    "parts": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"id": {"type": "string"}, "weight": {"type": "integer"}},
                        },
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["id"],
                    },
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "row": {"type": "array", "items": {"type": "integer"}},
                    "notes": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            }
        },
    }
)
EMPTY: Object = {"apiVersion": "t/v1", "kind": "T", "metadata": {}}


def obj(**spec: Any) -> Object:
    return {"apiVersion": "t/v1", "kind": "T", "metadata": {"name": "x"}, "spec": spec}


def applied(live: Object, config: Object, manager: str, *, force: bool = False, now: str = "T0") -> Object:
    return managed.apply(KIND, live, config, manager=manager, version="t/v1", now=now, force=force)


def updated(live: Object, sent: Object, manager: str, now: str = "T0") -> Object:
    return managed.update(KIND, live, sent, manager=manager, version="t/v1", now=now)


def owns(result: Object, manager: str) -> Object:
    entry = next(e for e in result["metadata"]["managedFields"] if e["manager"] == manager)
    fields: Object = entry["fieldsV1"]
    return fields


paths = st.lists(
    st.lists(st.sampled_from(["f:a", "f:b", "f:c", 'k:{"id":"x"}', 'v:"y"']), min_size=1, max_size=4).map(tuple),
    max_size=12,
).map(frozenset)


@given(paths)
def test_a_set_of_fields_survives_being_written_down(fields: fs.Fields) -> None:
    assert fs.decode(fs.encode(fields)) == fields


def test_a_path_reads_as_in_messages() -> None:
    path = ("f:spec", "f:containers", 'k:{"name":"c"}', "f:args", 'v:"x"', "i:0")
    assert fs.show(path) == '.spec.containers[name="c"].args[="x"][0]'


def test_an_item_is_owned_by_its_key_and_a_key_left_out_by_its_default() -> None:
    service = builtin_type("", "v1", "Service")
    claimed = fs.claims(service, {"spec": {"ports": [{"port": 1}]}})
    assert ("f:spec", "f:ports", 'k:{"port":1,"protocol":"TCP"}') in claimed


def test_a_new_container_is_itself_a_member_and_an_old_one_is_not() -> None:
    first = fs.compare(KIND, EMPTY, obj(deep={"a": 1}))
    assert ("f:spec", "f:deep") in first.added
    second = fs.compare(KIND, obj(deep={"a": 1}), obj(deep={"a": 1, "b": 2}))
    assert second.added == {("f:spec", "f:deep", "f:b")}
    assert not second.modified
    assert not second.removed


def test_an_atomic_list_has_one_owner_and_a_set_one_for_each_member() -> None:
    claimed = fs.claims(KIND, obj(row=[1, 2], tags=["a", "b"]))
    assert ("f:spec", "f:row") in claimed
    assert ("f:spec", "f:tags", 'v:"a"') in claimed
    assert ("f:spec", "f:tags") not in claimed


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (obj(nonsense=1), ".spec.nonsense: field not declared in schema"),
        (obj(parts=[{"weight": 1}]), "omits key field"),
        (obj(parts=[{"id": "a"}, {"id": "a"}]), '.spec.parts[id="a"]: duplicate entries for key'),
        (obj(deep=3), ".spec.deep: expected map"),
    ],
)
def test_a_configuration_that_does_not_fit_its_type_can_not_be_applied(config: Object, reason: str) -> None:
    with pytest.raises(ApiError) as error:
        applied(EMPTY, config, "m")
    assert error.value.code == 500, "as a real server answers, oddly"
    assert reason in error.value.message
    assert error.value.message.startswith("failed to create typed patch object (x; t/v1, Kind=T)")


def test_applying_again_changes_nothing_and_does_not_move_the_time() -> None:
    config = obj(size=1, parts=[{"id": "a", "weight": 2}], notes={"k": "v"})
    once = applied(EMPTY, config, "m", now="T1")
    assert applied(once, config, "m", now="T2") == once


def test_what_a_manager_no_longer_applies_goes() -> None:
    once = applied(EMPTY, obj(size=1, colour="red", parts=[{"id": "a"}, {"id": "b"}], tags=["x", "y"]), "m")
    twice = applied(once, obj(size=1, parts=[{"id": "b"}], tags=["y"]), "m")
    assert twice["spec"] == {"size": 1, "parts": [{"id": "b"}], "tags": ["y"]}


def test_what_another_manager_also_applies_stays() -> None:
    once = applied(EMPTY, obj(size=1, colour="red"), "m")
    both = applied(once, obj(colour="red"), "other")
    left = applied(both, obj(size=1), "m")
    assert left["spec"] == {"size": 1, "colour": "red"}
    gone = applied(left, {k: v for k, v in obj().items() if k != "spec"}, "other")
    assert gone["spec"] == {"size": 1}


def test_a_field_of_another_manager_with_another_value_is_a_conflict() -> None:
    live = applied(EMPTY, obj(size=1, colour="red"), "m")
    with pytest.raises(ApiError) as error:
        applied(live, obj(size=2), "other")
    assert error.value.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Apply failed with 1 conflict: conflict with "m": .spec.size',
        "reason": "Conflict",
        "details": {
            "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "m"', "field": ".spec.size"}]
        },
        "code": 409,
    }


def test_conflicts_with_several_are_listed_by_manager() -> None:
    live = applied(EMPTY, obj(size=1, colour="red"), "b")
    live = updated(live, {**live, "spec": {**live["spec"], "colour": "green"}}, "a")
    with pytest.raises(ApiError) as error:
        applied(live, obj(size=2, colour="blue"), "c")
    assert error.value.message == (
        "Apply failed with 2 conflicts: "
        'conflicts with "a" using t/v1:\n- .spec.colour\n'
        'conflicts with "b":\n- .spec.size'
    )


def test_force_takes_the_field_over() -> None:
    live = applied(EMPTY, obj(size=1, colour="red"), "m")
    taken = applied(live, obj(size=2), "other", force=True)
    assert taken["spec"]["size"] == 2
    assert owns(taken, "m") == {"f:spec": {"f:colour": {}}}
    assert owns(taken, "other") == {"f:spec": {"f:size": {}}}


def test_the_same_value_is_shared_without_a_conflict() -> None:
    live = applied(EMPTY, obj(size=1), "m")
    both = applied(live, obj(size=1), "other")
    assert owns(both, "m") == owns(both, "other") == {"f:spec": {"f:size": {}}}


def test_an_update_takes_what_it_changes_and_leaves_the_rest() -> None:
    live = updated(EMPTY, obj(size=1, colour="red"), "creator")
    changed = updated(live, {**live, "spec": {"size": 2, "colour": "red"}}, "editor")
    assert owns(changed, "editor") == {"f:spec": {"f:size": {}}}
    assert owns(changed, "creator") == {"f:spec": {".": {}, "f:colour": {}}}


def test_a_manager_that_owns_nothing_any_more_is_forgotten() -> None:
    live = updated(EMPTY, obj(size=1), "creator")
    changed = updated(live, {**live, "spec": {"size": 2}}, "editor")
    gone = updated(changed, {k: v for k, v in changed.items() if k != "spec"}, "remover")
    assert "managedFields" not in gone["metadata"]


def test_more_than_ten_updaters_are_kept_as_the_newest_and_ancient_changes() -> None:
    live = obj(notes={})
    for number in range(14):
        notes = {**live["spec"]["notes"], f"k{number}": "v"}
        live = updated(live, {**live, "spec": {"notes": notes}}, f"m{number:02}", now=f"T{number:02}")
    managers = [e["manager"] for e in live["metadata"]["managedFields"]]
    assert len(managers) == 10
    assert "ancient-changes" in managers
    assert "m13" in managers
    assert "m00" not in managers
    everything = frozenset().union(*(fs.decode(e["fieldsV1"]) for e in live["metadata"]["managedFields"]))
    assert ("f:spec", "f:notes", "f:k0") in everything, "nothing has lost its owner"


def test_a_client_may_clear_the_bookkeeping() -> None:
    live = updated(EMPTY, obj(size=1), "creator")
    cleared = updated(live, {**live, "metadata": {"name": "x", "managedFields": [{}]}}, "editor")
    assert "managedFields" not in cleared["metadata"]


def test_nonsense_in_the_bookkeeping_is_ignored() -> None:
    live = updated(EMPTY, obj(size=1), "creator")
    sent = {**live, "metadata": {"name": "x", "managedFields": [{"manager": "m", "operation": "Nonsense"}]}}
    assert updated(live, sent, "editor")["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_an_apply_without_a_manager_is_refused() -> None:
    with pytest.raises(ApiError, match="fieldManager: Required value: is required for apply patch"):
        applied(EMPTY, obj(size=1), "")


def test_merging_keeps_the_places_of_items_it_does_not_name() -> None:
    live = obj(parts=[{"id": "a"}, {"id": "b"}, {"id": "c"}])
    merged = fs.merge(KIND, live, obj(parts=[{"id": "d"}, {"id": "b", "weight": 1}]))
    assert [p["id"] for p in merged["spec"]["parts"]] == ["a", "d", "b", "c"]


keyed = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=4)


@given(keyed, keyed, keyed)
def test_after_any_applies_each_managers_configuration_holds(one: Object, two: Object, three: Object) -> None:
    """Two managers, the first applying twice: what is there is what both last asked for, the later one winning."""

    def config(weights: Object) -> Object:
        return obj(parts=[{"id": k, "weight": v} for k, v in weights.items()])

    live = applied(EMPTY, config(one), "a", force=True)
    live = applied(live, config(two), "b", force=True)
    live = applied(live, config(three), "a", force=True)
    found = {p["id"]: p.get("weight") for p in (live.get("spec") or {}).get("parts") or []}
    # What only `a` had applied, and no longer does, is gone; what `b` applied is there unless `a` said otherwise.
    assert found.keys() == two.keys() | three.keys()
    for key, weight in found.items():
        assert weight == (three[key] if key in three else two[key])
