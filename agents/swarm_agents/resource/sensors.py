"""What the node's hardware is doing: read every interval, each value with how far it can be trusted.

A source is *available*, *unavailable* (with the reason) or *estimated*; never a silent zero, because a scheduler that
takes an absent sensor for an idle machine sends it everything. One sensor's failure is its own.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

__all__ = ["SENSORS", "Availability", "Reading", "Sensors", "shared_memory"]


class Availability(enum.StrEnum):
    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"
    ESTIMATED = "estimated"


class Reading(Struct, frozen=True):
    """One sensor's values, by the name of the metric without `swarm_node_`; base units."""

    availability: Availability
    values: dict[str, float] = {}
    reason: str = ""


def _cpu() -> Reading:
    # Since the last call, in this process; the first one has nothing to compare with.
    busy = psutil.cpu_percent(interval=None) / 100.0
    return Reading(Availability.AVAILABLE, {"cpu_busy_ratio": busy, "cpus": float(os.cpu_count() or 1)})


def _memory() -> Reading:
    memory = psutil.virtual_memory()
    return Reading(
        Availability.AVAILABLE,
        {"memory_bytes": float(memory.total), "memory_available_bytes": float(memory.available)},
    )


def _load() -> Reading:
    one, five, fifteen = os.getloadavg()
    return Reading(Availability.AVAILABLE, {"load1": one, "load5": five, "load15": fifteen})


def _frequency() -> Reading:
    frequency = psutil.cpu_freq()
    if frequency is None or not frequency.current:
        return Reading(Availability.UNAVAILABLE, reason="the kernel shows no frequency of the CPUs")
    # Virtual machines show what /proc/cpuinfo says, which need not be what runs at this moment.
    measured = os.path.exists("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    kind = Availability.AVAILABLE if measured else Availability.ESTIMATED
    return Reading(kind, {"cpu_frequency_hertz": frequency.current * 1e6})


def shared_memory(directory: Path) -> Callable[[], Reading]:
    """A sensor of the file system that a directory lies in: the node's shared memory, where the board is."""

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


#: Those that need to be told nothing, by the names that `spec.resource.sensors` uses.
SENSORS: Mapping[str, Callable[[], Reading]] = {
    "cpu": _cpu,
    "memory": _memory,
    "load": _load,
    "frequency": _frequency,
}


class Sensors:
    """Reads them all; keeps the last readings."""

    def __init__(self, sources: Mapping[str, Callable[[], Reading]] = SENSORS) -> None:
        self._sources = sources
        self.readings: dict[str, Reading] = {}

    def read(self, disabled: tuple[str, ...] = ()) -> dict[str, Reading]:
        """Reads all sources that are not disabled."""
        self.readings = {name: self._one(name) for name in self._sources if name not in disabled}
        return self.readings

    def _one(self, name: str) -> Reading:
        try:
            return self._sources[name]()
        except Exception as error:  # a driver's mood must not silence the others
            return Reading(Availability.UNAVAILABLE, reason=f"{type(error).__name__}: {error}")

    def report(self) -> dict[str, Any]:
        """For `/v1/swarm`."""
        return {
            name: {"availability": reading.availability.value, "values": reading.values}
            | ({"reason": reading.reason} if reading.reason else {})
            for name, reading in self.readings.items()
        }
