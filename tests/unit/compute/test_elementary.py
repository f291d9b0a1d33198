"""Vectorisable functions against NumPy's and SciPy's; random numbers against published test vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from scipy.special import ndtr

from swarm_agents.compute.kernels import elementary
from swarm_agents.compute.kernels.elementary import cosine_sine, exp_both, logarithm, normal_cdf, normals, philox
from swarm_agents.compute.kernels.finance import paths


@njit
def _all(x, u, turns, out):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        out[0, i], out[1, i] = exp_both(x[i])
        out[2, i] = logarithm(u[i])
        out[3, i], out[4, i] = cosine_sine(turns[i])
        out[5, i] = normal_cdf(x[i])


@njit
def _random(counter, key):  # type: ignore[no-untyped-def]
    words = philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1])
    return words, normals(words[0], words[1])


@pytest.fixture(scope="module")
def values() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(4)
    x = np.concatenate([[0.0, -0.0, 700.0, -700.0, 7.07106781186547, -38.0], rng.uniform(-40, 40, 20_000)])
    u = np.concatenate([[1.0, 2.0**-53, 0.5, 1e300, 1e-300, 2.0], rng.uniform(0, 1, 20_000)])
    turns = np.concatenate([[0.0, 0.25, 0.5, 0.75, 1.0, 0.125], rng.uniform(0, 1, 20_000)])
    out = np.empty((6, len(x)))
    _all(x, u, turns, out)
    return x, u, turns, out


def test_the_exponential_and_its_reciprocal_are_right_to_the_last_digits(values: tuple[np.ndarray, ...]) -> None:
    x, _, _, out = values
    np.testing.assert_allclose(out[0], np.exp(x), rtol=5e-16)
    np.testing.assert_allclose(out[1], np.exp(-x), rtol=5e-16)


def test_the_logarithm_is_right_to_the_last_digits(values: tuple[np.ndarray, ...]) -> None:
    _, u, _, out = values
    np.testing.assert_allclose(out[2], np.log(u), rtol=4e-16)


def test_cosine_and_sine_of_turns_are_right_and_exact_at_the_quarters(values: tuple[np.ndarray, ...]) -> None:
    _, _, turns, out = values
    np.testing.assert_allclose(out[3], np.cos(2 * np.pi * turns), atol=1e-15)
    np.testing.assert_allclose(out[4], np.sin(2 * np.pi * turns), atol=1e-15)
    assert out[3, :5].tolist() == [1, 0, -1, 0, 1]
    assert out[4, :5].tolist() == [0, 1, 0, -1, 0]


def test_the_normal_distribution_is_right_in_its_tails_as_well(values: tuple[np.ndarray, ...]) -> None:
    x, _, _, out = values
    expected = ndtr(x)
    np.testing.assert_allclose(out[5], expected, atol=2e-15)
    far = (x < 0) & (x > -37)
    np.testing.assert_allclose(out[5][far], expected[far], rtol=1e-7)


def test_beyond_its_range_the_exponential_stays_finite_and_above_0() -> None:
    out = np.empty((6, 2))
    _all(np.array([1e4, -1e4]), np.ones(2), np.zeros(2), out)
    assert np.isfinite(out).all()
    assert (out[:2] > 0).all()


# Random123's known answers of philox4x32-10 (kat_vectors): counter, key, result
VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_the_random_words_are_those_that_were_published(counter: Any, key: Any, expected: list[int]) -> None:
    words, _ = _random(np.array(counter, np.uint64), np.array(key, np.uint64))
    assert [int(word) for word in words] == expected


def test_both_implementations_make_the_same_normal_numbers() -> None:
    pairs = np.arange(1 << 33, (1 << 33) + 50, dtype=np.uint64)
    words = paths._philox(pairs, 3, 1, 0x89ABCDEF, 0x01234567)
    expected = np.array(paths._box_muller(words[0], words[1])).T
    for pair, (z1, z2) in zip(pairs.tolist(), expected, strict=True):
        counter = np.array([pair & 0xFFFFFFFF, pair >> 32, 3, 1], np.uint64)
        _, got = _random(counter, np.array([0x89ABCDEF, 0x01234567], np.uint64))
        np.testing.assert_allclose(got, (z1, z2), rtol=1e-13, atol=1e-15)


def test_the_normal_numbers_are_normal() -> None:
    """Moments, tails, and independence of the two numbers, on two hundred thousand."""
    words = paths._philox(np.arange(50_000, dtype=np.uint64), 0, 0, 1, 2)
    z = np.array([*paths._box_muller(*words[:2]), *paths._box_muller(*words[2:])])
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert abs((np.abs(z) > 2).mean() - 2 * ndtr(-2)) < 4 * np.sqrt(0.0455 / n)
    assert np.abs(np.corrcoef(z) - np.eye(4)).max() < 4 / np.sqrt(n / 4)


def test_the_width_that_is_asked_for_is_an_attribute_of_the_function() -> None:
    @njit
    def wide(a):  # type: ignore[no-untyped-def]
        elementary.widest()
        for i in range(len(a)):
            a[i] = a[i] * 2.0

    wide(np.ones(3))
    (text,) = wide.inspect_llvm().values()
    assert '"prefer-vector-width"="512"' in text
