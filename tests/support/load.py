"""A client that keeps a swarm busy and counts what becomes of every task: for tests in which something else happens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from swarm_agents.client import Connection, Swarm

__all__ = ["Load"]


class Load:
    """Keeps `window` tasks of `seconds` each in flight, from a thread, until it is stopped.

    The tasks sleep, so that the answers a second say how many agents take part, whatever else the machine has to do.
    """

    def __init__(
        self,
        find: Callable[[], Connection],
        *,
        board: bool,
        window: int = 16,
        seconds: float = 0.05,
        retry_window: float = 30.0,
        task: Callable[[int], tuple[str, tuple[Any, ...], Any]] | None = None,
    ) -> None:
        """Begins.

        Args:
            find: says where the swarm is.
            board: by the node's board alone, else by the hubs alone.
            retry_window: how long the swarm may be out of reach (seconds).
            task: makes of a number the kernel, its arguments and the answer that is right; instead of sleeping.
        """

        def target() -> Connection:
            return msgspec.structs.replace(find(), **({"hubs": ()} if board else {"board": None}))

        self._swarm = Swarm.connect(target, retry_window=retry_window)
        self._room = threading.Semaphore(window)
        self._task = task or (lambda number: ("core.sleep", (seconds,), None))
        self._checks = task is not None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0
        self.errors: list[BaseException] = []
        #: Answers by the number of the task: more than one would be one too many.
        self.answers: Counter[int] = Counter()
        #: When each came.
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._room.acquire(timeout=0.1):
                continue
            number = self.sent
            self.sent += 1
            try:
                kernel, arguments, right = self._task(number)
                future = self._swarm.submit(kernel, *arguments, timeout=None)
            except Exception as error:
                self.errors.append(error)
                self._room.release()
                time.sleep(0.05)
                continue
            future.add_done_callback(lambda done, number=number, right=right: self._done(done, number, right))

    def _done(self, future: Any, number: int, right: Any) -> None:
        error = future.exception()
        with self._lock:
            if error is not None:
                self.errors.append(error)
            elif self._checks and future.result() != right:
                self.errors.append(ValueError(f"task {number} was answered with {future.result()!r}, not {right!r}"))
            else:
                self.answers[number] += 1
                self.times.append(time.monotonic())
        self._room.release()

    def rate(self, since: float, until: float) -> float:
        """Answers a second in a span of the monotonic clock."""
        with self._lock:
            return sum(since <= when < until for when in self.times) / max(until - since, 1e-9)

    def stop(self, patience: float = 60.0) -> None:
        """Submits no more, waits for what is in flight, and leaves."""
        self._over.set()
        self._thread.join(patience)
        until = time.monotonic() + patience
        while self._swarm.pending and time.monotonic() < until:
            time.sleep(0.02)
        self._swarm.close()

    def lost(self) -> int:
        """Tasks that were sent and not answered with a value."""
        return self.sent - len(self.answers)

    def doubled(self) -> int:
        return sum(count - 1 for count in self.answers.values())
