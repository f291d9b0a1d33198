"""Which cores a pod runs on: exclusive ones for Guaranteed pods with whole CPUs, as the static CPU Manager gives them.

A simulated node's CPUs stand on the machine's real cores, and there may be more of the former. Then a simulated CPU is
exclusive among the pods of its node, and shared with those of other nodes; the pod is told so (`SWARM_CPUS_EXCLUSIVE`
is `simulated`), because an agent that believes its cores its own would report a lie.
"""

from __future__ import annotations

import os

__all__ = ["CpuManager"]


class CpuManager:
    """The CPUs of one node."""

    def __init__(self, node: int, nodes: int, cpus: int) -> None:
        """`node` counts from 0."""
        self._real = sorted(os.sched_getaffinity(0))
        self._first = node * cpus
        self._cpus = cpus
        self._enough = nodes * cpus <= len(self._real)
        self._owner: dict[int, str] = {}

    def assign(self, uid: str, whole: int) -> tuple[tuple[int, ...], str]:
        """Real cores for a pod, and `true`, `false` or `simulated` for whether they are its alone."""
        mine = [cpu for cpu, owner in self._owner.items() if owner == uid]
        if whole and not mine:
            free = [cpu for cpu in range(self._cpus) if cpu not in self._owner]
            if len(free) >= whole:
                mine = free[:whole]
                self._owner |= dict.fromkeys(mine, uid)
        if mine:
            return self._onto_real(mine), "true" if self._enough else "simulated"
        shared = [cpu for cpu in range(self._cpus) if cpu not in self._owner] or list(range(self._cpus))
        return self._onto_real(shared), "false"

    def release(self, uid: str) -> None:
        """The pod is gone."""
        self._owner = {cpu: owner for cpu, owner in self._owner.items() if owner != uid}

    def _onto_real(self, cpus: list[int]) -> tuple[int, ...]:
        return tuple(sorted({self._real[(self._first + cpu) % len(self._real)] for cpu in cpus}))
