"""What the Swarm asks of an agent's place (`scheduling.cpuPinning`, `scheduling.topology.numa`), and whether it is met.

From inside a pod a place can be judged and not chosen: cores are given by the kubelet's CPU Manager, and whether they,
the memory and the devices come from one NUMA node by its Topology Manager (policy `single-numa-node` or `restricted`),
which looks at what a Guaranteed pod asks for in whole CPUs. So the operator asks in the way that they understand, and
the agent looks at what it got. `Required` that is not met makes the agent unfit: it is not ready, takes no task, and
says why. It does not end itself: a container that ends would only be started on the same cores again, while the kubelet
may well give it others as it stands (the static policy moves shared containers when others come and go).

"Simulated" cores (those of the embedded cluster, see `cores`) are enough: no other pod has them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm_agents.cpulist import format_cpus, parse_cpus
from swarm_agents.runtime.cores import Code, Cores

__all__ = ["NUMA", "PINNING", "Wishes", "numa_nodes", "report"]

#: Environment variables that the operator sets.
PINNING = "SWARM_CPU_PINNING"
NUMA = "SWARM_NUMA"

_ENOUGH = frozenset({Code.EXCLUSIVE, Code.SIMULATED})


def numa_nodes(cpus: tuple[int, ...], root: Path = Path("/")) -> tuple[int, ...] | None:
    """The NUMA nodes on which these CPUs lie; None where the kernel does not say."""
    found: set[int] = set()
    known: set[int] = set()
    for path in (root / "sys/devices/system/node").glob("node[0-9]*/cpulist"):
        try:
            there = parse_cpus(path.read_text())
        except (OSError, ValueError):
            continue
        known |= there
        if there & set(cpus):
            found.add(int(path.parent.name.removeprefix("node")))
    return tuple(sorted(found)) if found and known.issuperset(cpus) else None


@dataclass(frozen=True, slots=True)
class Wishes:
    """`pinning` is None, Preferred or Required, `numa` Any, Preferred or Required, as in the Swarm."""

    pinning: str = "Preferred"
    numa: str = "Any"

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Wishes:
        """What the operator has set; without it, agents pin themselves and ask for nothing.

        Raises:
            ValueError: a variable has a value that is none of those.
        """
        env = os.environ if env is None else env
        pinning, numa = env.get(PINNING) or "Preferred", env.get(NUMA) or "Any"
        for name, value, known in (
            (PINNING, pinning, ("None", "Preferred", "Required")),
            (NUMA, numa, ("Any", "Preferred", "Required")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
        return cls(pinning, numa)

    @property
    def pins(self) -> bool:
        """Whether the agent keeps its threads on its cores."""
        return self.pinning != "None"

    def unmet(self, cores: Cores, nodes: tuple[int, ...] | None) -> str:
        """Why the agent may not work here; empty when it may. `nodes` are those of `numa_nodes`."""
        if self.pinning == "Required" and cores.code not in _ENOUGH:
            return (
                f"scheduling.cpuPinning is Required and the cores are not known to be this agent's alone: "
                f"{cores.reason}. It needs a node whose kubelet has cpuManagerPolicy static, and whole compute.cpus"
            )
        if self.numa == "Required" and nodes is None:
            return (
                "scheduling.topology.numa is Required, and this node's kernel does not say where CPU "
                f"{format_cpus(cores.cpus)} lies"
            )
        if self.numa == "Required" and nodes is not None and len(nodes) > 1:
            return (
                f"scheduling.topology.numa is Required and CPU {format_cpus(cores.cpus)} lies on NUMA nodes "
                f"{', '.join(map(str, nodes))}. It needs a node whose kubelet has topologyManagerPolicy "
                "single-numa-node, or smaller compute.cpus"
            )
        return ""


def report(wishes: Wishes, cores: Cores, nodes: tuple[int, ...] | None) -> dict[str, Any]:
    """The part of `GET /v1/status` that tells of the agent's place."""
    return {
        "cores": list(cores.cpus),
        "coresExclusive": cores.exclusive,
        "coresCode": cores.code.value,
        "coresReason": cores.reason,
        "pinning": wishes.pinning,
        "numaNodes": None if nodes is None else list(nodes),
        "unfit": wishes.unmet(cores, nodes),
    }
