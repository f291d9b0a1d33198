"""The loop round the planner: take a key, observe, plan, execute, report, and look again when the plan says so.

Everything that waits or fails is dealt with here and nowhere else: back-off per key, what the API server asks for with
Retry-After, the once-a-second limit on status writes, the leadership. The planner and the status stay pure.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from swarm_operator.actions import Plan
from swarm_operator.api.v1alpha1 import API_VERSION, KIND
from swarm_operator.cache import Cache
from swarm_operator.events import Recorder, notes_of
from swarm_operator.execute import Executor, NotLeader, Outcome
from swarm_operator.kube import Api, ApiError
from swarm_operator.leader import Leader
from swarm_operator.metrics import Metrics
from swarm_operator.names import Key
from swarm_operator.plan import plan
from swarm_operator.snapshot import Snapshot
from swarm_operator.status import leaving_status, status_of
from swarm_operator.views import decode
from swarm_operator.workqueue import WorkQueue

__all__ = ["WORKERS", "Controller"]

#: Swarms that are worked on at once.
WORKERS: Final = 16
#: A status is written at most this often (seconds).
STATUS_INTERVAL: Final = 1.0
#: A Swarm to which nothing happens is looked at again after this long, give or take a quarter.
QUIET: Final = 300.0
#: After a round that computed for t seconds its Swarm rests for twice that, at most REST_MAX: a Swarm of thousands of
#: pods, of which each has news, is looked at some times a second and not without a pause, and does not hold up others.
REST: Final = 2.0
REST_MAX: Final = 0.2

log = structlog.get_logger("controller")


class Controller:
    """Works the queue."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        executor: Executor,
        recorder: Recorder,
        metrics: Metrics,
        leader: Leader | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.queue: WorkQueue[Key] = WorkQueue(clock)
        self._api, self._cache, self._executor = api, cache, executor
        self._recorder, self._metrics, self._leader = recorder, metrics, leader
        self._clock, self._now = clock, now
        self._status_written: dict[Key, float] = {}
        #: Seconds that the round in hand has kept the loop from everybody else.
        self._computed: dict[Key, float] = {}
        self._stopping = asyncio.Event()
        cache.on_key = self.queue.add
        executor.on_news = self.queue.add_after

    async def run(self, workers: int = WORKERS) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._worker())

    async def drain(self, limit: float) -> None:
        """Takes no more keys, and waits until those in hand are done, `limit` seconds at most."""
        self._stopping.set()
        try:
            async with asyncio.timeout(limit):
                await self.queue.idle()
        except TimeoutError:
            log.warning("stopping with work in hand", swarms=self.queue.working)

    async def _worker(self) -> None:
        while True:
            if self._leader:
                await self._leader.elected.wait()
            # A round that writes nothing waits for nothing: with many keys that are due again by then, the answers that
            # they wait for would never be read.
            await asyncio.sleep(0)
            key, waited = await self.queue.get()
            try:
                if self._stopping.is_set():
                    return
                self._metrics.queue_seconds.observe(waited)
                with self._metrics.reconcile_seconds.time():
                    result = await self._guarded(key)
                self._metrics.reconciles.labels(result).inc()
            finally:
                self.queue.done(key, rest=min(REST * self._computed.pop(key, 0.0), REST_MAX))

    async def _guarded(self, key: Key) -> str:
        """One round for one Swarm, whatever happens."""
        try:
            return await self.reconcile(key)
        except NotLeader:
            self.queue.add(key)
            return "not-leader"
        except ApiError as error:
            delay = self.queue.retry(key, error.retry_after or 0.0)
            log.warning("reconcile failed", swarm=str(key), error=str(error), retry_in=round(delay, 1))
            return "error"
        except Exception:
            # a defect of ours in one Swarm must not take the others down with it
            delay = self.queue.retry(key)
            log.exception("reconcile crashed", swarm=str(key), retry_in=round(delay, 1))
            return "crash"

    async def reconcile(self, key: Key) -> str:
        """Observes, plans, executes and reports once.

        Raises:
            ApiError: the status could not be written. Refused actions do not raise; they are in the status.
            NotLeader: another replica leads.
        """
        begun = self._clock()
        snapshot = self._cache.snapshot(key)
        if snapshot is None or snapshot.swarm.deleting:
            self.queue.forgive(key)
            self._status_written.pop(key, None)
            if snapshot is not None:
                await self._write(key, snapshot, {**snapshot.swarm.status, **leaving_status(snapshot, self._now())})
            return "gone"
        planned = plan(snapshot, self._now())
        self._computed[key] = self._clock() - begun
        outcome = await self._executor.execute(snapshot, planned)
        self._tell(snapshot, outcome)
        if outcome.failures:
            self.queue.retry(key, outcome.retry_after)
        else:
            self.queue.forgive(key)
        if planned.requeue_after is not None:
            self.queue.add_after(key, max(planned.requeue_after, 0.01))
        self.queue.add_after(key, QUIET * random.uniform(0.75, 1.25))
        await self._report(key, snapshot, planned, [str(failure) for failure in outcome.failures])
        return "failed" if outcome.failures else "ok"

    def _tell(self, snapshot: Snapshot, outcome: Outcome) -> None:
        for action in outcome.done:
            self._metrics.actions.labels(type(action).__name__, "done").inc()
        for failure in outcome.failures:
            self._metrics.actions.labels(type(failure.action).__name__, "failed").inc()
        notes = notes_of(outcome.done, outcome.failures)
        for note in notes:
            emit = log.warning if note.type == "Warning" else log.info
            emit(note.message, swarm=str(snapshot.key), reason=note.reason)
        self._recorder.record(snapshot.swarm, notes)

    async def _report(self, key: Key, before: Snapshot, planned: Plan, failures: Sequence[str]) -> None:
        """Writes the status, if it changed, and not more often than once a second."""
        begun, now = self._clock(), self._now()
        wait = self._status_written.get(key, float("-inf")) + STATUS_INTERVAL - begun
        if wait > 0 and self.queue.awaits(key):
            self.queue.add_after(key, wait)  # the next round is due at once, and its status is the newer one
            return
        snapshot: Snapshot | None = before
        if planned.actions:
            snapshot = self._cache.snapshot(key)  # as it is now: what was done is in it already
            if snapshot is None or snapshot.swarm.deleting:
                return
            planned = plan(snapshot, now)
        assert snapshot
        wanted = status_of(snapshot, planned, failures, now)
        self._computed[key] = self._computed.get(key, 0.0) + self._clock() - begun
        if _same(wanted, snapshot.swarm.status):
            return
        if wait > 0:
            self.queue.add_after(key, wait)
            return
        await self._write(key, snapshot, wanted)

    async def _write(self, key: Key, snapshot: Snapshot, wanted: dict[str, Any]) -> None:
        if _same(wanted, snapshot.swarm.status):
            return
        if self._leader and not self._leader.leads():
            raise NotLeader
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            # the UID keeps a status from being written onto a successor of the same name
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": snapshot.swarm.uid},
            "status": wanted,
        }
        try:
            answer = await self._api.apply(manifest, subresource="status")
        except ApiError as error:
            if error.status in (404, 409):
                return
            raise
        self._status_written[key] = self._clock()
        self._metrics.status_writes.inc()
        self._cache.store("Swarm", key.namespace).put_written(decode("Swarm", answer))


def _same(wanted: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    return all(observed.get(field) == value for field, value in wanted.items())
