"""Options and their greeks on a GPU: five numbers an option travel there, six back, chunk by chunk.

The formulas are those of `black_scholes`, which gives the sources. The bus is what takes the time: 88 bytes an option.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import gpu
from swarm_agents.compute.kernels.finance import black_scholes as host

Floats = NDArray[np.float64]
#: Doubles an option that are on the device at once: arguments, results, and what is on the way to them.
_DOUBLES = 32


@host.black_scholes.implementation("cupy", warm=lambda: None, tolerance=1e-9, default=False)
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
        device.over(market, out, lambda *m: _priced(device, sign, dividend, *m), per_row=8 * _DOUBLES)
        return dict(zip(host.GREEKS, out, strict=True))

    def on_cpu() -> dict[str, Floats]:
        result: dict[str, Floats] = host.black_scholes.implementations["numba"].function(*market, option, dividend)
        return result

    return gpu.offload(on_device, on_cpu)


def _priced(
    device: gpu.Device, sign: float, dividend: float, spot: Any, strike: Any, maturity: Any, rate: Any, sigma: Any
) -> list[Any]:
    """The rows of `GREEKS`. Where there is no deviation divisors are 1, and the results are set afterwards."""
    xp, ndtr = device.xp, device.special.ndtr
    root = xp.sqrt(maturity)
    deviation = sigma * root
    moneyness = xp.log(spot / strike) + (rate - dividend) * maturity
    still = deviation == 0.0
    safe = xp.where(still, 1.0, deviation)
    far = xp.where(moneyness == 0.0, 0.0, xp.copysign(xp.inf, moneyness))
    d1 = xp.where(still, far, moneyness / safe + 0.5 * deviation)
    d2 = d1 - deviation
    held = xp.exp(-dividend * maturity)
    paid = strike * xp.exp(-rate * maturity)
    density = xp.exp(-0.5 * d1 * d1) / math.sqrt(2.0 * math.pi)
    n1, n2 = ndtr(sign * d1), ndtr(sign * d2)
    decay = xp.where(maturity == 0.0, 0.0, spot * held * density * sigma / (2.0 * xp.where(root == 0.0, 1.0, root)))
    return [
        sign * (spot * held * n1 - paid * n2),
        sign * held * n1,
        xp.where(still, 0.0, held * density / (spot * safe)),
        spot * held * density * root,
        sign * (dividend * spot * held * n1 - rate * paid * n2) - decay,
        sign * maturity * paid * n2,
    ]
