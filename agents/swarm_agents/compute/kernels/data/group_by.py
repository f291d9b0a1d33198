"""Aggregates of a column by the keys of another: count, sum, minimum, maximum and mean of each group.

The compiled form is a hash aggregation: an open-addressed table from key to group number, which grows as groups are
found, so that few groups stay in the first cache however many rows there are (sources: see `join`). The reference
sorts. Both add up a group's values in the order of the rows, so their sums are equal to the last bit.

Answers of shards are joined by `merge`, means too, since counts and sums come with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["group_by", "merge"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def _named(keys: Ints, counts: Ints, sums: Floats, least: Floats, most: Floats) -> dict[str, Any]:
    return {
        "keys": keys,
        "count": counts,
        "sum": sums,
        "minimum": least,
        "maximum": most,
        "mean": sums / counts,
    }


@kernel("data.group_by")
def group_by(
    keys: Annotated[Ints, Dims("n", empty=True)], values: Annotated[Floats, Dims("n", empty=True), Finite()]
) -> dict[str, Any]:
    """Aggregates by key: `keys` int64 [groups], ascending, and `count`, `sum`, `minimum`, `maximum`, `mean` of each.

    `count` is int64, the others are float64, in the values' unit. No rows give no groups. Sums beyond 1e308 are
    infinite.
    """
    found, group = np.unique(keys, return_inverse=True)
    counts = np.bincount(group, minlength=found.size).astype(np.int64)
    sums = np.bincount(group, values, found.size).astype(np.float64)
    least, most = np.full(found.size, np.inf), np.full(found.size, -np.inf)
    np.minimum.at(least, group, values)
    np.maximum.at(most, group, values)
    return _named(found.astype(np.int64), counts, sums, least, most)


@group_by.memory
def _(keys: Any, **_: Any) -> float:
    return float(128.0 * len(keys))


@group_by.samples
def _(rng: np.random.Generator) -> Call:
    n, kinds = int(rng.integers(1, 3000)), int(rng.integers(1, 500))
    return call(rng.integers(-kinds, kinds, n), rng.normal(10.0, 3.0, n))


@group_by.implementation("threads", parallel=True, tolerance=1e-12, default=False)
def _(keys: Ints, values: Floats) -> dict[str, Any]:
    ranges = team.pieces(keys.size, least=1 << 16)
    return merge(team.run(lambda begin, end: _grouped(keys[begin:end], values[begin:end]), ranges))


@group_by.implementation("numba")
def _(keys: Ints, values: Floats) -> dict[str, Any]:
    return _grouped(keys, values)


def _grouped(keys: Ints, values: Floats) -> dict[str, Any]:
    from swarm_agents.compute.kernels.data import jit

    groups, found, figures = jit.group(keys, values)
    order = np.argsort(found[:groups])
    count, *others = (np.ascontiguousarray(column) for column in figures[order].T)
    return _named(found[order], count.astype(np.int64), *others)


def merge(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The aggregates of all shards' rows together, from those of each shard; at least one."""
    if len(parts) == 1:
        return parts[0]
    keys, group = np.unique(np.concatenate([part["keys"] for part in parts]), return_inverse=True)
    counts, sums = np.zeros(keys.size, np.int64), np.zeros(keys.size)
    least, most = np.full(keys.size, np.inf), np.full(keys.size, -np.inf)
    np.add.at(counts, group, np.concatenate([part["count"] for part in parts]))
    np.add.at(sums, group, np.concatenate([part["sum"] for part in parts]))
    np.minimum.at(least, group, np.concatenate([part["minimum"] for part in parts]))
    np.maximum.at(most, group, np.concatenate([part["maximum"] for part in parts]))
    return _named(keys, counts, sums, least, most)
