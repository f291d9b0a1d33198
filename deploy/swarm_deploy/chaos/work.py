"""The checked workload: tasks whose answers the client knows, drawn from a seed.

Three kinds. Small ones, a few milliseconds long, by which an interruption of service is seen at once: the Merkle root
of some bytes, which `hashlib` gives the client too. Echoes of arrays that go through the arena. And long ones with
checkpoints: `chaos.walk` where the swarm has it (see `kernels`), else `core.simulate`, of whose answer only the form is
known.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LONG", "Item", "items"]

LONG = "long"
#: Of 100 tasks so many are echoes, so many long.
_ECHOES, _LONGS = 12, 3
_LEAF = 4096


@dataclass(frozen=True)
class Item:
    """One task; `right` says of a value whether it is its answer."""

    number: int
    kind: str
    kernel: str
    args: tuple[Any, ...]
    right: Callable[[Any], bool]
    kwargs: dict[str, Any] = field(default_factory=dict)


def items(seed: int, *, walks: bool) -> Iterator[Item]:
    """An endless sequence of tasks. `walks`: the swarm has the kernel `chaos.walk`."""
    rng = random.Random(seed)
    for number in itertools.count(1):
        drawn = rng.randrange(100)
        if drawn < _LONGS:
            yield _walk(number, rng) if walks else _simulation(number, rng)
        elif drawn < _LONGS + _ECHOES:
            yield _echo(number, rng)
        else:
            yield _tree(number, rng)


def _tree(number: int, rng: random.Random) -> Item:
    from swarm_agents.compute.kernels.sha256 import merkle_root

    data = rng.randbytes(rng.randrange(1, 6 * _LEAF))
    wanted = merkle_root([data[at : at + _LEAF] for at in range(0, len(data), _LEAF)])
    args = (np.frombuffer(data, np.uint8),)
    return Item(number, "tree", "hash.sha256_tree", args, lambda value: bytes(value) == wanted)


def _echo(number: int, rng: random.Random) -> Item:
    # Its first number is its own: the answer to another task is not taken for this one's.
    sent = np.full(rng.randrange(1_000, 40_000), rng.random())
    sent[0] = number

    def right(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype == sent.dtype and np.array_equal(value, sent)

    return Item(number, "echo", "core.echo", (sent,), right)


def _walk(number: int, rng: random.Random) -> Item:
    from swarm_deploy.chaos.kernels import after

    start, steps = rng.getrandbits(60), rng.randrange(15_000, 60_000)
    wanted = after(start, steps)
    return Item(
        number, LONG, "chaos.walk", (start, steps), lambda value: isinstance(value, dict) and value.get("at") == wanted
    )


def _simulation(number: int, rng: random.Random) -> Item:
    seconds = rng.uniform(0.3, 1.2)

    def right(value: Any) -> bool:
        return isinstance(value, dict) and value.get("seconds", 0) >= seconds and value.get("rounds", 0) > 0

    return Item(number, LONG, "core.simulate", (seconds,), right, {"kept": 1 << 16})
