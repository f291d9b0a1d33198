"""Swarms whose boards are private to a pod (`transport.sharedMemory.medium: Memory`): what is different there. Pure.

The board lies in an `emptyDir` of medium Memory that the pod's two containers share: `agent`, the compute agent, and
`hub`, which brings it work over TCP. No pod reaches into the node, so every pod is of the `restricted` Pod Security
level; the price is that agents of one node share no memory, and that tasks between them travel by TCP. To the swarm
each pod is a node of its own: it has a name (the pod's), a hub in the settings, and no resource agents beside it, so
several may run on one node of the cluster. Such a pod leaves in two steps: its hub first, which sends clients elsewhere
and gives other hubs their tasks back while the agent still computes, and then the agent: nothing is left on the board.

The emptyDir's `sizeLimit` is what a container can be charged for and still live, so that a full board is an error to
whoever writes and never the end of a container: its memory less what an agent needs itself. tmpfs is charged to the
container that touches a page first, which may be either, so both must be able to hold all of it.

Rejected: a pod of its own for the hub (it could not share memory without a hostPath); the hub as a process of the
agent's container (a crash of one would restart both, and exclusive CPUs would be the hub's as well); standby agents
(one takes a dead one's place on a board that both see, and here nobody shares a board).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from swarm_agents.config import HUB_AGENT_PORT, Checkpoints
from swarm_operator.api.fields import size_bytes
from swarm_operator.api.pod_template import PodTemplate
from swarm_operator.api.v1alpha1 import Resource, SharedMemory, SwarmSpec

__all__ = ["MOST_PODS", "OWN_MEMORY", "board_bytes", "in_pod", "kept_bytes", "problems", "size_limit"]

#: Memory that an agent needs beside the board: the interpreter, NumPy and Numba.
OWN_MEMORY: Final = 128 << 20
#: Each pod's hub has a connection to each other's, and the list of them has to fit into the settings' ConfigMap.
MOST_PODS: Final = 1000

_MIB: Final = 1 << 20


def in_pod(spec: SwarmSpec) -> bool:
    """Whether each pod has a board of its own."""
    return spec.transport.shared_memory.medium == "Memory"


def board_bytes(memory: SharedMemory) -> int:
    """What a board takes of its file system at most, in bytes: the arena, and the tables of its tasks and members.

    The agents' own `swarm_agents.shm.layout.board_bytes` is exact, but needs Numba, which the operator's image has not;
    a test compares the two.
    """
    slots, members = memory.task_slots + 256, memory.max_members
    ports = min(members, max(16, members // 4))
    rings = min(4 * slots, 1 << 16)
    of_slots = slots * (512 + 512 + 2 * 16 + 4 * 8)
    of_members = members * (512 + 512 + 4 * 16 + 4 * 6 * 65 * 8 + 8)
    of_ports = ports * (2048 + 8 * rings)
    arena = size_bytes(memory.size)
    return arena + arena // 256 + of_slots + of_members + of_ports + _MIB


def _room(spec: SwarmSpec) -> int:
    """What the board and what is kept beside it may take together, in bytes."""
    return min(size_bytes(spec.compute.memory), size_bytes(spec.resource.memory)) - OWN_MEMORY


def kept_bytes(spec: SwarmSpec) -> int:
    """What may be kept beside the board of checkpoints: of a pod's own tasks, and as much again of other pods'."""
    return max(0, min((_room(spec) - board_bytes(spec.transport.shared_memory)) // 2, Checkpoints().node_bytes))


def size_limit(spec: SwarmSpec) -> str:
    """The emptyDir's `sizeLimit`: the board, and what is kept beside it."""
    needed = board_bytes(spec.transport.shared_memory) + 2 * kept_bytes(spec)
    return f"{-(-needed // _MIB)}Mi"


def problems(spec: SwarmSpec) -> Iterator[tuple[str, str]]:
    """Fields that can't be as they are in such a swarm, and what to do."""
    if not in_pod(spec):
        return
    memory = spec.transport.shared_memory
    needed = -(-(board_bytes(memory) + OWN_MEMORY) // _MIB)
    for field, given in (("spec.compute.memory", spec.compute.memory), ("spec.resource.memory", spec.resource.memory)):
        if size_bytes(given) < needed * _MIB:
            yield (
                field,
                f"{given} can't hold the pod's board: with transport.sharedMemory.medium Memory it is charged to the "
                f"containers, either of which may come to hold all of it, so each needs {needed}Mi; raise it or make "
                "transport.sharedMemory.size smaller",
            )
    if memory.path != SharedMemory().path:
        yield "spec.transport.sharedMemory.path", "it is for medium HostPath; leave it out"
    if spec.compute.standby:
        yield (
            "spec.compute.standby",
            "a standby agent takes a dead one's place on a board that both see, and with "
            "transport.sharedMemory.medium Memory each pod has a board of its own: raise compute.replicas instead",
        )
    if spec.compute.min == 0:
        yield (
            "spec.compute.min",
            "with transport.sharedMemory.medium Memory the hubs run in the compute agents' pods, so at zero nobody "
            "would be there to take a task; it has to be at least 1",
        )
    if max(spec.compute.replicas, spec.compute.max or 0) > MOST_PODS:
        yield (
            "spec.compute.replicas",
            f"with transport.sharedMemory.medium Memory each agent has a hub of its own, and {MOST_PODS} is the most; "
            "give each agent more CPUs, or use medium HostPath",
        )
    if spec.resource.pod_template != PodTemplate() or spec.resource.node_selector != Resource().node_selector:
        yield (
            "spec.resource",
            "with transport.sharedMemory.medium Memory the hubs run in the compute agents' pods: podTemplate and "
            "nodeSelector are those of compute and scheduling; leave them out here",
        )
    if HUB_AGENT_PORT in (spec.transport.zeromq.port, spec.transport.zeromq.rest_port):
        yield (
            "spec.transport.zeromq",
            f"with transport.sharedMemory.medium Memory port {HUB_AGENT_PORT} is taken by the hub's metrics; "
            "choose another",
        )
