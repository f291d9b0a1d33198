"""Options and their greeks on a GPU: five numbers an option travel there, six back, chunk by chunk.

The formulas are those of `black_scholes`, which gives the sources. The bus is what takes the time: 88 bytes an option.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import gpu
from swarm_agents.compute.kernels.finance import black_scholes as host

Floats = NDArray[np.float64]
#: Doubles an option that are on the device at once: arguments, results, and what is on the way to them.
_DOUBLES = 32


@host.black_scholes.implementation("cupy", warm=lambda: None, tolerance=1e-9, default=False, device=True)
def _(
    spot: Floats,
    strike: Floats,
    maturity: Floats,
    rate: Floats,
    sigma: Floats,
    option: str = "call",
    dividend: float = 0.0,
) -> dict[str, Floats]:
    host._check(spot, strike, maturity, rate, sigma, dividend)
    market = [spot, strike, maturity, rate, sigma]

    def on_device(device: gpu.Device) -> dict[str, Floats]:
        out = [np.empty(len(spot)) for _ in host.GREEKS]
        sign = 1.0 if option == "call" else -1.0

        def rows(*chunk: Any) -> list[Any]:
            return host.greeks(device.xp, device.special.ndtr, sign, dividend, *chunk)

        device.over(market, out, rows, per_row=8 * _DOUBLES)
        return dict(zip(host.GREEKS, out, strict=True))

    def on_cpu() -> dict[str, Floats]:
        result: dict[str, Floats] = host.black_scholes.implementations["numba"].function(*market, option, dividend)
        return result

    return gpu.offload(on_device, on_cpu)
