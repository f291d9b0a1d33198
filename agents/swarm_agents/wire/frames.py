"""Messages to frames and back. Whatever arrives, reading it ends in a message or in one of three errors.

The first frame of a message is

    "ASW" | version u8 | header bytes u32 LE | header (msgpack) | the value's header, if there is a payload

and every array of the payload is a frame of its own, which nothing copies. So a message without arrays is one frame:
each frame costs a box of CURVE and some microseconds of Python.

Invariants: `unpack` raises nothing but `FrameError`, `VersionMismatch` and `PayloadTooLarge`, whatever the bytes; it
reads the header alone and hands the payload on untouched, so that a hub forwards without decoding. A message larger
than the limit is refused, whichever way its bytes are spread over frames. The first four bytes mean the same in every
version that there will ever be.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from swarm_agents.errors import PayloadTooLarge, SwarmError, VersionMismatch
from swarm_agents.wire.schema import MAGIC, MAX_FRAMES, MAX_HEADER_BYTES, WIRE_VERSION, Message

__all__ = ["GREETING", "FrameError", "flatten", "pack", "payload_bytes", "unpack"]

GREETING = MAGIC + bytes([WIRE_VERSION])
#: Greeting and the header's length.
_HEAD = struct.Struct("<4sI")
_PREFIX = _HEAD.size
_LONGEST_HEAD = _PREFIX + MAX_HEADER_BYTES
#: A value's header up to this size is copied out of its frame: cheaper than a view of it.
_SLICE = 4096

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_decode = _decoder.decode


class FrameError(SwarmError, ValueError):
    """A peer sent something that is no message of this protocol."""


def pack(message: Message, payload: Sequence[Any] = ()) -> list[Any]:
    """The frames of a message.

    Args:
        payload: the value's header (bytes), then its arrays or what holds their bytes; these are passed on as they are.
    """
    header = _encode(message)
    if not payload:
        return [_HEAD.pack(GREETING, len(header)) + header]
    if len(payload) == 1:
        return [b"".join((_HEAD.pack(GREETING, len(header)), header, payload[0]))]
    return [b"".join((_HEAD.pack(GREETING, len(header)), header, payload[0])), *payload[1:]]


def flatten(header: bytes, arrays: Sequence[Any]) -> list[Any]:
    """What `codec.encode` gives, as a payload: the arrays as views of their bytes, whatever their dtype."""
    if not arrays:
        return [header]
    return [header, *[array.reshape(-1).view("u1") for array in arrays]]


def payload_bytes(payload: Sequence[Any]) -> int:
    """Bytes that the parts hold together."""
    if len(payload) == 1 and type(payload[0]) is bytes:
        return len(payload[0])
    return sum(_size(part) for part in payload)


def unpack(frames: Sequence[Any], *, limit: int, at: int = 0) -> tuple[Message, list[Any]]:
    """The message and its payload: the value's header, and views of the arrays' frames.

    Args:
        frames: bytes, memoryviews or `zmq.Frame`s.
        limit: the most bytes that all frames may have together.
        at: where the message begins: 1 if a routing id precedes it.

    Raises:
        VersionMismatch: the peer greets in another version.
        FrameError: anything else that is wrong with it.
        PayloadTooLarge: it is longer than `limit`.
    """
    # What most messages are: one frame, short, and right.
    if len(frames) == at + 1 and type(first := frames[at]) is bytes and _PREFIX <= len(first) <= limit:
        greeting, length = _HEAD.unpack_from(first)
        end = _PREFIX + length
        if greeting == GREETING and end <= len(first) and end <= _LONGEST_HEAD:
            try:
                message = _decode(first[_PREFIX:end])
            except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
                raise FrameError(f"a header that is no message: {error}") from error
            rest = len(first) - end
            if not rest:
                return message, []
            return message, [first[end:] if rest <= _SLICE else memoryview(first)[end:]]
    return _unpack(frames[at:], limit)


def _unpack(frames: Sequence[Any], limit: int) -> tuple[Message, list[Any]]:
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise FrameError(f"a message of {len(frames)} frames: expected 1 to {MAX_FRAMES}")
    first = _view(frames[0])
    greeting = bytes(first[: len(GREETING)])
    if greeting != GREETING:
        if len(greeting) == len(GREETING) and greeting.startswith(MAGIC):
            raise VersionMismatch(
                f"the peer speaks version {greeting[-1]} of the wire schema, this side speaks version {WIRE_VERSION} "
                "alone: run the client and the agents from the same release"
            )
        raise FrameError(f"a message begins with {greeting!r}, not with {GREETING!r}")
    size = payload_bytes(frames)
    if size > limit:
        raise PayloadTooLarge(f"a message of {size} bytes: the limit is {limit} (spec.transport.zeromq)")
    end = _PREFIX + int.from_bytes(first[len(GREETING) : _PREFIX], "little")
    if end > first.nbytes or end > _LONGEST_HEAD:
        raise FrameError(f"a header of {end - _PREFIX} bytes in a frame of {first.nbytes}")
    try:
        message = _decode(first[_PREFIX:end])
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise FrameError(f"a header that is no message: {error}") from error
    if end == first.nbytes and len(frames) == 1:
        return message, []
    return message, [first[end:], *[_view(frame) for frame in frames[1:]]]


def _view(frame: Any) -> memoryview:
    buffer = getattr(frame, "buffer", frame)
    view = buffer if isinstance(buffer, memoryview) else memoryview(buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _size(part: Any) -> int:
    nbytes = getattr(part, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else len(part)
