"""Power: by RAPL's counters of energy, else by a battery or a monitoring chip, else estimated from the CPUs' work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import stat
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable

__all__ = ["IDLE_WATTS", "WORKING_WATTS", "power"]

#: What a core is taken to draw asleep and beyond that at work where nothing measures it (watts): the middle of what
#: servers' specifications come to, thermal design power by cores, with an error of half and more.
IDLE_WATTS, WORKING_WATTS = 1.0, 5.0
#: A machine that draws less or more is none (watts).
_LEAST, _MOST = 1e-3, 20_000.0
_PACKAGE = re.compile(r"sys/class/powercap/(intel-rapl|amd-rapl):\d+/energy_uj")


def power(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Watts, now or since the last reading."""
    packages = [path for path in files.find("sys/class/powercap/*rapl:*/energy_uj") if _PACKAGE.fullmatch(path)]
    ranges = {path: files.number(path.replace("energy_uj", "max_energy_range_uj")) or 0 for path in packages}
    chips = files.find("sys/class/hwmon/hwmon*/power*_average", "sys/class/hwmon/hwmon*/power*_input")[:64]
    batteries = files.find("sys/class/power_supply/*/power_now", "sys/class/power_supply/*/current_now")[:8]
    energy: dict[str, tuple[int, float]] = {}
    ticks: list[tuple[int, int]] = []

    def rapl() -> float | None:
        watts = None
        for path in packages:
            value, now = files.number(path), clock()
            before = energy.pop(path, None)
            if value is None or value < 0 or (ranges[path] and value > ranges[path]):
                continue
            energy[path] = (value, now)
            if before is None or now <= before[1]:
                continue
            grown = value - before[0]
            if grown < 0:  # it wraps, at a range that the kernel tells
                grown += ranges[path]
            found = grown / 1e6 / (now - before[1])
            if grown >= 0 and found < _MOST:
                watts = (watts or 0.0) + found
        return watts

    def measured(paths: list[str]) -> float | None:
        found = []
        for path in paths:
            value = files.number(path)
            if value is not None and path.endswith("current_now"):  # microamperes, of microvolts
                volts = files.number(path.replace("current_now", "voltage_now"))
                value = None if volts is None or volts <= 0 else abs(value) * volts // 1_000_000
            if value is not None and _LEAST < abs(value) / 1e6 < _MOST:
                found.append(abs(value) / 1e6)
        return sum(found) if found else None

    def read() -> Reading:
        watts = rapl()
        if watts is not None:
            return Reading(Availability.AVAILABLE, {"power_watts": watts})
        if energy:
            return unavailable("the first reading of a counter: power is known at the next")
        for paths, what in ((batteries, "what the battery gives"), (chips, "the sum of the monitoring chips' meters")):
            watts = measured(paths)
            if watts is not None:
                return Reading(Availability.ESTIMATED, {"power_watts": watts}, what)
        found = stat(files.read("proc/stat"))
        times = found.cpus.get(-1)
        if times is None:
            return unavailable("neither power nor the CPUs' work is shown")
        last = ticks[0] if ticks else (0, 0)
        ticks[:] = [(sum(times), times[3] + times[4])]
        total, rest = ticks[0][0] - last[0], ticks[0][1] - last[1]
        share = 1.0 - min(max(rest / total, 0.0), 1.0) if total > 0 else 0.0
        cores = len(found.cpus) - 1
        return Reading(
            Availability.ESTIMATED,
            {"power_watts": cores * (IDLE_WATTS + share * WORKING_WATTS)},
            f"nothing measures it: {IDLE_WATTS:g} W a core and {WORKING_WATTS:g} W more at work, by the CPUs' time",
        )

    return read
