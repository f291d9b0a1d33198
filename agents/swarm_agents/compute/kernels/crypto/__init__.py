"""Cryptography on large buffers: the stream cipher ChaCha20. `kernels.sha256` has the tree hash.

These compute; they do not keep secrets. A key travels to the agents as any argument does (encrypted between nodes,
readable by the swarm's own processes), lies in their memory, and is not wiped. ChaCha20 alone does not authenticate.
"""

from swarm_agents.compute.kernels.crypto import chacha20

__all__ = ["chacha20"]
