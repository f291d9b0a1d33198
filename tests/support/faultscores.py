"""How well alarms foretell failures: precision, recall, F1 and lead time over traces; and the plain alarms to beat.

An alarm is the first second from which on a probability is at the threshold, or a figure beyond its own; the next one
can come after it was below again. Of a trace that fails, one alarm between the fault's beginning and the failure is a
true one, if there is time to act on it (`IN_TIME` seconds); alarms before the beginning, and those of traces that never
fail, are false: one a trace at most, for the agent has been replaced by then.

Plain alarms: thresholds on figures as they are, each on its own. `choose` finds the thresholds with the best F1 on the
traces that it is given, one figure after the other and round again until nothing gets better; a figure that only does
harm is left out. So the baseline is as good as thresholds can be there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from support.faulttraces import DEAD_AFTER, Trace
from swarm_agents.resource.foresight.hazards import Hazards, Signs

__all__ = ["EVERY", "IN_TIME", "PLAIN", "Score", "by_hazards", "by_thresholds", "choose", "probabilities", "score"]

#: Seconds that an alarm must come before the failure: draining takes as long.
IN_TIME = 1.0

Alarms = Callable[[Trace], float | None]


@dataclass(frozen=True)
class Score:
    """What alarms came to."""

    true: int
    false: int
    missed: int
    #: seconds from the alarm to the failure, of the true ones
    leads: tuple[float, ...]
    #: seconds of traces, or of parts of traces, without a fault
    healthy: float

    @property
    def precision(self) -> float:
        return self.true / (self.true + self.false) if self.true + self.false else 0.0

    @property
    def recall(self) -> float:
        return self.true / (self.true + self.missed) if self.true + self.missed else 0.0

    @property
    def f1(self) -> float:
        both = 2 * self.true + self.false + self.missed
        return 2 * self.true / both if both else 0.0

    @property
    def lead(self) -> float:
        """Median, seconds."""
        return statistics.median(self.leads) if self.leads else 0.0

    @property
    def false_per_hour(self) -> float:
        return 3600.0 * self.false / self.healthy if self.healthy else 0.0


def score(traces: Sequence[Trace], alarm: Alarms) -> Score:
    """Of alarms that say when they first go off, or None."""
    true = false = missed = 0
    leads, healthy = [], 0.0
    for trace in traces:
        at = alarm(trace)
        fails = trace.fails
        healthy += len(trace.looks) if trace.begins is None else min(trace.begins, len(trace.looks))
        if trace.begins is None or fails is None:
            false += at is not None
        elif at is not None and at < trace.begins:
            false += 1
            missed += 1
        elif at is not None and at <= fails - IN_TIME:
            true += 1
            leads.append(fails - at)
        else:
            missed += 1
    return Score(true, false, missed, tuple(leads), healthy)


def probabilities(trace: Trace) -> list[float]:
    """What the predictor says, second by second."""
    hazards = Hazards(DEAD_AFTER)
    return [hazards.look(look.at, look.signs, look.siblings).probability for look in trace.looks]


def by_hazards(threshold: float) -> Alarms:
    """The predictor's alarms."""

    def alarm(trace: Trace) -> float | None:
        hazards = Hazards(DEAD_AFTER)
        for look in trace.looks:
            if hazards.look(look.at, look.signs, look.siblings).probability >= threshold:
                return look.at
        return None

    return alarm


def _runs(signs: Signs) -> float:
    return (signs.busy_seconds or 0.0) / signs.done if signs.done else 0.0


#: The plain alarms of the issue: memory, heat, the age of the heartbeat.
PLAIN: Mapping[str, Callable[[Signs], float]] = {
    "memory": lambda signs: (signs.memory or 0.0) / (signs.memory_limit or math.inf),
    "heat": lambda signs: signs.heat or 0.0,
    "age": lambda signs: signs.age or 0.0,
}
#: The same with a threshold on everything that the predictor is told.
EVERY: Mapping[str, Callable[[Signs], float]] = {
    **PLAIN,
    "held": lambda signs: signs.held,
    "failed": lambda signs: (signs.failed or 0.0) / signs.done if signs.done else 0.0,
    "runs": _runs,
    "stolen": lambda signs: signs.stolen or 0.0,
    "disk": lambda signs: signs.disk or 0.0,
    "deaths": lambda signs: float(signs.deaths),
}


def by_thresholds(thresholds: Mapping[str, float]) -> Alarms:
    """Alarms that go off where a figure of `EVERY` is at its threshold or beyond."""

    def alarm(trace: Trace) -> float | None:
        for look in trace.looks:
            if any(EVERY[name](look.signs) >= limit for name, limit in thresholds.items()):
                return look.at
        return None

    return alarm


def choose(traces: Sequence[Trace], names: Sequence[str], steps: int = 24) -> dict[str, float]:
    """The thresholds with the best F1 on these traces: of the figures' quantiles over all seconds, highest first."""
    # the running maximum of each figure says when it first reaches any threshold
    grids: dict[str, list[float]] = {}
    for name in names:
        seen = sorted(EVERY[name](look.signs) for trace in traces for look in trace.looks)
        # thresholds matter where they are rare: half of the grid lies in the last hundredth
        at = [1 - 10 ** (-4 * (step + 1) / steps) for step in range(steps)]
        grids[name] = [*sorted({seen[min(int(q * len(seen)), len(seen) - 1)] for q in at}), math.inf]
    firsts: dict[str, dict[float, list[float]]] = {
        name: {limit: [_first(trace, name, limit) for trace in traces] for limit in grids[name]} for name in names
    }
    chosen = dict.fromkeys(names, math.inf)

    def f1(trial: Mapping[str, float]) -> float:
        earliest = [min(each) for each in zip(*(firsts[name][trial[name]] for name in names), strict=True)]
        return score(traces, _said(traces, earliest)).f1

    best = f1(chosen)
    while True:
        before = best
        for name in names:
            for limit in grids[name]:
                found = f1({**chosen, name: limit})
                if found > best:
                    best, chosen = found, {**chosen, name: limit}
        if best <= before:
            return {name: limit for name, limit in chosen.items() if limit < math.inf}


def _first(trace: Trace, name: str, limit: float) -> float:
    return next((look.at for look in trace.looks if EVERY[name](look.signs) >= limit), math.inf)


def _said(traces: Sequence[Trace], at: Sequence[float]) -> Alarms:
    known = {id(trace): when if math.isfinite(when) else None for trace, when in zip(traces, at, strict=True)}
    return lambda trace: known[id(trace)]
