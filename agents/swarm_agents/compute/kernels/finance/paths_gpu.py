"""Path-dependent options by Monte Carlo on a GPU: the same paths as on the host, all steps of a tile of them at once.

Random numbers come from the same counters (Philox 4x32-10, see `paths`), so a path is the same whoever simulates it.
Nothing but five sums a block travels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import gpu
from swarm_agents.compute.kernels.finance import paths as host

Floats = NDArray[np.float64]
#: Doubles for each step of a pair that are on the device at once.
_DOUBLES = 16


def _normals(device: gpu.Device, terms: Any, pairs: Any, stream: int) -> Any:
    """The normal numbers of each pair's steps, [step, pair]."""
    xp, (k0, k1), u64 = device.xp, terms.key, np.uint64
    groups, mask = (terms.steps + 3) // 4, np.uint64(0xFFFFFFFF)
    number = xp.arange(groups, dtype=u64)[:, None]
    c0 = xp.zeros((groups, len(pairs)), u64) + (pairs & mask)[None, :]
    c1 = xp.zeros((groups, len(pairs)), u64) + (pairs >> u64(32))[None, :]
    c2 = xp.zeros((groups, len(pairs)), u64) + number
    c3 = xp.zeros((groups, len(pairs)), u64) + u64(stream)
    for _ in range(10):
        p0, p1 = c0 * u64(0xD2511F53), c2 * u64(0xCD9E8D57)
        c0, c1 = (p1 >> u64(32)) ^ c1 ^ u64(k0), p1 & mask
        c2, c3 = (p0 >> u64(32)) ^ c3 ^ u64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    z = xp.empty((groups, 4, len(pairs)), np.float64)
    for half, (high, low) in enumerate(((c0, c1), (c2, c3))):
        bits = (high << u64(32)) | low
        radius = xp.sqrt(-2.0 * xp.log(((bits >> u64(28)).astype(np.float64) + 0.5) * 2.0**-36))
        angle = 2.0 * np.pi * ((bits & u64(0xFFFFFFF)).astype(np.float64) + 0.5) * 2.0**-28
        z[:, 2 * half], z[:, 2 * half + 1] = radius * xp.cos(angle), radius * xp.sin(angle)
    return z.reshape(4 * groups, len(pairs))[: terms.steps]


def _asian(device: gpu.Device, terms: Any, pairs: Any) -> tuple[Any, Any]:
    xp, n = device.xp, terms.steps
    spot, strike, sign, discount, vol, mean_drift, shift = terms.values.tolist()
    w = xp.cumsum(_normals(device, terms, pairs, 0), axis=0)
    growth = device.put(terms.growth)[:, None]
    total = w.sum(axis=0)
    payoff, control = 0.0, 0.0
    for move in (vol, -vol):
        mean = spot * (growth * xp.exp(move * w)).sum(axis=0) / n
        payoff = payoff + xp.maximum(sign * (mean - strike), 0.0)
        geometric = spot * xp.exp(mean_drift + move * total / n)
        control = control + xp.maximum(sign * (geometric - strike), 0.0)
    return 0.5 * discount * payoff - shift, 0.5 * discount * control - shift


def _barrier(device: gpu.Device, terms: Any, pairs: Any) -> tuple[Any, Any]:
    xp = device.xp
    spot, strike, sign, discount, vol, drift, shift, side, level, dead = terms.values.tolist()
    w = xp.cumsum(_normals(device, terms, pairs, 1), axis=0)
    drifts = xp.arange(1, terms.steps + 1, dtype=np.float64)[:, None] * drift
    payoff, control = 0.0, 0.0
    for move in (vol, -vol):
        highest = (side * (drifts + move * w)).max(axis=0)
        plain = xp.maximum(sign * (spot * xp.exp(drift * terms.steps + move * w[-1]) - strike), 0.0)
        control = control + plain
        payoff = payoff + xp.where((highest >= level) != bool(dead), plain, 0.0)
    return 0.5 * discount * payoff - shift, 0.5 * discount * control - shift


def _simulated(device: gpu.Device, terms: Any, begin: int, end: int, sums: Floats) -> None:
    """Fills the rows begin…end of the blocks' sums, a tile of whole blocks at a time."""
    xp, block = device.xp, host._BLOCK
    tile = device.rows(end - begin, 8 * _DOUBLES * block * (terms.steps + 4), 1)
    for at in range(begin, end, tile):
        stop = min(at + tile, end)
        first, last = at * block, min(stop * block, terms.pairs)
        lanes = xp.arange(first, last).astype(np.uint64) + np.uint64(terms.first)
        y, c = (_asian if terms.kind == "asian" else _barrier)(device, terms, lanes)
        figures = xp.zeros((5, (stop - at) * block), np.float64)
        for row, values in enumerate((y, c, y * y, c * c, y * c)):
            figures[row, : last - first] = values
        part = np.empty((5, stop - at))
        device.fetch(figures.reshape(5, stop - at, block).sum(axis=2), part)
        sums[at:stop] = part.T


@host.monte_carlo_path.implementation("cupy", warm=lambda: None, tolerance=1e-7, default=False, device=True)
def _(spot: float, strike: float, maturity: float, rate: float, sigma: float, **options: Any) -> dict[str, Any]:
    market = spot, strike, maturity, rate, sigma

    def on_device(device: gpu.Device) -> dict[str, Any]:
        def simulation(terms: Any, begin: int, end: int, sums: Floats) -> None:
            _simulated(device, terms, begin, end, sums)

        return host._simulate(simulation, host._options(market, options))

    def on_cpu() -> dict[str, Any]:
        result: dict[str, Any] = host.monte_carlo_path.implementations["numba"].function(*market, **options)
        return result

    return gpu.offload(on_device, on_cpu)
