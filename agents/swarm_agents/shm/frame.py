"""How a payload lies in a slot or a block: a kernel's name, a msgpack header, and the buffers it refers to.

    u32 header bytes | u16 buffers | u16 name bytes | u64 bytes of each buffer | name | header | buffers, 64-aligned

Every frame begins 64-aligned, so every buffer does: SIMD code reads arguments where they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["HEAD", "Layout", "address_of", "as_bytes", "lay_out", "read", "write"]

#: What every frame begins with: bytes of the header, number of buffers, bytes of the name.
HEAD = struct.Struct("<IHH")
_ALIGN = 64
# CPython's bytes object holds its data at its end, before one zero byte; checked below.
_BYTES_AT = bytes.__basicsize__ - 1


def address_of(data: bytes) -> int:
    """The address of a bytes object's first byte: what compiled code copies from. Valid while the object lives."""
    return id(data) + _BYTES_AT


class Layout:
    """A frame before it is written: its beginning as bytes, its buffers, and its whole size in bytes."""

    __slots__ = ("buffers", "prefix", "size")

    def __init__(self, prefix: bytes, buffers: Sequence[Any], size: int) -> None:
        self.prefix = prefix
        self.buffers = buffers
        self.size = size

    def as_bytes(self) -> bytes:
        """The whole frame in one piece: for those small enough to be copied."""
        if not self.buffers:
            return self.prefix
        parts = [self.prefix]
        at = len(self.prefix)
        for buffer in self.buffers:
            raw = as_bytes(buffer).tobytes()
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
    lengths = [b.nbytes if isinstance(b, np.ndarray) else memoryview(b).nbytes for b in buffers]
    prefix = b"".join(
        (HEAD.pack(len(header), len(buffers), len(name)), struct.pack(f"<{len(lengths)}Q", *lengths), name, header)
    )
    size = len(prefix)
    for length in lengths:
        size += -size % _ALIGN + length
    return Layout(prefix, buffers, size)


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


def read(view: memoryview, at: int, length: int) -> tuple[str, memoryview, list[memoryview]]:
    """A frame's name, header and buffers as views.

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
    buffers = []
    for size in lengths:
        at += -(at - start) % _ALIGN
        if at + size > end:
            raise ValueError("a frame's buffer is longer than the frame")
        buffers.append(view[at : at + size])
        at += size
    return name, header, buffers


def _check_address() -> None:
    import ctypes

    probe = b"agent swarm"
    if ctypes.string_at(address_of(probe), len(probe)) != probe:
        raise ImportError("this Python lays out bytes objects in another way than CPython: swarm_agents.shm can't run")


_check_address()
