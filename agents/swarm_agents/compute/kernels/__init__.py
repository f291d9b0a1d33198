"""The kernels that every swarm has. Importing this package registers them; their compiled parts are imported later."""

from swarm_agents.compute.kernels import (
    core,
    crypto,
    data,
    finance,
    learning,
    media,
    net,
    risk,
    science,
    sha256,
    vector,
)

__all__ = [
    "core",
    "crypto",
    "data",
    "finance",
    "learning",
    "media",
    "net",
    "risk",
    "science",
    "sha256",
    "vector",
]
