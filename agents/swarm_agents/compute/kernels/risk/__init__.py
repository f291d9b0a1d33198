"""Market risk: the one-day Value at Risk and Expected Shortfall of a portfolio, and whether such forecasts held.

Conventions of all kernels here. `returns` are daily log returns of risk factors, a row a day, oldest first; `weights`
are the amounts held of each (any currency, or fractions of the book), and a day's profit is Σ wᵢ·(exp(rᵢ) − 1): the
positions are valued anew, not linearised. Means are taken as zero, as is usual for one day. Losses are positive: VaR
0.03 at level 0.99 says that the day's loss stays below 0.03 with probability 99 %.

Every kernel gives the same bits on any process of one machine: sums run in a fixed order (never through BLAS, whose
order depends on its threads), random numbers come from a counter (Philox) that is set from the seed and the path's
number, and the compiled recursions do the same operations in the same order as the NumPy ones.
"""

from swarm_agents.compute.kernels.risk import backtest, bootstrap, historical, monte_carlo, tail, volatility

__all__ = ["backtest", "bootstrap", "historical", "monte_carlo", "tail", "volatility"]
