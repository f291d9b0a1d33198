"""The kernels that every swarm has. Importing this package registers them; their compiled parts are imported later."""

from swarm_agents.compute.kernels import core, finance, learning, risk, science, sha256

__all__ = ["core", "finance", "learning", "risk", "science", "sha256"]
