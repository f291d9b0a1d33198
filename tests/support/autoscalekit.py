"""A simulated swarm for the autoscaler: tasks that come, wait and run on agents that take their time to start.

Time is the simulation's. Every second the autoscaler is given what the nodes would tell, and what it decides is done:
agents that are added are ready after `start`, agents that leave finish their task first, as a drain has it.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from swarm_operator.autoscale import Decision, History, Policy, recommend
from swarm_operator.loads import Sample
from swarm_operator.schedule import Raised

__all__ = ["BOUNDS", "Swarm", "sample"]

#: Lower bounds of the board's buckets.
BOUNDS = [0.0] + [2.0 ** (7 + at // 2) * (1.5 if at % 2 else 1.0) * 1e-9 for at in range(63)]


def _bucket(seconds: float) -> float:
    return BOUNDS[bisect.bisect_right(BOUNDS, seconds) - 1]


def _counts(waits: list[float]) -> tuple[tuple[float, int], ...]:
    return tuple(sorted(Counter(map(_bucket, waits)).items()))


def sample(at: float, waits: list[float] | None = None, ages: list[float] | None = None, **fields: float) -> Sample:
    """A reading of one second; `waits` of the tasks that were begun in it, `ages` of those that wait."""
    given = {"seconds": 1.0, "begun": _counts(waits or []), "ages": _counts(ages or [])}
    return Sample(at=at, **(given | fields))  # type: ignore[arg-type]


@dataclass
class Swarm:
    """See the module's text. `rate`: tasks per second at a time; `run`: seconds that a task takes."""

    policy: Policy
    rate: Callable[[float], float]
    run: Callable[[random.Random], float]
    replicas: int = 1
    start: float = 5.0
    seed: int = 1
    now: float = 0.0
    history: History = field(default_factory=History)
    decisions: list[Decision] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    ready_counts: list[int] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    raised: Callable[[float], Raised | None] = lambda now: None
    deaf: Callable[[float], bool] = lambda now: False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.queue: deque[float] = deque()
        self.running: list[tuple[float, float]] = []  # end, seconds
        self.ready = self.replicas
        self.coming: list[float] = []
        self.total = (0, 0.0)

    def submit(self, count: int) -> None:
        """Tasks that come all at once."""
        self.queue.extend([self.now] * count)
        self.extra = count

    extra: int = 0

    def step(self) -> Decision:
        """A second, and a decision at its end."""
        until = self.now + 1.0
        begun: list[float] = []
        ended, seconds, came = 0, 0.0, self.extra
        self.extra = 0
        arrivals = []
        at, rate = self.now, self.rate(self.now)
        while rate > 0:
            at += self.rng.expovariate(rate)
            if at >= until:
                break
            arrivals.append(at)
        came += len(arrivals)
        events = sorted([(t, 0) for t in arrivals] + [(t, 1) for t in self.coming if t < until])
        self.coming = [t for t in self.coming if t >= until]

        def work(upto: float) -> None:
            """Ends and begins tasks until a time."""
            nonlocal ended, seconds
            while True:
                while self.queue and len(self.running) < self.ready:
                    begin(max(self.clock, self.queue[0]))
                if not self.running or self.running[0][0] > upto:
                    break
                self.clock, took = heapq.heappop(self.running)
                ended, seconds = ended + 1, seconds + took

        def begin(when: float) -> None:
            came_at = self.queue.popleft()
            begun.append(when - came_at)
            self.waits.append((when, when - came_at))
            took = self.run(self.rng)
            heapq.heappush(self.running, (when + took, took))

        self.clock = self.now
        for when, kind in events:
            work(when)
            self.clock = when
            if kind:
                self.ready += 1
            else:
                self.queue.append(when)
        work(until)
        self.now = until
        self.total = (self.total[0] + ended, self.total[1] + seconds)
        found = Sample(
            at=self.now,
            seconds=1.0,
            arrivals=came,
            completed=ended,
            runs=ended,
            run_seconds=seconds,
            begun=_counts(begun),
            ages=_counts([self.now - t for t in self.queue]),
            busy=min(len(self.running), self.ready),
            running=len(self.running),
            ready=self.ready,
            usual_run=self.total[1] / self.total[0] if self.total[0] else 0.0,
        )
        missing = "node-a does not tell its load" if self.deaf(self.now) else ""
        self.history, decision = recommend(
            self.history,
            None if missing else found,
            self.policy,
            replicas=self.replicas,
            now=self.now,
            raised=self.raised(self.now),
            missing=missing,
        )
        self._scale(decision.desired)
        self.decisions.append(decision)
        self.counts.append(self.replicas)
        self.ready_counts.append(self.ready)
        return decision

    clock: float = 0.0

    def _scale(self, count: int) -> None:
        if count > self.replicas:
            self.coming += [self.now + self.start] * (count - self.replicas)
        gone = self.replicas - count
        while gone > 0 and self.coming:
            self.coming.pop()
            gone -= 1
        self.ready -= max(gone, 0)  # one that is busy ends its task and takes no other
        self.replicas = count

    def go(self, seconds: int) -> Swarm:
        """Many steps."""
        for _ in range(seconds):
            self.step()
        return self

    def turns(self, begin: int = 0) -> int:
        """How often the count changed its direction."""
        moves = [b - a for a, b in zip(self.counts[begin:], self.counts[begin + 1 :], strict=False) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(moves))

    def late(self, begin: float, target: float) -> float:
        """The share of tasks begun since a time that waited longer than the target."""
        found = [wait for when, wait in self.waits if when >= begin]
        return sum(wait > target for wait in found) / max(len(found), 1)
