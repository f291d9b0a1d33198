"""A cgroup's limits, how often it was held back, and whom the kernel killed in it: the resource agent's own here.

What is used and what has happened is read each time; where the cgroup stands and its limits are looked up anew each
`EVERY` seconds, for they change when somebody changes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from swarm_agents import cgroups
from swarm_agents.resource.sensing.columns import Columns, number
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import keyed
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable

__all__ = ["EVERY", "Group", "cgroup"]

EVERY = 1.0


class Group:
    """The cgroup of one process, as /proc below the root has it."""

    def __init__(self, files: Files, process: str = "self", clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._process, self._clock = files, process, clock
        self._said = b""
        self._due = -float("inf")
        self._limits: dict[str, float] = {}
        #: What is read each time: the file, the names of its figures, and by what they are divided.
        self._watched: list[tuple[Columns[None], tuple[str, ...], float]] = []

    def read(self) -> dict[str, float]:
        """Amounts and counts, by names without a prefix; what can't be read is left out.

        Raises:
            OSError: the process is gone, or its /proc/PID/cgroup can't be read.
            ValueError: that shows no cgroup.
        """
        if self._clock() >= self._due:
            self._look()
        found: dict[str, float] = {}
        for file, names, unit in self._watched:
            try:
                file.read()
            except (OSError, ValueError):
                continue
            for name, value in zip(names, file.values.tolist(), strict=True):
                if value == value:  # not NaN
                    found[name] = value / unit if name == "throttled_seconds" else value
        if not found:
            self._due = -float("inf")
            return {}
        return found | self._limits

    def close(self) -> None:
        """Closes the files: the process is gone."""
        for path in [f"proc/{self._process}/cgroup", *(file.path for file, _, _ in self._watched)]:
            self._files.drop(path)

    def _look(self) -> None:
        said = self._files.read(f"proc/{self._process}/cgroup")
        cgroups.parse_where(said)
        root = self._files.root
        places = {what: cgroups.place(what, root, self._process, said) for what in ("memory", "cpu")}
        if said != self._said or not self._watched:  # as after the process was moved
            self._watched = [
                *_of_memory(self._files, places["memory"]),
                *_of_cpu(self._files, places["cpu"]),
            ]
            self._said = said
        self._limits = {}
        if places["memory"] is not None and (memory := cgroups.memory_limit(places["memory"])) is not None:
            self._limits["memory_limit_bytes"] = memory
        if places["cpu"] is not None and (cores := cgroups.quota(places["cpu"])) is not None:
            self._limits["cpu_limit_cores"] = cores
        self._due = self._clock() + EVERY


def _counts(files: Files, path: str, names: tuple[str, ...]) -> Columns[None]:
    def learn(data: bytes) -> tuple[None, Iterable[int]]:
        found = keyed(data)
        return None, [found.get(name, 0) for name in names]

    return Columns(files, path, learn)


def _of_memory(files: Files, at: cgroups.Place | None) -> list[tuple[Columns[None], tuple[str, ...], float]]:
    if at is None:
        return []
    used, events = ("memory.usage_in_bytes", "memory.oom_control") if at.old else ("memory.current", "memory.events")
    return [
        (Columns(files, f"{at.folder}/{used}", number), ("memory_used_bytes",), 1.0),
        (_counts(files, f"{at.folder}/{events}", ("oom_kill",)), ("oom_kills",), 1.0),
    ]


def _of_cpu(files: Files, at: cgroups.Place | None) -> list[tuple[Columns[None], tuple[str, ...], float]]:
    if at is None:
        return []
    time_key, unit = ("throttled_time", 1e9) if at.old else ("throttled_usec", 1e6)
    counts = _counts(files, f"{at.folder}/cpu.stat", ("nr_throttled", time_key))
    return [(counts, ("throttles", "throttled_seconds"), unit)]


def cgroup(files: Files, process: str = "self", clock: Callable[[], float] = time.monotonic) -> Source:
    """Of the process of this id."""
    group = Group(files, process, clock)

    def read() -> Reading:
        values = {f"cgroup_{name}": value for name, value in group.read().items()}
        if not values:
            return unavailable("no controller of the agent's cgroup can be read")
        return Reading(Availability.AVAILABLE, values)

    return read
