"""Values as JSON: what goes out comes back, and what is wrong is refused with its name."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swarm_agents.errors import PayloadError
from swarm_agents.wire.values import from_json, to_json


def through_json(value):
    return from_json(json.loads(msgspec.json.encode(to_json(value))))


@given(
    hnp.arrays(
        st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_an_array_comes_back_bit_by_bit(array):
    back = through_json(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_a_structured_array_comes_back_with_its_fields():
    array = np.array([(1, 2.5, [1, 2])], dtype=[("n", "<i4"), ("x", "<f8"), ("pair", "<i2", (2,))])
    back = through_json(array)
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "x", b"\x00\xff", 1 + 2j, [1, [2, "a"]], {"k": [b"x"]}])
def test_plain_values_come_back(value):
    assert through_json(value) == value


def test_numpy_scalars_become_numbers():
    assert to_json({"a": np.float64(0.5), "b": np.int8(3), "c": np.bool_(True)}) == {"a": 0.5, "b": 3, "c": True}


def test_a_plain_list_may_be_the_data_of_an_array():
    back = from_json({"dtype": "<f4", "shape": [2, 2], "data": [[1, 2], [3, 4]]})
    np.testing.assert_array_equal(back, np.array([[1, 2], [3, 4]], np.float32))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"dtype": "O", "shape": [1], "data": "AAAA"}, "Python objects"),
        ({"dtype": "nonsense", "shape": [1], "data": "AAAA"}, "dtype='nonsense'"),
        ({"dtype": "<f8", "shape": [2], "data": "AAAA"}, "3 bytes"),
        ({"dtype": "<f8", "shape": [-1], "data": ""}, "shape"),
        ({"dtype": "<f8", "shape": 3, "data": ""}, "shape"),
        ({"dtype": "<f8", "shape": [1], "data": "not base64!"}, "base64"),
        ({"dtype": "<f8", "shape": [1], "data": ["x"]}, "does not fit"),
        ({"dtype": "<f8", "shape": [1], "data": 5}, "expected base64"),
        ({"complex": ["a"]}, "expected"),
        ({"bytes": "%%%"}, "base64"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(value, says):
    with pytest.raises(PayloadError, match=says):
        from_json(value)


def test_an_object_without_a_form_is_refused():
    with pytest.raises(PayloadError, match="object has no form"):
        to_json([object()])
