"""A timer of the kernel as a file descriptor, so that waiting for messages needs no time-out.

A wait with a time-out sets a timer and takes it back, for each message; in a virtual machine either leaves the guest. A
`timerfd` is set only when the next thing to do changes, some tens of times a second. Python has it from 3.13 on; until
then the C library is called.
"""

from __future__ import annotations

import ctypes
import os
import time

__all__ = ["Alarm"]

_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


class Alarm:
    """One timer; `fd` is readable once it is due."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"timerfd_create: {os.strerror(error)}")
        self._spec = _Spec()

    def set(self, delay: float) -> None:
        """Is due after `delay` seconds, instead of when it was."""
        nanoseconds = max(int(delay * 1e9), 1)
        self._spec.s, self._spec.ns = divmod(nanoseconds, 1_000_000_000)
        if _libc.timerfd_settime(self.fd, 0, ctypes.byref(self._spec), None):
            error = ctypes.get_errno()
            raise OSError(error, f"timerfd_settime: {os.strerror(error)}")

    def clear(self) -> None:
        """Reads it, so that it is not readable any more."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.fd)
