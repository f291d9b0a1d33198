"""Tasks that wait in an agent's hand until it is time to begin them again.

The board knows of no pause: what is given back there can be claimed at once. So the agent that claims a task whose last
attempt came to nothing keeps it in hand for the pause that its `Retry` asks for, works on other tasks meanwhile, and
begins it when it is due. If the agent dies, the task is another's like all that it had in hand. If the agent is at
something long when it is due, a thread gives it back after `_PATIENCE`, for one that is idle to take; giving back does
not count as an attempt.

Rejected: a time in the task's slot (every claim would have to look at it, and skipping a task in a queue keeps its
place), sleeping in the agent (one failing task would hold up the others).
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm_agents.shm.board import Claim

__all__ = ["Waiting"]

#: How long a task that is due waits for its agent to finish something else (seconds).
_PATIENCE = 0.05
#: So many wait in an agent's hand at most; the next one is begun without a pause.
MOST = 64


class Waiting:
    """The tasks of one agent that wait. Its methods may be called from any thread."""

    def __init__(self, hand_back: Callable[[Claim], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._hand_back = hand_back
        self._clock = clock
        self._heap: list[tuple[float, int, Claim]] = []
        self._numbers = itertools.count()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, claim: Claim, seconds: float) -> bool:
        """Keeps a task for so many seconds; False: too many wait already."""
        with self._lock:
            if len(self._heap) >= MOST:
                return False
            heapq.heappush(self._heap, (self._clock() + seconds, next(self._numbers), claim))
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="waiting", daemon=True)
                self._thread.start()
            self._lock.notify()
            return True

    def take(self) -> Claim | None:
        """A task that is due, or whose submitter has given it up; the first of them."""
        with self._lock:
            if self._heap and self._heap[0][0] <= self._clock():
                return heapq.heappop(self._heap)[2]
            for at, (_, _, claim) in enumerate(self._heap):
                if claim.cancelled():
                    del self._heap[at]
                    heapq.heapify(self._heap)
                    return claim
        return None

    def patience(self, most: float) -> float:
        """Seconds until one is due, at most `most`."""
        heap = self._heap
        return max(min(most, heap[0][0] - self._clock()), 0.0) if heap else most

    def give_up(self, *, hand_back: bool) -> None:
        """Gives all of them back; or forgets them, when they are not this agent's any more."""
        with self._lock:
            claims = [claim for _, _, claim in self._heap]
            self._heap.clear()
        if hand_back:
            for claim in claims:
                self._hand_back(claim)

    def _watch(self) -> None:
        while True:
            with self._lock:
                if not self._heap:
                    self._lock.wait()
                    continue
                left = self._heap[0][0] + _PATIENCE - self._clock()
                if left > 0:
                    self._lock.wait(left)
                    continue
                claim = heapq.heappop(self._heap)[2]
            self._hand_back(claim)
