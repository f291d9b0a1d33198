"""What checkpoints cost: a task that keeps 1 MiB every 100 ms, computed by a real agent.

Each function measures once and returns a figure; `python ours_checkpoint.py NAME` prints it. The agent is an ordinary
`swarm-agent` on the second core, with the settings' defaults; its kernel hashes, and changes the state that it keeps.

- `checkpoint_overhead`: the share of the task's time that its kernel spends in `ctx.checkpoint`.
- `checkpoint_slowdown`: how much less work a second of the task holds than one of a task that keeps nothing, pairs of
  both in turn, the median: it holds what a checkpoint costs afterwards too (caches), and the machine's noise.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transport"))

from pairs import cores, pin
from pods import node

__all__ = ["checkpoint_overhead", "checkpoint_slowdown"]

_MIB = 1 << 20
_EVERY = 0.1


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """A client on the board of a node with one agent, which has kept something before."""
    with node() as here:
        here.start("compute").ready()
        pin(cores()[0])
        from swarm_agents.client import Swarm

        with Swarm.connect(here.url) as swarm:
            _simulate(swarm, 0.5, _EVERY)
            yield swarm


def _simulate(swarm: Any, seconds: float, every: float) -> dict[str, Any]:
    value: dict[str, Any] = swarm.run("core.simulate", seconds, kept=_MIB, every=every)
    kept = round(seconds / every) if every else 0
    if not 0.95 * kept - 1 <= value["checkpoints"] <= kept:
        raise RuntimeError(f"{value['checkpoints']} checkpoints in {seconds} s, {kept} were to be kept")
    return value


def checkpoint_overhead(seconds: float = 10.0) -> float:
    """Share of a task's time spent on keeping 1 MiB each 100 ms."""
    with _client() as swarm:
        value = _simulate(swarm, seconds, _EVERY)
    return float(value["keeping"] / value["seconds"])


def checkpoint_slowdown(pairs: int = 9, seconds: float = 1.0) -> float:
    """Share of its work that a task loses by keeping 1 MiB each 100 ms."""
    losses = []
    with _client() as swarm:
        for _ in range(pairs):
            with_checkpoints, without = (_simulate(swarm, seconds, every)["rounds"] for every in (_EVERY, 0.0))
            losses.append(1.0 - with_checkpoints / without)
    return statistics.median(losses)


if __name__ == "__main__":
    print({name: globals()[name] for name in __all__}[sys.argv[1]]())
