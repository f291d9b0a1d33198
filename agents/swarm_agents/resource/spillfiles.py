"""Payloads on a disk, for as long as their process lives: written once, checked when they are read back.

A file holds a mark that its owner knows, the lengths of the parts, a checksum over both, the parts, and a checksum over
them (CRC-32: against torn writes and rotten disks, not against an enemy: the directory is the agent's own). What does
not agree in all of it is refused by name, and nothing is guessed. Nothing is synced: no later process can want it.

Each process has a directory of its own under the one that is given, locked (flock) while it lives; whoever comes next
removes those that nobody holds. Bounded in bytes, and a tenth of the disk is left free. Not on a tmpfs, where putting
something aside would take the very memory that it is to free.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import shutil
import struct
import tempfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

__all__ = ["SpillError", "SpillFiles", "Spilled", "in_memory"]

_MAGIC = b"swspill1"
#: magic, mark, number of parts, CRC-32 of these and the lengths
_HEAD = struct.Struct("<8sQQL")
_TAIL = struct.Struct("<L")
_PREFIX = "spill-"
_LOCK = "lock"
_MOST_PARTS = 1 << 16
#: File systems that live in memory.
_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})


class SpillError(Exception):
    """What was put aside is not there any more, or is not what was written."""


class Spilled(Struct, frozen=True):
    """Where a payload lies; `size` is that of the file."""

    path: Path
    mark: int
    size: int


def in_memory(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether a directory lies on a file system in memory; where the kernel does not say, it is taken not to."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
        real = os.path.realpath(directory)
    except OSError:
        return False
    for line in lines:
        before, _, after = line.partition(" - ")
        words, rest = before.split(), after.split()
        if len(words) < 5 or not rest:
            continue
        where = words[4].replace("\\040", " ")
        if (real == where or real.startswith(where.rstrip("/") + "/")) and len(where) >= len(best):
            best, kind = where, rest[0]
    return kind in _MEMORY


class SpillFiles:
    """The files of one process. Any thread may use it."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        """Removes what processes that are gone have left there.

        Raises:
            OSError: the directory can't be made or written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(directory)
        self.directory, self._held = _make(directory)
        self._most = most_bytes
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        #: Bytes of the files that there are, those being written included.
        self.bytes = 0

    def write(self, parts: Sequence[Any]) -> Spilled:
        """Writes the parts, each a bytes-like object.

        Raises:
            OSError: there is no room for them, or the disk fails; nothing is left behind.
        """
        views = [memoryview(part) for part in parts]
        views = [view.cast("B") if view.nbytes else memoryview(b"") for view in views]  # no cast of shapes with a 0
        lengths = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
        size = _HEAD.size + len(lengths) + sum(view.nbytes for view in views) + _TAIL.size
        self._reserve(size)
        mark = secrets.randbits(64)
        path = self.directory / f"{next(self._numbers):x}"
        try:
            with path.open("xb", buffering=0) as out:
                known = zlib.crc32(lengths, zlib.crc32(struct.pack("<QQ", mark, len(views))))
                crc = 0
                _write(out, _HEAD.pack(_MAGIC, mark, len(views), known) + lengths)
                for view in views:
                    _write(out, view)
                    crc = zlib.crc32(view, crc)
                _write(out, _TAIL.pack(crc))
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._give_back(size)
            raise
        return Spilled(path, mark, size)

    def read(self, spilled: Spilled) -> list[bytes]:
        """The parts as they were written; the file stays.

        Raises:
            SpillError: it is gone, torn, another one, or can't be read.
        """
        try:
            with spilled.path.open("rb") as file:
                data = file.read(spilled.size + 1)
        except OSError as error:
            raise SpillError(f"{spilled.path} can't be read: {error}") from error
        if len(data) != spilled.size:
            raise SpillError(f"{spilled.path} has {len(data)} bytes of the {spilled.size} that were written")
        magic, mark, count, known = _HEAD.unpack_from(data)
        if magic != _MAGIC or mark != spilled.mark or count > _MOST_PARTS:
            raise SpillError(f"{spilled.path} is not the file that was written")
        at = _HEAD.size + 8 * count
        lengths = data[_HEAD.size : at]
        if len(data) < at + _TAIL.size or zlib.crc32(lengths, zlib.crc32(data[8:24])) != known:
            raise SpillError(f"{spilled.path} is damaged in its head")
        view, parts = memoryview(data), []
        if zlib.crc32(view[at : -_TAIL.size]) != _TAIL.unpack_from(data, len(data) - _TAIL.size)[0]:
            raise SpillError(f"{spilled.path} is damaged")
        for length in struct.unpack(f"<{count}Q", lengths):
            parts.append(bytes(view[at : at + length]))
            at += length
        return parts

    def drop(self, spilled: Spilled) -> None:
        """Removes a file; call it once for each that was written."""
        with contextlib.suppress(OSError):
            spilled.path.unlink(missing_ok=True)
        self._give_back(spilled.size)

    def close(self) -> None:
        """Removes them all."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _reserve(self, size: int) -> None:
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize
        with self._lock:
            if self.bytes + size > self._most:
                raise OSError(f"{self.bytes} bytes are put aside, {size} more would be over the limit of {self._most}")
            if free - size < disk.f_blocks * disk.f_frsize // 10:
                raise OSError(
                    f"the disk of {self.directory} has {free} bytes left, and a tenth of it is not to be used"
                )
            self.bytes += size

    def _give_back(self, size: int) -> None:
        with self._lock:
            self.bytes -= size


def _write(out: Any, data: Any) -> None:
    left = memoryview(data)
    while left.nbytes:
        left = left[out.write(left) :]


def _make(directory: Path) -> tuple[Path, int]:
    """A directory of this process's own, and the descriptor that holds its lock."""
    while True:
        own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))
        held = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process that clears up was quicker, and removes it
            os.close(held)
            continue
        return own, held


def _clear(directory: Path) -> None:
    for left in directory.glob(f"{_PREFIX}*"):
        try:
            held = os.open(left / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it is being made, or removed
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            pass  # its process lives
        finally:
            os.close(held)
