"""Joins and aggregates against dictionaries and nested loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.compute import memory, registry, team
from swarm_agents.compute.kernels.data.group_by import merge
from swarm_agents.errors import NotEnoughMemory

JOIN, GROUP = registry.get("data.hash_join"), registry.get("data.group_by")
each = pytest.mark.parametrize("implementation", ["numpy", "numba", "threads"])
EXTREMES = [-(2**63), 2**63 - 1, 0, -1, 1 << 32]
keys = st.lists(st.one_of(st.integers(-5, 5), st.sampled_from(EXTREMES)), max_size=60)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "threads", lambda: 3)


def column(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


@each
@settings(max_examples=60, deadline=None)
@given(left=keys, right=keys)
def test_a_join_finds_what_two_nested_loops_find(implementation: str, left: list[int], right: list[int]) -> None:
    got = JOIN.run((column(left), column(right)), implementation=implementation)
    pairs = list(zip(got["left"].tolist(), got["right"].tolist(), strict=True))
    assert pairs == [(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if a == b]


@each
def test_a_large_join_of_keys_that_lie_regularly_is_complete(implementation: str) -> None:
    n = 60_000
    left = np.arange(n, dtype=np.int64) << 20
    right = np.random.default_rng(1).permutation(left)
    got = JOIN.run((left, right), implementation=implementation)
    np.testing.assert_array_equal(got["left"], np.arange(n))
    np.testing.assert_array_equal(right[got["right"]], left)


@each
def test_a_join_that_multiplies_beyond_memory_is_refused(implementation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1e9)
    same = np.zeros(100_000, np.int64)
    with pytest.raises(NotEnoughMemory, match=r"kernel data\.hash_join needs 298 GiB"):
        JOIN.run((same, same), implementation=implementation)


@each
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from([*EXTREMES, *range(-3, 3)]), st.floats(-1e6, 1e6)), max_size=60))
def test_groups_have_the_figures_of_their_rows(implementation: str, rows: list[tuple[int, float]]) -> None:
    got = GROUP.run((column([k for k, _ in rows]), np.array([v for _, v in rows])), implementation=implementation)
    groups: dict[int, list[float]] = {}
    for key, value in rows:
        groups.setdefault(key, []).append(value)
    assert got["keys"].tolist() == sorted(groups)
    for i, key in enumerate(sorted(groups)):
        values = groups[key]
        assert got["count"][i] == len(values)
        assert (got["minimum"][i], got["maximum"][i]) == (min(values), max(values))
        assert got["sum"][i] == pytest.approx(math.fsum(values), abs=1e-8)
        assert got["mean"][i] == pytest.approx(math.fsum(values) / len(values), abs=1e-8)


@each
@pytest.mark.parametrize("groups", [1, 511, 512, 513, 40_000])
def test_the_table_grows_with_the_groups(implementation: str, groups: int) -> None:
    rng = np.random.default_rng(groups)
    codes = rng.permutation(np.repeat(np.arange(groups, dtype=np.int64) * 4096, 5))
    got = GROUP.run((codes, np.ones(codes.size)), implementation=implementation)
    np.testing.assert_array_equal(got["keys"], np.arange(groups) * 4096)
    assert (got["count"] == 5).all()
    assert (got["sum"] == 5.0).all()


def test_aggregates_of_shards_merge_into_those_of_all_rows() -> None:
    rng = np.random.default_rng(9)
    codes, values = rng.integers(0, 50, 5000), rng.normal(size=5000)
    whole: dict[str, Any] = GROUP(codes, values)
    parts = [GROUP(k, v) for k, v in zip(np.array_split(codes, 6), np.array_split(values, 6), strict=True)]
    merged = merge([*parts, GROUP(codes[:0], values[:0])])
    for name in ("keys", "count", "minimum", "maximum"):
        np.testing.assert_array_equal(merged[name], whole[name])
    np.testing.assert_allclose(merged["sum"], whole["sum"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged["mean"], whole["mean"], rtol=1e-12, atol=1e-12)
