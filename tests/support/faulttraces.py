"""Agents as they look when something goes wrong, and when it does not: many signals, with noise, a look a second.

Made by what would make them: a node with a thermal mass, memory that is taken and given back, a disk with queues,
neighbours that take the CPU, tasks that take longer for it, heartbeats that are late for it. Each seed draws its own
severity, noise, load and times. Half of the seeds (even) are for choosing constants and thresholds, the others are
held out: `training`, `held_out`.

Kinds of fault, and when each counts as failed: `leak` (the memory limit), `thermal` (the heat at which it is switched
off), `disk` (an operation takes a second), `neighbour` (less than a sixth of its CPU time is left), `deadlock` (the
heartbeat has been silent for four times deadAfter), `crashes` (the fourth death). Healthy ones never fail, but look
like it: `idle`, `full` (twice overloaded from the first second), `bursty` (memory and load up and down), `batch` (all
of it goes up at once, and stays), `clients` (all agents' tasks end in errors: the callers'), `long` (a task that takes
a minute and computes), `killed` (it dies once).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from swarm_agents.resource.foresight.hazards import Signs

__all__ = ["DEAD_AFTER", "FAULTS", "HEALTHY", "Look", "Trace", "held_out", "make", "training"]

FAULTS = ("leak", "thermal", "disk", "neighbour", "deadlock", "crashes")
HEALTHY = ("idle", "full", "bursty", "batch", "clients", "long", "killed")
DEAD_AFTER = 0.8
_LIMIT = 4.0 * 2**30
_OFF_AT = 100.0
_SECONDS = 300


@dataclass(frozen=True)
class Look:
    """A second of a trace."""

    at: float
    signs: Signs
    #: the share of the siblings' tasks that failed
    siblings: float


@dataclass(frozen=True)
class Trace:
    """One agent for some minutes."""

    kind: str
    seed: int
    looks: tuple[Look, ...]
    #: when the fault begins, and when the agent has failed; None: it never does
    begins: float | None = None
    fails: float | None = None


def make(kind: str, seed: int) -> Trace:
    """The trace of a kind and a seed: the same each time."""
    return _Node(kind, random.Random(f"{kind} {seed}")).run(seed)


def training(each: int = 10) -> list[Trace]:
    """`each` traces of every kind, of even seeds."""
    return list(_traces(0, each))


def held_out(each: int = 10) -> list[Trace]:
    """The same of odd seeds."""
    return list(_traces(1, each))


def _traces(first: int, each: int) -> Iterator[Trace]:
    for kind in (*FAULTS, *HEALTHY):
        for number in range(each):
            yield make(kind, 2 * number + first)


class _Node:
    """An agent and what is around it, stepped once a second."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kind, self.chance = kind, chance
        faulty = kind in FAULTS
        self.begins = chance.uniform(70, 130) if faulty or kind in ("batch", "clients", "long", "killed") else None
        #: how long the fault takes to its end, if nothing else gets in the way
        self.takes = chance.uniform(40, 150)
        self.load = {"idle": 0.03, "full": 1.0, "batch": 0.15}.get(kind, chance.uniform(0.3, 0.9))
        self.memory = chance.uniform(0.15, 0.45) * _LIMIT
        self.base = self.memory
        self.cooling = chance.uniform(35.0, 50.0)  # degrees above the room at full load
        self.heat = 30.0 + self.cooling * self.load
        self.stolen = 0.3 if kind == "full" else chance.uniform(0.0, 0.08)
        self.task = 10 ** chance.uniform(-2.5, -0.7)
        self.disk = 10 ** chance.uniform(-3.0, -2.0)
        self.shaky = chance.uniform(0.02, 0.05) * (4.0 if kind == "full" else 1.0)
        self.done = self.failed = self.busy = 0.0
        self.deaths = 0
        self.next_death = math.inf
        self.silent_since: float | None = None
        self.held = 0.0

    def run(self, seed: int) -> Trace:
        looks, fails = [], None
        for second in range(_SECONDS):
            look = self._second(float(second))
            looks.append(look)
            if self._failed(look.signs):
                fails = float(second)
                break
        return Trace(self.kind, seed, tuple(looks), self.begins if self.kind in FAULTS else None, fails)

    def _failed(self, signs: Signs) -> bool:
        return {
            "leak": self.memory >= _LIMIT,
            "thermal": self.heat >= _OFF_AT,
            "disk": self.disk >= 1.0,
            "neighbour": self.stolen >= 5 / 6,
            "deadlock": (signs.age or 0.0) >= 4 * DEAD_AFTER,
            "crashes": self.deaths >= 4,
        }.get(self.kind, False)

    def _second(self, at: float) -> Look:
        chance, kind = self.chance, self.kind
        past = at - self.begins if self.begins is not None and at >= self.begins else None
        load, errors, siblings, run, disk = self.load, 0.004, 0.004, self.task, self.disk
        stuck = 0.0
        if kind == "bursty":
            load = 0.95 if math.sin(at / 9.0 + self.takes) > 0.2 else 0.1
            wave = 0.55 + 0.3 * math.sin(at / 25.0 + self.takes)
            self.memory += (wave * _LIMIT - self.memory) * 0.2
        if past is not None:
            share = past / self.takes
            if kind == "leak":
                self.memory += (_LIMIT - self.base) / self.takes * chance.uniform(0.6, 1.4)
            elif kind == "thermal":
                self.cooling += 90.0 / self.takes * chance.uniform(0.5, 1.5)
            elif kind == "disk":
                self.disk = disk = self.disk * (10.0 ** (2.7 / self.takes)) * math.exp(chance.gauss(0.0, 0.05))
                run *= 1.0 + disk * 20.0
            elif kind == "neighbour":
                self.stolen = min(self.stolen + 0.85 / self.takes * chance.uniform(0.3, 1.7), 0.95)
            elif kind == "deadlock":
                stuck = min(share * 2.0, 1.0)
                if past > self.takes * 0.75 and self.silent_since is None:
                    self.silent_since = at
            elif kind == "crashes":
                errors = 0.3 if at > self.next_death - 3 else errors
                if self.next_death == math.inf:
                    self.next_death = at
                if at >= self.next_death:
                    self.deaths += 1
                    self.done = self.failed = self.busy = 0.0
                    self.memory = self.base * 0.5
                    self.next_death = at + chance.uniform(8, 35)
            elif kind == "batch":
                load = 0.98
                self.memory += (0.82 * _LIMIT - self.memory) * 0.12
                run *= 6.0
                disk *= 6.0 if past < 12 else 1.5
            elif kind == "clients":
                errors = siblings = 0.8
            elif kind == "long":
                load = 0.98
                stuck = 1.0 if past < 60 else 0.0
            elif kind == "killed" and not self.deaths:
                self.deaths = 1
                self.done = self.failed = self.busy = 0.0
        return self._seen(at, load, errors, siblings, run, disk, stuck)

    def _seen(
        self, at: float, load: float, errors: float, siblings: float, run: float, disk: float, stuck: float
    ) -> Look:
        chance = self.chance
        left = 1.0 - self.stolen
        hung = self.kind == "deadlock" and stuck > 0.0
        cpu = max(load * left * (1.0 - stuck if hung else 1.0) * chance.gauss(1.0, 0.05), 0.0)
        self.heat += (30.0 + self.cooling * min(cpu + self.stolen, 1.0) - self.heat) / 25.0
        self.memory += (self.base - self.memory) * 0.02 * (self.kind in ("idle", "full", "long"))
        run = run / max(left, 0.02)
        taken = 0.0 if stuck >= 1.0 else load * left * (1.0 - stuck) / max(run * left, 1e-4)
        ended = max(round(chance.gauss(taken, math.sqrt(taken + 0.1))), 0)
        bad = sum(chance.random() < errors for _ in range(min(ended, 400))) * (ended / min(ended, 400) if ended else 0)
        self.done += ended
        self.failed += bad
        self.busy += ended * run * chance.lognormvariate(0.0, 0.15)
        self.held = self.held + 1.0 if stuck > 0.3 else min(run, 1.0) * chance.random()
        age = chance.uniform(0.0, 0.02) + chance.expovariate(1.0 / (self.shaky / max(left, 0.05)))
        if chance.random() < 0.002 / max(left, 0.1):
            age += chance.uniform(0.2, 0.9)  # it was not let on a core for a while
        if self.silent_since is not None:
            age = at - self.silent_since
        spike = 8.0 if chance.random() < 0.03 else 1.0
        return Look(
            at,
            Signs(
                age=age,
                running=1 if load > 0.1 or stuck else 0,
                held=self.held,
                done=self.done,
                failed=self.failed,
                busy_seconds=self.busy,
                cpu=cpu,
                memory=self.memory * chance.gauss(1.0, 0.004),
                memory_limit=_LIMIT,
                heat=round(self.heat + chance.gauss(0.0, 0.6)),  # sensors tell whole degrees
                heat_limit=_OFF_AT,
                stolen=min(max(self.stolen + chance.gauss(0.0, 0.04), 0.0), 1.0),
                throttled=0.0,
                disk=disk * chance.lognormvariate(0.0, 0.4) * spike,
                deaths=self.deaths,
            ),
            siblings,
        )
