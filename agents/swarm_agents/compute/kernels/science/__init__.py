"""Building blocks of simulations: bodies under gravity, heat on a plane, convolution, sparse matrices, sums and scans.

Units are the caller's: each kernel's docstring says how its arguments must fit together. Where several threads share
the work its pieces do not depend on how many there are, and so neither does the result.
"""

from swarm_agents.compute.kernels.science import convolve, heat2d, nbody, nbody_gpu, spmv, sums

__all__ = ["convolve", "heat2d", "nbody", "nbody_gpu", "spmv", "sums"]
