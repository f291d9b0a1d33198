"""Closed forms that the simulations are controlled and checked by: one option, in plain floats.

Sources: F. Black and M. Scholes, The pricing of options and corporate liabilities, J. Political Economy 81 (1973), with
a dividend yield after R. Merton, Theory of rational option pricing, Bell J. Econ. 4 (1973); A. Kemna and A. Vorst, A
pricing method for options based on average asset values, J. Banking and Finance 14 (1990), for averages over discrete
days.
"""

from __future__ import annotations

import math

__all__ = ["european", "geometric_asian"]


def european(
    spot: float, strike: float, maturity: float, rate: float, sigma: float, dividend: float, sign: float
) -> float:
    """The price of a European call (sign 1) or put (sign -1); sigma and maturity above 0."""
    forward = spot * math.exp((rate - dividend) * maturity)
    return _black(forward, strike, sigma * math.sqrt(maturity), sign) * math.exp(-rate * maturity)


def geometric_asian(
    spot: float, strike: float, maturity: float, rate: float, sigma: float, dividend: float, sign: float, steps: int
) -> float:
    """The price of an option on the geometric mean of the prices at the ends of `steps` equal periods."""
    mean = (rate - dividend - 0.5 * sigma * sigma) * maturity * (steps + 1) / (2 * steps)
    deviation = sigma * math.sqrt(maturity * (steps + 1) * (2 * steps + 1) / 6.0) / steps
    forward = spot * math.exp(mean + 0.5 * deviation * deviation)
    return _black(forward, strike, deviation, sign) * math.exp(-rate * maturity)


def _black(forward: float, strike: float, deviation: float, sign: float) -> float:
    """The undiscounted value of max(sign·(X − strike), 0) for a lognormal X of that mean and deviation of log X."""
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    return sign * (forward * _normal(sign * d1) - strike * _normal(sign * (d1 - deviation)))


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))
