"""Our side of the rows about agents: real ones, as pods run them, and the public client."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read when NumPy is loaded: the direct product has one thread, as the agent's has

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "transport"))

import loads  # noqa: E402
from pairs import cores, pin  # noqa: E402
from pods import Pod, node  # noqa: E402

from swarm_agents.config import Runtime, Transport  # noqa: E402

__all__ = ["efficiency", "gemm", "map_milliseconds", "start"]


@contextlib.contextmanager
def _crew(agents: int, transport: Transport | None = None) -> Iterator[tuple[Any, list[Pod]]]:
    """A client, and so many agents that have the benchmark's kernels: the second core first."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with node(transport, runtime=Runtime(kernel_modules=("compute_kernels",))) as here:
        pods = [here.start("compute", ordinal=n, core=cores()[1 - n]) for n in range(agents)]
        for pod in pods:
            pod.ready()
        from swarm_agents.client import Swarm

        with Swarm.connect(here.url) as swarm:
            yield swarm, pods


def gemm(repeats: int = 16) -> dict[str, float]:
    """Seconds of a product through an agent with one core, whose factors lie in the node's memory already, and of the
    direct call on that core with one thread; in turns, so that a neighbour on the machine is both one's."""
    import numpy as np

    with _crew(1) as (swarm, _):
        first, second = cores()
        a, b = (swarm.empty((loads.SIDE, loads.SIDE)) for _ in range(2))
        a[...], b[...] = np.random.default_rng(1).normal(size=(2, loads.SIDE, loads.SIDE))
        own = a.copy(), b.copy()
        expected = own[0] @ own[1]
        through, direct = [], []
        for _ in range(repeats):
            pin(first)
            began = time.perf_counter()
            value = swarm.submit("vector.gemm", a, b).result()
            through.append(time.perf_counter() - began)
            assert np.allclose(value, expected)
            del value
            pin(second)
            began = time.perf_counter()
            value = own[0] @ own[1]
            direct.append(time.perf_counter() - began)
            del value
        return {"agent": min(through), "direct": min(direct)}


def start(count: int = 60) -> dict[str, float]:
    """Seconds from an agent's end by SIGKILL to the first statement of the first task of the one that the supervisor
    forks in its place: an upper bound of what passes from the fork, for the death must be noticed and declared first.
    """
    with _crew(1) as (swarm, (pod,)):
        pin(cores()[0])
        times = []
        _, pid = swarm.submit("bench.began").result()
        for _ in range(count):
            began = time.monotonic()
            os.kill(int(pid), signal.SIGKILL)
            at, pid = swarm.submit("bench.began").result()
            times.append(at - began)
        times.sort()
        assert pod.process.poll() is None
        return {"p50": times[len(times) // 2], "p99": times[min(int(len(times) * 0.99), len(times) - 1)]}


def efficiency(tasks: int = 30_000) -> dict[str, float]:
    """The share of two cores' time that goes into tasks of 100 µs, the client being on one of the two as well.

    A task is a fixed amount of work, whose time is taken on the agents' cores before and after: what a task loses to
    the client, to its agent or to others on the machine counts as lost. `cpu`: the same against the processor time of
    client, agents and supervisors rather than against the clock. `alone`: the share when each call travels alone.
    """
    with _crew(2) as (swarm, pods):
        turns = 50_000

        def span() -> float:
            both = [swarm.submit("bench.spin_time", turns) for _ in range(2)]
            return sum(f.result() for f in both) / 2

        for _ in range(3):
            turns = int(turns * 100e-6 / span())
        for _ in swarm.map("bench.spin", [turns] * (tasks // 10)):
            pass
        before, used = span(), _cpu(pods)
        wall = _mapped(swarm, turns, tasks)
        used = _cpu(pods) - used
        each = min(before, span())
        alone = tasks // 4
        return {
            "share": tasks * each / (2 * wall), "cpu": tasks * each / used, "task_us": each * 1e6,
            "alone": alone * each / (2 * _mapped(swarm, turns, alone, chunksize=1)),
        }  # fmt: skip


def _mapped(swarm: Any, turns: int, tasks: int, **options: Any) -> float:
    """Seconds of so many tasks by `Swarm.map`."""
    began = time.perf_counter()
    for _ in swarm.map("bench.spin", [turns] * tasks, **options):
        pass
    return time.perf_counter() - began


def _cpu(pods: list[Pod]) -> float:
    """Processor seconds of the pods' processes and this one."""
    total = time.process_time()
    for pod in pods:
        for pid in pod.pids():
            fields = Path(f"/proc/{pid}/schedstat").read_text().split()
            for thread in Path(f"/proc/{pid}/task").iterdir():
                if thread.name != str(pid):
                    total += int((thread / "schedstat").read_text().split()[0]) * 1e-9
            total += int(fields[0]) * 1e-9
    return total


def map_milliseconds(calls: int = loads.CALLS) -> float:
    """Seconds of `Swarm.map` over the calls on two agents."""
    with _crew(2) as (swarm, _):
        for _ in swarm.map("bench.millisecond", map(float, range(200))):
            pass
        began = time.perf_counter()
        for _ in swarm.map("bench.millisecond", map(float, range(calls))):
            pass
        return time.perf_counter() - began


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
