"""Which implementation of a kernel is the fastest here, learned call by call: one small bandit a kernel and size class.

A size class holds all calls whose work has the same `floor(log2(work))`. For each class and each arm (an
implementation, or one with its parameters: any name) it keeps the running logarithm of seconds per unit of work, its
spread and how many measurements stand behind it. The order of choices is determined by what was measured alone: no
clock is read here and no random number drawn, so a test or a replay gives the same choices.

What bounds the price of learning:
- An arm is first measured `TRIALS` times in a class, if a class nearby does not say that it would be `HOPELESS` times
  slower than the best one, and as soon as what it is expected to cost beyond that is covered by `FIRST_SHARE` of all
  measured time. An arm that nothing is known of is expected to be as good as the best one, so it is tried at once;
- but for an arm that is said to be slow, as references are: nobody knows how slow, and at large sizes a blind try may
  take a thousand times the call. So it is first tried where a call takes less than `BLIND`, and from there on upwards
  from class to class.
- From then on an arm is tried again at doubling distances, while what all such trials cost stays under `SHARE` of the
  class's measured time. What `TRIALS` measurements say is `HOPELESS` is left alone; one measurement alone may have been
  a disturbed call, so it is repeated once that share has room for it.
An arm's first call in a process is not counted: it compiles, loads, or starts threads.

Drift: each arm's measurements pass a two-sided cumulative sum (E. S. Page, "Continuous inspection schemes",
Biometrika 41, 1954) of clipped, standardised residuals. Clipping keeps one interrupted call from looking like a change
of the machine. When it rises above `ALARM` the arm's figure starts anew, and the other arms of the class become guesses
which are measured again.

Rejected: UCB and Thompson sampling, whose exploration knows nothing of what a try costs when one arm is a thousand
times slower; a table by exact size, which never sees the same size twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

__all__ = ["Choice", "Figure", "Learned", "Learner", "merged", "size_class"]

#: Calls of an arm in this process that are not counted.
WARMUPS: Final = 1
#: Measurements of an arm in a class before it is compared by its own figures alone.
TRIALS: Final = 2
#: An arm that a neighbouring class says is this many times slower is not tried.
HOPELESS: Final = 4.0
#: What trials after the first may cost, as a share of all measured time of the class.
SHARE: Final = 0.01
#: What first trials may cost, as a share of all measured time.
FIRST_SHARE: Final = 0.02
#: An arm that is said to be slow is tried without knowing more only where a call takes less (seconds).
BLIND: Final = 0.002
#: Classes (powers of two of work) over which a figure serves as a guess; beyond, it only says what is hopeless.
REACH: Final = 4
#: Measurements that a figure remembers: the step of its running mean never falls below the inverse.
MEMORY: Final = 32
#: The sum of standardised residuals, each less `SLACK` and clipped to `CLIP`, from which on the machine has changed.
ALARM: Final = 12.0
SLACK: Final = 0.75
CLIP: Final = 3.0
#: The least spread of the logarithm of a cost: timings of one call are never more alike than this.
LEAST_SPREAD: Final = 0.05
#: Calls between two measurements are chosen so that one falls into this many seconds, at most `MOST_SKIPPED` and a
#: quarter of the class's calls so far.
MEASURE_EVERY: Final = 0.005
MOST_SKIPPED: Final = 256
_FIRST_RETRIAL: Final = 16
_HOPELESS_LOG: Final = math.log(HOPELESS)
_MOST_RATIO: Final = 50.0
_MOST_LOG: Final = 100.0


class Choice(NamedTuple):
    """The arm to run, and whether to hand its time to `observe`."""

    arm: str
    measure: bool


class Figure(NamedTuple):
    """What is known of an arm in a class."""

    #: Natural logarithm of seconds per unit of work.
    cost: float
    #: Mean absolute deviation of that.
    spread: float
    #: Measurements behind it, at most `MEMORY`.
    weight: int


#: What learners give each other: figures by kernel, size class and arm.
Learned = dict[tuple[str, int, str], Figure]


def size_class(work: float) -> int:
    """`floor(log2(work))`; 0 for work that is not a positive, finite number."""
    return math.frexp(work)[1] - 1 if 0.0 < work < math.inf else 0


def merged(one: Learned, other: Learned) -> Learned:
    """Both learners' figures; where both have one, the mean by weight. The order makes no difference, and
    merging a record with itself changes nothing, so agents may read and write one file as often as they like."""
    result = dict(one)
    for key, figure in other.items():
        mine = result.get(key)
        if mine is None:
            result[key] = figure
            continue
        total = mine.weight + figure.weight
        if mine == figure or total == 0:
            result[key] = min(mine, figure)
            continue
        result[key] = Figure(
            (mine.cost * mine.weight + figure.cost * figure.weight) / total,
            (mine.spread * mine.weight + figure.spread * figure.weight) / total,
            max(mine.weight, figure.weight),
        )
    return result


class _Arm:
    """An arm in a class, as it is measured."""

    __slots__ = ("cost", "count", "down", "due", "spread", "up")

    def __init__(self, cost: float, spread: float, count: int) -> None:
        self.cost, self.spread, self.count = cost, spread, count
        self.up = self.down = 0.0
        #: The class's call from which on it may be tried again.
        self.due = 0

    def add(self, cost: float) -> bool:
        """Takes in a measurement; True where it says that the machine has changed."""
        if self.count == 0:
            self.restart(cost)
            return False
        residual = cost - self.cost
        scale = max(self.spread, LEAST_SPREAD)
        if self.count >= TRIALS:
            standard = max(-CLIP, min(CLIP, residual / (1.5 * scale)))
            self.up = max(0.0, self.up + standard - SLACK)
            self.down = max(0.0, self.down - standard - SLACK)
            if max(self.up, self.down) > ALARM:
                self.restart(cost)
                return True
            residual = max(-CLIP * scale, min(CLIP * scale, residual))
        elif residual < 0.0:
            # Of the first few the faster one counts: what disturbs a call only ever makes it slower.
            self.cost, self.count = cost, self.count + 1
            return False
        else:
            self.count += 1
            return False
        self.count = min(self.count + 1, MEMORY)
        self.cost += residual / self.count
        self.spread += (abs(residual) - self.spread) / self.count
        return False

    def restart(self, cost: float) -> None:
        self.cost, self.spread, self.count = cost, 3.0 * LEAST_SPREAD, 1
        self.up = self.down = 0.0


class _Class:
    """The calls of one kernel in one size class."""

    __slots__ = ("arms", "calls", "extra", "left", "offered", "planned", "seconds", "settled", "until")

    def __init__(self) -> None:
        self.arms: dict[str, _Arm] = {}
        self.calls = 0
        #: Measured seconds, and those of trials beyond what the best arm would have taken.
        self.seconds = self.extra = 0.0
        #: The choice of the next `left` calls of `planned`, which are not measured; and the arms it was made from.
        self.settled = Choice("", False)
        self.left = self.planned = 0
        self.offered: Sequence[str] = ()
        #: The call from which on another arm than the settled one may be due.
        self.until = 0


class Learner:
    """Chooses arms and learns from their times. Not safe for threads: the thread that runs the kernels owns it."""

    def __init__(self, slow: Iterable[str] = ()) -> None:
        """`slow`: arms that are slower by nobody knows how much, unless they are the preferred ones of a call."""
        self._slow = frozenset(slow)
        self._classes: dict[tuple[str, int], _Class] = {}
        self._warmed: dict[tuple[str, str], int] = {}
        #: The classes in which an arm of a kernel has a figure.
        self._measured: dict[tuple[str, str], set[int]] = {}
        #: Seconds of all measured calls, with those that stand for them, and of first trials beyond the best arm's.
        self._seconds = self._first = 0.0
        #: Times that an arm's cost was found changed.
        self.drifts = 0
        #: Calls by kernel and arm. A run of calls that are not measured is counted when it ends.
        self.ran: Counter[tuple[str, str]] = Counter()

    def choose(self, kernel: str, work: float, arms: Sequence[str]) -> Choice:
        """The arm for a call.

        Args:
            work: the call's amount of work, in any unit that is the same for all of the kernel's calls.
            arms: what can run this call, the one that is preferred while nothing is known first.

        Raises:
            ValueError: there is none.
        """
        size = size_class(work)
        entry = self._classes.get((kernel, size))
        if entry is None:
            entry = self._classes[kernel, size] = _Class()
        entry.calls += 1
        if entry.left > 0 and (arms is entry.offered or tuple(arms) == tuple(entry.offered)):
            entry.left -= 1
            return entry.settled
        if not arms:
            raise ValueError(f"kernel {kernel} has no implementation for this call")
        if entry.planned:
            self.ran[kernel, entry.settled.arm] += entry.planned - entry.left
        entry.left = entry.planned = 0
        if entry.calls < entry.until and (arms is entry.offered or tuple(arms) == tuple(entry.offered)):
            arm = entry.settled.arm
        else:
            entry.offered, entry.until = arms, 0
            arm = self._next(kernel, size, work, entry, arms)
        self.ran[kernel, arm] += 1
        return Choice(arm, True)

    def observe(self, kernel: str, work: float, arm: str, seconds: float) -> None:
        """Takes in what a call took that `choose` asked to measure. What is no positive, finite time is ignored."""
        if not 0.0 < seconds < math.inf or not 0.0 < work < math.inf:
            return
        size = size_class(work)
        entry = self._classes.setdefault((kernel, size), _Class())
        warmed = self._warmed.get((kernel, arm), 0)
        if warmed < WARMUPS:
            self._warmed[kernel, arm] = warmed + 1
            return
        cost = math.log(seconds) - math.log(work)
        known = entry.arms.get(arm)
        if known is None:
            known = entry.arms[arm] = _Arm(cost, 0.0, 0)
            self._measured.setdefault((kernel, arm), set()).add(size)
        trial = known.count >= TRIALS
        drifted = known.add(cost)
        known.due = max(2 * entry.calls, _FIRST_RETRIAL)
        least, best = min((each.cost, name) for name, each in entry.arms.items() if each.count)
        entry.seconds += seconds
        self._seconds += seconds
        if best != arm:
            beyond = max(0.0, seconds - math.exp(least) * work)
            if trial:
                entry.extra += beyond
            else:
                self._first += beyond
        entry.until = 0
        if drifted:
            self._drifted(entry, arm)
        elif best == arm and all(
            each.count >= TRIALS or each.cost - least >= _HOPELESS_LOG for each in entry.arms.values()
        ):
            entry.settled = Choice(arm, False)
            entry.left = entry.planned = min(int(MEASURE_EVERY / seconds), MOST_SKIPPED, entry.calls // 4)
            entry.seconds += seconds * entry.left
            self._seconds += seconds * entry.left
            # An arm without a figure may be waiting for its turn; else nothing happens before the next retrial.
            if all(name in entry.arms for name in entry.offered):
                entry.until = min(
                    (
                        each.due
                        for name, each in entry.arms.items()
                        if name != arm and not self._left_alone(each, least)
                    ),
                    default=entry.calls + MOST_SKIPPED,
                )

    @staticmethod
    def _left_alone(arm: _Arm, least: float) -> bool:
        return arm.count >= TRIALS and arm.cost - least >= _HOPELESS_LOG

    def best(self, kernel: str, work: float) -> str | None:
        """The arm with the least measured cost in the class of that work; None where none was measured."""
        entry = self._classes.get((kernel, size_class(work)))
        measured = [(a.cost, name) for name, a in entry.arms.items() if a.count] if entry is not None else []
        return min(measured)[1] if measured else None

    def learned(self) -> Learned:
        """All figures that are measured."""
        return {
            (kernel, size, name): Figure(arm.cost, arm.spread, arm.count)
            for (kernel, size), entry in self._classes.items()
            for name, arm in entry.arms.items()
            if arm.count
        }

    def start_from(self, learned: Learned) -> None:
        """Takes figures of this hardware from an earlier life or another agent, wherever it has none of its own. They
        count as `TRIALS` measurements, so that its own soon outweigh them."""
        for (kernel, size, name), figure in learned.items():
            entry = self._classes.setdefault((kernel, size), _Class())
            if name not in entry.arms:
                made = entry.arms[name] = _Arm(figure.cost, figure.spread, min(figure.weight, TRIALS))
                made.due = _FIRST_RETRIAL
                self._measured.setdefault((kernel, name), set()).add(size)

    def _next(self, kernel: str, size: int, work: float, entry: _Class, arms: Sequence[str]) -> str:
        known: dict[str, float] = {}
        for name in arms:
            guess = self._guess(kernel, size, entry, name, arms[0])
            if guess is not None:
                known[name] = guess
        if not known:
            return arms[0]
        best = min(known, key=lambda name: known[name])
        if self._wants(entry, best):
            return best
        # What a call takes of the best arm: in seconds, where its work has a unit at all.
        call = math.exp(min(known[best], _MOST_LOG)) * work
        room = FIRST_SHARE * self._seconds - self._first
        for name in arms:
            guess = known.get(name)
            if not self._wants(entry, name):
                continue
            if guess is not None:
                ratio = guess - known[best]
            elif name not in self._slow or name == arms[0] or call < BLIND:
                ratio = 0.0
            else:
                continue
            if ratio <= 0.0 or (ratio < _HOPELESS_LOG and call * math.expm1(ratio) <= room):
                return name
        mean = entry.seconds / entry.calls
        for name in arms:
            arm = entry.arms.get(name)
            if name == best or arm is None or not arm.count or arm.due > entry.calls:
                continue
            ratio = arm.cost - known[best]
            if ratio >= _HOPELESS_LOG and arm.count >= TRIALS:
                continue
            if entry.extra + mean * math.expm1(min(max(ratio, 0.0), _MOST_RATIO)) < SHARE * entry.seconds:
                return name
        return best

    def _wants(self, entry: _Class, name: str) -> bool:
        arm = entry.arms.get(name)
        return arm is None or arm.count < TRIALS

    def _guess(self, kernel: str, size: int, entry: _Class, name: str, preferred: str) -> float | None:
        """The arm's cost in this class: by its own figure, and by the nearest class that has one while that is but one
        measurement, which may have been a disturbed call; None where nothing is known nearby."""
        own = entry.arms.get(name)
        if own is not None and own.count != 1:
            return own.cost
        near = self._nearest(kernel, size, name)
        if near is None:
            return own.cost if own is not None else None
        other = self._classes[kernel, near]
        guess = other.arms[name].cost
        # As much above or below the preferred arm's as there, if that one has been measured in both.
        here, there = entry.arms.get(preferred), other.arms.get(preferred)
        if name != preferred and here is not None and here.count and there is not None and there.count:
            guess += here.cost - there.cost
        if own is not None:
            return min(own.cost, guess)
        if abs(near - size) > REACH and (name not in self._slow or guess - self._least(entry) < _HOPELESS_LOG):
            return None
        return guess

    def _nearest(self, kernel: str, size: int, name: str) -> int | None:
        """The other class in which the arm was measured that is the nearest."""
        found = None
        for near in self._measured.get((kernel, name), ()):
            if near != size and (found is None or abs(near - size) < abs(found - size)):
                found = near
        return found

    @staticmethod
    def _least(entry: _Class) -> float:
        return min((arm.cost for arm in entry.arms.values() if arm.count), default=math.inf)

    def _drifted(self, entry: _Class, arm: str) -> None:
        """The machine is not what it was: the others' figures are guesses from now on, and all is measured again."""
        self.drifts += 1
        entry.left = 0
        for name, each in entry.arms.items():
            if name != arm:
                each.count = 0
