"""Kept values on a volume: written behind, so that they are there again when the whole cluster has been restarted.

Shared memory holds the truth and the volume a copy that is at most `volume_interval` older, made by a thread of the
agent: every system call in it lets go of the GIL, so a slow disk delays the next copy and nothing else. A copy is
written under another name, synced, renamed and its directory synced: it is there whole or not at all. Copies pass
through the process's queue for the disk (`ioqueue`), several at once where the disk is the faster for it.

Names are as on the node (`store`), a writer's term in them, so that on a volume which several nodes mount a late
writer can't replace its successor's copy either. Bounded by `volume_bytes`, and by age for what nobody came back for.
Rejected: the supervisor as the writer (it forks, so it may have no threads, and its loop must not wait for a disk).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Checkpoints, Priority
from swarm_agents.runtime.ioqueue import shared
from swarm_agents.runtime.store import Found, file_name, list_files

if TYPE_CHECKING:
    from swarm_agents.runtime.store import Keeper

__all__ = ["Volume"]

_PREFIX = "keep-"
#: Copies of tasks that nobody has continued for so long are removed (seconds).
RETENTION = 7 * 86400.0
_CLEAR_EVERY = 600.0
#: How long a copy waits for room in the queue for the disk (seconds).
_PATIENCE = 60.0


class Volume:
    """The copies of one agent. Made before the first checkpoint; its thread begins with the first copy."""

    def __init__(self, directory: Path, limits: Checkpoints, *, log: Any = None) -> None:
        """`directory` is made if it is missing.

        Raises:
            OSError: it can't be made.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.limits = limits
        self._log = log
        self._lock = threading.Condition()
        self._dirty: dict[str, Keeper] = {}
        #: What was copied last, by key: (term, sequence).
        self._copied: dict[str, tuple[int, int]] = {}
        self._doomed: list[tuple[str, int]] = []
        self._busy = False
        self._urgent = False
        self._complained = False
        self._thread: threading.Thread | None = None
        self._listed = list_files(directory, (_PREFIX,))
        #: Bytes of the copies that are being written, which the directory does not show yet.
        self._room = threading.Lock()
        self._underway = 0

    def find(self, key: str, *, fresh: bool) -> list[Found]:
        """Where copies of a key lie. Without `fresh`: as the directory was when it was looked at last."""
        if fresh:
            return list_files(self.directory, (_PREFIX,), key)
        name = file_name(_PREFIX, key, 0).rpartition(".")[0] + "."
        return [one for one in self._listed if one.path.name.startswith(name)]

    # -- what the writers say; none of it waits for the volume

    def offer(self, keeper: Keeper) -> None:
        """There is a newer value."""
        with self._lock:
            self._dirty[keeper.key] = keeper
            self._wake()

    def forget(self, keeper: Keeper) -> None:
        """The key's copies are to be removed."""
        with self._lock:
            self._dirty.pop(keeper.key, None)
            self._doomed.append((keeper.key, keeper.term))
            self._wake()

    def let_go(self, keeper: Keeper) -> None:
        """Its writer closes its file: what has not been copied yet is copied no more."""
        with self._lock:
            self._dirty.pop(keeper.key, None)

    def flush(self, timeout: float) -> bool:
        """Waits until everything that was offered lies on the volume."""
        with self._lock:
            self._urgent = True
            self._wake()
            return self._lock.wait_for(lambda: not (self._dirty or self._doomed or self._busy), timeout)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="volume", daemon=True)
            self._thread.start()
        self._lock.notify_all()

    # -- the thread

    def _run(self) -> None:
        cleared = 0.0
        while True:
            with self._lock:
                self._busy = self._urgent = False
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._dirty or self._doomed)
                dirty, doomed = list(self._dirty.values()), list(self._doomed)
                self._dirty.clear()
                self._doomed.clear()
                self._busy = True
            try:
                for key, term in doomed:
                    self._remove(key, term)
                self._copy_all(dirty)
                if time.monotonic() - cleared > _CLEAR_EVERY:
                    cleared = time.monotonic()
                    self._clear()
                self._listed = list_files(self.directory, (_PREFIX,))
                self._complained = False
            except OSError as error:
                if self._log is not None and not self._complained:
                    self._log.warning(
                        "checkpoints do not reach the volume; those in shared memory are as good as ever",
                        directory=str(self.directory),
                        reason=str(error),
                    )
                self._complained = True
            with self._lock:
                self._busy = False
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._urgent, self.limits.volume_interval)

    def _copy_all(self, keepers: list[Keeper]) -> None:
        """Copies what they keep; returns when no copy is under way any more.

        Raises:
            OSError: one of them could not be; the others are there.
        """
        futures, problem = [], None
        for keeper in keepers:
            file = keeper.file
            if file is not None:
                try:
                    copy = functools.partial(self._copy, keeper)
                    futures.append(shared().submit(copy, file.capacity, Priority.NORMAL, timeout=_PATIENCE))
                except OSError as error:  # the disk does not keep up
                    problem = error
        for future in futures:
            try:
                future.result()
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem

    def _copy(self, keeper: Keeper) -> None:
        file, term = keeper.file, keeper.term
        if file is None:
            return
        try:
            latest = file.latest()
        except ValueError:  # its writer has just closed it
            return
        if latest is None:
            self.offer(keeper)
            return
        sequence, pieces = latest
        if self._copied.get(keeper.key, (0, 0)) >= (term, sequence):
            return
        size = sum(map(len, pieces))
        with self._room:
            used = self._underway + self._used()
            if used + size > self.limits.volume_bytes:
                raise OSError(f"{used} bytes are kept there, {size} more would be over checkpoints.volumeBytes")
            self._underway += size
        try:
            self._write(keeper, term, pieces, size)
        except BaseException:
            with self._room:
                self._underway -= size
            raise
        self._sync()
        self._copied[keeper.key] = term, sequence
        for one in list_files(self.directory, (_PREFIX,), keeper.key):
            if one.term < term:
                one.path.unlink(missing_ok=True)

    def _used(self) -> int:
        used = 0
        for one in list_files(self.directory, (_PREFIX,)):
            with contextlib.suppress(FileNotFoundError):
                used += one.path.stat().st_size
        return used

    def _write(self, keeper: Keeper, term: int, pieces: list[bytes], size: int) -> None:
        name = file_name(_PREFIX, keeper.key, term)
        fresh = self.directory / f".{name}.{os.getpid()}"
        try:
            with fresh.open("wb", buffering=0) as out:
                os.fchmod(out.fileno(), 0o600)
                for piece in pieces:
                    left = memoryview(piece)
                    while left.nbytes:
                        left = left[out.write(left) :]
                os.fsync(out.fileno())
            with self._room:  # from here on the directory shows it
                os.rename(fresh, self.directory / name)
                self._underway -= size
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def _remove(self, key: str, term: int) -> None:
        self._copied.pop(key, None)
        for one in list_files(self.directory, (_PREFIX,), key):
            if one.term <= max(term, 0) or term == 0:
                one.path.unlink(missing_ok=True)

    def _sync(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _clear(self) -> None:
        """Removes what the killed have left half-written, and what nobody has come back for."""
        now = time.time()
        for path in self.directory.iterdir():
            age = 3600.0 if path.name.startswith(f".{_PREFIX}") else RETENTION
            if path.name.startswith((f"{_PREFIX}t", f".{_PREFIX}")):  # the state of agents stays
                with contextlib.suppress(OSError):
                    if now - path.stat().st_mtime > age:
                        path.unlink()
