"""Memory: how much there is, of each NUMA node, how much has to be fetched, how fast it is, and who waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import keyed, kilobytes
from swarm_agents.resource.sensing.parse import pressure as parse_pressure
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable
from swarm_agents.resource.sensing.since import Counters

__all__ = ["bandwidth", "faults", "memory", "numa", "pressure", "shared_memory"]

_PROBED = 8 << 20
#: What is looked for is in the first 16 of some 60 lines, of 28 bytes each.
_HEAD = 700


def memory(files: Files) -> Source:
    """The node's memory."""

    def read() -> Reading:
        found = kilobytes(files.read("proc/meminfo")[:_HEAD])
        total, free = found.get("MemTotal", 0), found.get("MemAvailable")
        if not total:
            raise ValueError("/proc/meminfo shows no memory")
        reason = ""
        if free is None:  # kernels before 3.14
            free = found.get("MemFree", 0) + found.get("Cached", 0) + found.get("Buffers", 0)
            reason = "free, cached and buffers: this kernel does not say what is available"
        if free > total:
            raise ValueError("/proc/meminfo shows more memory available than there is")
        kind = Availability.ESTIMATED if reason else Availability.AVAILABLE
        values = {
            "memory_bytes": float(total),
            "memory_available_bytes": float(free),
            "memory_used_bytes": float(total - free),
        }
        if "SwapTotal" in found and "SwapFree" in found:
            values["swap_used_bytes"] = float(max(found["SwapTotal"] - found["SwapFree"], 0))
        return Reading(kind, values, reason)

    return read


def faults(files: Files) -> Source:
    """Page faults, and pages that had to be fetched from a disk."""

    def read() -> Reading:
        found = keyed(files.read("proc/vmstat"))
        if "pgfault" not in found:
            raise ValueError("/proc/vmstat counts no faults")
        values = {"page_faults": float(found["pgfault"]), "page_faults_major": float(found.get("pgmajfault", 0))}
        if "oom_kill" in found:
            values["oom_kills"] = float(found["oom_kill"])
        return Reading(Availability.AVAILABLE, values)

    return read


def numa(files: Files) -> Source:
    """Memory of each NUMA node."""
    paths = files.find("sys/devices/system/node/node[0-9]*/meminfo")[:64]

    def read() -> Reading:
        total, free = {}, {}
        for path in paths:
            try:
                found = kilobytes(files.read(path))
                name = path.split("/")[4][4:]
                total[name], free[name] = float(found["MemTotal"]), float(found["MemFree"])
            except (OSError, ValueError, KeyError):
                continue  # the node's memory was switched off
        if not total:
            return unavailable("the kernel shows no NUMA nodes")
        return Reading(Availability.AVAILABLE, {}, "", {"numa_memory_bytes": total, "numa_memory_free_bytes": free})

    return read


def pressure(files: Files) -> Source:
    """Stalls (PSI): the share of the last 10 s in which some, or all, tasks waited for CPU, memory or I/O."""

    def read() -> Reading:
        some: dict[str, float] = {}
        full: dict[str, float] = {}
        waited: dict[str, float] = {}
        problem = ""
        for what in ("cpu", "memory", "io"):
            try:
                found = parse_pressure(files.read(f"proc/pressure/{what}"))
            except (OSError, ValueError) as error:
                problem = str(error)
                continue
            if "some" in found:
                some[what], waited[what] = found["some"][0], found["some"][1] / 1e6
            if "full" in found:
                full[what] = found["full"][0]
        if not some:
            return unavailable(f"the kernel shows no pressure (psi=1 switches it on): {problem}")
        series = {"pressure_some_ratio": some, "pressure_full_ratio": full, "pressure_waited_seconds": waited}
        return Reading(Availability.AVAILABLE, {}, "", series)

    return read


def bandwidth(files: Files, clock: Callable[[], float] = time.perf_counter, every: float = 60.0) -> Source:
    """Memory's traffic by resctrl; where there is none, by a rare probe what one thread can still have."""
    counts = files.find("sys/fs/resctrl/mon_data/mon_L3_*/mbm_total_bytes")[:64]
    counters = Counters()
    probed: list[tuple[float, float]] = []

    def probe() -> float:
        import numpy as np

        source, target = np.ones(_PROBED // 8), np.zeros(_PROBED // 8)
        best = float("inf")
        for _ in range(3):
            began = clock()
            np.copyto(target, source)
            best = min(best, clock() - began)
        return 2 * _PROBED / max(best, 1e-9)

    def read() -> Reading:
        now = clock()
        rates = [
            rate
            for path in counts
            if (value := files.number(path)) is not None and (rate := counters.rate(path, value, now)) is not None
        ]
        if rates:
            return Reading(Availability.AVAILABLE, {"memory_traffic_bytes_per_second": sum(rates)})
        if not probed or now - probed[0][0] >= every:
            probed[:] = [(now, probe())]
        return Reading(
            Availability.ESTIMATED,
            {"memory_copy_bytes_per_second": probed[0][1]},
            f"no resctrl here: the best of three copies of {_PROBED >> 20} MiB by one thread, each {every:g} s; "
            "what is still to be had, not what is used",
        )

    return read


def shared_memory(directory: Path) -> Source:
    """The file system that a directory lies in: the node's shared memory, where the board is."""

    def read() -> Reading:
        found = os.statvfs(directory)
        return Reading(
            Availability.AVAILABLE,
            {
                "shared_memory_size_bytes": float(found.f_blocks * found.f_frsize),
                "shared_memory_available_bytes": float(found.f_bavail * found.f_frsize),
            },
        )

    return read
