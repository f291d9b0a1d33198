"""Which process is meant: a number, and when it began.

A process id alone means nothing once its process has ended: the kernel gives the number to somebody else. Whatever
this cluster writes down about processes, and everything it ends later, carries the start time beside the number, and
the boot it belongs to; a record that does not fit a living process names nobody.

Rejected: keeping a pidfd, which says the same without a race but does not outlive the program that holds it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["Process", "children", "end", "marked"]

_PROC = Path("/proc")


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, ...); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    return text[text.rindex(b")") + 2 :].decode("ascii", "replace").split()


@dataclass(frozen=True, slots=True)
class Process:
    """One process, also after it has ended. `start` is in clock ticks since boot."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now."""
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[19]), _boot())

    @classmethod
    def mine(cls) -> Process:
        """This one."""
        found = cls.of(os.getpid())
        assert found is not None
        return found

    @classmethod
    def from_record(cls, record: Any) -> Process | None:
        """What `record` wrote; None for anything else."""
        try:
            return cls(int(record["pid"]), int(record["start"]), str(record["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    def alive(self) -> bool:
        """Whether it still runs; one that has ended and was not waited for does not."""
        fields = _stat(self.pid) if self.boot == _boot() else None
        return fields is not None and int(fields[19]) == self.start and fields[0] not in ("Z", "X")

    def send(self, number: int) -> bool:
        """Send a signal; False when it is gone. A pidfd closes the gap between looking and sending."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except OSError:
            return False
        finally:
            os.close(handle)


def end(processes: Iterable[Process], grace: float, *, interval: float = 0.02) -> list[Process]:
    """Ask processes to end, make them after `grace` seconds, and return those that are there even so."""
    waiting = [p for p in processes if p.send(signal.SIGTERM if grace > 0 else signal.SIGKILL)]
    deadline = time.monotonic() + grace
    while (waiting := [p for p in waiting if p.alive()]) and time.monotonic() < deadline:
        time.sleep(interval)
    for process in waiting:
        process.send(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while (waiting := [p for p in waiting if p.alive()]) and time.monotonic() < deadline:
        time.sleep(interval)
    return waiting


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]


def marked(name: str, value: str) -> list[Process]:
    """The living processes that were started with this environment variable, other than this one."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _pids():
        if pid == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
        except OSError:  # gone meanwhile, or another user's
            continue
        if wanted in environment.split(b"\0") and (process := Process.of(pid)) is not None and process.alive():
            found.append(process)
    return found


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    return [other for other in _pids() if (fields := _stat(other)) is not None and int(fields[1]) == pid]
