"""What a task really did: each time that it is begun it writes a record, which no failover can hide or repeat.

`work` is the task of all rows here, ours and the peer's: it notes that it is begun, by which process and when, and
keeps a core busy for a while if it was not begun before. A record is one `write` to a file opened for appending, so
records of several processes never mix, and one that was written stays, whatever is killed the next moment. Times are
CLOCK_MONOTONIC, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mark", "Marks", "work"]

_RECORD = struct.Struct("<qqq")
#: 64 KiB take some 30 µs, in which the GIL is free.
_BLOCK = bytes(1 << 16)


class Mark(NamedTuple):
    """A task was begun."""

    task: int
    pid: int
    #: Seconds.
    at: float


def _write(path: str, task: int) -> Mark:
    at = time.monotonic_ns()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, _RECORD.pack(task, os.getpid(), at))
    finally:
        os.close(descriptor)
    return Mark(task, os.getpid(), at * 1e-9)


def work(path: str, task: int, seconds: float, again: float = 0.0) -> list[float]:
    """Notes that `task` is begun, then computes for `seconds`, or for `again` if it was begun before.

    Returns the mark.
    """
    before = any(mark.task == task for mark in Marks(Path(path)).all()) if again != seconds else False
    mark = _write(path, task)
    end = time.monotonic() + (again if before else seconds)
    while time.monotonic() < end:
        hashlib.sha256(_BLOCK).digest()
    return list(mark)


class Marks:
    """Reads a file of records, each once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def all(self) -> list[Mark]:
        """All records."""
        self._read = 0
        return self.fresh()

    def fresh(self) -> list[Mark]:
        """Those that have come since the last look."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = len(data) - len(data) % _RECORD.size
        self._read += whole
        return [Mark(task, pid, at * 1e-9) for task, pid, at in _RECORD.iter_unpack(data[:whole])]

    def wait(self, task: int, seconds: float, but: int = 0) -> Mark:
        """The next record of a task, from another process than `but`.

        Raises:
            TimeoutError: none came within `seconds`.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for mark in self.fresh():
                if mark.task == task and mark.pid != but:
                    return mark
            time.sleep(0.001)
        raise TimeoutError(f"task {task} was not begun within {seconds:g} s")
