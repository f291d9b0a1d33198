"""Pods that a kubelet refused after the scheduler had put them on its node, and the nodes to avoid for that. Pure.

The scheduler does not see what the kubelet does: NUMA nodes (`TopologyAffinityError`), hyperthreads
(`SMTAlignmentError`), devices (`UnexpectedAdmissionError`), pods not heard of yet (`OutOfcpu` and its like).
A refused pod is Failed for good; whoever makes a new one at once has it put on the same node again, where room seems to
be (kubernetes#84869). So a node that refused is avoided by the pods made next, by their affinity: at first for ten
seconds, then twice as long each time, for five minutes at most. Other nodes are tried at once.

The memory of this is the refused pods themselves: of each node the first of every spate is kept (`EPISODES` at most,
`KEPT` over all nodes) until twice the time has passed for which the node is avoided; all others are deleted. So the
record outlives the operator, is seen by `kubectl get pods`, and its size is bounded. Rejected: a record in the status
(the plan would have to read it), in an annotation of the Swarm (a write to what the user owns), or in memory (a new
leader would run into every node again).

A pod that waits for a node keeps the affinity that it was made with. Once a node that it avoids may be tried again it
is made anew, as it could wait for ever otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from swarm_operator.views import PodView

__all__ = ["AVOID", "EPISODES", "KEPT", "Rejections", "delay", "is_rejection", "rejections"]

_REASONS: Final = frozenset(
    {
        "TopologyAffinityError",
        "SMTAlignmentError",
        "UnexpectedAdmissionError",
        "NodeAffinity",
        "NodePorts",
        "InvalidNodeInfo",
    }
)
_OUT_OF: Final = "OutOf"
#: Seconds for which a node is avoided, at first and at most.
AVOID: Final = (10.0, 300.0)
#: Refusals within so many seconds are one: a burst of pods that was put on a node at once.
_SPATE: Final = 5.0
#: Refused pods that are kept of one node, and of all.
EPISODES: Final = 6
KEPT: Final = 64


@dataclass(frozen=True)
class Avoided:
    """A node that refused pods. Times in seconds since the epoch."""

    node: str
    times: int
    until: float
    forgotten: float
    reason: str
    message: str


@dataclass(frozen=True)
class Rejections:
    """What is known of refusals."""

    #: Those that are avoided now, by name.
    avoided: tuple[Avoided, ...] = ()
    #: UIDs of the refused pods that are kept to know it.
    kept: frozenset[str] = frozenset()
    #: In how many seconds something of this changes by itself.
    again_in: float | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes to avoid."""
        return tuple(avoided.node for avoided in self.avoided)


def is_rejection(pod: PodView) -> bool:
    """Whether its kubelet refused the pod."""
    return (
        pod.phase == "Failed"
        and bool(pod.node)
        and not pod.restarts
        and (pod.reason in _REASONS or pod.reason.startswith(_OUT_OF))
    )


def delay(times: int) -> float:
    """For how long a node is avoided after it has refused so many times."""
    return float(min(AVOID[0] * 2.0 ** (times - 1), AVOID[1]))


def _when(pod: PodView) -> float:
    return pod.ended or pod.created


def rejections(pods: Iterable[PodView], now: float) -> Rejections:
    """What the refused pods among these say."""
    spates: dict[str, list[PodView]] = {}
    for pod in sorted((p for p in pods if is_rejection(p) and not p.deleting), key=lambda p: (_when(p), p.name)):
        known = spates.setdefault(pod.node, [])
        if not known or _when(pod) - _when(known[-1]) > _SPATE:
            known.append(pod)
    found: list[tuple[Avoided, list[PodView]]] = []
    for node, known in spates.items():
        known = known[-EPISODES:]
        last, seconds = known[-1], delay(len(known))
        until = _when(last) + seconds
        avoided = Avoided(node, len(known), until, until + seconds, last.reason, last.message)
        if now < avoided.forgotten:
            found.append((avoided, known))
    found.sort(key=lambda entry: (-entry[0].until, entry[0].node))
    kept: set[str] = set()
    for _, known in found:
        kept |= {pod.uid for pod in known[-max(0, KEPT - len(kept)) :]} if len(kept) < KEPT else set()
    changes = [when - now for avoided, _ in found for when in (avoided.until, avoided.forgotten) if when > now]
    current = sorted((avoided for avoided, _ in found if now < avoided.until), key=lambda avoided: avoided.node)
    return Rejections(tuple(current[:KEPT]), frozenset(kept), min(changes, default=None))
