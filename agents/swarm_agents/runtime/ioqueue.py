"""One queue for a process's large reads and writes: bounded, by priority, and as deep as the disk likes.

What lies on a disk is asked for in bursts (copies of checkpoints, answers that are put aside and come back), and a disk
that is given everything at once serves the important no sooner than the rest. So requests wait here: those of the
lanes' order first (critical, normal, bulk), and one in `FAIR` the oldest of all, so that none waits for ever. How many
are under way follows `iodepth`; each has a thread, made when it is needed and ended when it was idle for `IDLE`.

What it promises
- Bounded: `most` requests and `most_bytes` wait at most; a caller that finds no room waits as long as it says, and is
  then refused (`SwarmFull`): back-pressure, not memory.
- A request that has not begun can be cancelled; one that runs is a system call on a disk, and is not.
- What a request raises is its own: the next one runs as if nothing had been.
- Nothing is synced here. What has to survive a power cut syncs in its own request (checkpoints on a volume: file, then
  directory); what is of no use to a later process does not (payloads that are put aside).
A forked child has a queue of its own, empty: threads do not survive a fork. Rejected: asyncio (agents' main threads
have no loop), io_uring (many clusters forbid it: seccomp's default profile).
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from swarm_agents.config import Priority
from swarm_agents.errors import SwarmFull
from swarm_agents.runtime.iodepth import Depth

__all__ = ["IoQueue", "shared"]

_T = TypeVar("_T")
#: One request in so many is the one that has waited longest.
FAIR = 8
#: A thread that had nothing to do for so long ends (seconds).
IDLE = 2.0


class _Request:
    __slots__ = ("future", "lane", "number", "run", "size")

    def __init__(self, lane: int, number: int, size: int, run: Callable[[], Any], future: Future[Any]) -> None:
        self.lane, self.number, self.size, self.run, self.future = lane, number, size, run, future

    def __lt__(self, other: _Request) -> bool:
        return (self.lane, self.number) < (other.lane, other.number)


class IoQueue:
    """See the module's text. Any thread may use it."""

    def __init__(
        self,
        *,
        most: int = 256,
        most_bytes: int = 256 << 20,
        depth: Depth | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.control = depth or Depth()
        self._most, self._most_bytes, self._clock = most, most_bytes, clock
        self._lock = threading.Condition()
        self._waiting: list[_Request] = []
        self._bytes = 0
        self._numbers = itertools.count()
        self._taken = 0
        self._threads = self._idle = 0
        #: Requests under way; since the start: ended, failed, refused for want of room, cancelled; bytes that passed.
        self.in_flight = 0
        self.ended = self.failed = self.refused = self.cancelled = 0
        self.bytes = 0
        self._closed = False

    @property
    def depth(self) -> int:
        """How many may be under way."""
        return self.control.depth

    @property
    def latency(self) -> float:
        """Mean seconds of the last requests, from when they began."""
        return self.control.latency

    @property
    def waiting(self) -> int:
        """How many wait; those that were cancelled are counted until their turn comes."""
        return len(self._waiting)

    def submit(
        self, run: Callable[[], _T], size: int, priority: Priority = Priority.NORMAL, *, timeout: float = 0.0
    ) -> Future[_T]:
        """Has `run` called by a thread when it is its turn; its future can be cancelled until then.

        Args:
            size: bytes that it reads or writes. timeout: seconds to wait for room.

        Raises:
            SwarmFull: there was no room for that long, or no thread can be had.
            RuntimeError: the queue is closed.
        """
        future: Future[_T] = Future()
        with self._lock:
            if not self._lock.wait_for(lambda: self._closed or self._has_room(size), timeout):
                self.refused += 1
                raise SwarmFull(
                    f"{len(self._waiting)} requests with {self._bytes} bytes wait for the disk: submit with a timeout"
                )
            if self._closed:
                raise RuntimeError("the queue is closed")
            if not self._idle and self._threads < self.control.most and self.in_flight < self.depth:
                self._hire()
            if not self._threads:
                self.refused += 1
                raise SwarmFull("no thread can be started that would ask the disk: the pod's limit of processes")
            heapq.heappush(self._waiting, _Request(priority.lane, next(self._numbers), size, run, future))
            self._bytes += size
            self._lock.notify_all()
        return future

    def close(self) -> None:
        """Takes nothing more; what waits is cancelled, what is under way is waited for."""
        with self._lock:
            self._closed = True
            for request in self._waiting:
                self.cancelled += request.future.cancel()
            self._waiting.clear()
            self._bytes = 0
            self._lock.notify_all()
            self._lock.wait_for(lambda: not self._threads)

    def _has_room(self, size: int) -> bool:
        # One that is larger than all that may wait is taken when nothing else does.
        return not self._waiting or (len(self._waiting) < self._most and self._bytes + size <= self._most_bytes)

    def _hire(self) -> None:
        """One thread more, if the system lets us: those that there are serve all requests, only later."""
        self._threads += 1
        try:
            threading.Thread(target=self._work, name="io", daemon=True).start()
        except RuntimeError:
            self._threads -= 1

    def _take(self) -> _Request:
        self._taken += 1
        if self._taken % FAIR:
            request = heapq.heappop(self._waiting)
        else:
            request = min(self._waiting, key=lambda one: one.number)
            self._waiting.remove(request)
            heapq.heapify(self._waiting)
        self._bytes -= request.size
        self._lock.notify_all()
        return request

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
                there = self._lock.wait_for(
                    lambda: self._closed or (self._waiting and self.in_flight < self.depth), IDLE
                )
                self._idle -= 1
                if not (there and self._waiting):
                    self._threads -= 1
                    self._lock.notify_all()
                    return
                request = self._take()
                if not request.future.set_running_or_notify_cancel():
                    self.cancelled += 1
                    continue
                self.in_flight += 1
                full = self.in_flight >= self.depth and bool(self._waiting)
                if self._waiting and self.in_flight < self.depth and not self._idle:
                    self._hire()
            began = self._clock()
            try:
                result, error = request.run(), None
            except BaseException as raised:
                result, error = None, raised
            now = self._clock()
            with self._lock:
                self.in_flight -= 1
                self.ended += 1
                self.failed += error is not None
                self.bytes += request.size if error is None else 0
                if error is None:
                    self.control.ended(now, now - began, request.size, full=full)
                self._lock.notify_all()
            # Whoever waits for it runs on from here: not under the lock.
            if error is None:
                request.future.set_result(result)
            else:
                request.future.set_exception(error)
            del request, result, error


_shared: tuple[int, IoQueue] | None = None
_making = threading.Lock()


def shared() -> IoQueue:
    """The queue of this process."""
    global _shared
    if _shared is None or _shared[0] != os.getpid():
        with _making:
            if _shared is None or _shared[0] != os.getpid():
                _shared = os.getpid(), IoQueue()
    return _shared[1]
