"""Boards to test with, and children that work on them and may be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swarm_agents.shm.board import Board, Geometry, Member, Port, Worker

__all__ = ["UID", "Child", "eventually", "forked", "make_board", "make_port", "make_worker", "small"]

UID = "0c9e2c5e-1111-4222-8333-0123456789ab"


def small(task_slots: int = 256, arena_bytes: int = 1 << 20, max_members: int = 16) -> Geometry:
    """A geometry for tests: 64 slots a lane, 1 MiB."""
    return Geometry(task_slots, arena_bytes, max_members)


def make_board(directory: Path, geometry: Geometry | None = None) -> Board:
    """A board of its own."""
    return Board.open(directory / "board-of-test", geometry or small(), swarm_uid=UID)


def make_port(board: Board, name: str = "client-0") -> tuple[Member, Port]:
    """A client that has joined, and its port."""
    member = board.join(name, "client")
    return member, board.port(member)


def make_worker(board: Board, name: str = "swarm-compute-0-a") -> tuple[Member, Worker]:
    """A compute agent that has joined."""
    member = board.join(name, "compute")
    return member, board.worker(member)


def eventually(condition: Callable[[], Any], within: float = 20.0, what: str = "") -> Any:
    """Waits until a condition holds; its value. Fails after `within` seconds."""
    until = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"did not come about within {within} s: {what or condition}"
        time.sleep(0.001)


class Child:
    """A forked process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def wait(self) -> int:
        """Its exit status: negative for a signal."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self._status)

    def stopped(self) -> bool:
        """Whether it has been stopped by a signal."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"


@contextlib.contextmanager
def forked(function: Callable[[], object]) -> Iterator[Child]:
    """Runs a function in a child that shares all that is mapped; ends it when the block ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of a fork beside threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    child = Child(pid)
    try:
        yield child
    finally:
        if not child.ended():
            with contextlib.suppress(ProcessLookupError):
                child.signal(signal.SIGKILL)
            child.wait()
