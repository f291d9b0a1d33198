"""How likely it is that an agent fails or stalls within the next minute, from what can be seen of it. Pure.

Each sign gives a probability by itself, with its reason; together they are held for independent ways to fail (a
noisy-or: Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988, 4.3.2). A sign that is not seen (None, NaN)
adds nothing. The constants were chosen on the training seeds of the replayed faults (`tests/support/faulttraces.py`)
and are held to the other seeds by `make bench-resource`.

The signs
- **memory** and **heat**: the probability that the climb (see `climb`) is beyond the limit in a minute;
- **silence**: pauses of heartbeats have an exponential tail (`runtime.accrual`): the probability that one within the
  next minute is longer than four times `deadAfter`, by the mean age of the last heartbeats, jitter in it; and a silence
  that lasts right now;
- **stuck**: a task in hand for far longer than any before, while the agent uses none of the CPU that its tasks
  usually do. Long alone is no sign: tasks differ;
- **errors**: the share of tasks that end in errors is far above this agent's own and above its siblings': errors that
  all have are the tasks'. An agent without siblings that work is not judged by its errors alone;
- **contention**: CPU time stolen or throttled away, now or as it is going, and tasks that take longer than they did;
- **disk**: operations take a multiple of what they took, or will as it is going;
- **deaths** come again, as a Poisson process.

All but silence and deaths are smoothed over some seconds: what lasts one second is no reason to replace an agent.

Rejected: a learnt classifier (what it would be trained on are these same replays: real failures are too few, and it
could give no reason that a person can check), and products of likelihood ratios (the signs are far from independent
once something is wrong, and the product is soon certain of everything).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from swarm_agents.resource.foresight.climb import Climb

__all__ = ["HORIZON", "Hazards", "Signs", "Verdict"]

#: How far ahead it is looked (seconds).
HORIZON = 60.0
#: A sign is told from this probability on.
WORTH_TELLING = 0.05

_STARVING = 4.0
_LATELY = 15.0
_USUAL_OVER = 300.0
_DEATHS_OVER = 120.0
#: Deaths are not taken to come more often than they did in so many seconds.
_SOON = 30.0
_SMOOTH = 0.4
#: Signs that stand alone for little are worth this at most.
_ALONE = 0.3


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen of an agent at one moment; None: not seen. Counters grow, and begin anew with the process."""

    #: Seconds since its last heartbeat.
    age: float | None = None
    #: Tasks in hand, and seconds since it took what it has in hand.
    running: int = 0
    held: float = 0.0
    #: Tasks that it has ended, of these in errors, and the seconds that they took: counters.
    done: float | None = None
    failed: float | None = None
    busy_seconds: float | None = None
    #: Cores that it uses.
    cpu: float | None = None
    #: Bytes, and how many it may have.
    memory: float | None = None
    memory_limit: float | None = None
    #: Degrees Celsius, and where it is switched off.
    heat: float | None = None
    heat_limit: float | None = None
    #: Share of CPU time that others had, or that was withheld.
    stolen: float | None = None
    throttled: float | None = None
    #: Seconds that a disk operation takes.
    disk: float | None = None
    #: Deaths of its processes: a counter.
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The probability (0 to 1), why (the likeliest first), and each sign's own probability."""

    probability: float = 0.0
    reasons: tuple[str, ...] = ()
    by_sign: dict[str, float] = field(default_factory=dict)


class Hazards:
    """What was seen of one agent. Look once a second or so, at times that go forwards."""

    def __init__(self, dead_after: float = 0.8) -> None:
        self.dead_after = dead_after
        self._memory, self._heat, self._disk, self._taken = Climb(), Climb(), Climb(), Climb(24.0)
        self._limit: float | None = None
        self._ages: deque[float] = deque(maxlen=15)
        self._counts: deque[tuple[float, float, float, float]] = deque(maxlen=64)
        self._usual_run = _Usual()
        self._usual_failed = _Usual()
        self._usual_disk = _Usual()
        self._usual_cpu = _Usual()
        self._longest = 0.0
        self._slower = 1.0
        self._deaths: deque[float] = deque(maxlen=64)
        self._died: int | None = None
        self._smooth: dict[str, float] = {}
        self._last = -math.inf

    def look(self, now: float, signs: Signs, siblings_failed: float | None = None) -> Verdict:
        """One look, `now` in seconds.

        Args:
            siblings_failed: the share of the tasks of the node's other agents that ended in errors lately; None: there
                are none that work.
        """
        if not math.isfinite(now):
            return Verdict()
        passed = min(now - self._last, 10.0) if self._last <= now else 0.0
        if now < self._last:  # the clock was set back: what was counted by it is void
            self._counts.clear()
            self._deaths.clear()
        self._last = now
        found = [
            ("deaths", *self._by_deaths(now, signs)),
            ("silence", *self._by_silence(signs)),
            self._held("memory", passed, *self._by_memory(now, signs)),
            self._held("heat", passed, *self._by_heat(now, signs)),
        ]
        self._count(now, signs)
        found += [
            self._held("stuck", passed, *self._by_stuck(signs)),
            self._held("errors", passed, *self._by_errors(siblings_failed)),
            self._held("contention", passed, *self._by_contention(now, signs)),
            self._held("disk", passed, *self._by_disk(now, signs)),
        ]
        found.sort(key=lambda each: -each[1])
        survives = math.prod(1.0 - probability for _, probability, _ in found)
        told = tuple(f"{why} ({100 * p:.0f} %)" for _, p, why in found if p >= WORTH_TELLING)
        return Verdict(round(1.0 - survives, 4), told, {sign: p for sign, p, _ in found})

    @property
    def failed_lately(self) -> float | None:
        """The share of its last tasks that ended in errors; None: too few ended."""
        ended, failed, _ = self._lately()
        return failed / ended if ended >= 8.0 else None

    def _held(self, sign: str, passed: float, probability: float, why: str) -> tuple[str, float, str]:
        """Smoothed: a sign must last."""
        before = self._smooth.get(sign, 0.0)
        now = before + (1.0 - (1.0 - _SMOOTH) ** passed) * (probability - before)
        self._smooth[sign] = now
        return sign, min(max(now, 0.0), 1.0), why

    def _by_memory(self, now: float, signs: Signs) -> tuple[float, str]:
        used, limit = _known(signs.memory), _known(signs.memory_limit)
        if used is None or limit is None or limit <= 0.0:
            return 0.0, ""
        if self._limit is not None and abs(limit - self._limit) > 0.2 * self._limit:  # resized
            self._memory.clear()
        self._limit = limit
        self._memory.add(now, used)
        probability = self._memory.exceeds(limit, HORIZON)
        why = f"memory {100 * used / limit:.0f} % of what it may have"
        if probability >= WORTH_TELLING:
            why += f", {100 * self._memory.ahead(HORIZON)[0] / limit:.0f} % in 60 s"
        return probability, why

    def _by_heat(self, now: float, signs: Signs) -> tuple[float, str]:
        heat, limit = _known(signs.heat), _known(signs.heat_limit)
        if heat is None or limit is None or not -60.0 < heat < 250.0:
            return 0.0, ""
        self._heat.add(now, heat)
        probability = self._heat.exceeds(limit, HORIZON)
        why = f"{heat:.0f} °C and switched off at {limit:.0f} °C"
        if probability >= WORTH_TELLING:
            why += f", {self._heat.ahead(HORIZON)[0]:.0f} °C in 60 s"
        return probability, why

    def _by_silence(self, signs: Signs) -> tuple[float, str]:
        age = _known(signs.age)
        if age is None or age < 0.0:
            return 0.0, ""
        limit = _STARVING * max(self.dead_after, 1e-3)
        now = _logistic(8.0 * (age / limit - 0.5))
        self._ages.append(min(age, limit))
        drawn = 0.0
        scale = sum(self._ages) / len(self._ages)
        if len(self._ages) == self._ages.maxlen and scale > 0.0:
            longer = math.exp(-limit / scale)
            drawn = -math.expm1(HORIZON / scale * math.log1p(-min(longer, 1.0 - 1e-12)))
        if age < 0.3 * limit:
            now = 0.0
        if now >= drawn:
            return now, f"silent for {age:.2g} s, and dead from {limit:.2g} s on"
        return drawn, f"silent for {1e3 * scale:.0f} ms at a time, and dead from {1e3 * limit:.0f} ms on"

    def _by_deaths(self, now: float, signs: Signs) -> tuple[float, str]:
        if self._died is None:
            self._died = signs.deaths
        for _ in range(min(max(signs.deaths - self._died, 0), 64)):
            self._deaths.append(now)
        if signs.deaths != self._died:  # another process: nothing that was counted is its
            self._memory.clear()
            self._counts.clear()
            self._ages.clear()
            self._died = signs.deaths
        lately = [at for at in self._deaths if now - at <= _DEATHS_OVER]
        # The rate that fits deaths best when time is counted from the first: half a death less. One alone has no rate.
        since = max(now - lately[0], _SOON) if len(lately) > 1 else _DEATHS_OVER
        rate = max(len(lately) - 0.5, 0.0) / since
        why = f"its process died {len(lately)} times in {_DEATHS_OVER:.0f} s"
        return 1.0 - math.exp(-rate * HORIZON), why

    def _count(self, now: float, signs: Signs) -> None:
        """Counters of tasks, and what is usual."""
        values = tuple(_known(each) for each in (signs.done, signs.failed, signs.busy_seconds))
        if None not in values:
            done, failed, busy = (float(each or 0.0) for each in values)
            if self._counts and (done < self._counts[-1][1] or failed < self._counts[-1][2]):
                self._counts.clear()  # counters that went backwards are another's
            self._counts.append((now, done, failed, busy))
            while len(self._counts) > 2 and self._counts[1][0] <= now - _LATELY:
                self._counts.popleft()
        ended, failed, busy = self._lately()
        if ended >= 5.0:
            run = busy / ended
            usual = self._usual_run.value
            self._slower = max(run / usual, 1e-3) if usual is not None and usual > 0.0 else 1.0
            self._usual_run.add(now, run, patient=self._slower > 1.5)
            self._usual_failed.add(now, failed / ended, patient=True)
        else:
            self._slower = 1.0
        cpu = _known(signs.cpu)
        if signs.running > 0 and cpu is not None and cpu > 0.02:
            self._usual_cpu.add(now, cpu)

    def _lately(self) -> tuple[float, float, float]:
        """Tasks ended, failed, and their seconds, over the last looks."""
        if len(self._counts) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._counts[0], self._counts[-1]
        return last[1] - first[1], max(last[2] - first[2], 0.0), max(last[3] - first[3], 0.0)

    def _by_stuck(self, signs: Signs) -> tuple[float, str]:
        held = _known(signs.held) or 0.0
        if signs.running <= 0 or held <= 0.0:
            return 0.0, ""
        usual, cpu = self._usual_cpu.value, _known(signs.cpu)
        run = self._usual_run.value or 0.0
        over = held / (3.0 + 10.0 * run + 2.0 * self._longest)
        idle = usual is not None and usual > 0.2 and cpu is not None and cpu < 0.15 * usual
        if held > self._longest and (usual is None or cpu is None or cpu >= 0.6 * usual):
            self._longest = held  # it works: so long may tasks be
        probability = _logistic(4.0 * math.log(max(over, 1e-9))) * (0.95 if idle else 0.0)
        return probability, f"a task in hand for {held:.0f} s, and the agent uses {cpu or 0.0:.2f} cores"

    def _by_errors(self, siblings: float | None) -> tuple[float, str]:
        ended, failed, _ = self._lately()
        if ended < 8.0:
            return 0.0, ""
        share = failed / ended
        usual = max(self._usual_failed.value or 0.0, siblings or 0.0, 0.02)
        beyond = (failed - ended * usual) / math.sqrt(ended * usual * (1.0 - min(usual, 0.99)) + 1.0)
        probability = _logistic(12.0 * (share - usual - 0.35)) if beyond > 4.0 else 0.0
        if siblings is None:
            probability *= _ALONE
        return 0.9 * probability, f"{100 * share:.0f} % of its tasks end in errors"

    def _by_contention(self, now: float, signs: Signs) -> tuple[float, str]:
        if signs.stolen is None and signs.throttled is None:
            return 0.0, ""
        taken = 1.0 - math.prod(
            1.0 - min(max(_known(each) or 0.0, 0.0), 1.0) for each in (signs.stolen, signs.throttled)
        )
        self._taken.add(now, taken)
        coming, error = self._taken.ahead(0.5 * HORIZON)
        if math.isfinite(error):
            taken = min(max(taken, coming - error), 1.0)
        slower = math.log(min(max(self._slower, 1.0), 8.0))
        probability = _logistic(10.0 * taken - 7.0 + 1.5 * slower) if taken > 0.05 else 0.0
        return (
            probability,
            f"{100 * taken:.0f} % of its CPU time is others', and tasks take {self._slower:.1f} times as long",
        )

    def _by_disk(self, now: float, signs: Signs) -> tuple[float, str]:
        took = _known(signs.disk)
        if took is None or not 0.0 < took < 3600.0:
            return 0.0, ""
        self._disk.add(now, math.log(took))
        usual = self._usual_disk.value
        self._usual_disk.add(now, took, patient=usual is not None and took > 3.0 * usual)
        if usual is None:
            return 0.0, ""
        coming, error = self._disk.ahead(0.5 * HORIZON)
        reached = math.log(took)
        if math.isfinite(error):
            reached = max(min(reached, coming + 1.0), min(coming - error, 5.0))
        beyond = reached - math.log(max(usual, 0.005))
        probability = 0.95 * _logistic(2.5 * (beyond - 3.0))
        return (
            probability,
            f"a disk operation takes {1e3 * took:.0f} ms, {took / max(usual, 1e-9):.0f} times as long as usual",
        )


class _Usual:
    """An exponential mean that is slower to follow what looks like trouble than what looks usual."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._seen = 0.0
        self._at = 0.0

    def add(self, now: float, value: float, patient: bool = False) -> None:
        if self.value is None:
            self.value, self._at, self._seen = value, now, 1.0
            return
        passed = min(max(now - self._at, 0.0), 10.0)
        self._at = now
        self._seen += passed
        over = _USUAL_OVER * (4.0 if patient else 1.0)
        self.value += min(passed / min(over, max(self._seen, 1.0)), 1.0) * (value - self.value)


def _known(value: float | None) -> float | None:
    """The value, if it is a number that means something."""
    return value if value is not None and math.isfinite(value) and abs(value) < 1e18 else None


def _logistic(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(min(z, 50.0), -50.0)))
