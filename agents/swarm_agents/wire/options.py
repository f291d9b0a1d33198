"""A socket's small questions, asked often: has a message arrived, does another frame follow.

They cost more than the message itself where pyzmq answers them: it makes an enum member of the option on every call
(2.1 µs for EVENTS, 1.1 µs for RCVMORE, where libzmq takes 0.5 and less). `question` asks libzmq itself, through the
library that pyzmq has loaded, and falls back on pyzmq where that can't be reached.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import zmq

__all__ = ["question"]


@functools.cache
def _library() -> Any:
    """`zmq_getsockopt` of the libzmq that pyzmq works with; None if it shows none, or answers strangely."""
    try:
        import zmq.backend.cython._zmq as binding

        # PyDLL: the call is short, to let go of the GIL for it would cost more.
        ask = ctypes.PyDLL(binding.__file__).zmq_getsockopt
    except (ImportError, OSError, AttributeError):
        return None
    ask.restype = ctypes.c_int
    ask.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        value, size = ctypes.c_int(-1), ctypes.c_size_t(4)
        failed = ask(socket.underlying, zmq.TYPE, ctypes.addressof(value), ctypes.addressof(size))
        return ask if not failed and value.value == zmq.DEALER else None
    finally:
        socket.close(0)
        context.term()


def question(socket: zmq.Socket[Any], option: int) -> Callable[[], int]:
    """A function that asks for an option of a socket that is a C int. Not to be called once the socket is closed."""
    ask = _library()
    if ask is None:
        return functools.partial(_by_pyzmq, socket, option)
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    handle, at, size_at = socket.underlying, ctypes.addressof(value), ctypes.addressof(size)

    def answer() -> int:
        if ask(handle, option, at, size_at):
            return _by_pyzmq(socket, option)  # which raises what it means
        return value.value

    answer.keep = size  # type: ignore[attr-defined]
    return answer


def _by_pyzmq(socket: zmq.Socket[Any], option: int) -> int:
    return int(socket.get(option))
