"""What the cores of an agent's cpuset are like: steal, throttling and heat, from the kernel's files.

Read by the agent's own supervisor, since only it sees the agent's threads: in a pod of its own nobody else does. A file
that is missing, cut off or absurd says nothing about a core; a counter that goes backwards, or a CPU that was switched
off, begins anew. Below `root` as every reader here, so that recorded trees can be replayed.

Sources: proc(5); `admin-guide/thermal`, `hwmon/coretemp` and `x86/…/thermal_throttle` in the kernel's documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from swarm_agents.runtime.corebalance import Core

__all__ = ["CoreFigures"]

_CPU = "sys/devices/system/cpu"
#: A thread that has used this share of a core wants one of its own.
_BUSY = 0.2
#: Threads that have used as much together may be short of cores.
_FULL = 0.8
#: No core is colder, no limit higher (degrees Celsius): what is beyond is a sensor that is not connected.
_COLDEST, _HOTTEST = -55.0, 150.0
#: At most so many hwmon files are looked at.
_MOST = 1024


class CoreFigures:
    """Looks at the cores, and at one process's threads, between one call of `read` and the next."""

    def __init__(self, root: Path = Path("/"), ticks: float | None = None) -> None:
        """`ticks`: clock ticks a second, the unit of the counters of /proc."""
        self._root = root
        self._ticks = ticks or float(os.sysconf("SC_CLK_TCK"))
        self._times: dict[int, list[int]] = {}
        self._threads: dict[int, int] = {}
        self._pid = -1
        self._throttles: dict[int, int] = {}
        self._heat: dict[int, tuple[Path, Path | None]] | None = None
        self._limits: dict[int, float | None] = {}

    def read(self, cpus: Iterable[int], pid: int) -> tuple[dict[int, Core], int]:
        """What is known of each core since the last call, and how many threads of the process want a core.

        Nothing the first time, and of a core none of whose figures can be had.
        """
        wanted = sorted(cpus)
        busy_ticks = self._used(pid)
        found: dict[int, Core] = {}
        longest = 0.0
        times = self._stat()
        for cpu in wanted:
            now, before = times.get(cpu), self._times.get(cpu)
            throttles = self._throttled(cpu)
            if now is None or before is None:
                continue
            grown = [max(new - old, 0) for new, old in zip(now, before, strict=True)]
            total = sum(grown)
            if total <= 0:
                continue
            longest = max(longest, float(total))
            steal = grown[7] / total
            celsius, limit = self._celsius(cpu)
            found[cpu] = Core(steal, throttles, celsius, limit)
        self._times = {cpu: times[cpu] for cpu in wanted if cpu in times}
        return found, _wanting(busy_ticks, longest)

    def _text(self, path: str) -> str:
        try:
            return (self._root / path).read_text(errors="replace")
        except OSError:
            return ""

    def _number(self, path: Path) -> int | None:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            return None

    def _stat(self) -> dict[int, list[int]]:
        text, found = self._text("proc/stat"), {}
        for line in text[: text.rfind("\n") + 1].splitlines():  # a number that is cut off is another number
            if not line.startswith("cpu"):
                break  # the lines of CPUs come first
            words = line.split()
            if words[0][3:].isdecimal() and len(words) >= 5 and all(map(str.isdecimal, words[1:9])):
                times = [int(word) for word in words[1:9]]
                found[int(words[0][3:])] = times + [0] * (8 - len(times))
        return found

    def _used(self, pid: int) -> list[int]:
        """Ticks that each of the threads has used which have used any."""
        if pid != self._pid:
            self._pid, self._threads = pid, {}
        each, threads = [], {}
        folder = self._root / f"proc/{pid}/task"
        try:
            names = os.listdir(folder) if pid > 0 else []
        except OSError:
            names = []
        for name in names:
            used = self._ticks_of(f"proc/{pid}/task/{name}/stat")
            if used is None:
                continue
            before = self._threads.get(int(name))
            threads[int(name)] = used
            if before is not None and used > before:
                each.append(used - before)
        self._threads = threads
        return each

    def _ticks_of(self, path: str) -> int | None:
        """What a thread has used in all."""
        # After the name, which may hold anything: state is the first field, utime the 12th.
        fields = self._text(path).rpartition(")")[2].split()
        try:
            return int(fields[11]) + int(fields[12])
        except (IndexError, ValueError):
            return None

    def _throttled(self, cpu: int) -> float:
        now = self._number(self._root / _CPU / f"cpu{cpu}/thermal_throttle/core_throttle_count")
        before = self._throttles.pop(cpu, None)
        if now is None or now < 0:
            return 0.0
        self._throttles[cpu] = now
        return 0.0 if before is None else float(max(now - before, 0))

    def _celsius(self, cpu: int) -> tuple[float | None, float | None]:
        if self._heat is None:
            self._heat = self._find_heat()
        paths = self._heat.get(cpu)
        if paths is None:
            return None, None
        found = self._number(paths[0])
        if found is None or not _COLDEST < found / 1000.0 < _HOTTEST:
            return None, None
        if cpu not in self._limits:
            limit = self._number(paths[1]) if paths[1] is not None else None
            self._limits[cpu] = limit / 1000.0 if limit is not None and 0 < limit / 1000.0 < _HOTTEST else None
        return found / 1000.0, self._limits[cpu]

    def _find_heat(self) -> dict[int, tuple[Path, Path | None]]:
        """Where each CPU's own temperature stands: coretemp names cores by their number within the package."""
        by_core: dict[tuple[int, int], tuple[Path, Path | None]] = {}
        for label in sorted(self._root.glob("sys/class/hwmon/hwmon*/temp*_label"))[:_MOST]:
            try:
                name, chip = label.read_text().split(), (label.parent / "name").read_text().strip()
            except (OSError, UnicodeDecodeError):
                continue
            if chip == "coretemp" and len(name) == 2 and name[0] == "Core" and name[1].isdecimal():
                prefix = str(label).removesuffix("_label")
                critical = Path(prefix + "_crit")
                by_core[self._package(label.parent), int(name[1])] = (
                    Path(prefix + "_input"),
                    critical if critical.exists() else None,
                )
        found = {}
        for folder in sorted(self._root.glob(f"{_CPU}/cpu[0-9]*/topology")):
            core, package = self._number(folder / "core_id"), self._number(folder / "physical_package_id")
            cpu = folder.parent.name[3:]
            if core is not None and cpu.isdecimal() and (package or 0, core) in by_core:
                found[int(cpu)] = by_core[package or 0, core]
        return found

    def _package(self, chip: Path) -> int:
        """coretemp has a chip a package, which says so in the name of its device or in a label."""
        for label in chip.glob("temp*_label"):
            try:
                words = label.read_text().split()
            except (OSError, UnicodeDecodeError):
                continue
            if words[:2] == ["Package", "id"] and len(words) == 3 and words[2].isdecimal():
                return int(words[2])
        return 0


def _wanting(used: list[int], whole: float) -> int:
    """How many threads want a core, by the ticks that each has used; `whole`: the ticks of one core."""
    least = _BUSY * whole
    if sum(used) >= _FULL * whole:  # they may be many on few cores, and each have little
        least = min(least, max(used, default=0) / 2)
    return sum(one >= least for one in used) if whole else 0
