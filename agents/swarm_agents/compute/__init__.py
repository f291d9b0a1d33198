"""Kernels: the named functions that a swarm runs, how they are found, bound to arguments and compiled."""
