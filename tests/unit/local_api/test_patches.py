"""The patch types that compute a new object."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.api.patch import json_patch, merge_patch, strategic_merge_patch
from swarm_deploy.local.api.types import builtin_type

Object = dict[str, Any]
POD = builtin_type("", "v1", "Pod")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


# The table of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_is_rfc_7396(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@given(values, values)
def test_a_merge_patch_applied_twice_is_one_applied_once(target: Any, patch: Any) -> None:
    before = deepcopy(target)
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert target == before, "the argument stays as it was"


@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3))
def test_a_merge_patch_onto_nothing_is_the_patch_without_nulls(patch: Object) -> None:
    assert merge_patch({}, patch) == without_nulls(patch)


def test_a_json_patch_is_applied_whole_or_not_at_all() -> None:
    target = {"a": 1, "b": [1, 2]}
    operations = [{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/b/-", "value": 3}]
    assert json_patch(target, operations) == {"a": 2, "b": [1, 2, 3]}
    for bad in (
        [{"op": "test", "path": "/a", "value": 9}],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "no-such", "path": "/a"}],
        [{"path": "/a"}],
        [{"op": "replace", "path": "", "value": 3}],
    ):
        with pytest.raises(ApiError) as error:
            json_patch(target, [*operations, *bad])
        assert error.value.code == 422
        assert error.value.reason == "Invalid"


def test_what_is_no_json_patch_is_a_bad_request() -> None:
    with pytest.raises(ApiError) as error:
        json_patch({}, {"op": "add"})
    assert error.value.code == 400
    with pytest.raises(ApiError) as error:
        json_patch({}, [{"op": "test", "path": "/a", "value": 1}] * 10_001)
    assert error.value.code == 413


def pod(**spec: Any) -> Object:
    return {"metadata": {"labels": {"a": "1"}}, "spec": spec}


def smp(target: Object, patch: Object) -> Object:
    before = deepcopy(target)
    result = strategic_merge_patch(POD, target, patch)
    assert target == before, "the argument stays as it was"
    return result


def test_a_keyed_list_is_merged_by_its_key() -> None:
    target = pod(containers=[{"name": "a", "image": "1", "env": [{"name": "E", "value": "x"}]}, {"name": "b"}])
    patch = {"spec": {"containers": [{"name": "a", "env": [{"name": "F", "value": "y"}]}, {"name": "c"}]}}
    containers = smp(target, patch)["spec"]["containers"]
    assert [c["name"] for c in containers] == ["a", "b", "c"]
    assert containers[0] == {
        "name": "a",
        "image": "1",
        "env": [{"name": "E", "value": "x"}, {"name": "F", "value": "y"}],
    }


def test_directives_delete_replace_and_order() -> None:
    target = pod(containers=[{"name": "a"}, {"name": "b"}, {"name": "c"}], nodeSelector={"x": "1", "y": "2"})
    deleted = smp(target, {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}})
    assert [c["name"] for c in deleted["spec"]["containers"]] == ["a", "c"]
    replaced = smp(target, {"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}})
    assert replaced["spec"]["containers"] == [{"name": "z"}]
    assert smp(target, {"spec": {"nodeSelector": {"$patch": "replace", "z": "3"}}})["spec"]["nodeSelector"] == {
        "z": "3"
    }
    ordered = smp(
        target, {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}}
    )
    assert [c["name"] for c in ordered["spec"]["containers"]] == ["c", "b", "a"], "who is not listed keeps its place"


def test_a_list_of_plain_values_is_added_to_and_taken_from() -> None:
    target = {"metadata": {"finalizers": ["a", "b"]}}
    assert smp(target, {"metadata": {"finalizers": ["c", "a"]}})["metadata"]["finalizers"] == ["a", "b", "c"]
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert smp(target, patch)["metadata"]["finalizers"] == ["b"]


def test_a_list_without_a_merge_key_is_replaced() -> None:
    target = pod(containers=[{"name": "a", "command": ["x", "y"]}])
    patch = {"spec": {"containers": [{"name": "a", "command": ["z"]}]}}
    assert smp(target, patch)["spec"]["containers"][0]["command"] == ["z"]


def test_null_removes_and_an_item_without_its_key_is_refused() -> None:
    assert smp(pod(nodeName="n"), {"spec": {"nodeName": None}, "metadata": {"labels": {"a": None}}}) == {
        "metadata": {"labels": {}},
        "spec": {},
    }
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        smp(pod(containers=[{"name": "a"}]), {"spec": {"containers": [{"image": "x"}]}})
    with pytest.raises(ApiError, match="Unknown patch type: nonsense"):
        smp(pod(nodeSelector={}), {"spec": {"nodeSelector": {"$patch": "nonsense"}}})
