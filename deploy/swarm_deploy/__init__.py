"""The `swarm` command, and the embedded cluster that gives a swarm to a machine without Kubernetes."""

__version__ = "0.1.0"
