"""Memory near the cores that use it: the arena in segments, one a NUMA node, and each member's own to begin with.

The board's creator binds each segment of the arena's pages to its node (mbind, MPOL_PREFERRED) before the file's blocks
are allocated: tmpfs keeps the policy with the file, so it holds whoever writes first, and where a node is full the
kernel takes another. A member whose cores lie on one node looks for room in that node's segment first; the place where
an allocation begins to look is a hint and nothing else, so a segment that is full costs a search and is never wrong.
A worker there takes tasks whose payload lies in its segment before others of the same lane, and every fourth by turn,
so that no submitter waits for ever. Both are words of a process's own: boards are laid out as they were.

All of it is preference: that there is a second node, that the kernel allows mbind (some container runtimes do not), or
that a member's cores lie together are not needed for anything. With one node nothing is bound, and no allocation does
more than before. The nodes are read below a root that can be set, as all sensors are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from swarm_agents.cpulist import parse_cpus
from swarm_agents.shm.layout import H_PAGE_BYTES, H_PAGES, H_PAGES_AT, H_SIZE, X_HOME, X_HOME_END, X_PAGE_ROTOR

__all__ = ["ROOT", "Segment", "begin_at_home", "bind", "home", "nodes", "segments", "settle"]

#: The environment variable that names where /sys is found, as for the sensors.
ROOT: Final = "SWARM_SENSORS_ROOT"
_NODES: Final = "sys/devices/system/node"
#: The system call's number, by architecture; MPOL_PREFERRED of <linux/mempolicy.h>.
_MBIND: Final = {"x86_64": 237, "aarch64": 235}
_PREFERRED: Final = 1
#: Nodes with a higher number are not looked at.
_MOST: Final = 1024


class Segment(Struct, frozen=True):
    """Pages `begin` to `end` (excluded) of the arena, which lie on a node."""

    node: int
    begin: int
    end: int


def nodes(root: Path | None = None) -> dict[int, frozenset[int]]:
    """The node's NUMA nodes that have memory, with their CPUs; none where the kernel shows none."""
    root = root or Path(os.environ.get(ROOT) or "/")
    found: dict[int, frozenset[int]] = {}
    try:
        with_memory = parse_cpus((root / _NODES / "has_memory").read_text())
    except (OSError, ValueError):
        with_memory = None
    for folder in (root / _NODES).glob("node[0-9]*"):
        number = folder.name[4:]
        if not number.isdecimal() or int(number) >= _MOST:
            continue
        try:
            cpus = parse_cpus((folder / "cpulist").read_text())
        except (OSError, ValueError):
            continue
        if with_memory is None or int(number) in with_memory:
            found[int(number)] = cpus
    return dict(sorted(found.items()))


def home(cpus: Collection[int], among: Mapping[int, frozenset[int]]) -> int | None:
    """The node on which all these CPUs lie; None: they lie on several, or nobody knows."""
    there = [node for node, its in among.items() if not its.isdisjoint(cpus)]
    return there[0] if len(there) == 1 and among[there[0]].issuperset(cpus) and cpus else None


def segments(pages: int, among: Collection[int]) -> list[Segment]:
    """The arena's pages, in equal parts for each node; none with fewer than two nodes, or too few pages."""
    order = sorted(among)
    if len(order) < 2 or pages < len(order):
        return []
    bounds = [pages * part // len(order) for part in range(len(order) + 1)]
    return [Segment(node, bounds[part], bounds[part + 1]) for part, node in enumerate(order)]


def bind(descriptor: int, words: Mapping[int, int], among: Collection[int]) -> int:
    """Has each segment of a new board lie on its node; returns how many do.

    Before the file's blocks are allocated. What the kernel refuses stays where it would have been.
    """
    wanted, number = segments(words[H_PAGES], among), _MBIND.get(platform.machine())
    if not wanted or number is None:
        return 0
    os.ftruncate(descriptor, words[H_SIZE])
    bound = 0
    with mmap.mmap(descriptor, words[H_SIZE], mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        view = (ctypes.c_char * words[H_SIZE]).from_buffer(mapped)
        base = ctypes.addressof(view)
        try:
            for segment in wanted:
                begin, end = (
                    _aligned(words[H_PAGES_AT] + page * words[H_PAGE_BYTES]) for page in (segment.begin, segment.end)
                )
                end = min(end, words[H_SIZE] // mmap.PAGESIZE * mmap.PAGESIZE)
                bound += end > begin and _mbind(number, base + begin, end - begin, segment.node)
        finally:
            del view  # a mapping with a view of it can't be closed
    return bound


def _aligned(at: int) -> int:
    return -(-at // mmap.PAGESIZE) * mmap.PAGESIZE


def _mbind(number: int, address: int, length: int, node: int) -> bool:
    mask = (ctypes.c_ulong * (_MOST // (8 * ctypes.sizeof(ctypes.c_ulong)) + 1))()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    mask[node // bits] = 1 << node % bits
    syscall = ctypes.CDLL(None).syscall
    syscall.restype = ctypes.c_long
    arguments: list[Any] = [
        ctypes.c_long(number),
        ctypes.c_void_p(address),
        ctypes.c_ulong(length),
        ctypes.c_int(_PREFERRED),
        mask,
        ctypes.c_ulong(_MOST + 1),
        ctypes.c_uint(0),
    ]
    return bool(syscall(*arguments) == 0)


def begin_at_home(pages: int, root: Path | None = None, cpus: Collection[int] | None = None) -> Segment | None:
    """The segment that a member on these CPUs (None: this process's) looks in first; None: anywhere."""
    among = nodes(root)
    if len(among) < 2:
        return None
    node = home(os.sched_getaffinity(0) if cpus is None else cpus, among)
    return next((segment for segment in segments(pages, among) if segment.node == node), None)


def settle(scratch: Any, segment: Segment | None) -> None:
    """Has allocations and claims with this scratch prefer the segment; None: none of them."""
    if segment is not None:
        scratch[X_HOME], scratch[X_HOME_END] = segment.begin, segment.end
        scratch[X_PAGE_ROTOR] = segment.begin
