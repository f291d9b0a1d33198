"""Vectors: what is written past the caches is what NumPy computes, wherever it begins and ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.compute import registry
from swarm_agents.compute.kernels.vector import streams


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 200), ahead=st.integers(0, 9), threads=st.booleans(), seed=st.integers(0, 99))
def test_streamed_values_equal_numpys_to_the_last_bit_and_touch_no_neighbour(
    n: int, ahead: int, threads: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, n))
    a, b, c = rng.normal(size=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STREAMED", 0)
        patch.setattr(streams, "_PIECE", 3)
        for fill, expected in (
            (lambda out: streams.triad_into(out, x, y, a, threads=threads), x + a * y),
            (lambda out: streams.chain_into(out, x, y, a, b, c, threads=threads), np.abs((a * x + y) * b - c)),
        ):
            whole = np.full(n + ahead + 16, -7.0)
            fill(whole[ahead : ahead + n])
            assert whole[ahead : ahead + n].tobytes() == expected.tobytes()
            assert (whole[:ahead] == -7.0).all()
            assert (whole[ahead + n :] == -7.0).all()


def test_a_large_answer_is_the_same_by_every_implementation() -> None:
    n = streams.STREAMED // 8 + 5
    x, y = np.random.default_rng(1).normal(size=(2, n))
    for name, *args in (("vector.triad", x, y, 0.3), ("vector.chain", x, y)):
        kernel = registry.get(name)
        answers = [kernel.run(args, implementation=i).tobytes() for i in kernel.implementations]
        assert len(set(answers)) == 1


def test_a_product_over_nothing_is_zero() -> None:
    product = registry.get("vector.gemm")(np.empty((3, 0)), np.empty((0, 2)))
    assert product.shape == (3, 2)
    assert not product.any()
