"""The agents of a swarm: data plane, compute, sensing, recovery, and the client that submits work to them.

Importing this package loads nothing else. Numba, ZeroMQ and NumPy cost start-up time and memory, and the operator
reads `swarm_agents.config` without wanting any of them.
"""

__version__ = "0.1.0"
