"""Our side of the rows about tasks: the public client on a node's board, and one real compute agent.

Each function measures once and returns a figure; `python ours_tasks.py NAME` prints it. The client is on the first
core, the agent (its supervisor too) on the second, and `core.noop` is what is computed, as the peers' no-op is.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from pairs import cores, pin
from pods import node

__all__ = ["map_per_s", "task_rtt", "tasks", "tasks_per_s"]

_KERNEL = "core.noop"


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """A client on the board of a node with one agent, and warm."""
    with node() as here:
        here.start("compute").ready()
        pin(cores()[0])
        from swarm_agents.client import Swarm

        with Swarm.connect(here.url) as swarm:
            for _ in range(500):
                swarm.submit(_KERNEL).result()
            yield swarm


def _rtt(swarm: Any, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        swarm.submit(_KERNEL).result()
    return (time.perf_counter() - began) / count


def _per_s(swarm: Any, count: int) -> float:
    for future in [swarm.submit(_KERNEL) for _ in range(count // 10)]:
        future.result()
    began = time.perf_counter()
    for future in [swarm.submit(_KERNEL) for _ in range(count)]:
        future.result()
    return count / (time.perf_counter() - began)


def _map_per_s(swarm: Any, count: int) -> float:
    for _ in swarm.map("core.echo", range(count // 10), chunksize=1):
        pass
    began = time.perf_counter()
    for _ in swarm.map("core.echo", range(count), chunksize=1):
        pass
    return count / (time.perf_counter() - began)


def task_rtt(count: int = 20_000) -> float:
    """Seconds from a task's submission to its answer, one after the other."""
    with _client() as swarm:
        return _rtt(swarm, count)


def tasks_per_s(count: int = 50_000) -> float:
    """Tasks a second when all are submitted before the first answer is asked for."""
    with _client() as swarm:
        return _per_s(swarm, count)


def map_per_s(count: int = 50_000) -> float:
    """Values a second of `Swarm.map`, which keeps a bounded window of tasks underway."""
    with _client() as swarm:
        return _map_per_s(swarm, count)


def tasks() -> dict[str, float]:
    """The three of them with one agent and one client."""
    with _client() as swarm:
        return {
            "rtt": _rtt(swarm, 20_000),
            "per_s": _per_s(swarm, 50_000),
            "map_per_s": _map_per_s(swarm, 50_000),
        }


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
