"""Clients that keep the checked workload going, and count what becomes of it.

Each client is a connection of its own and a thread that keeps a window of tasks underway, whatever is being done to the
swarm. A task counts as sent when `submit` has returned: from then on it has to be answered or reported as failed.
Answers are looked at in the callback of the future, which also sees a second one.

The gap in service is the longest time in which a client with tasks underway got no answer to any.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from swarm_agents.errors import SwarmError
from swarm_deploy.chaos.work import LONG, Item, items

if TYPE_CHECKING:
    from swarm_agents.client import Connection, Swarm

__all__ = ["Account", "Client", "Gap", "connector"]

#: Tasks underway, and how many of them may be long.
WINDOW, LONG_WINDOW = 6, 2
#: A client that answers come to this fast waits a moment: the machine is not to be overloaded by those who measure.
_PACE = 0.004
#: How long one attempt to submit waits for room; then the client looks whether it should end (seconds).
_PATIENCE = 0.5
#: How long a connection that broke is tried to be made anew: longer than the whole cluster takes to start again.
RETRY_WINDOW = 60.0


@dataclass
class Gap:
    """A time without any answer: seconds, and when it began (monotonic)."""

    seconds: float = 0.0
    began: float = 0.0


@dataclass
class Account:
    """What became of a client's tasks."""

    name: str
    sent: int = 0
    answered: int = 0
    #: Answers that said that the task was begun more than once.
    retried: int = 0
    #: Long tasks that went on from a checkpoint.
    resumed: int = 0
    #: Error's code -> tasks that failed by it.
    failed: Counter[str] = field(default_factory=Counter)
    #: Second answers to a task; answers that were not the task's.
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)
    #: Times that the swarm did not take a task on at once, and was asked again.
    refused: int = 0
    #: Error's code -> the first message of it.
    reasons: dict[str, str] = field(default_factory=dict)
    gap: Gap = field(default_factory=Gap)
    #: What is known of each lost task.
    missing: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Tasks that were sent, and neither answered nor reported as failed."""
        return self.sent - self.answered - sum(self.failed.values())


class Client(threading.Thread):
    """One client; `start` begins, `finish` ends it and waits for what is underway."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Swarm],
        *,
        seed: int,
        walks: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name=f"chaos-{name}", daemon=True)
        self.account = Account(name)
        #: What ended it early; None as it should be.
        self.problem: BaseException | None = None
        self._connect = connect
        self._items = items(seed, walks=walks)
        self._clock = clock
        self._ending = threading.Event()
        self._something = threading.Event()
        #: Nobody waits any more for what is underway.
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self._underway: dict[int, Item] = {}
        #: Of what is underway: the swarm's id of the task, and when it was taken on (monotonic).
        self._taken: dict[int, tuple[Any, float]] = {}
        self._done: set[int] = set()
        self._last = 0.0

    # -- the thread

    def run(self) -> None:
        try:
            with_swarm = self._connect()
        except BaseException as error:
            self.problem = error
            return
        try:
            self._work(with_swarm)
        except BaseException as error:
            self.problem = error
        finally:
            with_swarm.close()

    def _work(self, swarm: Swarm) -> None:
        kept: Item | None = None
        while not self._ending.is_set():
            self._something.clear()
            with self._lock:
                underway = list(self._underway.values())
            if len(underway) >= WINDOW:
                self._something.wait(0.1)
                continue
            item = kept or next(self._items)
            if item.kind == LONG and sum(other.kind == LONG for other in underway) >= LONG_WINDOW:
                continue  # the next one in its place; whether a long one is left out changes nothing that is checked
            kept = None if self._submit(swarm, item) else item
            time.sleep(_PACE)
        while self._underway and not self._given_up.wait(0.05):
            pass

    def _submit(self, swarm: Swarm, item: Item) -> bool:
        """Whether the swarm has taken it on."""
        with self._lock:
            if not self._underway:
                self._last = self._clock()  # nothing was asked for: no answer was missing
            self._underway[item.number] = item
        try:
            future = swarm.submit(item.kernel, *item.args, timeout=_PATIENCE, **item.kwargs)
        except SwarmError:
            with self._lock:
                del self._underway[item.number]
                self.account.refused += 1
            return False
        with self._lock:
            self.account.sent += 1
            self._taken[item.number] = future.task, self._clock()
        future.add_done_callback(lambda done: self._answered(item, done))
        return True

    def forget_gap(self) -> None:
        """Gaps in service count from now on."""
        with self._lock:
            self.account.gap = Gap()
            self._last = self._clock()

    def finish(self, timeout: float) -> None:
        """Sends nothing more, waits up to `timeout` seconds for what is underway, and leaves."""
        self._ending.set()
        self.join(timeout)
        if self.is_alive():
            with self._lock:
                self._given_up.set()
                for number, item in self._underway.items():
                    task, since = self._taken.get(number, ((0, 0), 0.0))
                    ago = self._clock() - since
                    self.account.missing.append(f"{task[0]:x}-{task[1]:x} {item.kernel}, sent {ago:.1f} s before")
            self.join(20)
        with self._lock:
            self._note_gap()

    # -- answers

    def _answered(self, item: Item, future: Future[Any]) -> None:
        account = self.account
        with self._lock:
            if self._given_up.is_set():
                return  # what closing the connection fails is lost, and no reported failure
            if item.number in self._done:
                account.doubled += 1
                return
            self._done.add(item.number)
            self._underway.pop(item.number, None)
            self._taken.pop(item.number, None)
            self._note_gap()
            self._something.set()
            error = future.exception()
            if error is not None:
                code = getattr(error, "code", type(error).__name__)
                account.failed[code] += 1
                account.reasons.setdefault(code, str(error).splitlines()[0] if str(error) else repr(error))
                return
            account.answered += 1
            info = getattr(future, "info", None)
            account.retried += info is not None and info.attempts > 1
        value = future.result()
        right = item.right(value)
        with self._lock:
            if not right:
                account.wrong.append(f"task {item.number} ({item.kernel}) was answered by {str(value)[:120]}")
            elif isinstance(value, dict) and value.get("resumed"):
                account.resumed += 1

    def _note_gap(self) -> None:
        """Something came, or nothing more is waited for. The caller holds the lock."""
        now = self._clock()
        if self._last and now - self._last > self.account.gap.seconds:
            self.account.gap = Gap(now - self._last, self._last)
        self._last = now


def connector(where: Callable[[], Connection]) -> Callable[[], Swarm]:
    """How a client connects, patiently; `where` says where the swarm is, also later, when its hubs were replaced."""

    def connect() -> Swarm:
        from swarm_agents.client import Swarm

        return Swarm.connect(where, timeout=30.0, retry_window=RETRY_WINDOW)

    return connect
