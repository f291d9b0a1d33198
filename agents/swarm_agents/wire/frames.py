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

from collections.abc import Sequence
from typing import Any

import msgspec

from swarm_agents.errors import PayloadTooLarge, SwarmError, VersionMismatch
from swarm_agents.wire.schema import MAGIC, MAX_FRAMES, MAX_HEADER_BYTES, WIRE_VERSION, Message

__all__ = ["GREETING", "FrameError", "flatten", "pack", "payload_bytes", "unpack"]

GREETING = MAGIC + bytes([WIRE_VERSION])
#: Greeting and the header's length.
_PREFIX = len(GREETING) + 4

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class FrameError(SwarmError, ValueError):
    """A peer sent something that is no message of this protocol."""


def pack(message: Message, payload: Sequence[Any] = ()) -> list[Any]:
    """The frames of a message.

    Args:
        payload: the value's header (bytes), then its arrays or what holds their bytes; these are passed on as they are.
    """
    header = _encode(message)
    first = b"".join((GREETING, len(header).to_bytes(4, "little"), header, *payload[:1]))
    return [first, *payload[1:]]


def flatten(header: bytes, arrays: Sequence[Any]) -> list[Any]:
    """What `codec.encode` gives, as a payload: the arrays as views of their bytes, whatever their dtype."""
    return [header, *[array.reshape(-1).view("u1") for array in arrays]]


def payload_bytes(payload: Sequence[Any]) -> int:
    """Bytes that the parts hold together."""
    return sum(_size(part) for part in payload)


def unpack(frames: Sequence[Any], *, limit: int) -> tuple[Message, list[Any]]:
    """The message and its payload: a view of the value's header, and views of the arrays' frames.

    Args:
        frames: bytes, memoryviews or `zmq.Frame`s, without the routing id.
        limit: the most bytes that all frames may have together.

    Raises:
        VersionMismatch: the peer greets in another version.
        FrameError: anything else that is wrong with it.
        PayloadTooLarge: it is longer than `limit`.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise FrameError(f"a message of {len(frames)} frames: expected 1 to {MAX_FRAMES}")
    first = _view(frames[0])
    greeting = bytes(first[: len(GREETING)])
    if greeting != GREETING:
        if len(greeting) == len(GREETING) and greeting.startswith(MAGIC):
            raise VersionMismatch(
                f"the peer speaks version {greeting[-1]} of the wire schema, this side version {WIRE_VERSION}: "
                "run the client and the agents from the same release"
            )
        raise FrameError(f"a message begins with {greeting!r}, not with {GREETING!r}")
    size = payload_bytes(frames)
    if size > limit:
        raise PayloadTooLarge(f"a message of {size} bytes: the limit is {limit} (spec.transport.zeromq)")
    end = _PREFIX + int.from_bytes(first[len(GREETING) : _PREFIX], "little")
    if end > first.nbytes or end > _PREFIX + MAX_HEADER_BYTES:
        raise FrameError(f"a header of {end - _PREFIX} bytes in a frame of {first.nbytes}")
    try:
        message = _decoder.decode(first[_PREFIX:end])
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, UnicodeDecodeError) as error:
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
