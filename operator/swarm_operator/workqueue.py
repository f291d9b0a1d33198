"""A queue of keys: each at most once, serial per key, concurrent across keys, with back-off per key.

The same contract as client-go's: a key that is added while it is being worked on is worked on once more afterwards, and
never at the same time. One broken Swarm waits longer and longer by itself and never holds up another.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

__all__ = ["BACKOFF_BASE", "BACKOFF_MAX", "WorkQueue"]

BACKOFF_BASE: Final = 0.1
BACKOFF_MAX: Final = 60.0

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait for work. `clock` must be the event loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        #: The earliest time that a key is already due at, so that repeated wishes do not pile up.
        self._due: dict[K, float] = {}
        self._resting: dict[K, float] = {}
        self._since: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = itertools.count()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working)

    def add(self, key: K) -> None:
        """Have `key` worked on, once, however often this is said before it is."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self._since.setdefault(key, self._clock())
        if key not in self._working and key not in self._resting:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: K, delay: float) -> None:
        """Have `key` worked on in `delay` seconds at the latest."""
        if delay <= 0:
            self.add(key)
            return
        when = self._clock() + delay
        if self._due.get(key, float("inf")) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._later, (when, next(self._count), key))
        self._wake.set()

    def awaits(self, key: K) -> bool:
        """Whether `key` was added and not taken since."""
        return key in self._dirty

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Have `key` worked on after its back-off, which doubles each time. Returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(at_least, min(BACKOFF_BASE * 2.0 ** min(failures, 32), BACKOFF_MAX))
        self.add_after(key, delay)
        return delay

    def forgive(self, key: K) -> None:
        """`key` went well: its next failure waits the shortest time again."""
        self._failures.pop(key, None)

    async def get(self) -> tuple[K, float]:
        """The next key, and how long it has waited. `done` must follow."""
        while True:
            now = self._clock()
            while self._later and self._later[0][0] <= now:
                when, _, key = heapq.heappop(self._later)
                if self._resting.get(key) == when:
                    del self._resting[key]
                    if key in self._dirty and key not in self._working:
                        self._ready.append(key)
                if self._due.get(key) == when:
                    del self._due[key]
                    self.add(key)
            if self._ready:
                key = self._ready.popleft()
                self._dirty.discard(key)
                self._working.add(key)
                self._idle.clear()
                return key, now - self._since.pop(key, now)
            self._wake.clear()
            # never shorter than the clock can tell apart: a remainder of 1e-16 s would never pass
            timeout = max(self._later[0][0] - now, 1e-3) if self._later else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def done(self, key: K, rest: float = 0.0) -> None:
        """The work on `key` is over; if it was added meanwhile it is ready again, after `rest` seconds."""
        self._working.discard(key)
        if not self._working:
            self._idle.set()
        if rest > 0:
            self._resting[key] = self._clock() + rest
            # looked at when the rest is over, whether it was added meanwhile or is added until then
            heapq.heappush(self._later, (self._resting[key], next(self._count), key))
        elif key in self._dirty:
            self._ready.append(key)
        self._wake.set()

    async def idle(self) -> None:
        """Returns when no key is being worked on."""
        await self._idle.wait()

    async def run(self, work: Callable[[K, float], Awaitable[None]]) -> None:
        """One worker: takes keys and calls `work(key, waited)`, which must not raise."""
        while True:
            key, waited = await self.get()
            try:
                await work(key, waited)
            finally:
                self.done(key)
