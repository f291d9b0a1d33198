"""Whether a task should leave its node, and where to: two random choices, weighed against the cost of the move.

Looking at two random peers instead of all gives nearly the best placement, and keeps every hub of a large swarm from
choosing the same idle node at the same moment (M. Mitzenmacher, "The power of two choices in randomized load
balancing", IEEE TPDS 12(10), 2001). All here is pure: plain values in, a decision out; randomness is passed in.

The model is coarse on purpose. A node with W workers, of which I are idle, with Q tasks waiting that are as urgent or
more so and take r seconds on average, begins one more task after max(0, Q + 1 - I) * r / W seconds. The move costs the
round trip, and the bytes of the arguments and of the answer over the link's rate, behind what is on the link already.
Everything in it is measured: r by each node over all that it runs, and for a kernel of its own by its answers; the
answer's bytes by kernel; round trip and rate by link. A task moves only if that clearly wins: it must be begun sooner
by more than `HYSTERESIS` of the wait that it escapes, or two hubs would pass it back and forth on the noise of their
estimates; and not if moving keeps the link busy for longer than the node would need to compute it (`WORTH`), unless
nobody computes here: a link that carries tasks which are dearer to carry than to compute drains no queue.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

from msgspec import Struct

from swarm_agents.wire.schema import Load

__all__ = ["DEFAULT_RATE", "MAX_HOPS", "Candidate", "choose", "surplus", "wait"]

#: A task that has left so many nodes behind stays where it is.
MAX_HOPS = 2
#: Of the wait that a task escapes, this share must be left as gain.
HYSTERESIS = 0.25
#: A move may occupy the link for so many times the seconds that one of this node's workers takes for a task.
WORTH = 4.0
#: Bytes a second over a link of which nothing is known yet: 10 Gbit/s, half used.
DEFAULT_RATE = 600e6
#: Seconds that a task runs of which nothing is known yet.
DEFAULT_RUN = 1e-3

Key = TypeVar("Key")


class Candidate(Struct, frozen=True):
    """A peer as the chooser sees it."""

    key: str
    load: Load
    #: Tasks sent there that its load does not know of yet.
    underway: int = 0
    #: Tasks that it may still be sent (its credit).
    credit: int = 0
    #: Bytes that may still be sent.
    credit_bytes: int = 1 << 62
    rtt: float = 0.0
    #: Bytes a second.
    rate: float = DEFAULT_RATE
    #: Seconds until what has been sent already has left the link.
    backlog: float = 0.0


def wait(load: Load, lane: int, underway: int, run: float) -> float:
    """Seconds until a task of this lane that arrives now is begun there; infinite where nobody computes."""
    if load.workers == 0:
        return math.inf
    ahead = sum(load.depth[: lane + 1]) + underway + 1 - load.idle
    return max(0, ahead) * run / load.workers


def surplus(load: Load, lane: int) -> int:
    """How many of the tasks that wait in a lane are more than the node's own workers take at once."""
    if load.workers == 0:
        return load.depth[lane]
    return max(0, min(load.depth[lane], sum(load.depth[: lane + 1]) - load.idle))


def choose(
    local: Load,
    candidates: Sequence[Candidate],
    *,
    lane: int,
    size: int,
    run: float | None,
    rng: random.Random,
    answer: float = 0.0,
) -> str | None:
    """The peer that should take a task waiting here, or None if it should stay.

    Args:
        local: the node that the task waits on; its `depth` counts the task.
        candidates: the peers that are reachable.
        lane: its priority; less urgent tasks delay it nowhere.
        size: bytes of the task's payload.
        run: seconds that its kernel is expected to run; None: unknown.
        answer: bytes that its answer is expected to have.
    """
    open_ = [
        c
        for c in candidates
        if c.credit > 0
        and c.credit_bytes >= size
        and c.load.workers > 0
        and c.load.room > c.underway
        and lane < c.load.refuses
    ]
    if not open_:
        return None
    pair = rng.sample(open_, 2) if len(open_) > 2 else open_
    expected = run or local.run_mean or DEFAULT_RUN

    def cost(peer: Candidate) -> float:
        pace = peer.load.run_mean or expected
        return wait(peer.load, lane, peer.underway, pace) + peer.rtt + peer.backlog + (size + answer) / peer.rate

    best = min(pair, key=cost)
    # The last of those that wait here: what is moved leaves the others in peace.
    here = wait(local, lane, -1, local.run_mean or expected)
    if math.isinf(here):
        return best.key
    if (size + answer) / best.rate > WORTH * expected / local.workers:
        return None
    return best.key if cost(best) < here * (1 - HYSTERESIS) else None
