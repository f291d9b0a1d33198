"""From what the nodes say of their boards to what a whole swarm did between two readings. Pure.

A node's counts are sums since its board was made. A node that is new, or whose board was made anew, has no earlier
reading to compare with: what waits there counts at once, what it did counts from the next reading on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

__all__ = ["NodeLoad", "Sample", "quantile", "sample_of"]

Counts = tuple[tuple[float, int], ...]


class NodeLoad(msgspec.Struct, frozen=True, rename="camel"):
    """A node's answer to `GET /v1/load`; times in seconds, of its own monotonic clock."""

    node: str
    board: str
    time: float
    waiting: int = 0
    oldest: float = 0.0
    #: Waits by bucket: lower bound in seconds, and how many.
    ages: Counts = ()
    agents: int = 0
    busy: int = 0
    running: int = 0
    runs: int = 0
    run_seconds: float = 0.0
    queued: Counts = ()
    forwarded: int = 0


@dataclass(frozen=True)
class Sample:
    """A swarm between two readings, `seconds` apart, and at the later one of them (`at`, seconds since the epoch)."""

    at: float
    seconds: float = 0.0
    arrivals: int = 0
    completed: int = 0
    #: Runs that ended, and their seconds: what was carried to another node is noted there and here.
    runs: int = 0
    run_seconds: float = 0.0
    #: How long the tasks that were begun had waited: lower bound in seconds, and how many.
    begun: Counts = ()
    #: And at the end of it: how long those that wait have waited, agents that are busy, tasks in hand, ready agents.
    ages: Counts = ()
    busy: int = 0
    running: int = 0
    ready: int = 0
    #: Seconds that a task ran on average since the boards were made; 0: none has run.
    usual_run: float = 0.0

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return sum(count for _, count in self.ages)

    @property
    def quiet(self) -> bool:
        """Whether no task was there."""
        return not (self.arrivals or self.completed or self.running or self.ages or self.begun)


def quantile(counts: Iterable[tuple[float, int]], q: float) -> float:
    """Lower bound of the bucket that holds the quantile, in seconds; 0 when there is nothing."""
    merged: Counter[float] = Counter()
    for lower, count in counts:
        merged[lower] += count
    total, reached, found = sum(merged.values()), 0, 0.0
    for lower in sorted(merged):
        reached += merged[lower]
        found = lower
        if reached >= q * total:
            break
    return found


def sample_of(before: Mapping[str, NodeLoad], after: Mapping[str, NodeLoad], at: float, ready: int) -> Sample:
    """What happened between two readings of the nodes, by node. `ready`: compute agents that take tasks."""
    seconds = run_seconds = 0.0
    ended = forwarded = more = 0
    begun: Counter[float] = Counter()
    ages: Counter[float] = Counter()
    for node, now in after.items():
        ages.update(dict(now.ages))
        then = before.get(node)
        if then is None or then.board != now.board or now.time <= then.time or now.runs < then.runs:
            continue
        seconds = max(seconds, now.time - then.time)
        run_seconds += max(now.run_seconds - then.run_seconds, 0.0)
        ended += now.runs - then.runs
        forwarded += max(now.forwarded - then.forwarded, 0)
        more += now.waiting + now.running - then.waiting - then.running
        begun.update(dict(now.queued))
        begun.subtract(dict(then.queued))
    completed = max(ended - forwarded, 0)
    runs = sum(now.runs for now in after.values())
    return Sample(
        at=at,
        seconds=seconds,
        arrivals=max(completed + more, 0),  # what came is what went, and what there is more of than before
        completed=completed,
        runs=ended,
        run_seconds=run_seconds,
        begun=tuple(sorted((lower, count) for lower, count in begun.items() if count > 0)),
        ages=tuple(sorted(ages.items())),
        busy=sum(now.busy for now in after.values()),
        running=sum(now.running for now in after.values()),
        ready=ready,
        usual_run=sum(now.run_seconds for now in after.values()) / runs if runs else 0.0,
    )
