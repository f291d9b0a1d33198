"""The compiled forces of all pairs of bodies; imports Numba.

The loop over the other bodies is vector code because its sums may be taken in any order ("reassoc"): results meet the
reference to some digits. The signatures are explicit: importing the module compiles it, or loads it from the cache.
"""

from __future__ import annotations

import math

from numba import float64, int64, njit, types

from swarm_agents.compute.kernels.elementary import widest

__all__ = ["accelerate", "potential"]

_positions = types.Array(float64, 2, "C", readonly=True)
_masses = types.Array(float64, 1, "C", readonly=True)
_out = types.Array(float64, 2, "C")


@njit(
    types.void(_positions, _masses, float64, _out, int64, int64),
    cache=True,
    nogil=True,
    fastmath={"reassoc", "contract", "nsz"},
    error_model="numpy",
)
def accelerate(x, mass, soft, out, begin, end):  # type: ignore[no-untyped-def]
    """Fills out[:, begin:end] with the accelerations of those bodies; `soft` is the softening's square."""
    widest()
    for i in range(begin, end):
        xi, yi, zi = x[0, i], x[1, i], x[2, i]
        ax = 0.0
        ay = 0.0
        az = 0.0
        for j in range(len(mass)):
            dx = x[0, j] - xi
            dy = x[1, j] - yi
            dz = x[2, j] - zi
            square = dx * dx + dy * dy + dz * dz + soft
            weight = mass[j] / (square * math.sqrt(square))
            weight = weight if square > 0.0 else 0.0
            ax += dx * weight
            ay += dy * weight
            az += dz * weight
        out[0, i] = ax
        out[1, i] = ay
        out[2, i] = az


@njit(
    float64(_positions, _masses, float64),
    cache=True,
    nogil=True,
    fastmath={"reassoc", "contract", "nsz"},
    error_model="numpy",
)
def potential(x, mass, soft):  # type: ignore[no-untyped-def]
    """The potential energy of all pairs, without the gravitational constant."""
    widest()
    total = 0.0
    for i in range(1, len(mass)):
        xi, yi, zi = x[0, i], x[1, i], x[2, i]
        near = 0.0
        for j in range(i):
            dx = x[0, j] - xi
            dy = x[1, j] - yi
            dz = x[2, j] - zi
            square = dx * dx + dy * dy + dz * dz + soft
            part = mass[j] / math.sqrt(square)
            near += part if square > 0.0 else 0.0
        total -= mass[i] * near
    return total
