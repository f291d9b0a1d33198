"""Runs seeds: one, or many on all cores; with a fault planted, until it is found."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from simulation import build
from simulation.mutants import MUTANTS

__all__ = ["Outcome", "Total", "find", "replay", "run_many", "run_one"]

#: Seeds that a worker process takes at a time.
_CHUNK = 50
_system: Any = None


@dataclass
class Outcome:
    """What became of a seed: None, or what promise was broken; and what was counted."""

    seed: int
    broken: str | None
    result: dict[str, Any]
    trace: list[str] = field(default_factory=list)


@dataclass
class Total:
    """What became of many seeds."""

    seeds: int = 0
    failed: list[Outcome] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    #: Seconds from a fault to the declaration, by the fault's kind.
    detected: dict[str, list[float]] = field(default_factory=dict)
    steps: int = 0
    cuts: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        if outcome.broken is not None:
            self.failed.append(outcome)
        for name, count in outcome.result.get("counts", {}).items():
            self.counts[name] = self.counts.get(name, 0) + count
        for kind, nanos in outcome.result.get("detected", ()):
            self.detected.setdefault(kind, []).append(nanos * 1e-9)
        self.steps += outcome.result.get("steps", 0)
        self.cuts += outcome.result.get("cuts", 0)


def run_one(seed: int, *, mutant: str = "", trace: bool = False) -> Outcome:
    """Runs a seed in this process."""
    global _system
    build.load()
    from simulation.patches import planted
    from simulation.scenarios import world_of
    from simulation.system import System
    from simulation.world import Violation, World

    if _system is None:
        sys.unraisablehook = _quiet(sys.unraisablehook)
        _system = System()
        gc.disable()  # a collection in the midst of a run would let go of arrays at a moment that no seed decides
    number = MUTANTS[mutant].number if mutant else 0
    scenario = world_of(seed, MUTANTS[mutant].world if mutant else None)
    world = World(seed, mutant=number, trace=trace)
    broken, result = None, {}
    with planted(mutant):
        try:
            result = scenario(_system, world)
        except Violation as violation:
            broken = str(violation)
        except Exception as error:
            broken = f"{type(error).__name__}: {error}"
            if trace:
                broken += f"\n{traceback.format_exc()}"
    _system.end(world)
    if seed % 64 == 0:
        gc.collect()
    return Outcome(seed, broken, result, world.trace or [])


def _quiet(before: Callable[[Any], object]) -> Callable[[Any], object]:
    def hook(unraisable: Any) -> None:
        from simulation.control import Stopped

        if unraisable.exc_type is not Stopped:  # a process that is killed in the midst of a collection
            before(unraisable)

    return hook


def _run_chunk(job: tuple[int, int, str]) -> list[Outcome]:
    first, last, mutant = job
    return [run_one(seed, mutant=mutant) for seed in range(first, last)]


def _jobs(first: int, count: int, mutant: str) -> Iterator[tuple[int, int, str]]:
    for start in range(first, first + count, _CHUNK):
        yield start, min(start + _CHUNK, first + count), mutant


def run_many(
    first: int,
    count: int,
    *,
    mutant: str = "",
    processes: int = 0,
    until: Callable[[Total], bool] = lambda total: False,
) -> Total:
    """Runs the seeds from `first` on, on so many processes (0: one a core), or until that is so."""
    total, began = Total(), time.monotonic()
    processes = processes or multiprocessing.cpu_count()
    run_one(first, mutant=mutant)  # what is compiled or imported is so once, before the fork
    if processes == 1:
        for job in _jobs(first, count, mutant):
            for outcome in _run_chunk(job):
                total.add(outcome)
            if until(total):
                break
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            for outcomes in pool.imap(_run_chunk, _jobs(first, count, mutant)):
                for outcome in outcomes:
                    total.add(outcome)
                if until(total):
                    break
    total.seconds = time.monotonic() - began
    return total


def find(mutant: str, most: int, *, processes: int = 0) -> Outcome | None:
    """The first seed that finds a planted fault, or None."""
    total = run_many(0, most, mutant=mutant, processes=processes, until=lambda total: bool(total.failed))
    return min(total.failed, key=lambda outcome: outcome.seed) if total.failed else None


def replay(seed: int, *, mutant: str = "") -> Outcome:
    """Runs a seed with its trace."""
    return run_one(seed, mutant=mutant, trace=True)
