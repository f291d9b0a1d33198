"""Ties ZeroMQ sockets to an asyncio loop by callback: a message in, a function called, no future and no task a message.

`zmq.asyncio` makes a future for every receive and every send, which costs more than the rest of a small message's way
through the hub. ZeroMQ's file descriptor is edge-triggered and is consumed by any call on the socket, also by a send:
so every send is followed by another look (`_soon`), or a message that came meanwhile would lie there unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zmq

__all__ = ["LoopSocket"]

#: Messages taken in one go, before the loop's other callbacks get their turn.
_BATCH = 64
#: Frames below this are copied: cheaper than the bookkeeping that frees them later.
COPY_BELOW = 16 << 10


class LoopSocket:
    """One socket in the running loop.

    Args:
        on_message: called with the frames (`zmq.Frame`, not copied). It must not raise: what it raises goes to the
            loop's exception handler, and the next message is served all the same.
    """

    def __init__(self, socket: zmq.Socket[bytes], on_message: Callable[[list[zmq.Frame]], None]) -> None:
        self.socket = socket
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.get(zmq.FD))
        self._closed = False
        self._scheduled = False
        self._loop.add_reader(self._fd, self._receive)
        self._soon()

    def send(self, frames: Sequence[Any]) -> bool:
        """Sends without waiting. False: the peer has gone, or its connection is full."""
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:  # EHOSTUNREACH and EAGAIN are what a ROUTER says; after a close, ENOTSOCK
            return False
        finally:
            self._soon()
        return True

    def close(self) -> None:
        """Leaves the loop and closes the socket; what was not sent is dropped."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)
            self.socket.close(0)

    def _soon(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._receive)

    def _receive(self) -> None:
        self._scheduled = False
        for _ in range(_BATCH):
            if self._closed:
                return
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                self._on_message(frames)
            except Exception as error:  # one peer's message must not stop the others'
                self._loop.call_exception_handler({"message": "a message could not be handled", "exception": error})
        self._soon()
