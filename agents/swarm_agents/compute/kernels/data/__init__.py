"""Databases: joins and aggregates of columns. Keys are whole numbers (codes of a dictionary, where they are text)."""

from swarm_agents.compute.kernels.data import group_by, join

__all__ = ["group_by", "join"]
