"""One kept value in one file: written in place by a copy into the older of two buffers, read whole or not at all.

    head (a page): magic, format, whose it is | buffer 0 | buffer 1

A buffer is a header of 64 bytes and the value: its msgpack header and its arrays, as `codec` splits it. Writing marks
the older buffer as begun, copies, and puts the checksum down last. Who is killed in between leaves a buffer whose
checksum does not fit, and beside it the value before, whole. So a checkpoint costs a copy and a CRC: no system call,
no allocation. The same bytes lie in shared memory and on a volume; only there they are written anew and renamed.

A file belongs to one writer for its whole life, and its name says to which (see `store`): a writer that was declared
dead and wakes up writes where nobody looks any more.

Rejected: the board's arena (a checkpoint outlives its writer's epoch, and a block there lives by it), a new file a
checkpoint (the kernel clears a page for every 4 KiB written), compression and fsync (shared memory outlives processes
by itself), two files without a checksum (a value half-copied would have to be told by the order of stores alone).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from swarm_agents import codec
from swarm_agents.errors import PayloadError, SharedMemoryFull

__all__ = ["FORMAT", "Head", "KeepFile", "Kept", "Parts", "copy_of", "file_bytes", "numbers", "read", "split"]

FORMAT = 1
_MAGIC = b"ASWKEEP\0"
_PAGE = 4096
#: magic, format, length of the head's msgpack, its CRC, bytes that a buffer holds
_FIXED = struct.Struct("<8sIIIxxxxQ")
#: sequence, length, when (unix), version of the value, CRC of the four and of the value
_SLOT = struct.Struct("<QQdII")
_SLOT_BYTES = 64
_COUNT = struct.Struct("<II")


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Whose file it is."""

    #: What the value belongs to: a task's id and kernel, or an agent's place.
    key: str
    #: Which of all writers of this key: the later has the higher.
    term: int
    #: Who writes: the pod's name and its epoch.
    owner: str = ""
    epoch: int = 0


class Kept(NamedTuple):
    """A value that was read."""

    value: Any
    version: int
    term: int
    sequence: int
    #: Unix seconds.
    when: float
    #: Bytes of the value.
    length: int
    #: What was found to be unusable on the way: a torn buffer.
    flaws: tuple[str, ...] = ()


class Parts(NamedTuple):
    """A value as plain buffers, laid out one behind the other."""

    buffers: list[memoryview]
    length: int


def split(value: Any) -> Parts:
    """The value as it will lie in a buffer.

    Raises:
        PayloadError: it has no encoding.
    """
    header, arrays = codec.encode(value)
    sizes = [array.nbytes for array in arrays]
    index = _COUNT.pack(len(header), len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
    views = [memoryview(index), memoryview(header)]
    views += [array.reshape(-1).view("u1").data for array, size in zip(arrays, sizes, strict=True) if size]
    return Parts(views, sum(view.nbytes for view in views))


def _join(data: bytes) -> Any:
    view = memoryview(data)
    try:
        header, count = _COUNT.unpack_from(view)
        sizes: Sequence[int] = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    except struct.error as error:
        raise PayloadError(f"a kept value can't be read: {error}") from error
    at = _COUNT.size + 8 * count + header
    buffers = []
    for size in sizes:
        buffers.append(view[at : at + size])
        at += size
    return codec.decode(view[at - sum(sizes) - header : at - sum(sizes)], buffers)


def _stride(capacity: int) -> int:
    return -(-(_SLOT_BYTES + capacity) // _PAGE) * _PAGE


def file_bytes(capacity: int, buffers: int = 2) -> int:
    """Bytes of a file whose buffers hold `capacity` bytes each."""
    return _PAGE + buffers * _stride(capacity)


def _head_bytes(head: Head, capacity: int) -> bytes:
    return _head_page(msgspec.msgpack.encode(head), capacity)


def _head_page(body: bytes, capacity: int) -> bytes:
    if _FIXED.size + len(body) > _PAGE:
        raise ValueError("a key as long as that can't be kept under")
    crc = zlib.crc32(body, capacity & 0xFFFFFFFF)
    return (_FIXED.pack(_MAGIC, FORMAT, len(body), crc, capacity) + body).ljust(_PAGE, b"\0")


def _sum(sequence: int, length: int, when: float, version: int, buffers: Sequence[Any]) -> int:
    crc = zlib.crc32(_SLOT.pack(sequence, length, when, version, 0))
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    return crc


class KeepFile:
    """A file in shared memory, open for its one writer."""

    def __init__(self, path: Path, capacity: int) -> None:
        """Makes it, its blocks allocated: no later write can fail.

        Raises:
            SharedMemoryFull: the file system has no room for it.
        """
        self.path = path
        self.capacity = capacity
        self.sequence = 0
        size = file_bytes(capacity)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            # Touched beforehand: else the first copies would pay for each page.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._map = mmap.mmap(descriptor, size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM, errno.EDQUOT):
                raise
            raise SharedMemoryFull(f"{path.parent} has no room for {size} bytes of checkpoints") from error
        finally:
            os.close(descriptor)
        self.bytes = size
        self._view = memoryview(self._map)

    def begin(self, head: Head) -> None:
        """Says whose file it is from now on; what was kept in it is forgotten."""
        for buffer in (0, 1):
            at = self._at(buffer)
            self._view[at : at + _SLOT_BYTES] = bytes(_SLOT_BYTES)
        self._view[:_PAGE] = _head_bytes(head, self.capacity)
        self.sequence = 0

    def _at(self, buffer: int) -> int:
        return _PAGE + buffer * _stride(self.capacity)

    def write(self, parts: Parts, *, version: int = 0) -> int:
        """Keeps a value of at most `capacity` bytes; returns its number in this file."""
        sequence = self.sequence + 1
        at = self._at(sequence & 1)
        view, when = self._view, time.time()
        # Begun: a reader sees that something newer was on its way, and that it is not whole.
        _SLOT.pack_into(view, at, sequence, 0, when, version, 0)
        put = at + _SLOT_BYTES
        for buffer in parts.buffers:
            view[put : put + buffer.nbytes] = buffer
            put += buffer.nbytes
        crc = _sum(sequence, parts.length, when, version, parts.buffers)
        _SLOT.pack_into(view, at, sequence, parts.length, when, version, crc)
        self.sequence = sequence
        return sequence

    def latest(self) -> tuple[int, list[bytes]] | None:
        """The number of the value kept last, and the bytes of a whole file that holds it and nothing else.

        May be called from another thread than the writer's; None: nothing is kept, or the writer was faster.
        """
        sequence = self.sequence
        at = self._at(sequence & 1)
        number, length = _SLOT.unpack_from(self._view, at)[:2]
        head = bytes(self._view[:_PAGE])
        slot = bytes(self._view[at : at + _SLOT_BYTES + length])
        if not sequence or number != sequence or _SLOT.unpack_from(slot)[:2] != (sequence, length):
            return None
        found = _FIXED.unpack_from(head)
        body = head[_FIXED.size : _FIXED.size + found[2]]
        return sequence, [_head_page(body, length), slot]

    def close(self) -> None:
        """Unmaps it; the file stays where it is."""
        with contextlib.suppress(BufferError):  # the volume's thread is looking at it: the collector unmaps it then
            self._view.release()
            self._map.close()


def _head_of(file: Any, key: str | None) -> tuple[Head, bytes, int]:
    """The head at the beginning of an open file, its msgpack, and what a buffer holds."""
    fixed = file.read(_PAGE)
    if len(fixed) < _PAGE or fixed[:8] != _MAGIC:
        raise ValueError("it is no file of kept values, or was truncated")
    _, form, size, crc, capacity = _FIXED.unpack_from(fixed)
    if form != FORMAT:
        raise ValueError(f"its format is {form}, this agent reads {FORMAT}")
    body = fixed[_FIXED.size : _FIXED.size + size]
    if zlib.crc32(body, capacity & 0xFFFFFFFF) != crc:
        raise ValueError("its head is torn")
    head = msgspec.msgpack.decode(body, type=Head)
    if key is not None and head.key != key:
        raise ValueError(f"it belongs to {head.key}, not to {key}")
    return head, body, capacity


def _slots(file: Any, capacity: int) -> list[tuple[Any, ...]]:
    """Both buffers' headers and where their values lie, the newer first; those that were never begun are left out."""
    slots = []
    for buffer in (0, 1):
        at = _PAGE + buffer * _stride(capacity)
        file.seek(at)
        raw = file.read(_SLOT_BYTES)
        if len(raw) == _SLOT_BYTES:
            slots.append((*_SLOT.unpack_from(raw), at + _SLOT_BYTES))
    return sorted((slot for slot in slots if slot[0]), reverse=True)


def _value_at(file: Any, slot: tuple[Any, ...], capacity: int) -> bytes | None:
    """A buffer's bytes, if they are whole."""
    sequence, length, when, version, want, at = slot
    if not 0 < length <= capacity:
        return None
    file.seek(at)
    data: bytes = file.read(length)
    return data if len(data) == length and _sum(sequence, length, when, version, (data,)) == want else None


def numbers(path: Path) -> tuple[Head, int]:
    """Whose file it is, and the number of the value that seems to be the newest whole one; 0: there is none.

    Raises:
        OSError, ValueError: as `read`.
    """
    with path.open("rb") as file:
        head, _, capacity = _head_of(file, None)
        return head, next((slot[0] for slot in _slots(file, capacity) if slot[1]), 0)


def copy_of(path: Path, key: str) -> tuple[int, int, bytes] | None:
    """Term, number and the newest whole value as the bytes of a file that holds nothing else.

    Raises:
        OSError, ValueError: as `read`.
    """
    with path.open("rb") as file:
        head, body, capacity = _head_of(file, key)
        for slot in _slots(file, capacity):
            data = _value_at(file, slot, capacity)
            if data is not None:
                around = _SLOT.pack(*slot[:5]).ljust(_SLOT_BYTES, b"\0")
                return head.term, slot[0], _head_page(body, len(data)) + around + data
    return None


def read(path: Path, key: str | None = None) -> tuple[Head, Kept | None, tuple[str, ...]]:
    """A file's head, the newest whole value in it (None: there is none), and what is wrong with it.

    Raises:
        FileNotFoundError: it is gone.
        ValueError: it is no such file, or of another format, or another key's; the message says so.
    """
    with path.open("rb") as file:
        head, _, capacity = _head_of(file, key)
        flaws: list[str] = []
        for slot in _slots(file, capacity):
            sequence, length, when, version = slot[:4]
            data = _value_at(file, slot, capacity)
            if data is None:
                flaws.append(f"number {sequence} is torn")
                continue
            try:
                value = _join(data)
            except PayloadError as error:
                flaws.append(f"number {sequence} can't be read: {error}")
                continue
            return head, Kept(value, version, head.term, sequence, when, length, tuple(flaws)), tuple(flaws)
    return head, None, tuple(flaws)
