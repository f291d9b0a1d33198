"""Which CPUs a container may use: the static policy of the kubelet's CPU manager, on CPUs that are simulated.

A node has CPUs 0 to C-1. A container of a Guaranteed pod that asks for whole CPUs gets that many for itself; all
other containers share what is left and are moved when it changes. Each simulated CPU stands for a real one, by a
mapping that is fixed when the cluster starts (CPU c of node n is real CPU (n·C + c) modulo the machine's), and the
containers' processes are kept on the real ones.

What a container is told about that has to be true for as long as it runs. With more simulated than real CPUs two of
them may be the same real one, so then nothing is exclusive. Otherwise it is "simulated": no other pod of this cluster
is put there, though other programs of the machine may run there; only where the kernel keeps everything else off the
CPUs (`isolcpus`) is it "true". CPU 0 of each node is what the sharing containers fall back on when nothing else is
left, hence it is given out last and never called exclusive.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm_agents.cpulist import format_cpus, parse_cpus

__all__ = ["Assignment", "CpuManager", "real_cpus", "whole_cpus"]


def real_cpus() -> list[int]:
    """The CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _isolated(root: Path = Path("/")) -> frozenset[int]:
    try:
        return parse_cpus((root / "sys/devices/system/cpu/isolated").read_text())
    except (OSError, ValueError):
        return frozenset()


def whole_cpus(limit_millis: int, request_millis: int, qos: str) -> int:
    """How many CPUs of its own a container gets; 0: it shares."""
    if qos == "Guaranteed" and limit_millis == request_millis and limit_millis >= 1000 and limit_millis % 1000 == 0:
        return limit_millis // 1000
    return 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where a container runs. `simulated` are the node's CPUs, `real` the machine's."""

    simulated: tuple[int, ...]
    real: tuple[int, ...]
    #: `true`, `simulated` or `false`, as agents are told.
    exclusive: str

    def environment(self) -> dict[str, str]:
        """What the container is told."""
        return {"SWARM_CPUS": format_cpus(self.real), "SWARM_CPUS_EXCLUSIVE": self.exclusive}


class CpuManager:
    """One node's CPUs."""

    def __init__(
        self,
        index: int,
        cpus: int,
        nodes: int,
        *,
        real: Sequence[int] | None = None,
        isolated: frozenset[int] | None = None,
    ) -> None:
        """`index` is the node's number, from 0, among `nodes` nodes of `cpus` CPUs each."""
        machine = list(real_cpus() if real is None else real)
        self._isolated = _isolated() if isolated is None else isolated
        self._machine = machine
        self._cpus = cpus
        self._real = {c: machine[(index * cpus + c) % len(machine)] for c in range(cpus)}
        self._overlap = nodes * cpus > len(machine)
        self._held: dict[str, tuple[int, ...]] = {}
        #: How many NUMA nodes the CPUs lie on, each with as many, if a container has to have all of its own on one
        #: (the Topology Manager's policy `single-numa-node`); 0: that does not matter.
        self.numa = 0

    @property
    def shared(self) -> tuple[int, ...]:
        """The real CPUs of the containers that have none of their own."""
        taken = {c for held in self._held.values() for c in held}
        free = [c for c in range(self._cpus) if c not in taken]
        return tuple(sorted({self._real[c] for c in free or [0]}))

    @property
    def exclusively_held(self) -> Mapping[str, tuple[int, ...]]:
        """Container -> its simulated CPUs."""
        return self._held

    def _choice(self, count: int) -> tuple[int, ...]:
        """So many free CPUs; none when there are not enough where they would have to be."""
        taken = {c for held in self._held.values() for c in held}
        free = [c for c in reversed(range(self._cpus)) if c not in taken]
        if not self.numa:
            return tuple(sorted(free[:count])) if len(free) >= count else ()
        width = max(1, self._cpus // self.numa)
        for node in reversed(range(self.numa)):
            here = [c for c in free if c // width == node]
            if len(here) >= count:
                return tuple(sorted(here[:count]))
        return ()

    def refusal(self, count: int) -> tuple[str, str] | None:
        """Reason and message, as the kubelet's, of the Topology Manager for a pod that it does not admit."""
        if not self.numa or not count or self._choice(count):
            return None
        return "TopologyAffinityError", "Resources cannot be allocated with Topology locality"

    def take(self, container: str, count: int) -> Assignment:
        """CPUs for a container; `count` 0, or more than are left, makes it share."""
        chosen = self._choice(count) if count else ()
        if not chosen:
            return Assignment((), self.shared, "false")
        self._held[container] = chosen
        real = tuple(sorted({self._real[c] for c in chosen}))
        if self._overlap or 0 in chosen:
            exclusive = "false"
        else:
            exclusive = "true" if self._isolated.issuperset(real) else "simulated"
        return Assignment(chosen, real, exclusive)

    def release(self, container: str) -> None:
        """A container has ended for good."""
        self._held.pop(container, None)
