"""What a reactor waits by: descriptors, a nudge from other threads, and an alarm, in one wait of the kernel's.

It is apart from the reactor so that a test or a simulation can put another in its place: everything else there neither
knows what time is nor who wakes it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from swarm_agents.wire.alarm import Alarm

__all__ = ["Waiter"]

#: Descriptors that one wait tells of at most.
_MOST = 64


class Waiter:
    """`epoll`, an `eventfd` and a `timerfd`. Watched under the reactor's lock; `wake` may be called by any thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._alarm = Alarm()
        #: Two descriptors that are the waiter's own; when one is readable, `nudged` or `rung` is to be called.
        self.nudge_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.alarm_fd = self._alarm.fd
        for fd in (self.nudge_fd, self.alarm_fd):
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self, pause: float | None) -> Sequence[tuple[int, int]]:
        """Waits for up to `pause` seconds (None: as long as it takes); the descriptors that are readable."""
        return self._epoll.poll(pause, _MOST)

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
