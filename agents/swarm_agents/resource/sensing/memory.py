"""Memory: how much there is, of each NUMA node, how much has to be fetched, how fast it is, and who waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from swarm_agents.resource.sensing.columns import Columns
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import keyed, kilobytes
from swarm_agents.resource.sensing.parse import pressure as parse_pressure
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable
from swarm_agents.resource.sensing.since import Counters

__all__ = ["bandwidth", "faults", "memory", "numa", "pressure", "shared_memory"]

_PROBED = 8 << 20
_AMOUNTS = ("MemTotal", "MemAvailable", "MemFree", "Cached", "Buffers", "SwapTotal", "SwapFree")
_WAITED = ("cpu", "memory", "io")


def memory(files: Files) -> Source:
    """The node's memory."""

    def learn(data: bytes) -> tuple[None, list[int]]:
        found = kilobytes(data)
        return None, [found.get(name, 0) // 1024 for name in _AMOUNTS]

    file = Columns(files, "proc/meminfo", learn)

    def read() -> Reading:
        file.read()
        total, free, unused, cached, buffers, swap, swap_free = (1024.0 * amount for amount in file.values.tolist())
        if not total > 0:
            raise ValueError("/proc/meminfo shows no memory")
        kind, reason = Availability.AVAILABLE, ""
        if free != free:  # NaN: kernels before 3.14
            free = sum(amount for amount in (unused, cached, buffers) if amount == amount)
            kind = Availability.ESTIMATED
            reason = "free, cached and buffers: this kernel does not say what is available"
        if free > total:
            raise ValueError("/proc/meminfo shows more memory available than there is")
        values = {"memory_bytes": total, "memory_available_bytes": free, "memory_used_bytes": total - free}
        if swap - swap_free == swap - swap_free:
            values["swap_used_bytes"] = max(swap - swap_free, 0.0)
        return Reading(kind, values, reason)

    return read


def faults(files: Files) -> Source:
    """Page faults, and pages that had to be fetched from a disk."""

    def learn(data: bytes) -> tuple[None, list[int]]:
        found = keyed(data)
        if "pgfault" not in found:
            raise ValueError("/proc/vmstat counts no faults")
        return None, [found.get(name, 0) for name in ("pgfault", "pgmajfault", "oom_kill")]

    file = Columns(files, "proc/vmstat", learn)

    def read() -> Reading:
        file.read()
        all_of_them, major, kills = file.values.tolist()
        values = {"page_faults": all_of_them}
        if major == major:
            values["page_faults_major"] = major
        if kills == kills:
            values["oom_kills"] = kills
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

    def learn(data: bytes) -> tuple[None, list[int]]:
        found = parse_pressure(data)
        places = [(round(share * 100), total) for share, total in (found.get(of, (0.0, 0)) for of in ("some", "full"))]
        return None, [places[0][0], places[0][1], places[1][0]]

    each = [(what, Columns(files, f"proc/pressure/{what}", learn)) for what in _WAITED]

    def read() -> Reading:
        some: dict[str, float] = {}
        full: dict[str, float] = {}
        waited: dict[str, float] = {}
        problem = ""
        for what, file in each:
            try:
                file.read()
            except (OSError, ValueError) as error:
                problem = str(error)
                continue
            of_some, total, of_all = file.values.tolist()
            if of_some == of_some:
                some[what], waited[what] = of_some / 100.0, total / 1e6
            if of_all == of_all:
                full[what] = of_all / 100.0
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
