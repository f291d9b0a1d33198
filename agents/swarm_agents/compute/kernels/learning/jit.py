"""The compiled loops of the learning kernels; imports Numba.

Explicit signatures: importing the module compiles it, or loads it from the cache. Arguments may be read-only, since
they often lie in shared memory. Only `logistic`'s scalar product may be summed in another order than written (the flag
`reassoc`): without that it can't use vector registers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import exponential, normal_cdf

__all__ = ["activate", "assign", "logistic"]

_vector = types.Array(float64, 1, "C", readonly=True)
_matrix = types.Array(float64, 2, "C", readonly=True)
_thin = types.Array(float32, 1, "C", readonly=True)


@njit(types.void(float32[:, ::1], _thin, int64), cache=True, nogil=True, error_model="numpy")
def activate(z, bias, activation):  # type: ignore[no-untyped-def]
    """Adds the bias to each row of `z` and applies the activation, numbered as in `dense.ACTIVATIONS`; in place."""
    n, outputs = z.shape
    for i in range(n):
        row = z[i]
        for j in range(outputs):
            row[j] += bias[j]
        if activation == 1:
            for j in range(outputs):
                row[j] = max(row[j], float32(0.0)) if row[j] == row[j] else row[j]
        elif activation == 2:
            for j in range(outputs):
                row[j] = float32(1.0 / (1.0 + exponential(-float64(row[j]))))
        elif activation == 3:
            for j in range(outputs):
                x = float64(row[j])
                power = exponential(min(max(2.0 * x, -60.0), 60.0))  # beyond 30 it is 1 to the last bit
                row[j] = float32((power - 1.0) / (power + 1.0) if abs(x) > 1e-5 else x)
        elif activation == 4:
            for j in range(outputs):
                x = float64(row[j])
                row[j] = float32(x * normal_cdf(x))
        elif activation == 5:
            largest = row[0]
            for j in range(outputs):
                largest = max(largest, row[j])
            total = 0.0
            for j in range(outputs):
                row[j] = float32(exponential(float64(row[j]) - float64(largest)))
            for j in range(outputs):
                total += row[j]
            inverse = float32(1.0 / total)
            for j in range(outputs):
                row[j] *= inverse


@njit(float64(_matrix, _matrix, int64[::1], float64[:, ::1], int64[::1]), cache=True, nogil=True)
def assign(points, columns, labels, sums, counts):  # type: ignore[no-untyped-def]
    """Labels each point by its nearest centroid and adds it to the cluster's sum and count; the inertia.

    `columns` is [feature, k], so that the distances to all centroids advance side by side in vector registers.
    """
    n, features = points.shape
    k = columns.shape[1]
    distances = np.empty(k)
    inertia = 0.0
    for i in range(n):
        distances[:] = 0.0
        for j in range(features):
            x = points[i, j]
            for c in range(k):
                difference = x - columns[j, c]
                distances[c] += difference * difference
        best = 0
        for c in range(1, k):
            if distances[c] < distances[best]:
                best = c
        labels[i] = best
        counts[best] += 1
        inertia += distances[best]
        for j in range(features):
            sums[best, j] += points[i, j]
    return inertia


@njit(
    float64[::1](_matrix, _vector, _vector, float64), cache=True, nogil=True, fastmath={"reassoc"}, error_model="numpy"
)
def logistic(features, labels, weights, bias):  # type: ignore[no-untyped-def]
    """The gradient by each weight, then the one by the bias, then the loss, summed over the rows."""
    n, width = features.shape
    sums = np.zeros(width + 2)
    for i in range(n):
        z = 0.0
        for j in range(width):
            z += features[i, j] * weights[j]
        z += bias
        small = math.exp(-abs(z))
        error = (1.0 if z >= 0 else small) / (1.0 + small) - labels[i]
        sums[width] += error
        sums[width + 1] += (max(z, 0.0) - labels[i] * z) + math.log1p(small)
        for j in range(width):
            sums[j] += error * features[i, j]
    return sums
