"""The operator: turns a `Swarm` resource into pods, and keeps them as the resource says."""

__version__ = "0.1.0"
