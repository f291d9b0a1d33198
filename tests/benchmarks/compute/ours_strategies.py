"""What learning the fastest implementation is worth: a day's mix of calls, chosen for by an agent's strategies.

The calls come in random order, as those of many users do. Each is run by the strategies, which begin knowing nothing
and whose every trial counts, and once more by one of the kernel's implementations in turn, before or after it by lot:
so that a neighbour on the machine, a clock that drops and warm caches are everybody's. Those second runs teach nothing.

From them come the figures held against: what the day would have taken with the implementation of each size that turns
out to have been the best (`best`: the one with the least median), and with one for everything, the best of all such
(`single`: where a kernel has none of that name it runs what the registry would). An implementation that takes more than
`_HOPELESS` times the fastest is measured a few times only: it can be in neither but as what it is.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transport"))

from day import DAY, Size, made
from pods import use_cache

__all__ = ["day"]

#: From so many times the fastest on an implementation is measured `_FEW` times.
_HOPELESS, _FEW = 3.0, 3


class _Measured:
    """One size's calls: what the strategies took and chose, and what each implementation takes. Seconds."""

    def __init__(self, size: Size, arms: Iterable[str]) -> None:
        self.size, self.arms = size, list(arms)
        self.ours: list[float] = []
        self.chosen: Counter[str] = Counter()
        self.by_arm: dict[str, list[float]] = {arm: [] for arm in self.arms}

    def due(self) -> str:
        """The implementation that has been measured the least of those that are worth it."""
        typical = {arm: statistics.median(times) for arm, times in self.by_arm.items() if len(times) >= _FEW}
        least = min(typical.values(), default=0.0)
        worth = [arm for arm in self.arms if arm not in typical or typical[arm] <= _HOPELESS * least]
        return min(worth, key=lambda arm: len(self.by_arm[arm]))

    def typical(self, arm: str) -> float:
        return statistics.median(self.by_arm[arm])

    @property
    def best(self) -> str:
        """The implementation that was the fastest, known afterwards."""
        return min(self.arms, key=self.typical)

    def total(self, arm: str) -> float:
        """The day's calls with that implementation."""
        return statistics.fmean(self.by_arm[arm]) * len(self.ours)

    def of(self, name: str, preferred: str) -> str:
        """The implementation of that name, or what the registry would run; `numba_threads` is `threads`, too."""
        other = name.removeprefix("numba_") if name.startswith("numba_threads") else f"numba_{name}"
        return next((arm for arm in (name, other) if arm in self.by_arm), preferred)


def day(seed: int = 1, threads: int = 0, detail: bool = False) -> dict[str, float]:
    """Seconds of the day by the strategies (`learned`), by the best of each size, and by the best single one.

    `chosen` is to `typical` what `learned` is to `best`, without what interrupted single calls and what choosing costs:
    each call counts as the median of the implementation that it got. `threads`: so many; 0: as an agent that has all
    cores. With one thread the clock is the processor's, which others on the machine disturb less.
    """
    use_cache()
    from swarm_agents.compute import registry, team
    from swarm_agents.compute.learner import Choice, Learner
    from swarm_agents.compute.strategies import Strategies, arms_of

    class Noting(Learner):
        arm = ""

        def choose(self, *call: Any) -> Choice:
            choice = super().choose(*call)
            self.arm = choice.arm
            return choice

    clock = time.process_time if threads == 1 else time.perf_counter
    count = threads or team.threads()
    strategies = Strategies(clock=clock, threads=lambda: count)
    learner = strategies.learner = Noting(slow=(registry.REFERENCE,))
    kernels = {size.kernel: registry.get(size.kernel) for size in DAY}
    registry.warm(list(kernels))
    arms = {name: arms_of(kernel, count) for name, kernel in kernels.items()}
    for size in DAY:  # whatever an implementation does at its first call, it has done in an agent's first minutes
        for name in arms[size.kernel].values():
            args, kwargs = made(size._replace(size=100), 1)[0]
            kernels[size.kernel].run(args, kwargs, implementation=name)
    measured = {size: _Measured(size, arms[size.kernel]) for size in DAY}
    arguments = {size: made(size) for size in DAY}
    calls = [size for size in DAY for _ in range(size.calls)]
    lot = random.Random(seed)
    lot.shuffle(calls)
    for size in calls:
        entry, kernel = measured[size], kernels[size.kernel]
        args, kwargs = arguments[size][len(entry.ours) % len(arguments[size])]
        arm = entry.due()
        for ours in lot.sample((True, False), 2):
            if ours:
                began = clock()
                value = kernel.run(args, kwargs, strategies=strategies)
                entry.ours.append(clock() - began)
                entry.chosen[learner.arm] += 1
            else:
                began = clock()
                value = kernel.run(args, kwargs, implementation=arms[size.kernel][arm])
                entry.by_arm[arm].append(clock() - began)
            del value
    every = measured.values()
    names = {arm for entry in every for arm in entry.arms}
    singles = {
        name: sum(entry.total(entry.of(name, kernels[entry.size.kernel].preferred)) for entry in every)
        for name in names
    }
    figures = {
        "learned": sum(sum(entry.ours) for entry in every),
        "best": sum(entry.total(entry.best) for entry in every),
        "single": min(singles.values()),
        "chosen": sum(entry.typical(arm) * times for entry in every for arm, times in entry.chosen.items()),
        "typical": sum(entry.typical(entry.best) * len(entry.ours) for entry in every),
        "drifts": float(learner.drifts),
    }
    if detail:
        _print(list(every), singles)
    return figures


def _print(every: list[_Measured], singles: dict[str, float]) -> None:
    """What each size lost, the worst first: in all, and by choices alone."""
    print(f"{'kernel':28}{'size':>9}{'calls':>6}{'best s':>8}{'lost':>8}{'choices':>8}  µs (median), chosen")
    for entry in sorted(every, key=lambda entry: entry.total(entry.best) - sum(entry.ours)):
        best = entry.best
        choices = sum((entry.typical(arm) - entry.typical(best)) * times for arm, times in entry.chosen.items())
        each = ", ".join(f"{arm} {entry.typical(arm) * 1e6:.0f} x{entry.chosen[arm]}" for arm in entry.arms)
        print(
            f"{entry.size.kernel:28}{entry.size.size:9d}{len(entry.ours):6d}{entry.total(best):8.3f}"
            f"{sum(entry.ours) - entry.total(best):8.3f}{choices:8.3f}  {each}"
        )
    print({name: round(seconds, 2) for name, seconds in singles.items()})


if __name__ == "__main__":
    print(day(threads=int(sys.argv[1]) if len(sys.argv) > 1 else 0, detail=True))
