"""Which cores of its cpuset an agent keeps off, for a while: those that are stolen from, throttled or hot.

What is decided is a set, that of all the agent's threads, and not a core for each thread: threads that a pinned thread
makes begin where it is pinned, so that a kernel's pool, made by a thread with one core, would have that one core. Among
the good cores the kernel places threads better than can be done from outside.

What a core costs is the share of it that an agent can't have there: taken by the hypervisor (steal), by throttling, by
heat. What other programs take does not count: the kernel's scheduler sees that and places threads around it, and half a
core is better than none; of the three it knows too little. Of a core that nobody runs on steal can't be seen, and it
cools: so a core that was left looks good at once, proves nothing by that, and is tried again after a while only, which
doubles each time that it turns out bad again (`LEAST_AWAY` to `MOST_AWAY`).

Invariants: the answer is a part of the cpuset and never empty; no fewer cores are left than the agent has busy threads;
where there is one core, or all are alike, nothing is avoided. No clock and no I/O here: both are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Core", "CoreBalance", "Move", "cost"]

#: A core is left at this cost, if it has been so for `CONFIRM` and another is at least `MARGIN` better.
LEAVE, MARGIN = 0.3, 0.2
#: How long a core must be bad (seconds): what is over sooner is no reason to give up warm caches.
CONFIRM = 1.0
#: How long a core that was left is kept off at least, the first time and after many (seconds).
LEAST_AWAY, MOST_AWAY = 10.0, 640.0
#: A core that was used for so long again without being left starts at `LEAST_AWAY` (seconds).
FORGIVEN = 60.0
#: The smoothing of what a core costs (seconds): half of a change is seen after 0.7 of it.
_SMOOTH = 1.0
#: What a throttled core is taken to have lost: drivers count that they slow down, not by how much; half is usual.
_THROTTLED = 0.5
#: From so many degrees below the core's own limit heat counts, fully at the limit (degrees Celsius).
_WARM = 10.0


@dataclass(frozen=True, slots=True)
class Core:
    """What a core was like since the last look.

    `steal`: the share of its time taken by the hypervisor. `throttles`: how often it was slowed down for heat or
    power. `celsius` its temperature and `limit` the one it must not pass,
    None where they are not known.
    """

    steal: float = 0.0
    throttles: float = 0.0
    celsius: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """The agent's threads are to leave a core, or may use it again; `reason` for people."""

    core: int
    leave: bool
    reason: str


@dataclass(slots=True)
class _Kept:
    cost: float = 0.0
    reason: str = ""
    #: Since when it has been bad without a break, and when it was left or taken again (seconds).
    bad_since: float = math.inf
    since: float = -math.inf
    left: bool = False
    away: float = LEAST_AWAY


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


def cost(core: Core) -> tuple[float, str]:
    """The share of a core that can't be had (0 to 1), and the foremost reason. Absurd figures count for nothing."""
    heat = 0.0
    if core.celsius is not None and core.limit is not None and math.isfinite(core.celsius) and core.limit > _WARM:
        heat = _share(1.0 - (core.limit - core.celsius) / _WARM)
    parts = {
        f"{_share(core.steal):.0%} stolen by the hypervisor": _share(core.steal),
        "throttled": _THROTTLED if core.throttles > 0 else 0.0,
        "hot" if core.celsius is None else f"{core.celsius:.0f} degrees Celsius": heat,
    }
    whole = 1.0 - math.prod(1.0 - part for part in parts.values())
    return whole, max(parts, key=parts.__getitem__)


class CoreBalance:
    """The cores of one agent. See the module's text."""

    def __init__(self) -> None:
        self._cores: dict[int, _Kept] = {}
        self._last = -math.inf
        #: Times that cores were left or taken again.
        self.moves = 0

    @property
    def avoided(self) -> tuple[int, ...]:
        """The cores that are kept off now."""
        return tuple(sorted(core for core, kept in self._cores.items() if kept.left))

    def allowed(self, cpus: Iterable[int]) -> tuple[int, ...]:
        """The cores of a cpuset that are left to run on; all of them, should none be left."""
        every = tuple(sorted(cpus))
        return tuple(cpu for cpu in every if cpu not in self._cores or not self._cores[cpu].left) or every

    def plan(self, now: float, cpus: Iterable[int], cores: Mapping[int, Core], busy: int) -> tuple[Move, ...]:
        """What is to be changed. `busy`: how many of the agent's threads want a core; `now` in seconds."""
        wanted = set(cpus)
        for gone in self._cores.keys() - wanted:  # another core, should the number come back
            del self._cores[gone]
        weight = 1.0 - math.exp(-max(now - self._last, 0.0) / _SMOOTH)
        self._last = now
        for cpu in wanted:
            self._see(now, self._cores.setdefault(cpu, _Kept()), cores.get(cpu), weight)
        if len(wanted) < 2:
            return ()
        moves = [*self._take_back(now, len(wanted), max(busy, 1)), *self._leave(now, len(wanted), max(busy, 1))]
        self.moves += len(moves)
        return tuple(moves)

    def _see(self, now: float, kept: _Kept, core: Core | None, weight: float) -> None:
        if core is None:  # nothing is known of it: neither good nor bad
            kept.bad_since = math.inf
            return
        found, reason = cost(core)
        kept.cost += weight * (found - kept.cost)
        if found >= LEAVE:
            kept.reason = reason
        if kept.cost < LEAVE:
            kept.bad_since = math.inf
        elif kept.bad_since == math.inf:
            kept.bad_since = now
        if not kept.left and now - kept.since >= FORGIVEN:
            kept.away = LEAST_AWAY

    def _take_back(self, now: float, many: int, busy: int) -> Iterable[Move]:
        left = sorted((kept.cost, cpu) for cpu, kept in self._cores.items() if kept.left)
        here = many - len(left)
        for _, cpu in left:
            kept = self._cores[cpu]
            needed = here < busy
            if needed or (now - kept.since >= kept.away and kept.cost < LEAVE - MARGIN):
                kept.left, kept.since, kept.bad_since = False, now, math.inf
                here += 1
                yield Move(cpu, False, f"{busy} busy threads need it" if needed else "it has been well for a while")

    def _leave(self, now: float, many: int, busy: int) -> Iterable[Move]:
        here = {cpu: kept for cpu, kept in self._cores.items() if not kept.left}
        for cpu, kept in sorted(here.items(), key=lambda item: (-item[1].cost, item[0])):
            best = min(other.cost for other in here.values())
            if len(here) - 1 < busy:
                return
            if now - kept.bad_since < CONFIRM or kept.cost < best + MARGIN:
                continue
            if kept.since > -math.inf and now - kept.since < FORGIVEN:  # it was tried, and is no better
                kept.away = min(2 * kept.away, MOST_AWAY)
            kept.left, kept.since = True, now
            del here[cpu]
            yield Move(cpu, True, kept.reason)
