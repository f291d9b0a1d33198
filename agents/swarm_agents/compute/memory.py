"""How much memory this process can still get, and the refusal of work that needs more, before any of it is allocated.

Linux promises memory that it does not have: an allocation beyond the container's limit succeeds, and the kernel kills
the agent when the pages are touched. So whoever is about to allocate much asks first. What is available is the least
of three: what the process's cgroups leave (each level of the hierarchy has a limit of its own; files in the page cache
that were not read for long can be given back and do not count as used), what the machine can give without swapping
(`MemAvailable`), and what the limit on the address space leaves (`RLIMIT_AS`).

Less than `SMALL` bytes are never asked about: reading these files costs some 50 µs.
"""

from __future__ import annotations

import math
import resource
from pathlib import Path

from swarm_agents import cgroups
from swarm_agents.errors import NotEnoughMemory

__all__ = ["SMALL", "available", "require"]

#: Bytes that are taken without asking.
SMALL = 32 << 20


def available(root: Path = Path("/")) -> float:
    """Bytes that this process can still allocate and touch; infinity where the machine does not say."""
    return min(_of_cgroups(root), _of_machine(root), _of_address_space(root))


def require(size: float, what: str) -> None:
    """Refuses what needs `size` bytes more than are available. `what` names it in the message.

    Raises:
        NotEnoughMemory: there is less.
    """
    if size <= SMALL:
        return
    left = available()
    if size > left:
        raise NotEnoughMemory(
            f"{what} needs {_readable(size)} of memory, {_readable(left)} are available to this agent: "
            "split the task, or give the agents more memory (spec.compute.memory)"
        )


def _of_cgroups(root: Path) -> float:
    """The least that any cgroup above this process leaves, its own included."""
    tightest = cgroups.tightest_memory(root)
    return math.inf if tightest is None else tightest.left


def _of_machine(root: Path) -> float:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return math.inf


def _of_address_space(root: Path) -> float:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        pages = int((root / "proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return math.inf
    return max(float(limit - pages * resource.getpagesize()), 0.0)


def _readable(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.4g} {unit}"
        size /= 1024
    raise AssertionError("unreachable")
