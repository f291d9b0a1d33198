"""Fills what can be full: a file system, to the last block, and a board's arena, to the last byte.

A file system is filled only where it is the run's own: `mounted` gives a cluster small ones (tmpfs) for its shared
memory and for its disk, before it starts. To fill the machine's own would be somebody else's trouble. Processes that
need room then are told by the kernel what they would be told on a node (ENOSPC).
"""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_agents.errors import SwarmError

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board

__all__ = ["arena_full", "disk_full", "mount", "mountable", "unmount"]

_MS_NOSUID, _MS_NODEV = 2, 4
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)
_FILLER = ".chaos-filler"
#: How often what has become free is taken again (seconds).
_AGAIN = 0.02
#: A client may have part of the arena, in 256ths; this one is to have all.
_ALL = 256
#: Shared arrays have whole pages.
_PAGE = 4096


def mount(where: Path, size: int) -> None:
    """Mounts an empty tmpfs of `size` bytes.

    Raises:
        OSError: it may not, or can't.
    """
    where.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0755".encode()
    if _libc.mount(b"agentswarm-chaos", os.fsencode(where), b"tmpfs", _MS_NOSUID | _MS_NODEV, options):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(where))


def unmount(where: Path) -> None:
    """Undoes `mount`, also when somebody still has a file open there."""
    _libc.umount2(os.fsencode(where), _MNT_DETACH)
    with suppress(OSError):
        where.rmdir()


def mountable(scratch: Path) -> str:
    """Why this process can't mount; empty when it can."""
    where = scratch / "mountable"
    try:
        mount(where, 1 << 16)
    except OSError as error:
        return f"this process may not mount a file system ({error.strerror}): be root"
    unmount(where)
    return ""


@contextmanager
def disk_full(where: Path) -> Iterator[DiskFiller]:
    """While the block lasts the file system of `where`, which has to be the run's own, has no room."""
    filler = DiskFiller(where / f"{_FILLER}-{secrets.token_hex(4)}")
    try:
        filler.fill()
        yield filler
    finally:
        filler.empty()


class DiskFiller:
    """A file that takes all the room that there is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bytes = 0

    def fill(self) -> int:
        """Takes what is free now, to the last block; returns how many bytes the file has."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            step = 1 << 26
            while step >= 512:
                try:
                    os.posix_fallocate(descriptor, self.bytes, step)
                    self.bytes += step
                except OSError:  # ENOSPC: less, then
                    step >>= 1
        finally:
            os.close(descriptor)
        return self.bytes

    def free(self) -> int:
        """Bytes that anybody could still have."""
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        """Gives it all back."""
        with suppress(FileNotFoundError):
            self._path.unlink()


class ArenaFiller:
    """A member of a board that holds all of its arena."""

    def __init__(self, directory: Path) -> None:
        """Raises Unreachable when there is no board."""
        from swarm_agents.shm.board import Arena, Board

        self._board: Board = Board.attach(directory)
        self._member = self._board.join(f"client-chaos-{secrets.token_hex(4)}", "client")
        self._arena = Arena(self._board, self._member, _ALL)
        self._held: list[Any] = []
        self.bytes = 0

    def fill(self) -> int:
        """Takes what is free now; returns how many bytes are held."""
        from swarm_agents.errors import PayloadTooLarge, SwarmFull

        step = self._board.geometry.arena_bytes // 2
        while step >= _PAGE:
            try:
                self._held.append(self._arena.empty(step, "u1"))
                self.bytes += step
            except (SwarmFull, PayloadTooLarge):
                step //= 2
        return self.bytes

    def hold(self, ended: threading.Event) -> None:
        """Shows life, and takes again what becomes free, until it is ended or fenced."""
        with suppress(SwarmError):
            while not ended.wait(_AGAIN):
                self._board.heartbeat(self._member)
                self.fill()

    def empty(self) -> None:
        """Gives it all back, and leaves."""
        self._held.clear()
        with suppress(SwarmError):
            self._board.leave(self._member)


@contextmanager
def arena_full(directory: Path) -> Iterator[ArenaFiller]:
    """While the block lasts the arena of the board in `directory` has no room."""
    filler = ArenaFiller(directory)
    try:
        filler.fill()
        yield filler
    finally:
        filler.empty()
