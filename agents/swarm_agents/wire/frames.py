"""Messages to frames and back. Whatever arrives, reading it ends in a message or in one of two errors.

Invariants: `unpack` raises nothing but `FrameError` and `VersionMismatch`, whatever the bytes; it looks at the
greeting and the header alone and hands the payload frames on untouched, so that a hub forwards without decoding.
A message larger than the limit is malformed, whichever way its bytes are spread over frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from swarm_agents.errors import PayloadTooLarge, SwarmError, VersionMismatch
from swarm_agents.wire.schema import MAGIC, MAX_FRAMES, MAX_HEADER_BYTES, WIRE_VERSION, Message

__all__ = ["GREETING", "FrameError", "pack", "payload_bytes", "unpack"]

GREETING = MAGIC + bytes([WIRE_VERSION])

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class FrameError(SwarmError, ValueError):
    """A peer sent something that is no message of this protocol."""


def pack(message: Message, payload: Sequence[Any] = ()) -> list[Any]:
    """The frames of a message; the payload's buffers are passed on as they are, not copied."""
    return [GREETING, _encoder.encode(message), *payload]


def payload_bytes(payload: Sequence[Any]) -> int:
    """Bytes that the frames hold together."""
    return sum(_size(frame) for frame in payload)


def unpack(frames: Sequence[Any], *, limit: int) -> tuple[Message, Sequence[Any]]:
    """The message and its payload's frames.

    Args:
        frames: bytes, memoryviews or `zmq.Frame`s, without the routing id.
        limit: the most bytes that all frames may have together.

    Raises:
        VersionMismatch: the peer greets in another version.
        FrameError: anything else that is wrong with it.
        PayloadTooLarge: it is longer than `limit`.
    """
    if len(frames) < 2 or len(frames) > MAX_FRAMES:
        raise FrameError(f"a message of {len(frames)} frames: expected 2 to {MAX_FRAMES}")
    greeting = bytes(_view(frames[0])[:8])
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
    header = _view(frames[1])
    if header.nbytes > MAX_HEADER_BYTES:
        raise FrameError(f"a header of {header.nbytes} bytes: the limit is {MAX_HEADER_BYTES}")
    try:
        return _decoder.decode(header), frames[2:]
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"a header that is no message: {error}") from error


def _view(frame: Any) -> memoryview:
    buffer = getattr(frame, "buffer", frame)
    view = buffer if isinstance(buffer, memoryview) else memoryview(buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _size(frame: Any) -> int:
    nbytes = getattr(frame, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else len(frame)
