"""CPUs: what their time went on, each and all together, how fast they run, and how long they sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import load as parse_load
from swarm_agents.resource.sensing.parse import stat
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable
from swarm_agents.resource.sensing.since import Counters

__all__ = ["MOST_CORES", "cpu", "frequency", "idle", "load"]

#: Cores that are shown one by one at most: what bounds the label.
MOST_CORES = 512
_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFT, _STEAL = range(8)
#: CPUs do not run faster, nor as slowly (hertz): the files of some drivers hold what is not a frequency.
_SLOWEST, _FASTEST = 1e6, 1e11


def cpu(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Shares of the time since the last reading; where no tick has passed yet, those of the reading before."""
    counters = Counters()
    last: dict[int, list[int]] = {}
    shares: dict[int, tuple[float, float, float, float, float]] = {}

    def read() -> Reading:
        found, now = stat(files.read("proc/stat")), clock()
        for number, times in found.cpus.items():
            before = last.get(number)
            if before is not None:
                if times == before:
                    continue
                # One that goes backwards has not grown: iowait does so by itself, all do when a CPU comes back.
                grown = [max(new - old, 0) for new, old in zip(times, before, strict=True)]
                total = sum(grown)
                if total:
                    shares[number] = (
                        1.0 - (grown[_IDLE] + grown[_IOWAIT]) / total,
                        (grown[_USER] + grown[_NICE]) / total,
                        (grown[_SYSTEM] + grown[_IRQ] + grown[_SOFT]) / total,
                        grown[_IOWAIT] / total,
                        grown[_STEAL] / total,
                    )
            last[number] = times
        for gone in last.keys() - found.cpus.keys():  # switched off; it starts anew when it comes back
            del last[gone]
            shares.pop(gone, None)
        present = [number for number in found.cpus if number >= 0]
        values = {"cpus": float(len(present))}
        if found.running is not None:
            values["tasks_running"] = float(found.running)
        if found.blocked is not None:
            values["tasks_blocked"] = float(found.blocked)
        if found.switches is not None:
            values["context_switches"] = float(found.switches)
            switches = counters.rate("switches", found.switches, now)
            if switches is not None:
                values["context_switches_per_second"] = switches
        if -1 in shares:
            for name, share in zip(("busy", "user", "system", "iowait", "steal"), shares[-1], strict=True):
                values[f"cpu_{name}_ratio"] = share
        some = [(str(number), shares[number]) for number in present[:MOST_CORES] if number in shares]
        series = {
            f"core_{name}_ratio": {core: of[which] for core, of in some}
            for which, name in enumerate(("busy", "user", "system", "iowait", "steal"))
        }
        return Reading(Availability.AVAILABLE, values, "", series)

    return read


def load(files: Files) -> Source:
    """The load averages."""

    def read() -> Reading:
        one, five, fifteen = parse_load(files.read("proc/loadavg"))
        return Reading(Availability.AVAILABLE, {"load1": one, "load5": five, "load15": fifteen})

    return read


def frequency(files: Files) -> Source:
    """The cores' frequency; of virtual machines what their /proc/cpuinfo says, which need not be what runs."""
    paths = files.find("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")[:MOST_CORES]

    def read() -> Reading:
        cores = {}
        for path in paths:
            value = files.number(path)
            if value is not None and _SLOWEST <= value * 1e3 <= _FASTEST:
                cores[path.split("/")[4][3:]] = value * 1e3
        if cores:
            mean = sum(cores.values()) / len(cores)
            return Reading(Availability.AVAILABLE, {"cpu_frequency_hertz": mean}, "", {"core_frequency_hertz": cores})
        said = [
            float(line.partition(b":")[2]) * 1e6
            for line in files.read("proc/cpuinfo").split(b"\n")
            if line.startswith(b"cpu MHz")
        ]
        sane = [value for value in said if _SLOWEST <= value <= _FASTEST]
        if not sane:
            return unavailable("the kernel shows no frequency of the CPUs")
        return Reading(
            Availability.ESTIMATED, {"cpu_frequency_hertz": sum(sane) / len(sane)}, "from /proc/cpuinfo: nominal"
        )

    return read


def idle(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """The share of all cores' time in each sleeping state (C-state)."""
    states: dict[str, list[str]] = {}
    for path in files.find("sys/devices/system/cpu/cpu[0-9]*/cpuidle/state[0-9]*/time")[: 16 * MOST_CORES]:
        name = files.text(path.removesuffix("time") + "name") or path.split("/")[-2]
        states.setdefault(name, []).append(path)
    counters = Counters()

    def read() -> Reading:
        if not states:
            return unavailable("the kernel shows no idle states of the CPUs")
        now, shares, shown = clock(), {}, False
        for name, paths in list(states.items())[:16]:
            rates = []
            for path in paths:
                value = files.number(path)
                if value is not None and value >= 0:
                    shown = True
                    if (rate := counters.rate(path, value, now)) is not None:
                        rates.append(rate)
            if rates:
                shares[name] = min(sum(rates) / len(rates) / 1e6, 1.0)
        if not shown:
            return unavailable("the idle states of the CPUs can't be read")
        return Reading(Availability.AVAILABLE, {}, "", {"cpu_idle_state_ratio": shares})

    return read
