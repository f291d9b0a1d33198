"""What this version refuses, and why: fields that are in the API but not yet done, and values that can't work.

A field that is accepted and does nothing is the worst of answers, so each field that is not done yet is listed here,
and a Swarm that uses it gets `Accepted=False` with the field's name; its running agents are left as they are. A test
checks that every field of the API is either read by the operator or listed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from swarm_operator import network, overrides, pod_security, private_board
from swarm_operator.api.fields import size_bytes
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.placement import whole_cpus
from swarm_operator.policy import OPEN, Policy
from swarm_operator.private_board import OWN_MEMORY, in_pod
from swarm_operator.schedule import schedule_problems

__all__ = ["FORBIDDEN", "INVALID", "NOT_IMPLEMENTED", "Refusal", "refusals"]

NOT_IMPLEMENTED: Final = "NotImplemented"
INVALID: Final = "Invalid"
FORBIDDEN: Final = "ForbiddenByPolicy"


@dataclass(frozen=True)
class Refusal:
    """One field that keeps the Swarm from being accepted."""

    reason: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


_LATER: Final = "not implemented in this version; leave it out"

#: Field -> whether the spec uses it beyond what is implemented.
_NOT_YET: Final[dict[str, Callable[[SwarmSpec], bool]]] = {
    "spec.security.allowPickle": lambda s: s.security.allow_pickle,
}


def refusals(spec: SwarmSpec, policy: Policy = OPEN, name: str = "") -> tuple[Refusal, ...]:
    """Everything that keeps the spec of the Swarm `name` from being accepted; empty: it is accepted."""
    found = [Refusal(NOT_IMPLEMENTED, field, _LATER) for field, uses in _NOT_YET.items() if uses(spec)]
    found += [Refusal(FORBIDDEN, field, text) for field, text in overrides.problems(spec, policy, name)]
    found += [Refusal(INVALID, field, text) for field, text in schedule_problems(spec)]
    arena = spec.transport.shared_memory.size
    for problems in (private_board.problems, pod_security.problems, network.problems):
        found += [Refusal(INVALID, field, message) for field, message in problems(spec)]
    for field, memory in (("spec.compute.memory", spec.compute.memory), ("spec.resource.memory", spec.resource.memory)):
        if not in_pod(spec) and size_bytes(memory) < size_bytes(arena) + OWN_MEMORY:
            found.append(
                Refusal(
                    INVALID,
                    field,
                    f"{memory} can't hold transport.sharedMemory.size ({arena}), which is charged to the agent that "
                    "makes the board, and the 128Mi that an agent needs itself; raise it or make the arena smaller",
                )
            )
    return (*found, *_placement(spec))


def _placement(spec: SwarmSpec) -> list[Refusal]:
    """What can't be had of cores and gang schedulers."""
    found, scheduling = [], spec.scheduling
    if not whole_cpus(spec):
        for field, asked in (
            ("cpuPinning: Required", scheduling.cpu_pinning == "Required"),
            (f"topology.numa: {scheduling.topology.numa}", scheduling.topology.numa != "Any"),
        ):
            if asked:
                text = (
                    f"{spec.compute.cpus} can't be cores of their own, as scheduling.{field} asks; write a whole number"
                )
                found.append(Refusal(INVALID, "spec.compute.cpus", text))
    if scheduling.gang == "Kueue" and not scheduling.queue_name:
        text = "gang Kueue needs the name of a LocalQueue in the Swarm's namespace"
        found.append(Refusal(INVALID, "spec.scheduling.queueName", text))
    if scheduling.queue_name and scheduling.gang not in ("Kueue", "Volcano"):
        text = f"gang {scheduling.gang} has no queues; set gang to Kueue or Volcano, or leave queueName out"
        found.append(Refusal(INVALID, "spec.scheduling.queueName", text))
    return found
