"""How many compute agents a swarm should have. Pure: readings and a table of earlier ones in, a count and why out.

Out at once. Agents are added when tasks wait longer than `targetQueueTime`: more than one in twenty, beyond chance, of
those submitted since the number of agents grew last, and while the agents had work to do (a task that waits although
agents idle is not helped by another agent). How many: as many as the queueing formula says for the load there is, or as
work off what waits within a second; for tasks that take longer than that, one for each. A load that clearly rises is
answered before it is there.

In after a window. Each reading says how many agents would have been enough, with a margin; when a whole window has been
observed without a gap, the highest of it is what is kept. A table that is new (after a restart, a change of leader, a
gap) has no whole window, so nothing leaves. Agents leave by the planner's drain; here only a number is written.

Invariants, held by property tests:
- the answer lies between min and max; only a schedule raises min, and never beyond max;
- nothing leaves before a whole window was observed, and no agent leaves below what its highest reading asked for;
- agents that were asked for count as if they were there: the answer is a count, not an increment; a queue that grows
  while agents start does not ask for them again; at most `maxStep` are on their way;
- readings older than `STALE` decide nothing.

Rejected: queue length over a target length, as KEDA's scalers have it (what length is right depends on how long tasks
take, which is known here); utilisation, as an HPA has it (agents may all be busy and nobody wait).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from swarm_operator.api.fields import seconds
from swarm_operator.api.v1alpha1 import Autoscaling, SwarmSpec
from swarm_operator.loads import Sample, quantile
from swarm_operator.queueing import LATE_SHARE, agents_for, coming_rate, dispersion, present_rate, service_time
from swarm_operator.schedule import Raised

__all__ = [
    "AT_MAX",
    "AT_MIN",
    "NO_DATA",
    "SCALED_IN",
    "SCALED_OUT",
    "SCHEDULED",
    "STALE",
    "STEADY",
    "Decision",
    "History",
    "Policy",
    "duration_text",
    "policy_of",
    "recommend",
]

#: Reasons, as the condition Autoscaling gives them.
SCALED_OUT: Final = "ScaledOut"
SCALED_IN: Final = "ScaledIn"
AT_MAX: Final = "AtMax"
AT_MIN: Final = "AtMin"
STEADY: Final = "Steady"
SCHEDULED: Final = "Scheduled"
NO_DATA: Final = "NoData"

#: Seconds of readings that are kept: by them load and waits are judged.
MEMORY: Final = 30.0
#: Readings that are kept, however often one is taken.
_MOST_SAMPLES: Final = 240
#: A reading decides nothing after so many seconds, and a gap as long begins the window anew.
STALE: Final = 15.0
#: What waits is to be gone within this long (seconds), or the target if that is longer, once the agents are there.
_WORK_OFF: Final = 1.0
#: How far ahead is looked (seconds): about as long as an agent takes to come.
HORIZON: Final = 10.0
#: The load for which fewer agents must be enough before some leave.
_MARGIN: Final = 1.2
#: Seconds below which a wait may be the time that a sleeping agent takes to wake up.
_WAKE_UP: Final = 0.005
#: Variance over mean of what comes, from which on it comes in bursts.
_BURSTS: Final = 3.0
#: Standard deviations by which more tasks must be late than may be.
_SURE: Final = 3.0
#: A decision to scale stays the condition's reason for so long (seconds).
_TOLD: Final = 30.0


@dataclass(frozen=True)
class Policy:
    """What the spec says. Times in seconds."""

    min: int
    max: int
    target: float = 0.05
    window: float = 120.0
    max_step: int = 1000
    forecast: bool = True


def policy_of(spec: SwarmSpec) -> Policy | None:
    """The spec's wishes; None where nobody is asked to decide on replicas."""
    if spec.compute.min is None or spec.compute.max is None:
        return None
    wishes = spec.autoscaling or Autoscaling()
    return Policy(
        spec.compute.min,
        spec.compute.max,
        seconds(wishes.target_queue_time),
        seconds(wishes.scale_in_window),
        wishes.max_step,
        wishes.forecast,
    )


@dataclass(frozen=True)
class History:
    """The table of what was observed of one Swarm. A new one knows nothing."""

    samples: tuple[Sample, ...] = ()
    #: When, and how many agents would have been enough: only those that no later one outdoes.
    enough: tuple[tuple[float, int], ...] = ()
    #: Since when there is no gap in the readings.
    since: float | None = None
    #: When the number of ready agents grew last.
    grew: float = -math.inf
    #: The replicas that were seen last, or asked for since; and whether `maxStep` kept them from being more.
    replicas: int | None = None
    clipped: bool = False
    #: When what was decided last, as (time, reason, message); times are seconds since the epoch.
    last: tuple[float, str, str] = (-math.inf, "", "")


@dataclass(frozen=True)
class Decision:
    """How many compute agents there should be, and why."""

    desired: int
    reason: str
    message: str
    low: int
    high: int
    #: Since the last readings: seconds that 19 of 20 tasks waited no longer than, tasks per second, seconds a task.
    queue_time: float = 0.0
    arrivals: float = 0.0
    completions: float = 0.0
    service: float = 0.0
    waiting: int = 0
    busy: int = 0
    #: When replicas were changed last; None: not since this table began.
    scaled_at: float | None = None


@dataclass
class _View:
    """The readings of late, as every judgement looks at them."""

    samples: Sequence[Sample]
    policy: Policy
    replicas: int
    grew: float
    last: Sample = field(init=False)
    rate: float = field(init=False)
    service: float = field(init=False)
    ready: int = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.samples[-1]
        self.rate, self.service = present_rate(self.samples), service_time(self.samples)
        self.ready = self.last.ready

    @property
    def unit(self) -> float:
        """Tasks that run for so long need an agent each, if none is to wait."""
        return max(self.policy.target, _WORK_OFF)

    @property
    def long(self) -> bool:
        """Whether tasks run for longer than it takes to start an agent for each."""
        return self.service >= max(self.unit, HORIZON)

    @property
    def pending(self) -> bool:
        """Whether agents that were asked for are still to come."""
        return self.replicas > self.ready

    def worked(self, wait: float) -> bool:
        """Whether tasks waited because agents worked: not for the time that a sleeping agent takes to wake up."""
        return wait > _WAKE_UP and sum(s.run_seconds for s in self.samples) >= self.ready * wait / 2

    @property
    def at_once(self) -> int:
        """The most tasks that were seen at once."""
        return max(s.running + s.waiting for s in self.samples)


def recommend(
    history: History,
    sample: Sample | None,
    policy: Policy,
    *,
    replicas: int,
    now: float,
    raised: Raised | None = None,
    missing: str = "",
) -> tuple[History, Decision]:
    """The next table, and what should be.

    Args:
        sample: what was read last; None: nothing could be read.
        replicas: compute agents that the spec asks for.
        now: seconds since the epoch.
        missing: what could not be read although it should be, for people; then nothing leaves.
    """
    history = _observed(history, sample, replicas, missing, now)
    low, high = max(policy.min, min(raised.min if raised else 0, policy.max)), policy.max
    view = _View(history.samples, policy, replicas, history.grew) if history.samples else None
    known = view is not None and now - view.last.at <= STALE
    need, why = 0, ""
    if view is not None and known:
        need, why = _need(view)
        history = _noted(history, max(need, _enough(view)), policy.window, now)
    desired, spare = replicas, ""
    if view is not None and known and need > replicas:
        desired = max(replicas, min(need, view.ready + policy.max_step))
    elif known and history.since is not None and now - history.since >= policy.window - 1e-6:
        kept = max(count for _, count in history.enough)
        if kept < replicas:
            desired, spare = kept, f"{kept} would have been enough for {duration_text(policy.window)}"
    desired = max(low, min(desired, high))
    reason, message = _told(history, desired, replicas, need, why or spare, low, high, policy, raised, known, missing)
    if reason in (SCALED_OUT, SCALED_IN) and desired != replicas:
        history = replace(history, last=(now, reason, message))
    elif now - history.last[0] < _TOLD and reason not in (NO_DATA, AT_MAX) and desired == replicas:
        reason, message = history.last[1:]
    history = replace(history, replicas=desired, clipped=desired < min(need, high))
    return history, _decision(view if known else None, desired, reason, message, low, high, history)


def _observed(history: History, sample: Sample | None, replicas: int, missing: str, now: float) -> History:
    """The table with a reading more."""
    enough, since, grew = history.enough, history.since, history.grew
    if history.replicas is not None and replicas > history.replicas:
        # Somebody else wants more: that stands for a window, as if it had been needed.
        enough = (*(entry for entry in enough if entry[1] > replicas), (now, replicas))
    if sample is None or missing:
        since = None
    samples = history.samples
    if sample is not None:
        if samples and sample.ready > samples[-1].ready and not history.clipped:
            grew = sample.at
        if samples and sample.at - samples[-1].at > STALE:
            samples, since = (), None
        samples = (*[s for s in samples if s.at > sample.at - MEMORY][-_MOST_SAMPLES:], sample)
        since = now if since is None and not missing else since
    return replace(history, samples=samples, enough=enough, since=since, grew=grew)


def _noted(history: History, count: int, window: float, now: float) -> History:
    """The table with what was enough; what a later and higher count outdoes is left out."""
    kept = tuple(entry for entry in history.enough if entry[1] > count and entry[0] >= now - window)
    since = None if history.since is None else max(history.since, now - window)
    return replace(history, enough=(*kept, (now, count)), since=since)


def _need(view: _View) -> tuple[int, str]:
    """How many agents there have to be at once, and why; 0 when those there are do."""
    last, ready, policy = view.last, view.ready, view.policy
    if not view.replicas and not ready and (last.waiting or last.running):
        return 1, f"{_tasks(last.waiting)} waiting and no compute agent is there"
    need, why = _need_of_waits(view)
    coming = coming_rate(view.samples, HORIZON) if policy.forecast else 0.0
    if coming > view.rate > 0 and view.service:
        ahead = agents_for(coming, view.service, policy.target, policy.max)
        ahead = min(ahead, math.ceil(view.at_once * coming / view.rate))
        if ahead > need:
            need = ahead
            why = f"{coming:.3g} tasks/s are forecast in {HORIZON:g} s, {view.rate:.3g} come now"
    return need, why


def _need_of_waits(view: _View) -> tuple[int, str]:
    last, ready, policy, service = view.last, view.ready, view.policy, view.service
    late, judged, typical = _late(view)
    if late <= LATE_SHARE * judged + _SURE * math.sqrt(LATE_SHARE * (1 - LATE_SHARE) * judged):
        return 0, ""
    full = last.busy >= ready and any(age >= policy.target for age, _ in last.ages)
    if not full and not view.worked(typical):
        return 0, ""  # tasks wait although agents idle: more of them would not help
    why = f"{late} of {_tasks(judged)} waited longer than {duration_text(policy.target)}"
    why += f", {view.rate:.3g}/s come" + (f" and run {duration_text(service)}" if service else "")
    there = last.running + last.waiting
    if view.long:
        return there, why
    load = view.rate * service
    by_load = agents_for(view.rate, service, policy.target, policy.max)
    settling = last.at - view.grew < 2 * HORIZON
    within = HORIZON if settling else view.unit
    backlog = math.ceil(max(load, last.running * (service >= view.unit)) + last.waiting * min(service / within, 1.0))
    if not service and last.waiting:
        backlog = 1  # the first task will tell how long they take
    if view.pending:
        backlog = min(backlog, view.replicas)  # what waits for agents that are coming asks for no more of them
    need, most = max(by_load, backlog), max(view.at_once, ready + 1)
    if need <= ready and not view.pending and not (settling and last.waiting):
        # More than the formula knows: the tasks come together. Waits in a burst are as its tasks over the agents.
        bursts = dispersion(view.samples) > _BURSTS
        need = min(math.ceil(ready * max(typical / policy.target, 1.0)), ready + (ready if bursts else 1), judged)
        most = need if bursts else most
    return min(need, most), why


def _late(view: _View) -> tuple[int, int, float]:
    """Tasks that waited too long, tasks that are judged, and how long 19 of 20 of them waited at most.

    Only of those that were submitted since the number of agents grew: what had to wait for an agent that has come since
    says nothing about how many are needed now, unless tasks take so long that each needs an agent of its own.
    """
    target = view.policy.target
    waits: list[tuple[float, int]] = []
    for sample in view.samples:
        since = math.inf if view.long else sample.at - view.grew
        waits += [(wait, count) for wait, count in sample.begun if wait < since]
    since = math.inf if view.long else view.last.at - view.grew
    waits += [(age, count) for age, count in view.last.ages if target <= age < since]
    late = sum(count for wait, count in waits if wait >= target)
    return late, sum(count for _, count in waits), quantile(waits, 1 - LATE_SHARE)


def _enough(view: _View) -> int:
    """How many agents would do, with a margin, for what is there; 0 when nothing has been there of late."""
    if all(sample.quiet for sample in view.samples):
        return 0
    there = view.last.running + view.last.waiting
    if view.service >= view.unit or not view.service:
        return max(1, there)
    count = min(agents_for(view.rate * _MARGIN, view.service, view.policy.target, view.policy.max), there)
    typical = quantile((pair for sample in view.samples for pair in sample.begun), 1 - LATE_SHARE)
    if view.worked(typical):
        # with fewer agents the waits are longer by as much
        share = min(1.5 * typical / view.policy.target, 1.0)  # a bucket is half as wide as its lower bound
        count = max(count, math.ceil(min(view.ready, view.replicas) * share))
    return max(1, count)


def _told(
    history: History,
    desired: int,
    replicas: int,
    need: int,
    why: str,
    low: int,
    high: int,
    policy: Policy,
    raised: Raised | None,
    known: bool,
    missing: str,
) -> tuple[str, str]:
    """The reason in one word and in a sentence."""
    if desired != replicas:
        change = f"from {replicas} to {desired}"
        if desired == low and desired > replicas and need < low:
            by = f"schedule {raised.why}" if raised and low > policy.min else f"compute.min is {low}"
        elif desired == high and desired < replicas:
            by = f"compute.max is {high}"
        else:
            by = why
        return (SCALED_OUT if desired > replicas else SCALED_IN), f"Scaled compute agents {change}: {by}."
    if missing:
        return NO_DATA, f"No compute agent is taken away: {missing}."
    if not known:
        return NO_DATA, "No agent has told its load yet."
    if need > replicas and desired == high:
        return AT_MAX, f"{need} {_agents(need)} needed, compute.max is {high}: {why}."
    if low > policy.min and desired == low and raised:
        return SCHEDULED, f"The schedule {raised.why}."
    if desired == low:
        return AT_MIN, f"compute.min ({low}) is enough."
    return STEADY, f"{desired} {_agents(desired)} enough."


def _decision(
    view: _View | None, desired: int, reason: str, message: str, low: int, high: int, history: History
) -> Decision:
    at = history.last[0]
    decision = Decision(desired, reason, message, low, high, scaled_at=None if math.isinf(at) else at)
    if view is None:
        return decision
    waits = [pair for sample in view.samples[-10:] for pair in sample.begun] + list(view.last.ages)
    lasted = sum(sample.seconds for sample in view.samples)
    return replace(
        decision,
        queue_time=quantile(waits, 1 - LATE_SHARE),
        arrivals=view.rate,
        completions=sum(sample.completed for sample in view.samples) / lasted if lasted else 0.0,
        service=view.service,
        waiting=view.last.waiting,
        busy=view.last.busy,
    )


def duration_text(value: float) -> str:
    """Seconds for people, as the spec writes them: `50ms`, `2m`."""
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value * 1e6:.3g}us"


def _agents(count: int) -> str:
    return "agent is" if count == 1 else "agents are"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
