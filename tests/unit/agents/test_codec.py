"""Values survive the journey, and what can't travel is refused with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swarm_agents import codec
from swarm_agents.errors import PayloadError

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
dtypes = (
    hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.complex_number_dtypes() | hnp.boolean_dtypes()
    | hnp.unicode_string_dtypes(max_len=5) | hnp.byte_string_dtypes(max_len=5) | hnp.datetime64_dtypes()
)  # fmt: skip


def travel(value: object) -> object:
    header, arrays = codec.encode(value)
    return codec.decode(header, [a.tobytes() for a in arrays])


@given(plain)
def test_plain_values_come_back_equal(value: object) -> None:
    assert travel(value) == value


@given(st.data())
def test_arrays_come_back_with_their_dtype_shape_and_every_bit(data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(data.draw(dtypes), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
    (back,) = travel([array])  # type: ignore[misc]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_structured_arrays_with_sub_arrays_come_back() -> None:
    array = np.zeros(3, [("price", "<f8"), ("vector", "<f4", (2, 2)), ("nested", [("a", "i2"), ("b", "S3")])])
    array["vector"][1] = 7
    (back,) = travel([array])  # type: ignore[misc]
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("layout", [lambda a: a.T, lambda a: a[::2, ::-1], np.asfortranarray])
def test_arrays_that_are_not_contiguous_come_back_equal(layout: object) -> None:
    array = layout(np.arange(24.0).reshape(4, 6))  # type: ignore[operator]
    assert np.array_equal(travel(array), array)  # type: ignore[arg-type]


def test_a_contiguous_array_is_not_copied_when_it_is_encoded() -> None:
    array = np.arange(1000)
    _, (sent,) = codec.encode({"x": array})
    assert np.shares_memory(sent, array)


def test_numpy_scalars_keep_their_type_and_complex_numbers_their_parts() -> None:
    back = travel([np.float32(1.5), np.int8(-3), 1 + 2j, np.datetime64("2020-04-20")])
    assert isinstance(back, list)
    assert [type(v) for v in back[:2]] == [np.float32, np.int8]
    assert back == [np.float32(1.5), np.int8(-3), 1 + 2j, np.datetime64("2020-04-20")]


def test_not_a_number_stays_not_a_number() -> None:
    assert math.isnan(travel(math.nan))  # type: ignore[arg-type]


def test_what_comes_back_can_not_be_written_to() -> None:
    back = travel(np.arange(3))
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([object()]), "Python objects"),
        (np.zeros(1, [("a", "O")]), "Python objects"),
        ([{1, 2}, object()], "can't travel"),
        (2**70, "can't travel"),
        (print, "builtins.builtin_function_or_method"),
    ],
)
def test_what_has_no_encoding_is_refused_with_the_reason(value: object, says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        codec.encode(value)


@given(st.binary(max_size=64))
def test_a_header_of_random_bytes_is_an_error_or_a_value_but_never_a_crash(header: bytes) -> None:
    try:
        codec.decode(header, [b"1234"])
    except PayloadError:
        pass


@given(st.data())
def test_a_mutated_header_never_shows_memory_that_is_not_the_buffer(data: st.DataObject) -> None:
    header, arrays = codec.encode([np.arange(4, dtype=np.int32), "x"])
    torn = bytearray(header)
    torn[data.draw(st.integers(0, len(torn) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = codec.decode(bytes(torn), [arrays[0].tobytes()])
    except PayloadError:
        return
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        assert value[0].nbytes <= arrays[0].nbytes


def test_a_missing_buffer_is_an_error() -> None:
    header, _ = codec.encode(np.arange(4))
    with pytest.raises(PayloadError, match="buffer 0 of 0"):
        codec.decode(header, [])
