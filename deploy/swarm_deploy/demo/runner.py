"""Runs the job on a swarm, or on anything that has `submit` like one, and keeps a record of each task.

One thread drives it by calling `pump` again and again. It never has more than a window of tasks underway, so that
payloads do not fill the swarm's memory and an interruption loses little; a swarm that is full is simply asked again at
the next call. What-if questions go out at their own pace whatever else is underway: their latency is what a user feels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from swarm_agents.errors import SwarmFull
from swarm_deploy.demo.job import Item, Job

__all__ = ["Executor", "Record", "Runner", "run_all"]

#: Tasks of `Job.work` that are underway at most.
WINDOW = 96


class Executor(Protocol):
    """What the runner needs of a swarm's client."""

    def submit(self, kernel: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `swarm_agents.client.Swarm.submit`."""


@dataclass
class Record:
    """How a task went. Times are seconds on the runner's clock."""

    item: Item
    submitted: float
    done: float = 0.0
    value: Any = None
    error: BaseException | None = None
    #: Pod that computed it; how often it was begun; seconds waited and run; nodes it passed.
    agent: str = ""
    attempts: int = 1
    queued: float = 0.0
    run: float = 0.0
    hops: int = 0

    @property
    def latency(self) -> float:
        """Seconds from submission to answer."""
        return self.done - self.submitted


class Runner:
    """See the module's text."""

    def __init__(
        self,
        executor: Executor,
        job: Job,
        *,
        seconds: float,
        window: int = WINDOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._clock = clock
        self._work = deque(job.work)
        self._questions = deque(job.questions)
        self._pace = seconds / max(len(job.questions), 1)
        self._window = window
        self._underway: dict[int, tuple[Record, Future[Any]]] = {}
        self._finished: deque[tuple[int, float]] = deque()  # appended to by the client's threads
        self._heavy = 0
        self.records: list[Record] = []
        self.total = len(job.work) + len(job.questions)
        self.cost = job.cost
        self.cost_done = 0.0
        self.began = clock()

    @property
    def underway(self) -> list[Record]:
        """Tasks without an answer yet."""
        return [record for record, _ in self._underway.values()]

    @property
    def backlog(self) -> int:
        """Tasks that have not been submitted yet, but for what-if questions, whose time has not come."""
        return len(self._work)

    @property
    def finished(self) -> bool:
        """Whether every task has been answered."""
        return len(self.records) == self.total

    @property
    def progress(self) -> float:
        """Share of the work that is done, by expected cost."""
        return self.cost_done / self.cost if self.cost else len(self.records) / max(self.total, 1)

    def pump(self) -> list[Record]:
        """Submits what may be submitted and returns the tasks that have been answered since the last call."""
        new = self._collect()
        now = self._clock()
        while self._questions:
            asked = self._questions[0].part
            # When the work is done there is nothing left to measure latency under: the rest is asked at once.
            if self.began + asked * self._pace > now and (self._work or self._heavy):
                break
            if not self._submit(self._questions[0]):
                return new
            self._questions.popleft()
        while self._work and self._heavy < self._window:
            if not self._submit(self._work[0]):
                break
            self._work.popleft()
        return new

    def cancel(self) -> None:
        """Gives up everything that is underway."""
        for _, future in list(self._underway.values()):
            future.cancel()

    def _submit(self, item: Item) -> bool:
        record = Record(item, self._clock())
        try:
            future = self._executor.submit(item.kernel, *item.args, priority=item.priority, timeout=0, **item.kwargs)
        except SwarmFull:
            return False
        self._underway[item.number] = (record, future)
        self._heavy += item.kind != "what-if"
        future.add_done_callback(lambda _: self._note(item.number))
        return True

    def _note(self, number: int) -> None:
        self._finished.append((number, self._clock()))

    def _collect(self) -> list[Record]:
        new: list[Record] = []
        while self._finished:
            number, done = self._finished.popleft()
            record, future = self._underway.pop(number)
            self._heavy -= record.item.kind != "what-if"
            record.done = done
            if future.cancelled():
                record.error = RuntimeError("it was cancelled")
            else:
                record.error = future.exception()
                record.value = None if record.error else future.result()
            info = getattr(future, "info", None)
            if info is not None:
                record.agent, record.attempts = info.agent, info.attempts
                record.queued, record.run, record.hops = info.queued, info.run, info.hops
            self.cost_done += record.item.cost
            self.records.append(record)
            new.append(record)
        return new


def run_all(executor: Executor, items: Iterable[Item], timeout: float) -> list[Record]:
    """Runs a few tasks one after the other, as a probe does; raises what a task raises."""
    records = []
    for item in items:
        record = Record(item, time.monotonic())
        future = executor.submit(item.kernel, *item.args, priority=item.priority, timeout=timeout, **item.kwargs)
        record.value = future.result(timeout)
        record.done = time.monotonic()
        info = getattr(future, "info", None)
        record.run = info.run if info is not None else record.latency
        record.agent = info.agent if info is not None else ""
        records.append(record)
    return records
