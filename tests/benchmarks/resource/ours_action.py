"""What acting gives: critical latency on a node with three times the work it can carry, and work spread over agents of
which one is slow. Real agents with the default settings; the clients are programs on the node.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "transport")]

__all__ = ["critical", "flood", "makespan"]

_SPIN = 0.02
_AGENTS = 2
_OVERLOAD = 3.0


@contextlib.contextmanager
def _node(agents: int, resource: bool) -> Iterator[Any]:
    from pairs import cores
    from pods import node

    from swarm_agents.config import Runtime

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    try:
        with node(runtime=Runtime(kernel_modules=("action_kernels",)), hubs=int(resource)) as here:
            for number in range(agents):
                here.start("compute", number, cores()[number % 2])
            if resource:
                here.start("resource", 0, cores()[0])
            for pod in here.pods:
                pod.ready()
            yield here
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _swarm(url: str) -> Any:
    from swarm_agents.client import Swarm

    return Swarm.connect(url)


def flood(url: str, rate: float, seconds: float) -> dict[str, float]:
    """Submits so many tasks a second, normal and bulk in turn, whatever becomes of them; what became of them."""
    from swarm_agents.errors import Overloaded, SwarmFull

    became: Counter[str] = Counter()
    with _swarm(url) as swarm:
        began = time.monotonic()
        underway: deque[Any] = deque()
        for number in range(int(rate * seconds)):
            time.sleep(max(began + number / rate - time.monotonic(), 0.0))
            try:
                underway.append(swarm.submit("bench.spin", _SPIN, priority=("normal", "bulk")[number % 2], timeout=0))
            except Overloaded:
                became["shed"] += 1
            except SwarmFull:
                became["full"] += 1
            while underway and underway[0].done():
                underway.popleft().result()
                became["answered"] += 1
        # Nothing that was accepted is lost.
        for future in underway:
            future.result(120)
            became["answered"] += 1
    return {name: float(became[name]) for name in ("answered", "shed", "full")}


def _latencies(swarm: Any, every: float, until: float) -> list[float]:
    """Seconds there and back of critical tasks, one each `every` seconds."""
    found, due = [], time.monotonic()
    while due < until:
        time.sleep(max(due - time.monotonic(), 0.0))
        began = time.perf_counter()
        swarm.run("bench.spin", _SPIN, priority="critical", timeout=60)
        found.append(time.perf_counter() - began)
        due = max(due + every, time.monotonic())
    return sorted(found)


def critical(idle: float = 8.0, loaded: float = 24.0) -> dict[str, float]:
    """The 99th percentile of critical work's latency on an idle node, and at three times what it can carry."""

    def at(ordered: list[float], share: float) -> float:
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]

    rate = _OVERLOAD * _AGENTS / _SPIN
    with _node(_AGENTS, resource=True) as here, _swarm(here.url) as swarm:
        pods = here.pods
        for _ in range(8 * _AGENTS):
            swarm.run("bench.spin", 0.001, priority="critical", timeout=60)
        calm = _latencies(swarm, 0.04, time.monotonic() + idle)
        command = [sys.executable, __file__, "flood", here.url, str(rate), str(loaded)]
        crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            busy = _latencies(swarm, 0.04, time.monotonic() + loaded)
            # Accepted before or not: all that was accepted is answered, and the node recovers by itself.
            said, _ = crowd.communicate(timeout=120)
        finally:
            crowd.kill()
            crowd.wait()
        became = dict(zip(("answered", "shed", "full"), map(float, said.split()), strict=True))
        told = [pod.log() for pod in pods]
    return {
        "overloaded": at(busy, 0.99),
        "idle": at(calm, 0.99),
        "overloaded_p50": at(busy, 0.5),
        "idle_p50": at(calm, 0.5),
        "samples": float(len(busy)),
        "offered": rate * loaded,
        "times_overloaded": float(sum(text.count('"Overloaded"') for text in told)),
        **became,
    }


def makespan(tasks: int = 120, seconds: float = 0.05) -> dict[str, float]:
    """How long four agents take for a batch, one of them slowed; and what it would take them at best."""
    from action_kernels import SLOWED

    workers = 4
    with _node(workers, resource=False) as here, _swarm(here.url) as swarm, tempfile.TemporaryDirectory() as folder:
        for _ in range(100):  # until each has had one
            pids = {f.result(60) for f in [swarm.submit("bench.uneven", folder, 0.01) for _ in range(4 * workers)]}
            if len(pids) == workers:
                break
        else:
            raise TimeoutError("not all agents take tasks")
        began = time.perf_counter()
        futures = [swarm.submit("bench.uneven", folder, seconds) for _ in range(tasks)]
        by = Counter(future.result(120) for future in futures)
        took = time.perf_counter() - began
        slow = int((Path(folder) / "slow").read_text())
    best = tasks * seconds / (workers - 1 + 1 / SLOWED)
    return {"ours": took, "ideal": best, "of_the_slow": by[slow] / tasks, "tasks": float(tasks)}


if __name__ == "__main__":
    print(*flood(sys.argv[2], float(sys.argv[3]), float(sys.argv[4])).values())
