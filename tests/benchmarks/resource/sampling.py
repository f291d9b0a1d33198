"""What sampling costs and how even it is: CPU time of readings by the thread that takes them, and of psutil's."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from swarm_agents.resource.sensing import QUICK, Sensors, sources

__all__ = ["cost", "jitter", "psutil_cost"]

_INTERVAL = 0.1
_SLOWLY = 1.0
_SHM = Path("/dev/shm")


def cost(rounds: int = 60) -> dict[str, float]:
    """Seconds of one core each second: the sensors of /proc and cgroups at 100 ms, and all, each at its pace.

    Readings are 20 ms apart, so that caches are as cold as they are when others have run between.
    """
    found = sources(Path("/"), _SHM)
    quick = Sensors({name: source for name, source in found.items() if name in QUICK})
    slow = Sensors({name: source for name, source in found.items() if name not in QUICK})
    same = Sensors({name: found[name] for name in ("cpu", "memory", "load", "disks", "network")})

    def shown(sensors: Sensors) -> int:
        """Reads, and makes the figures of each core, disk and interface into Python's numbers as well."""
        return sum(len(each) for reading in sensors.read().values() for each in reading.series.values())

    def each(sensors: Sensors, often: int, read: Callable[[Sensors], object] = Sensors.read) -> float:
        sensors.read()
        taken = []
        for _ in range(often):
            time.sleep(0.02)
            began = time.thread_time()
            read(sensors)
            taken.append(time.thread_time() - began)
        return statistics.fmean(taken)

    assert shown(same) > 0
    fast, rare = each(quick, rounds), each(slow, rounds // 4)
    return {
        "proc_and_cgroup": fast / _INTERVAL,
        "everything": fast / _INTERVAL + rare / _SLOWLY,
        "same_as_psutil": each(same, rounds, shown),
        "seconds_a_reading": fast,
    }


def psutil_cost(rounds: int = 60) -> float:
    """Seconds of CPU time for the same figures by psutil: each core's times, memory, load, disks, network."""
    import psutil

    def read() -> None:
        psutil.cpu_times(percpu=True), psutil.cpu_times_percent(), psutil.cpu_stats(), psutil.virtual_memory()
        psutil.swap_memory(), psutil.getloadavg(), psutil.disk_io_counters(perdisk=True)
        psutil.net_io_counters(pernic=True)

    read()
    taken = []
    for _ in range(rounds):
        time.sleep(0.02)
        began = time.thread_time()
        read()
        taken.append(time.thread_time() - began)
    return statistics.fmean(taken)


def jitter(seconds: float = 20.0) -> dict[str, float]:
    """How far from its deadline each reading of the sampler's thread began, with a busy process on every core."""
    at: list[float] = []
    found = sources(Path("/"), _SHM)
    first = next(name for name in found if name in QUICK)
    source = found[first]

    def stamped():  # type: ignore[no-untyped-def]
        at.append(time.monotonic())
        return source()

    sensors = Sensors({**found, first: stamped}, slow=found.keys() - QUICK)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.5)
        sensors.start(lambda: _INTERVAL)
        time.sleep(seconds)
        sensors.stop()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    gaps = sorted(abs(after - before - _INTERVAL) for before, after in itertools.pairwise(at))
    return {
        "p99": gaps[min(int(len(gaps) * 0.99), len(gaps) - 1)],
        "p50": gaps[len(gaps) // 2],
        "worst": gaps[-1],
        "samples": float(len(at)),
    }
