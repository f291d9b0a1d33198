"""One step of Lloyd's k-means on a shard: whose cluster each point is, and the sums that make the next centroids.

Source: S. Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 28 (1982). Distances are sums of squared
differences, coordinate by coordinate, and not |x|² − 2x·c + |c|², which is faster by BLAS but loses all digits of
clusters that lie close together far from the origin. Both implementations add in the same order: labels are the same
to the last point, and ties go to the lower centroid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["kmeans_step", "next_centroids"]

Floats = NDArray[np.float64]
#: So many distances are in memory at once, about.
_CHUNK = 1 << 18


@kernel("learning.kmeans_step")
def kmeans_step(
    points: Annotated[Floats, Dims("n", "features"), Finite()],
    centroids: Annotated[Floats, Dims("k", "features"), Finite()],
) -> dict[str, Any]:
    """A k-means step on a shard: `labels` int64 [n], `sums` [k, features], `counts` int64 [k], `inertia`.

    `sums` and `counts` are of each cluster's points; `inertia` is the sum of squared distances to the centroids. All
    but the labels add up over shards; `next_centroids` does it. Distances whose squares pass 1e308 are taken as equal.
    """
    k = len(centroids)
    labels = np.empty(len(points), np.int64)
    nearest = np.empty(len(points))
    chunk = 1 + _CHUNK // k
    for begin in range(0, len(points), chunk):
        part = points[begin : begin + chunk]
        distances = np.zeros((len(part), k))
        with np.errstate(over="ignore"):
            for j in range(points.shape[1]):
                distances += np.square(part[:, j, None] - centroids[None, :, j])
        best = distances.argmin(axis=1)
        labels[begin : begin + len(part)] = best
        nearest[begin : begin + len(part)] = distances[np.arange(len(part)), best]
    sums = np.zeros_like(centroids)
    np.add.at(sums, labels, points)
    counts = np.bincount(labels, minlength=k).astype(np.int64)
    return {"labels": labels, "sums": sums, "counts": counts, "inertia": float(nearest.sum())}


@kmeans_step.memory
def _(points: Any, centroids: Any, **_: Any) -> float:
    return float(8.0 * len(points) * (2 * len(centroids) + len(points.T) + 8) + 64.0 * centroids.size)


@kmeans_step.samples
def _(rng: np.random.Generator) -> Call:
    n, features, k = int(rng.integers(1, 400)), int(rng.integers(1, 9)), int(rng.integers(1, 12))
    return call(rng.normal(size=(n, features)), rng.normal(size=(k, features)))


@kmeans_step.work
def _(points: Floats, centroids: Floats) -> float:
    return len(points) * centroids.size


@kmeans_step.implementation("threads", parallel=True, tolerance=1e-9, default=False)
def _(points: Floats, centroids: Floats) -> dict[str, Any]:
    from swarm_agents.compute.kernels.learning import jit

    columns = np.ascontiguousarray(centroids.T)
    labels = np.empty(len(points), np.int64)

    def part(begin: int, end: int) -> tuple[Floats, NDArray[np.int64], float]:
        return _assign(jit, points[begin:end], columns, labels[begin:end])

    parts = team.run(part, team.pieces(len(points), least=2048))
    sums, counts = sum(p[0] for p in parts), sum(p[1] for p in parts)
    return {"labels": labels, "sums": sums, "counts": counts, "inertia": sum(p[2] for p in parts)}


@kmeans_step.implementation("numba", tolerance=1e-12)
def _(points: Floats, centroids: Floats) -> dict[str, Any]:
    from swarm_agents.compute.kernels.learning import jit

    labels = np.empty(len(points), np.int64)
    sums, counts, inertia = _assign(jit, points, np.ascontiguousarray(centroids.T), labels)
    return {"labels": labels, "sums": sums, "counts": counts, "inertia": inertia}


def _assign(
    jit: Any, points: Floats, columns: Floats, labels: NDArray[np.int64]
) -> tuple[Floats, NDArray[np.int64], float]:
    """Fills the labels in; the sums, counts and inertia. `columns`: the centroids' coordinates, [feature, k]."""
    sums = np.zeros(columns.shape[::-1])
    counts = np.zeros(columns.shape[1], np.int64)
    return sums, counts, jit.assign(points, columns, labels, sums, counts)


def next_centroids(previous: Floats, steps: Iterable[dict[str, Any]]) -> tuple[Floats, float]:
    """The centroids after a step over all shards, and the inertia before it. A cluster without points stays."""
    sums, counts, inertia = np.zeros_like(previous), np.zeros(len(previous), np.int64), 0.0
    for step in steps:
        sums += step["sums"]
        counts += step["counts"]
        inertia += step["inertia"]
    moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], previous)
    return moved, inertia
