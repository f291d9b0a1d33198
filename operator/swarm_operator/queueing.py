"""How many agents keep tasks from waiting too long, and what load is coming. Pure, and about tasks and agents only.

The count is Erlang's: for tasks that come at random (Poisson), run for some mean time and wait in one queue for c
agents, the share that waits longer than t is C(c, a) exp(-(c - a) t / s), with a = rate * s the load in agents and C
the probability of waiting at all (A. K. Erlang, 1917; e.g. L. Kleinrock, Queueing Systems I, 3.5 and 5). Run times of
real tasks are not exponential, and tasks come in bursts: so it says how many agents are enough as a rule, and what
tasks really waited is looked at beside it.

The forecast is a straight line through the last readings, and is believed only where it is clear (slope above three of
its standard errors) and where both halves of the time rise by themselves: a load that jumped once is no load that
grows, and would otherwise be seen to double. Rejected: Holt's smoothing (one state for jump, trend and noise; on a load
that is constant but noisy its trend never rests), seasonal models (what comes by the clock is the schedule's).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from swarm_operator.loads import Sample

__all__ = ["LATE_SHARE", "agents_for", "coming_rate", "dispersion", "present_rate", "service_time"]

#: Of its tasks a swarm may have so many that wait longer than the target.
LATE_SHARE = 0.05
#: A jump is believed when the last so many seconds hold more than by chance (three standard deviations).
RECENT = 5.0
_SURE = 3.0
#: A trend is looked for in at least so many readings.
_FEW = 10


def agents_for(rate: float, service: float, target: float, most: int = 5000) -> int:
    """The fewest agents with which at most `LATE_SHARE` of the tasks wait longer than `target` seconds.

    Args:
        rate: tasks that come, per second.
        service: seconds that one takes on average.
        most: the answer is never more.
    """
    load = rate * service
    if load <= 0:
        return 0
    blocked = 1.0  # Erlang's B, by its recursion
    for count in range(1, most):
        blocked = load * blocked / (count + load * blocked)
        if count <= load:
            continue
        waits = blocked / (1 - load / count * (1 - blocked))
        if waits * math.exp(-(count - load) * target / service) <= LATE_SHARE:
            return count
    return most


def present_rate(samples: Sequence[Sample]) -> float:
    """Tasks that come per second: over all samples, or over the last seconds of them when it has jumped since."""
    seconds = sum(s.seconds for s in samples)
    if not seconds:
        return 0.0
    rate = sum(s.arrivals for s in samples) / seconds
    recent = [s for s in samples if s.at > samples[-1].at - RECENT]
    older = samples[: len(samples) - len(recent)]
    lasted, before = sum(s.seconds for s in recent), sum(s.seconds for s in older)
    if not lasted or not before:
        return rate
    was, now = sum(s.arrivals for s in older) / before, sum(s.arrivals for s in recent) / lasted
    return max(rate, now) if now > was + _SURE * math.sqrt(max(was, 1 / lasted) / lasted) else rate


def coming_rate(samples: Sequence[Sample], horizon: float) -> float:
    """Tasks per second in `horizon` seconds from the last sample, if the load clearly rises; else 0."""
    known = [s for s in samples if s.seconds > 0]
    if len(known) < _FEW or known[-1].at - known[0].at < 2 * RECENT:
        return 0.0
    slope, level, error = _line(known)
    half = len(known) // 2
    if slope <= _SURE * error or any(_line(part)[0] < slope / 4 for part in (known[:half], known[half:])):
        return 0.0
    # never more than twice what there is: the line is an extrapolation
    return min(level + slope * horizon, 2 * max(level, present_rate(known)))


def _line(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Least squares of the rates: slope per second, value at the last sample, standard error of the slope."""
    at = [s.at - samples[-1].at for s in samples]
    rates = [s.arrivals / s.seconds for s in samples]
    count = len(samples)
    mean_at, mean = sum(at) / count, sum(rates) / count
    spread = sum((t - mean_at) ** 2 for t in at)
    if not spread:
        return 0.0, mean, math.inf
    slope = sum((t - mean_at) * (r - mean) for t, r in zip(at, rates, strict=True)) / spread
    level = mean - slope * mean_at
    rest = sum((r - level - slope * t) ** 2 for t, r in zip(at, rates, strict=True))
    # counted things are never more regular than by chance
    noise = max(rest / max(count - 2, 1), max(mean, 0.0) * count / sum(s.seconds for s in samples) / 4)
    return slope, level, math.sqrt(noise / spread)


def dispersion(samples: Sequence[Sample]) -> float:
    """Variance over mean of the counts of tasks that came: 1 when they come at random, more when in bursts."""
    counts = [s.arrivals for s in samples if s.seconds]
    mean = sum(counts) / len(counts) if counts else 0.0
    return sum((c - mean) ** 2 for c in counts) / len(counts) / mean if mean else 0.0


def service_time(samples: Sequence[Sample]) -> float:
    """Seconds that a task keeps an agent, on average; 0 when nothing is known.

    Tasks that have not ended count by how long they have been seen to run: a swarm whose agents all work on tasks of an
    hour has no task that has ended to go by.
    """
    if not samples:
        return 0.0
    runs = sum(s.runs for s in samples)
    mean = sum(s.run_seconds for s in samples) / runs if runs else samples[-1].usual_run
    # seen in hand at both ends of a reading: a task that is merely met there would weigh as much as the whole reading
    busy = sum(min(a.running, b.running) * b.seconds for a, b in itertools.pairwise(samples))
    return max(mean, busy / max(sum(s.completed for s in samples) + samples[-1].running, 1))
