"""The board's file: made whole or not at all, found by several at once, removed by the last.

One directory (mode 0700) holds one file `board` (0600). It is written under a temporary name, its blocks allocated
beforehand (a full tmpfs is an error here and never a SIGBUS later), and renamed. Whoever creates, joins, leaves or
removes holds a `flock` on the directory itself, and then looks whether the path still leads to it; so the lock needs
no file that would have to be removed.

A member's life is a lock, too: it holds byte 2**40 + index of the file by an *open file description* lock on a
descriptor of its own. The kernel drops it when the process dies, however it dies; any process can ask for it, across
PID namespaces, and a reused PID or a clock that jumps cannot deceive it. (A stopped process keeps it: that is what
heartbeats are for.)

A board that somebody cuts short while it is used can't be saved: who touches what is gone gets SIGBUS from the kernel.
Whoever opens it is refused for as long as anybody lives there, and makes a new one then; whoever sweeps it looks first
and is told by an error. So agents end, each with a reason or by the signal, and their supervisors begin anew.

Rejected: sealing the file against it (only anonymous files can be sealed), a handler for SIGBUS (it is the program's),
PIDs with start times (blind across namespaces), POSIX locks (dropped when any descriptor of the file is closed).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path

from swarm_agents.errors import BoardMismatch, SharedMemoryFull, Unreachable
from swarm_agents.shm import numa
from swarm_agents.shm.layout import (
    H_CREATED,
    H_MAGIC,
    H_SIZE,
    H_UID_AT,
    H_VERSION,
    MAGIC,
    PAGE,
    UID_MAX,
    VERSION,
    Geometry,
    plan_header,
)

__all__ = [
    "BOARD_FILE",
    "LifeLock",
    "Mapping",
    "allocate",
    "any_alive",
    "create",
    "exclusive",
    "is_alive",
    "map_board",
    "probe",
    "read_header",
    "remove",
]

BOARD_FILE = "board"
_LIFE_AT = 1 << 40
# From fcntl(2); Python 3.11 has no names for them.
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37
_FLOCK = "hhqqi4x"
_HELD: weakref.WeakSet[LifeLock] = weakref.WeakSet()


class Mapping:
    """A mapped board: its address, and a memoryview for bulk data. It stays mapped while anything refers to it."""

    __slots__ = ("_array", "_map", "base", "inode", "size", "view")

    def __init__(self, descriptor: int, size: int) -> None:
        import numpy as np

        self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._array = np.frombuffer(self._map, np.uint8)
        self.base = int(self._array.ctypes.data)
        self.view = memoryview(self._map)
        self.size = size
        self.inode = os.fstat(descriptor).st_ino

    @property
    def whole(self) -> bool:
        """Whether the file is still as long as what is mapped of it."""
        return self._map.size() >= self.size


@contextlib.contextmanager
def exclusive(directory: Path, *, make: bool) -> Iterator[int]:
    """Holds the directory's lock; makes the directory (0700) if asked to.

    Raises:
        Unreachable: it does not exist, and is not to be made.
        BoardMismatch: it is somebody else's, or others may write to it.
    """
    while True:
        if make:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o700)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if make:
                continue  # its last member removed it just now
            raise Unreachable(
                f"no board at {directory}: the swarm has no agent on this node, or the path is not this swarm's"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = os.fstat(descriptor)
            try:
                now = os.stat(directory)
            except FileNotFoundError:
                now = None
            if now is None or (now.st_ino, now.st_dev) != (held.st_ino, held.st_dev):
                continue
            _refuse_strangers(directory, held)
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _refuse_strangers(directory: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise BoardMismatch(
            f"{directory} belongs to user {status.st_uid}, this program runs as {os.geteuid()}: "
            "run both as one user, or remove the directory"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise BoardMismatch(f"{directory} has mode {stat.S_IMODE(status.st_mode):o}: others could read it; chmod 700")


def read_header(directory: Path) -> tuple[dict[int, int], str] | None:
    """The header's words and the swarm's UID of the board in a directory, or None when there is no board.

    Raises:
        BoardMismatch: truncated, another magic, another version.
    """
    path = directory / BOARD_FILE
    try:
        with path.open("rb") as file:
            head = file.read(PAGE)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    advice = "stop the swarm's agents on this node and remove the directory; they make a new board"
    if len(head) < PAGE:
        raise BoardMismatch(f"{path} is truncated to {size} bytes; {advice}")
    words = dict(enumerate(struct.unpack("<64q", head[:512])))
    if words[H_MAGIC] != MAGIC:
        raise BoardMismatch(f"{path} is no board (its magic is {words[H_MAGIC]:#x}); {advice}")
    if words[H_VERSION] != VERSION:
        raise BoardMismatch(
            f"{path} is a board of version {words[H_VERSION]}, this program speaks version {VERSION}: "
            f"use the same release of agentswarm for agents and clients, or {advice}"
        )
    if words[H_SIZE] != size:
        raise BoardMismatch(f"{path} has {size} bytes, its header says {words[H_SIZE]}: it was truncated; {advice}")
    length = struct.unpack_from("<q", head, H_UID_AT)[0]
    uid = head[H_UID_AT + 8 : H_UID_AT + 8 + min(max(length, 0), UID_MAX)].decode("utf-8", "replace")
    return words, uid


def create(directory: Path, geometry: Geometry, swarm_uid: str, initialise: object, *, now_ns: int) -> None:
    """Makes the board's file. The caller holds the directory's lock; `initialise(mapping)` fills the tables.

    Raises:
        SharedMemoryFull: the file system has not that much room.
    """
    words = plan_header(geometry)
    size = words[H_SIZE]
    for left in directory.glob(f"{BOARD_FILE}.new*"):  # of a creator that was killed
        left.unlink(missing_ok=True)
    path = directory / f"{BOARD_FILE}.new{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        numa.bind(descriptor, words, numa.nodes())
        allocate(descriptor, size, directory)
        mapping = Mapping(descriptor, size)
        uid = swarm_uid.encode()[:UID_MAX]
        words[H_CREATED] = now_ns
        for index, value in words.items():
            if index != H_MAGIC:
                struct.pack_into("<q", mapping.view, index * 8, value)
        struct.pack_into("<q", mapping.view, H_UID_AT, len(uid))
        mapping.view[H_UID_AT + 8 : H_UID_AT + 8 + len(uid)] = uid
        if callable(initialise):
            initialise(mapping)
        struct.pack_into("<q", mapping.view, H_MAGIC * 8, MAGIC)
        os.rename(path, directory / BOARD_FILE)
    except BaseException:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            directory.rmdir()  # only if it holds nothing else
        raise
    finally:
        os.close(descriptor)


def allocate(descriptor: int, size: int, directory: Path) -> None:
    """Gives the file its blocks, so that no write to it can fail later."""
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    try:
        # Asked first, because tmpfs takes all the memory there is before it finds that it is not enough. (It says 0
        # when it has no limit.)
        if room.f_blocks and size > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EDQUOT):
            raise
        raise SharedMemoryFull(
            f"the board needs {size >> 20} MiB and {directory.parent} has {free >> 20} MiB left: give the "
            "shared-memory file system more room (spec.transport.sharedMemory), or ask for a smaller arena"
        ) from error


def map_board(directory: Path, size: int) -> Mapping:
    """Maps the board's file whole."""
    descriptor = os.open(directory / BOARD_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size < size:
            raise BoardMismatch(f"{directory / BOARD_FILE} was truncated: remove the directory")
        return Mapping(descriptor, size)
    finally:
        os.close(descriptor)


def remove(directory: Path) -> None:
    """Removes the board and its directory, under the directory's lock. Who has it mapped keeps its memory."""
    for path in directory.glob(f"{BOARD_FILE}*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


class LifeLock:
    """This process's claim to be a member: held until `release`, or until the process dies.

    Of the board in a directory, or of a file that has life locks of its own.
    """

    def __init__(self, path: Path, index: int) -> None:
        self._descriptor = os.open(path / BOARD_FILE if path.is_dir() else path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._descriptor, _F_OFD_SETLK, _flock(fcntl.F_WRLCK, index))
        except OSError:
            self.release()
            raise
        _HELD.add(self)

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def release(self) -> None:
        """Gives it up; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _drop_inherited() -> None:
    """A forked child would share its parent's open files, and keep the parent's locks beyond its death."""
    for lock in list(_HELD):
        lock.release()


os.register_at_fork(after_in_child=_drop_inherited)


def is_alive(descriptor: int, index: int) -> bool:
    """Whether the process that joined with this index lives; `descriptor` is any other open description of the file."""
    answer = fcntl.fcntl(descriptor, _F_OFD_GETLK, _flock(fcntl.F_WRLCK, index))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def any_alive(descriptor: int, places: int, first: int = 0) -> bool:
    """Whether anybody at all has joined and lives, of those with these indices."""
    answer = fcntl.fcntl(descriptor, _F_OFD_GETLK, _flock(fcntl.F_WRLCK, first, places))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


@contextlib.contextmanager
def probe(directory: Path) -> Iterator[int]:
    """An open description of the board's file, of nobody: to ask for locks with."""
    descriptor = os.open(directory / BOARD_FILE, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _flock(kind: int, index: int, count: int = 1) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, _LIFE_AT + index, count, 0)
