"""Whether an overloaded node takes the living for dead.

Two nodes on the machine's cores, with a hub each and three agents together, all at work; and twice as many busy
processes as cores beside them. Nobody dies, so whoever is declared dead is declared so falsely: agents by a supervisor
(`swarm_fences_total`), and nodes by the other one's hub, which then takes back what it had sent there.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marks import Marks
from scene import KERNEL, connection, swarm_of

__all__ = ["overload"]

_FENCES = re.compile(r"^swarm_fences_total\{.*\} (\S+)$", re.MULTILINE)
_SUSPICIONS = re.compile(r"^swarm_suspicions_total(?:\{.*\})? (\S+)$", re.MULTILINE)
_IN_FLIGHT = 12


@contextmanager
def _crowd(count: int) -> Iterator[None]:
    made = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in made:
            each.kill()
            each.wait()


def _counted(pods: list[Any], what: re.Pattern[str]) -> float:
    return sum(float(value) for pod in pods for value in what.findall(pod.metrics()))


def overload(minutes: float = 10.0) -> dict[str, float]:
    """`false_deaths` in so many minutes."""
    numbers = itertools.count(1)
    answered = twice = 0
    with swarm_of(2, 1) as nodes, tempfile.TemporaryDirectory() as folder:
        from swarm_agents.client import Swarm

        marks = Marks(Path(folder) / "marks")
        pods = [pod for node in nodes for pod in node.pods]
        with Swarm.connect(connection(nodes)) as swarm:
            before = _counted(pods, _FENCES)
            with _crowd(2 * len(os.sched_getaffinity(0))):
                until = time.monotonic() + minutes * 60
                underway: list[Any] = []
                while time.monotonic() < until:
                    while len(underway) < _IN_FLIGHT:
                        underway.append(swarm.submit(KERNEL, str(marks.path), next(numbers), 0.02, 0.02))
                    first = underway.pop(0)
                    first.result(120)
                    answered += 1
                    twice += first.info.attempts > 1
                fences = _counted(pods, _FENCES) - before
                suspicions = _counted(pods, _SUSPICIONS)
                nodes_given_up = swarm.info()["events"].get("handed_back", 0)
                for each in underway:
                    each.result(120)
    return {
        "false_deaths": fences,
        "minutes": minutes,
        "tasks": float(answered),
        "begun_again": float(twice),
        "suspicions": suspicions,
        "taken_back_from_nodes": float(nodes_given_up),
    }


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(float, sys.argv[2:])))
