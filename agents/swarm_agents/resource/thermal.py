"""Heat: how hot the node is, and how often its CPUs have slowed down for it.

Read from sysfs, where the kernel keeps them: `hwmon` and `thermal_zone` in millidegrees, `thermal_throttle` (x86) a
count a core and a package. A package's count stands at each of its cores, so it is counted at one of them. Files are
looked for once, and read once a second at most however often sensors are: there may be hundreds, and heat is slow.
Virtual machines and most ARM systems have none of it; that is said, and not taken for cool.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from swarm_agents.resource.sensors import Availability, Reading

__all__ = ["temperature", "throttling"]

_EVERY = 1.0
#: What no machine is (degrees Celsius): sensors that are not connected say such things.
_LOWEST, _HIGHEST = -55.0, 150.0


def temperature(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Callable[[], Reading]:
    """A sensor of the hottest place of the node, in degrees Celsius."""
    files = [*root.glob("sys/class/hwmon/hwmon*/temp*_input"), *root.glob("sys/class/thermal/thermal_zone*/temp")]

    def read() -> Reading:
        degrees = [found / 1000.0 for path in files if (found := _number(path)) is not None]
        sane = [found for found in degrees if _LOWEST < found < _HIGHEST]
        if not sane:
            return Reading(Availability.UNAVAILABLE, reason="the kernel shows no temperature")
        return Reading(Availability.AVAILABLE, {"temperature_celsius": max(sane)})

    return _seldom(read, clock)


def throttling(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Callable[[], Reading]:
    """A sensor of how often cores and packages were throttled since the node was started."""
    cores: list[Path] = []
    packages: dict[str, Path] = {}
    for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")):
        cores.append(path / "core_throttle_count")
        try:
            package = (path.parent / "topology/physical_package_id").read_text().strip()
        except OSError:
            package = ""
        packages.setdefault(package, path / "package_throttle_count")
    files = [*cores, *packages.values()]

    def read() -> Reading:
        counts = [found for path in files if (found := _number(path)) is not None]
        if not counts:
            return Reading(Availability.UNAVAILABLE, reason="the kernel does not count thermal throttling here")
        return Reading(Availability.AVAILABLE, {"thermal_throttles": float(sum(counts))})

    return _seldom(read, clock)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # as of a sensor that is asleep
        return None


def _seldom(read: Callable[[], Reading], clock: Callable[[], float]) -> Callable[[], Reading]:
    last: list[tuple[float, Reading]] = []

    def sensor() -> Reading:
        now = clock()
        if not last or now - last[0][0] >= _EVERY:
            last[:] = [(now, read())]
        return last[0][1]

    return sensor
