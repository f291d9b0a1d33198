"""How a payload lies in a slot or a block: a kernel's name, a msgpack header, and the buffers it refers to.

    u32 header bytes | u16 buffers | u16 name bytes | u64 bytes of each buffer | name | header | buffers, 64-aligned

Every frame begins 64-aligned, so every buffer does: SIMD code reads arguments where they lie.

In the place of a buffer there may be a *reference* to a shared array of the same board: its length has the top bit set,
and its bytes say where the array lies (see `references`). The header is the same in both cases, so that a hub can send
the array's bytes to another node in the place of the reference.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["BYTES_AT", "HEAD", "Layout", "Reference", "address_of", "as_bytes", "lay_out", "read", "write"]

#: What every frame begins with: bytes of the header, number of buffers, bytes of the name.
HEAD = struct.Struct("<IHH")
_ALIGN = 64
#: Marks a length as a reference's.
_REFERENCE = 1 << 63
# CPython's bytes object holds its data at its end, before one zero byte; checked below.
BYTES_AT = bytes.__basicsize__ - 1


def address_of(data: bytes) -> int:
    """The address of a bytes object's first byte: what compiled code copies from. Valid while the object lives."""
    return id(data) + BYTES_AT


class Reference(bytes):
    """What a frame holds of a shared array: words, the first of which is the array's name on the board."""


class Layout:
    """A frame before it is written: its beginning as bytes, its buffers, and its whole size in bytes."""

    __slots__ = ("buffers", "names", "prefix", "size")

    def __init__(self, prefix: bytes, buffers: Sequence[Any], size: int, names: Sequence[int] = ()) -> None:
        self.prefix = prefix
        self.buffers = buffers
        self.size = size
        #: The shared arrays that it refers to, each once.
        self.names = names

    def as_bytes(self) -> bytes:
        """The whole frame in one piece: for those small enough to be copied."""
        if not self.buffers:
            return self.prefix
        parts = [self.prefix]
        at = len(self.prefix)
        for buffer in self.buffers:
            raw = buffer if type(buffer) is Reference else as_bytes(buffer).tobytes()
            parts.append(bytes(-at % _ALIGN))
            parts.append(raw)
            at += -at % _ALIGN + len(raw)
        return b"".join(parts)


def as_bytes(buffer: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A contiguous array or bytes-like object as an array of bytes, without copying."""
    if isinstance(buffer, np.ndarray):
        return buffer.reshape(-1).view(np.uint8) if buffer.size else np.empty(0, np.uint8)
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)


def lay_out(name: bytes, header: bytes, buffers: Sequence[Any]) -> Layout:
    """Plans a frame."""
    if not buffers:
        prefix = HEAD.pack(len(header), 0, len(name)) + name + header
        return Layout(prefix, buffers, len(prefix))
    lengths: list[int] = []
    names: list[int] = []
    size = HEAD.size + 8 * len(buffers) + len(name) + len(header)
    for buffer in buffers:
        if type(buffer) is Reference:
            length = len(buffer)
            lengths.append(length | _REFERENCE)
            array = int.from_bytes(buffer[:8], "little")
            if array not in names:
                names.append(array)
        else:
            length = buffer.nbytes if isinstance(buffer, np.ndarray) else memoryview(buffer).nbytes
            lengths.append(length)
        size += -size % _ALIGN + length
    table = struct.pack(f"<{len(lengths)}Q", *lengths)
    prefix = b"".join((HEAD.pack(len(header), len(buffers), len(name)), table, name, header))
    return Layout(prefix, buffers, size, names)


def write(view: memoryview, at: int, layout: Layout) -> None:
    """Writes a frame at an offset of the board."""
    start = at
    view[at : at + len(layout.prefix)] = layout.prefix
    at += len(layout.prefix)
    for buffer in layout.buffers:
        raw = as_bytes(buffer)
        at += -(at - start) % _ALIGN
        if raw.size:
            np.copyto(np.frombuffer(view, np.uint8, raw.size, at), raw)
        at += raw.size


def read(
    view: memoryview, at: int, length: int, locate: Callable[[memoryview], Any] | None = None
) -> tuple[str, memoryview, list[Any]]:
    """A frame's name, header and buffers as views; in the place of a reference, what `locate` makes of its bytes.

    Raises:
        ValueError: the lengths do not fit, as in a slot that has been given to somebody else meanwhile.
    """
    header_bytes, count, name_bytes = HEAD.unpack_from(view, at)
    start, end = at, at + length
    at += HEAD.size
    lengths: tuple[int, ...] = ()
    if count:
        if at + 8 * count > end:
            raise ValueError("a frame's table of buffers is longer than the frame")
        lengths = struct.unpack_from(f"<{count}Q", view, at)
        at += 8 * count
    if at + name_bytes + header_bytes > end:
        raise ValueError("a frame's header is longer than the frame")
    name = str(view[at : at + name_bytes], "utf-8")
    at += name_bytes
    header = view[at : at + header_bytes]
    at += header_bytes
    buffers: list[Any] = []
    for marked in lengths:
        size = marked & ~_REFERENCE
        at += -(at - start) % _ALIGN
        if at + size > end:
            raise ValueError("a frame's buffer is longer than the frame")
        raw = view[at : at + size]
        if size != marked:
            if locate is None:
                raise ValueError("a frame refers to a shared array, and there is no board to find it on")
            buffers.append(locate(raw))
        else:
            buffers.append(raw)
        at += size
    return name, header, buffers


def _check_address() -> None:
    import ctypes

    probe = b"agent swarm"
    if ctypes.string_at(address_of(probe), len(probe)) != probe:
        raise ImportError("this Python lays out bytes objects in another way than CPython: swarm_agents.shm can't run")


_check_address()
