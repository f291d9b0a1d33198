"""Heat: how hot the node is, and how often its CPUs have slowed down for it.

Read from sysfs, where the kernel keeps them: `hwmon` and `thermal_zone` in millidegrees, `thermal_throttle` (x86) a
count a core and a package. A package's count stands at each of its cores, so it is counted at one of them. Virtual
machines and most ARM systems have none of it; that is said, and not taken for cool.
"""

from __future__ import annotations

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable

__all__ = ["temperature", "throttling"]

#: What no machine is (degrees Celsius): sensors that are not connected say such things.
_LOWEST, _HIGHEST = -55.0, 150.0
_MOST = 64


def temperature(files: Files) -> Source:
    """The hottest place of the node, in degrees Celsius, and its thermal zones."""
    zones = files.find("sys/class/thermal/thermal_zone*/temp")[:_MOST]
    paths = [*files.find("sys/class/hwmon/hwmon*/temp*_input")[: 4 * _MOST], *zones]
    names = {path: f"{path.split('/')[3][12:]}:{files.text(path[:-4] + 'type')}" for path in zones}

    def read() -> Reading:
        sane = {
            path: found / 1000.0
            for path in paths
            if (found := files.number(path)) is not None and _LOWEST < found / 1000.0 < _HIGHEST
        }
        if not sane:
            return unavailable("the kernel shows no temperature")
        each = {names[path]: degrees for path, degrees in sane.items() if path in names}
        return Reading(
            Availability.AVAILABLE, {"temperature_celsius": max(sane.values())}, "", {"zone_temperature_celsius": each}
        )

    return read


def throttling(files: Files) -> Source:
    """How often cores and packages were throttled since the node was started."""
    cores: list[str] = []
    packages: dict[str, str] = {}
    for count in files.find("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"):
        folder = count.removesuffix("thermal_throttle/core_throttle_count")
        cores.append(count)
        package = files.text(folder + "topology/physical_package_id")
        packages.setdefault(package, folder + "thermal_throttle/package_throttle_count")
    paths = [*cores, *packages.values()]

    def read() -> Reading:
        counts = [found for path in paths if (found := files.number(path)) is not None and found >= 0]
        if not counts:
            return unavailable("the kernel does not count thermal throttling here")
        return Reading(Availability.AVAILABLE, {"thermal_throttles": float(sum(counts))})

    return read
