"""Which running task is a straggler: one worth running a second time elsewhere. Pure; whoever commits first wins.

A task is judged by what its kernel's tasks take on the node: it straggles when it has run for longer than `factor`
times their 95th percentile, and for long enough that a second run is likely to be over before it. What that costs is
bounded: at most a `share` of the running tasks run twice, those that have run longest for their kernel first, and only
where an agent is idle. After Dean and Barroso, The Tail at Scale (CACM 56(2), 2013: a hedged request after the 95th
percentile costs a few percent of load), and for the bound Zaharia et al., Improving MapReduce Performance in
Heterogeneous Environments (OSDI 2008: a cap on speculative tasks).

Invariants: a kernel of which little is known has no stragglers; nothing is run a third time; the same view gives the
same answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FACTOR", "LEAST", "SHARE", "Durations", "Running", "stragglers"]

FACTOR = 2.0
#: Share of the running tasks that may run twice.
SHARE = 0.1
#: Below this a second run costs more than it can save (seconds).
LEAST = 0.02
#: Durations of a kernel that must be known, and how many of the last are.
_ENOUGH = 20
_WINDOW = 256


class Durations:
    """How long the last tasks of one kernel took. Learning is cheap: they are sorted when somebody asks."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._sorted: list[float] | None = None

    def learn(self, seconds: float) -> None:
        """One more has ended well."""
        self._last.append(seconds)
        self._sorted = None

    def quantile(self, q: float) -> float | None:
        """Seconds; None while too little is known."""
        count = len(self._last)
        if count < _ENOUGH:
            return None
        if self._sorted is None:
            self._sorted = sorted(self._last)
        return self._sorted[min(int(q * count), count - 1)]


@dataclass(frozen=True, slots=True)
class Running:
    """A task in somebody's hand. `ran` in seconds; `twice`: it runs a second time already."""

    task: tuple[int, int]
    kernel: str
    ran: float
    twice: bool = False


def stragglers(
    running: Iterable[Running],
    known: dict[str, Durations],
    idle: int,
    *,
    factor: float = FACTOR,
    share: float = SHARE,
    least: float = LEAST,
) -> list[Running]:
    """Which tasks to run a second time now, the worst first.

    Args:
        known: what each kernel's tasks take.
        idle: agents that have nothing to do.
        factor: so many times the 95th percentile of its kernel must a task have run,
        least: and so many seconds.
        share: of the running tasks that may run twice; one may in any case.
    """
    running = list(running)
    room = min(idle, max(1, int(share * len(running))) - sum(each.twice for each in running))
    if room <= 0:
        return []
    late: list[tuple[float, tuple[int, int], Running]] = []
    for each in running:
        tail = known[each.kernel].quantile(0.95) if each.kernel in known else None
        if tail is None or each.twice or each.ran < max(factor * tail, least):
            continue
        late.append((-each.ran / max(tail, 1e-9), each.task, each))
    return [each for _, _, each in sorted(late, key=lambda item: item[:2])[:room]]
