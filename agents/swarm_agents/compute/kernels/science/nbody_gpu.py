"""Bodies under gravity on a GPU: forces and energies there, the leapfrog on the host, which sees to checkpoints.

A step moves 6 doubles a body over the bus and computes n² pairs, in tiles of bodies that leave room in the pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import gpu
from swarm_agents.compute.kernels.science import nbody as host

Floats = NDArray[np.float64]
#: Doubles that a pair takes on the device at once: the vector twice, its square, root, weight and product.
_DOUBLES = 16


def _tile(device: gpu.Device, n: int) -> int:
    """How many bodies' pairs with all n are on the device at once."""
    return device.rows(n, 8 * _DOUBLES * n, 1)


def _pairs(device: gpu.Device, x: Any, begin: int, end: int, soft: float) -> tuple[Any, Any, Any]:
    """Vectors [3, i, j] from bodies begin…end to all, where they are apart, and 1/distance, 0 where they are not."""
    xp = device.xp
    d = x[:, None, :] - x[:, begin:end, None]
    square = (d * d).sum(axis=0) + soft
    apart = square > 0.0
    return d, apart, xp.where(apart, 1.0 / xp.sqrt(xp.where(apart, square, 1.0)), 0.0)


class _OnDevice:
    """`_Gravity` on a device; the masses go there once."""

    def __init__(self, device: gpu.Device, mass: Floats) -> None:
        self._device = device
        self._mass = device.put(mass)

    def accelerate(self, x: Floats, mass: Floats, soft: float, out: Floats, begin: int, end: int) -> None:
        there = self._device.put(x)
        tile = _tile(self._device, len(mass))
        for at in range(begin, end, tile):
            stop = min(at + tile, end)
            d, _, inverse = _pairs(self._device, there, at, stop, soft)
            weight = self._mass[None, :] * inverse * inverse * inverse
            part = np.empty((3, stop - at))
            self._device.fetch((d * weight[None]).sum(axis=2), part)
            out[:, at:stop] = part

    def potential(self, x: Floats, mass: Floats, soft: float) -> float:
        """Half the sum over ordered pairs; a body is no pair with itself, softened or not."""
        xp, there = self._device.xp, self._device.put(x)
        tile, total = _tile(self._device, len(mass)), 0.0
        bodies = xp.arange(len(mass))
        for at in range(0, len(mass), tile):
            stop = min(at + tile, len(mass))
            _, _, inverse = _pairs(self._device, there, at, stop, soft)
            inverse = xp.where(bodies[None, :] == bodies[at:stop, None], 0.0, inverse)
            total -= 0.5 * float((self._mass[at:stop, None] * self._mass[None, :] * inverse).sum())
        return total


@host.nbody.implementation("cupy", warm=lambda: None, tolerance=1e-8, default=False, device=True)
def _(positions: Floats, velocities: Floats, masses: Floats, **options: Any) -> dict[str, Any]:
    def on_device(device: gpu.Device) -> dict[str, Any]:
        there = _OnDevice(device, masses)
        o = host._options(positions, velocities, masses, options)
        return host._simulate(host._Gravity(there.accelerate, there.potential), o)

    def on_cpu() -> dict[str, Any]:
        result: dict[str, Any] = host.nbody.implementations["numba"].function(positions, velocities, masses, **options)
        return result

    return gpu.offload(on_device, on_cpu)
