"""A real board in a temporary directory, with agents on it that are threads of the test's own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.wirekit import KERNELS, UID
from swarm_agents.errors import Fenced, TaskCancelled, UnknownKernel
from swarm_agents.shm.board import Board, Geometry, Member

__all__ = ["Node"]

GEOMETRY = Geometry(task_slots=256, arena_bytes=16 << 20, max_members=16)


class Node:
    """A node: its board, and workers as a test starts and kills them."""

    def __init__(self, directory: Path, geometry: Geometry = GEOMETRY) -> None:
        self.directory = directory
        self.board = Board.open(directory, geometry, swarm_uid=UID)
        self._beating: dict[Member, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._stops: list[threading.Event] = []
        self.begun: list[tuple[int, int]] = []

    @property
    def url(self) -> str:
        return f"shm://{self.directory}"

    def join(self, name: str, role: str) -> Member:
        """A member that shows life until it leaves."""
        member = self.board.join(name, role)
        stop = self._beating[member] = threading.Event()

        def beat() -> None:
            while not stop.wait(0.02):
                try:
                    self.board.heartbeat(member)
                except Fenced:
                    return

        self._start(beat)
        return member

    def worker(self, name: str = "risk-compute-0-1", kernels: dict[str, Callable[..., Any]] | None = None) -> Member:
        """A compute agent."""
        member = self.join(name, "compute")
        known = KERNELS | (kernels or {})
        stop = threading.Event()
        self._stops.append(stop)

        def work() -> None:
            worker = self.board.worker(member)
            while not stop.is_set():
                try:
                    claim = worker.claim(0.02)
                except Fenced:
                    return
                if claim is None:
                    continue
                self.begun.append(claim.task_id)
                try:
                    if claim.cancelled():
                        raise TaskCancelled("cancelled")
                    if claim.kernel not in known:
                        raise UnknownKernel(claim.kernel)
                    value = known[claim.kernel](*claim.args, **claim.kwargs)
                except Exception as error:
                    worker.fail(claim, error)
                else:
                    worker.commit(claim, value)

        self._start(work)
        return member

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def leave(self, member: Member) -> None:
        self._beating.pop(member).set()
        self.board.leave(member)

    def close(self) -> None:
        for stop in (*self._stops, *self._beating.values()):
            stop.set()
        for thread in self._threads:
            thread.join(10)
        for member in list(self._beating):
            self.leave(member)
        until = time.monotonic() + 5
        while self.directory.exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.directory.exists(), "somebody is still on the board"
