"""Vectors and matrices: what is bound by memory's speed, in one pass, and the dense product.

All write their answer into memory of the node (`ctx.array`), so that it is handed to who waits without being copied.
NaN and infinities spread by the rules of IEEE 754 arithmetic.
"""

from swarm_agents.compute.kernels.vector import dense, streams

__all__ = ["dense", "streams"]
