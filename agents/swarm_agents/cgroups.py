"""A process's cgroups, of version 1, version 2 or both: where they stand, what they limit, and what they have counted.

The one reader of them, for compute agents (what memory is left), their supervisors (cores, memory) and the resource
agent (sensors). In a hybrid tree a controller is where /proc/PID/cgroup says that it is, and version 2 has the rest.
In a container the path that is said may lie outside of what is mounted: then the mount's root is the container's own.
A limit may stand at any level of the hierarchy, so those above the process's own are looked at as well.

What can't be read or makes no sense limits nothing and has counted nothing: that is None, never 0. All paths lie below
`root`, so that a node's trees can be mounted elsewhere and recorded ones be replayed.

Sources: `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2` in the kernel's documentation, cgroups(7).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarm_agents.cpulist import parse_cpus

__all__ = [
    "UNLIMITED",
    "Memory",
    "Place",
    "cpu_limit",
    "cpuset",
    "memory",
    "memory_levels",
    "memory_limit",
    "parse_where",
    "place",
    "quota",
    "reclaimable",
    "tightest_memory",
]

#: Version 1 says "no limit" by a number about as large as there is (bytes).
UNLIMITED = 1 << 60
_MOUNT = "sys/fs/cgroup"
#: By controller: files one of which its groups have, of version 2 and of version 1.
_PROBES = {
    "memory": (("memory.current", "memory.stat"), ("memory.usage_in_bytes", "memory.stat")),
    "cpu": (("cpu.max", "cpu.stat"), ("cpu.cfs_quota_us", "cpu.stat")),
    "cpuset": (("cpuset.cpus.effective",), ("cpuset.effective_cpus", "cpuset.cpus")),
}
#: No cgroup is as deep.
_LEVELS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where one controller's files of a process stand: `folder`, below `root`, under the hierarchy's `top`."""

    root: Path
    folder: str
    top: str
    #: Whether the files are those of version 1.
    old: bool

    def read(self, name: str) -> str:
        """What a file says, stripped.

        Raises:
            OSError: it is not there.
        """
        return (self.root / self.folder / name).read_text(errors="replace").strip()

    def levels(self) -> Iterator[Place]:
        """This group and those above it, to the top of what is mounted."""
        folder = self.folder
        for _ in range(_LEVELS):
            yield Place(self.root, folder, self.top, self.old)
            if folder == self.top or "/" not in folder:
                return
            folder = folder.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Memory:
    """One level's memory (bytes); `limit` is infinite where there is none."""

    used: float
    #: Of files that were not read for long: dropped by the kernel before anything is killed.
    reclaimable: float
    limit: float

    @property
    def working(self) -> float:
        """What is used and can't be given back: the kubelet's working set."""
        return max(self.used - self.reclaimable, 0.0)

    @property
    def left(self) -> float:
        return max(self.limit - self.working, 0.0)


def place(controller: str, root: Path = Path("/"), process: str = "self", said: bytes | None = None) -> Place | None:
    """Where `memory`, `cpu` or `cpuset` of a process is; None where it can't be seen. `said` is what /proc says, if it
    was read already."""
    try:
        where = parse_where((root / f"proc/{process}/cgroup").read_bytes() if said is None else said)
    except (OSError, ValueError):
        where = {}
    probe, old_probe = _PROBES[controller]
    named = next((names for names in where if controller in names.split(",")), None)
    if named is not None:
        for top in dict.fromkeys((f"{_MOUNT}/{controller}", f"{_MOUNT}/{named}")):
            if found := _below(root, top, where[named], old_probe, old=True):
                return found
        return None
    for top in (f"{_MOUNT}/unified", _MOUNT):
        if found := _below(root, top, where.get("", "/"), probe, old=False):
            return found
    return None if where else _below(root, f"{_MOUNT}/{controller}", "/", old_probe, old=True)


def parse_where(data: bytes) -> dict[str, str]:
    """/proc/PID/cgroup: the path by controllers (`cpu,cpuacct`) of version 1, and under the empty name of version 2.

    Raises:
        ValueError: it shows none.
    """
    found: dict[str, str] = {}
    for line in data.decode(errors="replace").splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and number.isdigit() and path.startswith("/") and "/../" not in f"{path}/":
            found[controllers] = path
    if not found:
        raise ValueError("no cgroup is shown")
    return found


def memory(at: Place) -> Memory | None:
    """One group's own; None where it does not say what it uses."""
    try:
        used = _whole(at.read("memory.usage_in_bytes" if at.old else "memory.current"))
        limit = _limit(at)
    except (OSError, ValueError):
        return None
    return Memory(used, reclaimable(at), limit)


def memory_limit(at: Place) -> float | None:
    """One group's own limit (bytes); None without one, and where it can't be read."""
    try:
        limit = _limit(at)
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < UNLIMITED else None


def reclaimable(at: Place) -> float:
    """Bytes that a group is charged for files that were not read for long; 0 where that is not known."""
    try:
        lines = at.read("memory.stat").splitlines()
    except OSError:
        return 0.0
    counted = dict(line.partition(" ")[::2] for line in lines)
    for key in ("total_inactive_file", "inactive_file") if at.old else ("inactive_file",):
        if key in counted:
            try:
                return _whole(counted[key])
            except ValueError:
                continue
    return 0.0


def memory_levels(root: Path = Path("/"), process: str = "self") -> Iterator[Memory]:
    """Of the process's own group and those above it; levels that say nothing are left out."""
    own = place("memory", root, process)
    for at in own.levels() if own else ():
        if (found := memory(at)) is not None:
            yield found


def tightest_memory(root: Path = Path("/"), process: str = "self") -> Memory | None:
    """The level that leaves the process least; None where there is no limit."""
    limited = (found for found in memory_levels(root, process) if found.limit < UNLIMITED)
    return min(limited, key=lambda found: found.left, default=None)


def cpu_limit(root: Path = Path("/"), process: str = "self") -> float | None:
    """Cores that the process may use at a time, by the least quota above it; None without one."""
    own = place("cpu", root, process)
    found = (cores for at in (own.levels() if own else ()) if (cores := quota(at)) is not None)
    return min(found, default=None)


def quota(at: Place) -> float | None:
    """Cores that one group's quota comes to; None without one (`max`, -1), and where it makes no sense."""
    try:
        words = [at.read("cpu.cfs_quota_us"), at.read("cpu.cfs_period_us")] if at.old else at.read("cpu.max").split()
        held, every = map(_whole, words)
    except (OSError, ValueError):
        return None
    return held / every if held > 0 and every > 0 else None


def cpuset(root: Path = Path("/"), process: str = "self") -> frozenset[int]:
    """The CPUs of the process's cgroup; none where it has no such controller."""
    own = place("cpuset", root, process)
    for at in own.levels() if own else ():
        for name in ("cpuset.effective_cpus", "cpuset.cpus") if at.old else ("cpuset.cpus.effective",):
            try:
                if found := parse_cpus(at.read(name)):
                    return found
            except (OSError, ValueError):
                continue
    return frozenset()


def _below(root: Path, top: str, path: str, probes: tuple[str, ...], old: bool) -> Place | None:
    """The group itself, or the lowest above it that has the controller."""
    folder = f"{top}{path.rstrip('/')}"
    for at in Place(root, folder, top, old).levels():
        if any((root / at.folder / probe).exists() for probe in probes):
            return at
    return None


def _limit(at: Place) -> float:
    text = at.read("memory.limit_in_bytes" if at.old else "memory.max")
    if text == "max":
        return math.inf
    limit = _whole(text)
    return limit if limit < UNLIMITED else math.inf


def _whole(text: str) -> float:
    """A number as the kernel writes them.

    Raises:
        ValueError: it is none.
    """
    if not text.isdecimal() or len(text) > 20:
        raise ValueError(f"{text[:40]!r} is no number of bytes")
    return float(text)
