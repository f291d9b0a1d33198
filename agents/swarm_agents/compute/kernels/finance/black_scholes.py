"""European options: price and greeks of many at once, in closed form.

Sources: F. Black and M. Scholes, J. Political Economy 81 (1973); with a continuous dividend yield R. Merton, Bell J.
Econ. 4 (1973); the greeks as in J. Hull, Options, Futures, and Other Derivatives, chapter "The Greek letters".

Without a deviation (sigma or maturity 0) the option is worth its discounted intrinsic value on the forward price: delta
is that of holding or not holding the asset (half of it exactly at the money), and gamma, which is 0 but at the money,
where it grows without bound, is reported as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import team
from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Between, Dims, Finite
from swarm_agents.errors import BadArguments

__all__ = ["GREEKS", "black_scholes", "greeks"]

Floats = NDArray[np.float64]
#: One number an option.
Column = Annotated[NDArray[np.float64], Dims("n", empty=True), Finite()]
#: The rows of the result.
GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho")
#: Options that are worth a thread of their own.
_LEAST = 8192
#: Of a rate times a maturity: e to this power, times a price, is still a number.
_MOST = 400.0


def _check(spot: Floats, strike: Floats, maturity: Floats, rate: Floats, sigma: Floats, dividend: float) -> None:
    """Refuses what no market has: beyond these bounds exponentials leave the range of numbers."""
    if not len(spot):
        return
    for name, array, low, high in (
        ("spot", spot, 1e-100, 1e100),
        ("strike", strike, 1e-100, 1e100),
        ("maturity", maturity, 0.0, 1000.0),
        ("rate", rate, -10.0, 10.0),
        ("sigma", sigma, 0.0, 100.0),
    ):
        if array.min() < low or array.max() > high:
            at = int(np.flatnonzero((array < low) | (array > high))[0])
            raise BadArguments(
                f"kernel finance.black_scholes argument {name!r} must lie from {low:g} to {high:g}: "
                f"got {array[at]} at index {at}"
            )
    if max(-rate.min(), rate.max(), abs(dividend)) * maturity.max() > _MOST:
        far = np.flatnonzero(np.maximum(np.abs(rate), abs(dividend)) * maturity > _MOST)
        if far.size:
            raise BadArguments(
                f"kernel finance.black_scholes: rate·maturity and dividend·maturity must lie within ±{_MOST:g}, "
                f"got more at index {far[0]}"
            )


@kernel("finance.black_scholes")
def black_scholes(
    spot: Column,
    strike: Column,
    maturity: Column,
    rate: Column,
    sigma: Column,
    *,
    option: Literal["call", "put"] = "call",
    dividend: Annotated[float, Between(-1.0, 1.0)] = 0.0,
) -> dict[str, Floats]:
    """Prices European options and their greeks; all arguments are arrays of one length n, as are the results.

    Returns `price`, `delta`, `gamma` (a unit of the spot), `vega` (a unit of sigma, that is 100 %), `theta` (a year)
    and `rho` (a unit of the rate). sigma or maturity 0 gives the limit; see the module.

    Raises:
        BadArguments: a spot or strike not within 1e±100, a maturity below 0 or above 1000 years, a sigma below 0 or
            above 100, a rate not within ±10, or a rate or dividend times maturity not within ±400.
    """
    from scipy.special import ndtr

    _check(spot, strike, maturity, rate, sigma, dividend)
    sign = 1.0 if option == "call" else -1.0
    rows = greeks(np, ndtr, sign, dividend, spot, strike, maturity, rate, sigma)
    return _result(rows)


def greeks(
    xp: Any, ndtr: Any, sign: float, dividend: float, spot: Any, strike: Any, maturity: Any, rate: Any, sigma: Any
) -> list[Any]:
    """The rows of `GREEKS` in arrays of `xp` (NumPy or CuPy), `ndtr` being its normal distribution.

    Where there is no deviation divisors are 1, and the results are set afterwards.
    """
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


def _load() -> Any:
    from swarm_agents.compute.kernels.finance import options_jit

    return options_jit


def _result(rows: Iterable[Floats]) -> dict[str, Floats]:
    return dict(zip(GREEKS, rows, strict=True))


@black_scholes.memory
def _(spot: Floats, **_: Any) -> float:
    return 8.0 * 28 * len(spot)  # the reference's; the compiled one takes the six results alone


@black_scholes.implementation("numba_threads", parallel=True, warm=_load, tolerance=1e-10, default=False)
def _(
    spot: Floats,
    strike: Floats,
    maturity: Floats,
    rate: Floats,
    sigma: Floats,
    option: str = "call",
    dividend: float = 0.0,
) -> dict[str, Floats]:
    _check(spot, strike, maturity, rate, sigma, dividend)
    rows = np.empty((len(GREEKS), len(spot)))
    market = spot, strike, maturity, rate, sigma, 1.0 if option == "call" else -1.0, dividend, rows
    team.run(_load().options, [(*market, a, b) for a, b in team.pieces(len(spot), _LEAST)])
    return _result(rows)


@black_scholes.implementation("numba", warm=_load, tolerance=1e-10)
def _(
    spot: Floats,
    strike: Floats,
    maturity: Floats,
    rate: Floats,
    sigma: Floats,
    option: str = "call",
    dividend: float = 0.0,
) -> dict[str, Floats]:
    _check(spot, strike, maturity, rate, sigma, dividend)
    rows = np.empty((len(GREEKS), len(spot)))
    sign = 1.0 if option == "call" else -1.0
    _load().options(spot, strike, maturity, rate, sigma, sign, dividend, rows, 0, len(spot))
    return _result(rows)


@black_scholes.samples
def _(rng: np.random.Generator) -> Call:
    n = int(rng.integers(1, 500))
    still = rng.random(n) < 0.1
    return call(
        rng.uniform(50, 150, n),
        rng.uniform(50, 150, n),
        np.where(rng.random(n) < 0.1, 0.0, rng.uniform(0.01, 3, n)),
        rng.uniform(-0.02, 0.1, n),
        np.where(still, 0.0, rng.uniform(0.05, 0.8, n)),
        option=("call", "put")[int(rng.integers(2))],
        dividend=float(rng.uniform(0, 0.05)),
    )
