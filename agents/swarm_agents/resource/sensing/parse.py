"""The kernel's formats, as functions of bytes: no file, clock or state.

Sources: proc(5), and in the kernel's documentation `filesystems/proc`, `accounting/psi`, `admin-guide/iostats`,
`admin-guide/cgroup-v1`, `admin-guide/cgroup-v2`. A line that is cut off or makes no sense is left out, and what nothing
sensible is found in is refused with `ValueError`: the sensor then says so.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Stat", "disks", "keyed", "kilobytes", "load", "network", "pressure", "stat"]

#: Fields of a cpu line of /proc/stat that are looked at: user to steal.
_TIMES = 8


class Stat(Struct, frozen=True):
    """/proc/stat: ticks by CPU (-1: all), each user, nice, system, idle, iowait, irq, softirq, steal."""

    cpus: dict[int, list[int]]
    switches: int | None
    running: int | None
    blocked: int | None


def stat(data: bytes) -> Stat:
    """Parses /proc/stat; kernels before 2.6.33 show fewer times, and what is missing is 0."""
    cpus: dict[int, list[int]] = {}
    rest: dict[bytes, int] = {}
    # The last line counts only if it is whole: a number that is cut off is another number.
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        if line[:3] == b"cpu":
            words = line.split(None, _TIMES + 1)
            name = words[0][3:]
            try:
                times = [int(word) for word in words[1 : _TIMES + 1]]
                number = int(name) if name else -1
            except ValueError:
                continue
            if len(times) >= 4 and min(times) >= 0:
                cpus[number] = times + [0] * (_TIMES - len(times))
        elif line[:4] == b"ctxt" or line[:6] == b"procs_":
            key, _, value = line.partition(b" ")
            if value.strip().isdigit():
                rest[key] = int(value)
    if not cpus:
        raise ValueError("/proc/stat shows no CPU")
    return Stat(cpus, rest.get(b"ctxt"), rest.get(b"procs_running"), rest.get(b"procs_blocked"))


def kilobytes(data: bytes) -> dict[str, int]:
    """Lines of `Name: 123 kB`, as in /proc/meminfo and a NUMA node's; in bytes."""
    found: dict[str, int] = {}
    for line in data.split(b"\n"):
        name, colon, value = line.partition(b":")
        words = value.split()
        if colon and len(words) == 2 and words[1] == b"kB" and words[0].isdigit():
            found[name.split()[-1].decode(errors="replace")] = int(words[0]) * 1024
    if not found:
        raise ValueError("no amount of memory is shown")
    return found


def keyed(data: bytes) -> dict[str, int]:
    """Lines of `name 123`, as in /proc/vmstat and most files of a cgroup; others are left out."""
    found: dict[str, int] = {}
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        name, _, value = line.partition(b" ")
        if value.isdigit():
            found[name.decode(errors="replace")] = int(value)
    return found


def load(data: bytes) -> tuple[float, float, float]:
    """The three load averages of /proc/loadavg."""
    words = data.split()
    if len(words) < 5:
        raise ValueError("/proc/loadavg is cut off")
    one, five, fifteen = (float(word) for word in words[:3])
    if not (0 <= one < 1e7 and 0 <= five < 1e7 and 0 <= fifteen < 1e7):
        raise ValueError("/proc/loadavg makes no sense")
    return one, five, fifteen


def pressure(data: bytes) -> dict[str, tuple[float, int]]:
    """A file of /proc/pressure: `some` and `full`, each the share of the last 10 s and all microseconds ever."""
    found: dict[str, tuple[float, int]] = {}
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        kind, *pairs = line.split()[:8] or [b""]
        if kind in (b"some", b"full"):
            values = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
            try:
                found[kind.decode()] = float(values[b"avg10"]) / 100.0, int(values[b"total"])
            except (KeyError, ValueError):
                continue
    if not found:
        raise ValueError("no pressure is shown")
    return found


def disks(data: bytes) -> dict[str, list[int]]:
    """/proc/diskstats by device: reads, merged, sectors, ms; the same of writes; in flight, ms busy, ms waited."""
    found: dict[str, list[int]] = {}
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        words = line.split()
        if len(words) >= 14:
            try:
                found[words[2].decode(errors="replace")] = [int(word) for word in words[3:14]]
            except ValueError:
                continue
    return found


def network(data: bytes) -> dict[str, list[int]]:
    """/proc/net/dev by interface: received bytes, packets, errors, drops; sent bytes, packets, errors, drops."""
    found: dict[str, list[int]] = {}
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        name, colon, rest = line.rpartition(b":")
        words = rest.split()
        if colon and len(words) >= 16:
            try:
                numbers = [int(word) for word in words[:16]]
            except ValueError:
                continue
            found[name.strip().decode(errors="replace")] = numbers[:4] + numbers[8:12]
    return found
