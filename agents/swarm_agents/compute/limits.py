"""Time and memory of one task, held by the operating system: a kernel need not look, and the GIL need not be free.

A kernel says by `limit=` how long one attempt may take, and by `most_memory=` by how many bytes its process may grow:

- Time: one that looks (`ctx.check()`) is ended there by `DeadlineExceeded`. One that never does, or computes in
  compiled code that holds the GIL, is cut off by a timer of the process after a grace: SIGALRM, whose default is the
  process's end. The supervisor forks the next agent at once; the task is begun again as often as it may be, then
  answered with `TaskLost` and set aside, and the note says `killed by SIGALRM`. An agent has one task in hand, so that
  nothing else is harmed.
- Memory: the limit on the process's private writable memory (RLIMIT_DATA) is set that much above what is in use when
  the task begins. An allocation beyond fails, which NumPy and Python raise as `MemoryError`: the task's answer.

What is allocated in the node's shared memory has limits of its own. A kernel without these options costs nothing.
Rejected: a thread that watches (a kernel that holds the GIL starves it), `resource.RLIMIT_AS` (address space that
threads' stacks and allocators reserve and never touch would count), a cgroup for each task (needs rights).
"""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Bounds", "bounded", "grace"]

#: A kernel that looks has a tenth more than its limit to do so, and this at least (seconds).
_LEAST_GRACE = 0.25
#: Fields of /proc/self/statm: pages of private writable memory.
_DATA = 5
_STATM = Path("/proc/self/statm")


class Bounds:
    """What a kernel says: seconds of one attempt, bytes of growth; None where it says nothing.

    Raises:
        ValueError: one is not above 0.
    """

    __slots__ = ("memory", "seconds")

    def __init__(self, seconds: float | None = None, memory: int | None = None) -> None:
        if seconds is not None and seconds <= 0:
            raise ValueError(f"limit={seconds}: expected seconds above 0")
        if memory is not None and memory <= 0:
            raise ValueError(f"most_memory={memory}: expected bytes above 0")
        self.seconds, self.memory = seconds, memory


def grace(seconds: float) -> float:
    """How much longer than its limit a kernel has that does not look (seconds)."""
    return max(0.1 * seconds, _LEAST_GRACE)


@contextlib.contextmanager
def bounded(bounds: Bounds, time_left: float | None = None) -> Iterator[None]:
    """Holds what runs within to these bounds, and to `time_left` seconds until a deadline. To be used by the main
    thread of an agent that has one task in hand; not nested.

    Raises:
        MemoryError: by whatever allocates beyond, within.
    """
    seconds = min((s for s in (bounds.seconds, time_left) if s is not None), default=None)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if bounds.memory is not None:
        used = int(_STATM.read_bytes().split()[_DATA]) * resource.getpagesize()
        room = used + bounds.memory
        least = [room, *(each for each in before if each != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_DATA, (min(least), before[1]))
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.0) + grace(max(seconds, 0.0)))
    try:
        yield
    finally:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        if bounds.memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, before)
