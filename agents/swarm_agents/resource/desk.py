"""The hub's place on its node's board: it submits for those outside, and claims for nodes that are idler.

What a board and the wire hold of a payload is the same (the value's header, then its buffers), so tasks and answers
pass here as they are. Answers are copied out of the arena once, because they are kept until somebody far away has
acknowledged them, and the arena belongs to the node; arguments of a forwarded task are sent from where they lie, and
stay there until the claim is settled.

A thread parks on the board's futex and wakes the event loop when answers have come. Another one commits large results:
a full arena makes a commit wait, and the loop must go on to take the answers that make room. All else is called in the
loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from swarm_agents.config import Priority, Role
from swarm_agents.errors import Fenced, PayloadTooLarge, SwarmFull, TaskCancelled, to_wire
from swarm_agents.wire import schema
from swarm_agents.wire.schema import Load, TaskId

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, Claim, Member, RawAnswer, Ticket

__all__ = ["Answered", "Claimed", "Desk"]

#: The thread looks whether it should end this often (seconds).
_WAIT = 0.1
#: How old the counts of members and the mean run time may be (seconds).
_MEMBERS_AGE, _MEAN_AGE = 0.02, 1.0
#: Without a heartbeat for this long an agent is not counted as one that will take work (seconds).
_SILENT = 0.5
#: Weight of a new observation in a running mean.
_NEWS = 0.1
#: Kernels whose run time is remembered.
_MOST_KERNELS = 1024
#: Results above this many bytes are committed on the thread.
_LARGE = 16 << 10
_LANES = tuple(Priority)


class Answered(Struct, frozen=True):
    """A task from outside is done; `payload` is the hub's own copy."""

    answer: schema.Answer
    payload: list[Any]


class Claimed(Struct, frozen=True, eq=False):
    """A task of this board that the hub has claimed; `payload` lies in the arena."""

    submit: schema.Submit
    payload: Sequence[Any]
    #: The board's own claim.
    token: Any


class Desk:
    """See the module's text."""

    def __init__(self, board: Board, member: Member) -> None:
        self._board = board
        self._port = board.port(member)
        self._worker = board.worker(member)
        self._tickets: dict[TaskId, Ticket] = {}
        #: Nodes that a task from another hub has left behind.
        self._hops: dict[TaskId, int] = {}
        self._times: dict[str, float] = {}
        self._room = board.geometry.task_slots // len(_LANES)
        self._workers = self._idle = 0
        self._members_at = self._mean_at = float("-inf")
        self._mean = 0.0
        self._runs: Any = None
        self._closed = False
        self._polled = threading.Event()
        self._thread: threading.Thread | None = None
        self._committer = board.worker(member)
        self._commits = ThreadPoolExecutor(1, "desk-commit")
        #: This hub was declared dead: everything in hand is void.
        self.fenced = False

    # -- for those outside

    def listen(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Has `callback` called in the loop whenever there are answers."""

        def look() -> None:
            if not self._closed:
                callback()
            self._polled.set()

        def wait() -> None:
            while not self._closed:
                try:
                    if not self._port.wait(_WAIT):
                        continue
                except Fenced:
                    self.fenced = True
                    return
                self._polled.clear()
                try:
                    loop.call_soon_threadsafe(look)
                except RuntimeError:  # the loop is closed
                    return
                self._polled.wait(_WAIT)

        self._thread = threading.Thread(target=wait, name="desk-wait", daemon=True)
        self._thread.start()

    def submit(self, submit: schema.Submit, payload: Sequence[Any]) -> None:
        """Puts a task on the board.

        Raises:
            SwarmFull: no room now.
            PayloadTooLarge: the arena can't hold it.
        """
        deadline = None if submit.budget is None else time.time() + submit.budget
        try:
            ticket = self._port.submit_raw(
                submit.kernel,
                bytes(payload[0]) if payload else b"",
                payload[1:],
                priority=_LANES[submit.lane],
                task_id=submit.task,
                deadline=deadline,
            )
        except Fenced as error:
            self.fenced = True
            raise SwarmFull("this hub was taken for dead and is joining again") from error
        self._tickets[submit.task] = ticket
        if submit.hops:
            self._hops[submit.task] = submit.hops

    def cancel(self, task: TaskId) -> None:
        """Nobody waits for it any more."""
        ticket = self._tickets.get(task)
        if ticket is not None:
            self._port.cancel(ticket)

    def answers(self) -> list[Answered]:
        """What has been answered since the last call."""
        found = []
        for raw in self._port.poll_raw(256):
            task = raw.ticket.task_id
            self._learn(raw.ticket.kernel, raw.run_s)
            # Given up, and submitted anew under the same id since: that answer is another one's.
            if self._tickets.get(task) is raw.ticket:
                del self._tickets[task]
                self._hops.pop(task, None)
                found.append(self._answered(task, raw))
        return found

    def _answered(self, task: TaskId, raw: RawAnswer) -> Answered:
        error, payload = None, []
        if raw.error is not None:
            error = to_wire(raw.error)
        elif raw.ok:
            payload = [raw.header, *raw.buffers]
        else:
            error = msgspec.msgpack.decode(raw.header, type=dict[str, str])
        agent = self._board.member_name(raw.agent)
        answer = schema.Answer(task, error, agent, raw.attempts, raw.queued_s, raw.run_s, raw.hops)
        return Answered(answer, payload)

    # -- for other nodes

    def claim(self, lane: int) -> Claimed | None:
        """Claims a task of one lane, as any worker does."""
        try:
            claim: Claim | None = self._worker.claim(0.0, lanes=(lane, lane))
        except Fenced:
            self.fenced = True
            return None
        if claim is None:
            return None
        budget = None if claim.deadline is None else claim.deadline - time.time()
        submit = schema.Submit(
            claim.task_id, claim.kernel, claim.priority.lane, budget, self._hops.get(claim.task_id, 0)
        )
        return Claimed(submit, [bytes(claim.header), *claim.buffers], claim)

    def commit(
        self, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any], done: Callable[[bool], None]
    ) -> None:
        """Answers a claimed task with what another node has made of it; `done` learns whether that counted."""
        self._learn(claimed.submit.kernel, answer.run)
        if sum(memoryview(part).nbytes for part in payload) <= _LARGE:
            done(self._commit(self._worker, claimed, answer, payload))
            return
        loop = asyncio.get_running_loop()
        future = self._commits.submit(self._commit, self._committer, claimed, answer, payload)
        future.add_done_callback(lambda f: loop.call_soon_threadsafe(done, f.result()))

    @staticmethod
    def _commit(worker: Any, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any]) -> bool:
        claim, hops, run = claimed.token, answer.hops + 1, int(answer.run * 1e9)
        if answer.error is not None or not payload:
            error = answer.error or {"code": "PayloadError", "message": "another node's answer had no payload"}
            return bool(worker.commit_raw(claim, msgspec.msgpack.encode(error), ok=False, hops=hops, run_ns=run))
        try:
            return bool(worker.commit_raw(claim, bytes(payload[0]), payload[1:], hops=hops, run_ns=run))
        except (PayloadTooLarge, SwarmFull) as error:
            return bool(worker.commit_raw(claim, msgspec.msgpack.encode(to_wire(error)), ok=False, hops=hops))

    def hand_back(self, claimed: Claimed, *, untouched: bool = False) -> None:
        """Others may claim it again; a task that was touched counts as begun once more."""
        self._worker.hand_back(claimed.token, begun=not untouched)

    def abandoned(self, claimed: Claimed) -> bool:
        """Whether nobody waits for it any more."""
        return bool(claimed.token.cancelled())

    def drop(self, claimed: Claimed) -> None:
        """Ends an abandoned task."""
        self._worker.fail(claimed.token, TaskCancelled("it was cancelled while another node computed it"), "")

    # -- what there is to do, and to do it with

    def load(self) -> Load:
        """The node's load; its counts of members are up to 20 ms old."""
        now = time.monotonic()
        if now - self._members_at > _MEMBERS_AGE:
            self._members_at = now
            self._count_workers()
        if now - self._mean_at > _MEAN_AGE:
            self._mean_at = now
            self._read_mean()
        depth = tuple(self._board.depths().values())
        return Load(self._workers, self._idle, depth, max(0, self._room - max(depth)), self._mean)

    def run_time(self, kernel: str) -> float | None:
        """Seconds that a kernel has run of late; None if none of its answers has passed here."""
        return self._times.get(kernel)

    def _count_workers(self) -> None:
        self._workers = self._idle = 0
        for info in self._board.members():
            if not info.alive or info.heartbeat_age > _SILENT:
                continue
            # A standby that has never had anything in hand is none.
            if info.role == Role.COMPUTE or (info.role == Role.STANDBY and (info.running or info.done)):
                self._workers += 1
                self._idle += not info.running

    def _read_mean(self) -> None:
        runs: list[int] = []
        bounds: tuple[float, ...] = ()
        for histogram in self._board.stats().latency["run"].values():
            bounds = histogram.bounds()
            runs = [a + b for a, b in zip(runs, histogram.counts, strict=True)] if runs else list(histogram.counts)
        before = self._runs or [0] * len(runs)
        self._runs = runs
        fresh = [now - then for now, then in zip(runs, before, strict=True)]
        if count := sum(fresh):
            finite = (*bounds[:-1], bounds[-2])
            self._mean = sum(n * bound for n, bound in zip(fresh, finite, strict=True)) / count

    def _learn(self, kernel: str, run: float) -> None:
        if run > 0:
            known = self._times.get(kernel)
            if known is None and len(self._times) >= _MOST_KERNELS:
                self._times.clear()  # names that clients made up; the true ones are back soon
            self._times[kernel] = run if known is None else (1 - _NEWS) * known + _NEWS * run

    def close(self) -> None:
        """Ends the threads; before the board is left."""
        self._closed = True
        self._polled.set()
        if self._thread is not None:
            self._thread.join()
        self._commits.shutdown()
