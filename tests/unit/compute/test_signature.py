"""Signatures: what reaches a kernel is native, aligned, contiguous and of its dtype, or is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from swarm_agents.compute.signature import Between, Dims, Finite, Signature
from swarm_agents.errors import BadArguments

Matrix = Annotated[NDArray[np.float64], Dims("rows", "columns"), Finite()]
Vector = Annotated[NDArray[np.float64], Dims("columns"), Finite()]

EMPTY = np.empty(0, np.uint8)


def product(a: Matrix, x: Vector, *, scale: Annotated[float, Between(0)] = 1.0) -> None: ...


def mixed(
    data: Annotated[NDArray[np.uint8], Dims("n", empty=True)] = EMPTY,
    *,
    mode: Literal["fast", "good"] = "good",
    name: str = "",
    raw: bytes = b"",
    flag: bool = False,
    limit: int | None = None,
    pair: Annotated[NDArray[np.float64], Dims(2)] | None = None,
    anything: Any = None,
    array: np.ndarray | None = None,
) -> None: ...


PRODUCT = Signature("test.product", product)
MIXED = Signature("test.mixed", mixed)

reals = st.sampled_from(["<f8", ">f8", "<f4", ">f4", "<i4", ">i2", "u1", "?"]).map(np.dtype)
shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
finite = hnp.arrays(reals, shapes, elements={"allow_nan": False, "allow_infinity": False})


@given(finite, st.sampled_from(["as is", "fortran", "strided", "read-only", "misaligned", "list"]))
def test_any_real_matrix_becomes_native_aligned_contiguous_doubles(array: np.ndarray, form: str) -> None:
    given_ = array
    if form == "fortran":
        given_ = np.asfortranarray(array)
    elif form == "strided":
        given_ = np.repeat(array, 2, axis=1)[:, ::2]
    elif form == "read-only":
        given_ = array.copy()
        given_.flags.writeable = False
    elif form == "misaligned":
        raw = np.empty(array.nbytes + 1, np.uint8)
        given_ = raw[1:].view(array.dtype).reshape(array.shape)
        given_[...] = array
    value: Any = array.tolist() if form == "list" else given_
    bound = PRODUCT.bind((value, np.zeros(array.shape[1])), {})["a"]
    assert bound.dtype == np.float64
    assert bound.dtype.isnative
    assert bound.flags.c_contiguous
    assert bound.flags.aligned
    np.testing.assert_array_equal(bound, array.astype(float))


def test_an_array_that_fits_already_is_passed_on_without_a_copy() -> None:
    a, x = np.ones((3, 2)), np.ones(2)
    a.flags.writeable = False
    bound = PRODUCT.bind((a, x), {})
    assert np.shares_memory(bound["a"], a)
    assert np.shares_memory(bound["x"], x)


@pytest.mark.parametrize(
    ("a", "x", "words"),
    [
        (np.ones(3), np.ones(3), "1 dimensions"),
        (np.ones((3, 2)), np.ones(3), r"got shape \(3,\), where columns is 2"),
        (np.ones((0, 2)), np.ones(2), "got an empty array"),
        (np.ones((3, 2)), [], "got an empty array"),
        (np.full((3, 2), np.nan), np.ones(2), r"got nan at index \[0, 0\]"),
        (np.ones((3, 2)), [1, np.inf], r"got inf at index \[1\]"),
        (np.ones((3, 2), complex), np.ones(2), "complex128, which does not convert without loss"),
        (np.array([["a", "b"]]), np.ones(2), "dtype <U1"),
        ([[1, 2], [3]], np.ones(2), "type list"),
        ("text", np.ones(2), "got str 'text'"),
        (None, np.ones(2), "NoneType|Python objects"),
        (np.array([[object(), 1]]), np.ones(2), "Python objects"),
        ({"a": 1}, np.ones(2), "type dict"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_what_was_expected(a: Any, x: Any, words: str) -> None:
    with pytest.raises(BadArguments, match=words) as caught:
        PRODUCT.bind((a, x), {})
    assert "float64[rows, columns] of finite values" in str(caught.value)


def test_bytes_and_lists_are_arrays_of_bytes_and_may_be_empty() -> None:
    for value in (b"\1\2", bytearray(b"\1\2"), memoryview(b"\1\2"), np.array([1, 2], np.uint8)):
        assert MIXED.bind((value,), {})["data"].tolist() == [1, 2]
    assert MIXED.bind((b"",), {})["data"].size == 0
    with pytest.raises(BadArguments, match="int64, which does not convert without loss"):
        MIXED.bind((np.array([1, 2]),), {})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"mode": "slow"}, "one of 'fast', 'good': got 'slow'"),
        ({"name": 3}, "'name' must be str: got int 3"),
        ({"raw": "text"}, "'raw' must be bytes"),
        ({"flag": 1}, "'flag' must be bool"),
        ({"limit": 1.5}, "'limit' must be int or None: got float 1.5"),
        ({"pair": [1.0, 2.0, 3.0]}, r"where 2 is 2"),
    ],
)
def test_each_plain_type_is_checked(kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArguments, match=words):
        MIXED.bind((), kwargs)


def test_what_fits_is_passed_on_as_pythons_own_types() -> None:
    given_ = {"flag": np.bool_(True), "limit": np.int8(3), "raw": bytearray(b"x"), "mode": "fast", "pair": [1, 2]}
    bound = MIXED.bind((), given_)
    assert bound["flag"] is True
    assert type(bound["limit"]) is int
    assert type(bound["raw"]) is bytes
    assert bound["pair"].dtype == np.float64
    assert MIXED.bind((), {"limit": None, "pair": None, "anything": {1: object}}).keys() == {
        "limit",
        "pair",
        "anything",
    }


def test_an_array_of_any_dtype_is_made_native() -> None:
    bound = MIXED.bind((), {"array": np.arange(3, dtype=">i4")})["array"]
    assert bound.dtype == np.int32
    assert bound.tolist() == [0, 1, 2]


def test_the_signature_reads_like_a_function() -> None:
    assert str(PRODUCT) == (
        "test.product(a: float64[rows, columns] of finite values, x: float64[columns] of finite values, *, "
        "scale: float from 0 = 1.0)"
    )


@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_in_a_large_array_one_value_that_is_not_finite_is_found(dtype: str, bad: float) -> None:
    array = np.ones((100, 100), dtype)
    array[99, 98] = bad
    with pytest.raises(BadArguments, match=r"got (nan|inf|-inf) at index \[99, 98\]"):
        PRODUCT.bind((array, np.ones(100)), {})
    array[:, 0], array[:, 1] = np.inf, -np.inf
    with pytest.raises(BadArguments, match=r"got inf at index \[0, 0\]"):
        PRODUCT.bind((array, np.ones(100)), {})


def test_finite_values_whose_sum_is_not_finite_are_taken() -> None:
    array = np.full((100, 100), 1e308)
    assert np.shares_memory(PRODUCT.bind((array, np.ones(100)), {})["a"], array)
