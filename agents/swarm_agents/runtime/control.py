"""How a supervisor and its agent talk: typed messages over a socket pair, asked by the one, answered by the other.

The supervisor asks (settings, drain, resume, stop, activate, metrics) and the agent answers each request by its number
when what was asked *holds*; beside that it announces where it joined and that it is ready. Messages are msgpack behind
a length of four bytes.

Invariants: a request is answered exactly once; the end of the stream means that the other side is gone. Rejected: a
datagram pair (settings of a large swarm are longer than a datagram may be), signals (they carry nothing and are
delivered to the wrong thread), a file (polling).
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

__all__ = [
    "Activate",
    "AgentEnd",
    "Apply",
    "Collect",
    "Drain",
    "Happened",
    "Joined",
    "Ready",
    "RefusedError",
    "Reply",
    "Request",
    "Resume",
    "Stop",
    "SupervisorEnd",
]

_LENGTH = struct.Struct("!I")


class Apply(Struct, tag="settings"):
    """Run by these settings (as `encode_settings` wrote them). Answered when the agent does."""

    settings: bytes


class Drain(Struct, tag="drain"):
    """Claim nothing more."""


class Resume(Struct, tag="resume"):
    """Claim again."""


class Stop(Struct, tag="stop"):
    """Finish or hand back within `grace` seconds, leave the board, and end."""

    grace: float


class Activate(Struct, tag="activate"):
    """To a standby: take part, or step back when what is in hand is finished."""

    active: bool


class Collect(Struct, tag="collect"):
    """The agent's own metrics, please."""


Order = Apply | Drain | Resume | Stop | Activate | Collect


class Request(Struct):
    number: int
    order: Order


class Reply(Struct, tag="reply"):
    """`error` is empty when what was asked holds."""

    number: int
    error: str = ""
    data: bytes = b""


class Joined(Struct, tag="joined"):
    """The agent has this place on the board."""

    index: int
    epoch: int


class Ready(Struct, tag="ready"):
    """The agent has started and takes work."""


class Happened(Struct, tag="happened"):
    """Something that the pod's events should have: a CamelCase reason and its facts."""

    event: str
    fields: dict[str, Any]


Message = Reply | Joined | Ready | Happened

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_message: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


class RefusedError(RuntimeError):
    """The agent said no; the message is its reason."""


class AgentEnd:
    """The agent's end: blocking, read by one thread, written by any."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(True)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Sends a message; one that can't be delivered is dropped, the reader learns of the end by itself."""
        body = _encode(message)
        try:
            with self._lock:
                self._sock.sendall(_LENGTH.pack(len(body)) + body)
        except OSError:
            pass

    def receive(self, timeout: float | None) -> Request | None:
        """The next request; None when `timeout` seconds have passed.

        Raises:
            EOFError: the supervisor is gone.
        """
        until = None if timeout is None else time.monotonic() + max(timeout, 0.0)
        head = self._exactly(_LENGTH.size, until)
        if head is None:
            return None
        body = self._exactly(_LENGTH.unpack(head)[0], None)
        assert body is not None
        return _decode_request(body)

    def _exactly(self, size: int, until: float | None) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            # Once a message has begun the rest of it is on its way. The wait is not the socket's own time-out: that
            # would hold for the other threads' `send` too.
            if until is not None and not parts and not self._poll.poll(max(until - time.monotonic(), 0.0) * 1e3):
                return None
            try:
                part = self._sock.recv(size - len(parts))
            except OSError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


class SupervisorEnd:
    """The supervisor's end: in its event loop. `announced` is called with what the agent says unasked."""

    def __init__(self, sock: socket.socket, announced: Callable[[Joined | Ready | Happened], None]) -> None:
        self._sock = sock
        self._announced = announced
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count(1)
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.get_running_loop().create_task(self._read())
        self._open = asyncio.Event()

    async def _read(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._sock)
        self._open.set()
        try:
            while True:
                head = await reader.readexactly(_LENGTH.size)
                message = _decode_message(await reader.readexactly(_LENGTH.unpack(head)[0]))
                if isinstance(message, Reply):
                    future = self._waiting.pop(message.number, None)
                    if future is not None and not future.done():
                        future.set_result(message)
                else:
                    self._announced(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the agent has ended"))
            self._waiting.clear()

    async def ask(self, order: Order, patience: float) -> bytes:
        """Sends an order and returns the data of the answer.

        Raises:
            RefusedError: the agent said no.
            TimeoutError: it has not answered within `patience` seconds.
            ConnectionError: it has ended.
        """
        async with asyncio.timeout(patience):
            await self._open.wait()
            assert self._writer is not None
            if self._task.done():
                raise ConnectionError("the agent has ended")
            number = next(self._numbers)
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._waiting[number] = future
            try:
                body = _encode(Request(number, order))
                self._writer.write(_LENGTH.pack(len(body)) + body)
                reply = await future
            finally:
                self._waiting.pop(number, None)
        if reply.error:
            raise RefusedError(reply.error)
        return reply.data

    async def close(self) -> None:
        """Drops the connection; requests that wait are told."""
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass
