"""Which faults there are, and which of them a seed draws: pure, so that a seed says what a run will do.

A schedule has two strands. *Narrow* faults hit one process; they come at random instants and overlap as they like.
*Wide* ones change the ground that everybody stands on (a node, the network, the API server, a full file system); one
ends, and the swarm gets a while to recover, before the next begins: two at once would say little about either, and a
swarm whose only two nodes are gone has nothing to show.

Each kind that was asked for is drawn once, in an order of the seed's, before any is drawn by its weight. So a short run
has seen as many kinds as its time allows.

Whom a fault hits is known only when it is due: a schedule holds a number from 0 to 1, which picks among the candidates
of that moment, in the order of their names.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from swarm_agents.errors import SwarmError

__all__ = ["KINDS", "Fault", "FaultError", "Kind", "choose", "schedule", "weigh"]


class FaultError(SwarmError, ValueError):
    """A kind of fault that is not there, or a weight that is none."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    text: str
    weight: float
    #: Seconds that it lasts, at least and at most; 0: it is over at once.
    lasts: tuple[float, float] = (0.0, 0.0)
    #: Seconds that the swarm then has before the next wide fault; None: it is a narrow one.
    rest: float | None = None

    @property
    def wide(self) -> bool:
        return self.rest is not None


#: By name. Words of a name are its groups: `kill` stands for all kinds that begin by it, `hub` for all that end so.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("kill-agent", "SIGKILL of a compute agent", 6),
        Kind("stop-agent", "SIGSTOP of a compute agent, SIGCONT later", 4, (0.3, 3.0)),
        Kind("kill-standby", "SIGKILL of a standby", 1),
        Kind("stop-standby", "SIGSTOP of a standby, SIGCONT later", 1, (0.3, 3.0)),
        Kind("kill-supervisor", "SIGKILL of a pod's supervisor, and with it of its agent", 2),
        Kind("stop-supervisor", "SIGSTOP of a pod's supervisor, SIGCONT later", 1, (0.3, 4.0)),
        Kind("kill-hub", "SIGKILL of a node's resource agent", 3),
        Kind("stop-hub", "SIGSTOP of a node's resource agent, SIGCONT later", 2, (0.3, 3.0)),
        Kind("kill-operator", "SIGKILL of the operator", 1),
        Kind("stop-operator", "SIGSTOP of the operator, SIGCONT later", 1, (1.0, 5.0)),
        Kind("delete-agent", "a compute agent's pod deleted, without grace", 1),
        Kind("delete-standby", "a standby's pod deleted, without grace", 0.5),
        Kind("delete-hub", "a resource agent's pod deleted, without grace", 0.5),
        Kind("stop-api", "SIGSTOP of the API server, SIGCONT later", 2, (1.0, 3.0), rest=3.0),
        Kind("kill-api", "SIGKILL of the API server; all pods go with it, and it is started again", 0.5, rest=4.0),
        Kind("node", "a node switched off: all its processes killed, nobody told; switched on later", 2, (4.0, 9.0), 6),
        Kind("partition", "every packet between the hubs of two nodes dropped", 3, (1.0, 6.0), rest=3.0),
        Kind("arena-full", "every byte of a board's arena taken", 2, (1.0, 4.0), rest=2.0),
        Kind("shm-full", "the file system of the boards full", 2, (1.0, 5.0), rest=2.0),
        Kind("disk-full", "the disk full: the API server's data, logs, the pods' volumes", 2, (1.0, 5.0), rest=2.0),
    )
}


@dataclass(frozen=True)
class Fault:
    """One planned fault: when (seconds from the start), what, whom (0 to 1), for how long (seconds)."""

    at: float
    kind: str
    pick: float
    lasts: float


def choose(words: Iterable[str], kinds: Mapping[str, Kind] = KINDS) -> list[str]:
    """The kinds that words name: a kind (`kill-agent`), or a group of them (`kill`, `agent`, `full`); none: all.

    Raises:
        FaultError: a word names nothing.
    """
    found: dict[str, None] = {}
    for word in words:
        named = [name for name in kinds if word in (name, *name.split("-"))]
        if not named:
            groups = sorted({part for name in kinds for part in name.split("-")} | set(kinds))
            raise FaultError(f"no fault is called {word!r}; there are {', '.join(groups)}")
        found |= dict.fromkeys(named)
    return [name for name in kinds if name in found] if found else list(kinds)


def weigh(words: Iterable[str], names: Collection[str]) -> dict[str, float]:
    """The weights of the kinds in `names`, changed by words such as `kill-agent=10`; a weight of 0 leaves a kind out.

    Raises:
        FaultError: a word has another form.
    """
    weights = {name: KINDS[name].weight for name in names}
    for word in words:
        what, _, number = word.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e6:
            raise FaultError(f"{word!r}: expected KIND=WEIGHT with a number from 0, such as kill-agent=10")
        weights |= dict.fromkeys(set(choose([what])) & set(names), value)
    weights = {name: weight for name, weight in weights.items() if weight > 0}
    if not weights:
        raise FaultError("no kind of fault is left: every weight is 0")
    return weights


def schedule(seed: int, seconds: float, weights: Mapping[str, float], *, every: float = 2.0) -> list[Fault]:
    """The faults of a run, by time. `every`: seconds between two narrow ones, on average."""
    rng = random.Random(f"{seed} {sorted(weights)}")
    narrow = {name: weight for name, weight in weights.items() if not KINDS[name].wide}
    wide = {name: weight for name, weight in weights.items() if KINDS[name].wide}
    faults = [*_narrow(rng, seconds, narrow, every), *_wide(rng, seconds, wide)]
    return sorted(faults, key=lambda fault: fault.at)


def _draw(rng: random.Random, weights: Mapping[str, float], first: list[str]) -> str:
    if first:
        return first.pop()
    return rng.choices(list(weights), list(weights.values()))[0]


def _shuffled(rng: random.Random, weights: Mapping[str, float]) -> list[str]:
    names = sorted(weights)
    rng.shuffle(names)
    return names


def _narrow(rng: random.Random, seconds: float, weights: Mapping[str, float], every: float) -> Iterable[Fault]:
    first, at = _shuffled(rng, weights), 0.0
    while weights:
        at += min(rng.expovariate(1 / every), 4 * every)
        if at >= seconds:
            return
        name = _draw(rng, weights, first)
        yield Fault(at, name, rng.random(), rng.uniform(*KINDS[name].lasts))


def _wide(rng: random.Random, seconds: float, weights: Mapping[str, float]) -> Iterable[Fault]:
    first, at = _shuffled(rng, weights), 1.0
    while weights:
        name = _draw(rng, weights, first)
        kind = KINDS[name]
        lasts = rng.uniform(*kind.lasts)
        if at + lasts >= seconds:
            return
        yield Fault(at, name, rng.random(), lasts)
        assert kind.rest is not None
        at += lasts + kind.rest * rng.uniform(0.75, 1.5)
