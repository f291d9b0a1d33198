"""A ring's or topic's file: made whole or not at all, locked while its seats change, its life locks.

The file (0600) is written under a temporary name with all its blocks allocated, so that a full file system is an error
here and never a SIGBUS later, and linked to its name, which fails if somebody else was first. Whoever takes or gives up
a seat (a sender's, the receiver's, a writer's) holds a `flock` on the file; seats are held by open file description
locks on bytes far beyond its end, which the kernel drops when a process dies, however it dies (see `files`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from swarm_agents.errors import RingMismatch, SharedMemoryFull, Unreachable
from swarm_agents.shm import files
from swarm_agents.shm.files import LifeLock, Mapping

__all__ = ["SharedFile"]


class SharedFile:
    """A mapped file of ours, and the seats in it. It stays mapped while anything refers to it."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self._descriptor = descriptor
        try:
            self.mapping = Mapping(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        weakref.finalize(self, os.close, descriptor)

    @property
    def base(self) -> int:
        """The address of its first byte."""
        return self.mapping.base

    @classmethod
    def create(cls, path: Path, words: dict[int, int], initialise: Callable[[Mapping], None]) -> SharedFile:
        """Makes the file with these header words (0 is the magic, 2 the size), and what `initialise` writes.

        Raises:
            FileExistsError: there is one already.
            SharedMemoryFull: the file system has not that much room.
        """
        size = words[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new{os.getpid()}")
        fresh.unlink(missing_ok=True)  # of one who had our number and was killed
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                files.allocate(descriptor, size, path.parent)
            except SharedMemoryFull:
                raise SharedMemoryFull(
                    f"{path} needs {size} bytes and its file system has not that much left: ask for fewer or smaller "
                    "slots, or give it more room (spec.transport.sharedMemory)"
                ) from None
            made = cls(path, os.dup(descriptor), size)
            for index, value in words.items():
                struct.pack_into("<q", made.mapping.view, index * 8, value)
            initialise(made.mapping)
            try:
                os.link(fresh, path)
            except FileExistsError:
                raise FileExistsError(f"{path} is there already: open it, or remove it first") from None
            return made
        finally:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)

    @classmethod
    def open(cls, path: Path, magic: int, version: int, what: str) -> SharedFile:
        """Opens a file that `create` made.

        Raises:
            Unreachable: there is none.
            RingMismatch: it is none of ours, of another version, somebody else's, or was truncated.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise Unreachable(f"no {what} at {path}: nobody has made it yet, or it was removed") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise RingMismatch(f"{path} is not a file of this user: run both sides as one user, or remove it")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise RingMismatch(
                    f"{path} has mode {stat.S_IMODE(status.st_mode):o}: others could write it; chmod 600"
                )
            head = os.pread(descriptor, 24, 0)
            if len(head) < 24:
                raise RingMismatch(f"{path} is truncated to {status.st_size} bytes: remove it and make it anew")
            found, speaks, size = struct.unpack("<3q", head)
            if found != magic:
                raise RingMismatch(f"{path} is no {what} (its magic is {found:#x}): remove it, or give another path")
            if speaks != version:
                raise RingMismatch(
                    f"{path} is a {what} of version {speaks}, this program speaks version {version}: use the same "
                    "release of agentswarm on both sides, or remove it"
                )
            if status.st_size != size:
                raise RingMismatch(
                    f"{path} has {status.st_size} bytes, its header says {size}: it was truncated; remove it"
                )
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, size)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the file's lock, under which seats change hands; against other threads of this process, too."""
        descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def sit(self, seat: int) -> LifeLock:
        """Takes a seat that is free."""
        return LifeLock(Path(f"/proc/self/fd/{self._descriptor}"), seat)

    def taken(self, seat: int, count: int = 1) -> bool:
        """Whether any of these seats is held by a process that lives (this one counts)."""
        return files.any_alive(self._descriptor, count, seat)

    def unlink(self) -> None:
        """Removes the name, if it still leads to this file. Who has it mapped keeps its memory."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)
            if status.st_ino == self.mapping.inode:
                os.unlink(self.path)
