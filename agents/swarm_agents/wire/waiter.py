"""What a reactor waits by: descriptors, a nudge from other threads, and an alarm, in one wait of the kernel's.

It is apart from the reactor so that a test or a simulation can put another in its place: everything else there neither
knows what time is nor who wakes it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from swarm_agents.wire.alarm import Alarm

__all__ = ["Spin", "Waiter"]

_Pause = TypeVar("_Pause")
#: Who was woken sooner than this (nanoseconds) would have done better to stay awake: about what a message takes to a
#: neighbouring node and back.
_SPIN_NS = 100_000


class Spin:
    """Looks again and again before it sleeps, as long as that pays.

    To be put to sleep and woken costs some microseconds on either side of a conversation that itself takes ten. So
    whoever slept for less than `_SPIN_NS` looks instead, the next time, for as long before it sleeps; and once it has
    looked in vain it sleeps at once again. Between two looks it yields: ZeroMQ's own thread, on whose work it waits,
    may have no other core. An idle process therefore never looks, nor does one whose messages are further apart.
    """

    __slots__ = ("_awake",)

    def __init__(self) -> None:
        self._awake = False

    def wait(self, poll: Callable[[_Pause | int], list[tuple[int, int]]], pause: _Pause) -> list[tuple[int, int]]:
        """What `poll(pause)` gives, where `poll(0)` looks without waiting."""
        if pause == 0:
            return poll(0)
        now, rest = time.perf_counter_ns, os.sched_yield
        began = now()
        if self._awake:
            while True:
                ready = poll(0)
                if ready:
                    return ready
                rest()
                if now() - began > _SPIN_NS:
                    break
        ready = poll(pause)
        self._awake = now() - began < _SPIN_NS
        return ready


class Waiter:
    """`epoll`, an `eventfd` and a `timerfd`. Watched under the reactor's lock; `wake` may be called by any thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._spin = Spin()
        self._alarm = Alarm()
        #: Two descriptors that are the waiter's own; when one is readable, `nudged` or `rung` is to be called.
        self.nudge_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.alarm_fd = self._alarm.fd
        for fd in (self.nudge_fd, self.alarm_fd):
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self, pause: float | None) -> Sequence[tuple[int, int]]:
        """Waits for up to `pause` seconds (None: as long as it takes); the descriptors that are readable."""
        return self._spin.wait(self._epoll.poll, pause)

    def add(self, fd: int) -> None:
        """Waits for this descriptor too."""
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Waits for it no longer."""
        self._epoll.unregister(fd)

    def wake(self) -> None:
        """Ends the wait, or the next one; after `close` it does nothing."""
        if self.nudge_fd >= 0:
            os.eventfd_write(self.nudge_fd, 1)

    def ring_in(self, delay: float) -> None:
        """Ends a wait after `delay` seconds, and not when it was to before."""
        self._alarm.set(delay)

    def nudged(self) -> None:
        """Takes note of a `wake`."""
        try:
            os.eventfd_read(self.nudge_fd)
        except BlockingIOError:
            pass

    def rung(self) -> None:
        """Takes note of the alarm."""
        self._alarm.clear()

    def close(self) -> None:
        """Lets go of all descriptors; twice is once."""
        if self.nudge_fd >= 0:
            nudge, self.nudge_fd = self.nudge_fd, -1
            self._epoll.close()
            self._alarm.close()
            os.close(nudge)
