"""Derivatives and their risk: closed-form option prices and greeks, path-dependent options by simulation, VaR and ES.

Conventions of all kernels here. Prices are in any one currency; rates, dividend yields and volatilities are a year's,
continuously compounded, as fractions (0.05 is 5 %); maturities are years. Market risk of whole portfolios is in
`risk.*`.
"""

from swarm_agents.compute.kernels.finance import black_scholes, black_scholes_gpu, paths, paths_gpu, var_es

__all__ = ["black_scholes", "black_scholes_gpu", "paths", "paths_gpu", "var_es"]
