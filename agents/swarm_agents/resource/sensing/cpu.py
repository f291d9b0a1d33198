"""CPUs: what their time went on, each and all together, how fast they run, and how long they sleep."""

from __future__ import annotations

import functools
import math
import time
from array import array
from collections.abc import Callable

from swarm_agents.resource.sensing.columns import Columns
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import load as parse_load
from swarm_agents.resource.sensing.parse import stat
from swarm_agents.resource.sensing.reading import Availability, Lazy, Reading, Source, unavailable
from swarm_agents.resource.sensing.scan import shares
from swarm_agents.resource.sensing.since import Counters

__all__ = ["MOST_CORES", "cpu", "frequency", "idle", "load"]

#: Cores that are shown one by one at most: what bounds the label.
MOST_CORES = 512
_KINDS = ("busy", "user", "system", "iowait", "steal")
_NODE = tuple(f"cpu_{kind}_ratio" for kind in _KINDS)
_CORE = tuple(f"core_{kind}_ratio" for kind in _KINDS)
#: CPUs do not run faster, nor as slowly (hertz): the files of some drivers hold what is not a frequency.
_SLOWEST, _FASTEST = 1e6, 1e11


def cpu(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Shares of the time since the last reading; where no tick has passed yet, those of the reading before."""
    file = Columns(files, "proc/stat", _stat)
    last, share = array("d"), array("d")
    addresses: list[int] = []
    order: list[int] = []
    labels: list[str] = []
    switched: list[float] = []

    def follow() -> None:
        """CPUs came or went: one that comes back starts anew."""
        nonlocal labels, last, share
        before = {number: (8 * row, 5 * row) for row, number in enumerate(order)}
        old_last, old_share = last, share
        order[:] = file.words[0]
        labels = [str(number) for number in order]
        last, share = array("d", [math.nan] * 8 * len(order)), array("d", [math.nan] * 5 * len(order))
        for row, number in enumerate(order):
            if number in before:
                at, shown = before[number]
                last[8 * row : 8 * row + 8] = old_last[at : at + 8]
                share[5 * row : 5 * row + 5] = old_share[shown : shown + 5]
        addresses[:] = file.address + 3 * 8, last.buffer_info()[0], share.buffer_info()[0], len(order)

    def read() -> Reading:
        new = file.read()
        if new:
            follow()
        shares(*addresses)
        switches, running, blocked = file.values[:3]
        values = {"cpus": float(file.words[1])}
        if running == running:  # not NaN
            values["tasks_running"] = running
        if blocked == blocked:
            values["tasks_blocked"] = blocked
        if switches == switches:
            now = clock()
            values["context_switches"] = switches
            if switched and switches >= switched[0] and now > switched[1]:
                values["context_switches_per_second"] = (switches - switched[0]) / (now - switched[1])
            switched[:] = switches, now
        found = share.tolist()
        if order[0] < 0 and found[0] == found[0]:
            values.update(zip(_NODE, found, strict=False))
        # the labels as they are now: another list takes their place when a CPU comes or goes
        return Reading(Availability.AVAILABLE, values, "", Lazy(functools.partial(_each_core, labels, found)))

    return read


def _each_core(labels: list[str], share: list[float]) -> dict[str, dict[str, float]]:
    return {
        name: {
            core: part
            for core, part in zip(labels, share[kind :: len(_CORE)], strict=True)
            if part == part and core != "-1"
        }
        for kind, name in enumerate(_CORE)
    }


def _stat(data: bytes) -> tuple[tuple[list[int], int], list[int]]:
    """The CPUs that are shown (-1, which is all, first) and how many there are; the places of the node's counts and of
    their times."""
    found = stat(data)
    order = sorted(found.cpus)[: MOST_CORES + 1]
    times = [place for number in order for place in found.cpus[number]]
    shown = order, len(found.cpus) - (-1 in found.cpus)
    return shown, [found.switches or 0, found.running or 0, found.blocked or 0, *times]


def load(files: Files) -> Source:
    """The load averages."""
    file = Columns(files, "proc/loadavg", lambda data: (None, map(int, parse_load(data))))

    def read() -> Reading:
        file.read()
        one, five, fifteen = file.values.tolist()
        if not max(one, five, fifteen) < 1e7:
            raise ValueError("/proc/loadavg makes no sense")
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
