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

__all__ = ["LoopSocket", "send_frames"]

#: Messages taken in one go, before the loop's other callbacks get their turn.
_BATCH = 64
#: Frames below this are copied: cheaper than the bookkeeping that frees them later.
_COPY_BELOW = 32 << 10
# Plain integers: `|` of two enum members is slower than the rest of a small send.
_NOBLOCK, _MORE, _READABLE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.POLLIN)


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any]) -> None:
    """Sends a message without waiting; large frames from where they lie, which must stay as it is until they are gone.

    Raises:
        zmq.ZMQError: the peer has gone, or its connection is full; nothing was sent. (ZeroMQ takes a message whole.)
    """
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        size = len(frame) if type(frame) is bytes else memoryview(frame).nbytes
        socket.send(frame, _MORE if index < last else _NOBLOCK, copy=size < _COPY_BELOW)


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
            send_frames(self.socket, frames)
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
            if self._closed or not int(self.socket.get(zmq.EVENTS)) & _READABLE:
                return
            frames = self.socket.recv_multipart(_NOBLOCK, copy=False)
            try:
                self._on_message(frames)
            except Exception as error:  # one peer's message must not stop the others'
                self._loop.call_exception_handler({"message": "a message could not be handled", "exception": error})
        self._soon()
