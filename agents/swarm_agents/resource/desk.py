"""The hub's place on its node's board: it submits for those outside, and claims for nodes that are idler.

What a board and the wire hold of a payload is the same (the value's header, then its buffers), so tasks and answers
pass here as they are. Answers are copied out of the arena once, because they are kept until somebody far away has
acknowledged them, and the arena belongs to the node; arguments of a forwarded task are sent from where they lie, and
stay there until the claim is settled, which the carrier does not do before ZeroMQ has let go of them.

A thread parks on the board's futex and, when answers have come, takes the reactor's lock and has them dealt with at
once: no other thread has to wake up for them. Another one commits large results: a full arena makes a commit wait, and
the reactor must go on to take the answers that make room. All else is called under the reactor's lock.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from swarm_agents.config import Priority, Role
from swarm_agents.errors import Fenced, PayloadTooLarge, SwarmFull, TaskCancelled, to_wire
from swarm_agents.shm.layout import GEN_MASK, H_PAGE_BYTES, H_PAGES, H_PAGES_USED, H_STATES_AT, R_CANCELLED, READY
from swarm_agents.shm.pace import read_pace, read_weight
from swarm_agents.shm.places import is_fenced
from swarm_agents.shm.shedding import refused_from
from swarm_agents.shm.stats import read_depths
from swarm_agents.shm.tasks import _end_ready
from swarm_agents.wire import schema
from swarm_agents.wire.frames import payload_bytes
from swarm_agents.wire.reactor import Reactor
from swarm_agents.wire.schema import Load, TaskId

if TYPE_CHECKING:
    from swarm_agents.resource.headroom import Headroom
    from swarm_agents.shm.board import Board, Claim, Member, RawAnswer, Ticket

__all__ = ["Answered", "Claimed", "Desk"]

#: The thread looks whether it should end this often (seconds).
_WAIT = 0.1
#: How old the counts of members and the mean run time may be (seconds).
_MEMBERS_AGE, _MEAN_AGE = 0.02, 1.0
#: Without a heartbeat for this long an agent is not counted as one that will take work (seconds).
_SILENT = 0.5
#: While the hub takes no more answers, it is looked again after this long (seconds).
_HELD_UP = 0.01
#: Weight of a new observation in a running mean.
_NEWS = 0.1
#: Kernels whose run time is remembered.
_MOST_KERNELS = 1024
#: Results above this many bytes are committed on the thread.
_LARGE = 16 << 10
_LANES = tuple(Priority)
#: Slots of a lane that the board lets a submitter hold in any case.
_FEW = 16


def _room(free: int, held: int) -> int:
    """How many more slots of a lane a submitter that holds some is given: the board lets nobody hold more than are
    free, but to some few."""
    return max(0, min(free, max(_FEW - held, (free - held) // 2)))


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
        self._member = member
        self._port = board.port(member)
        self._worker = board.worker(member)
        self._tickets: dict[TaskId, Ticket] = {}
        #: Nodes that a task from another hub has left behind.
        self._hops: dict[TaskId, int] = {}
        #: Of each kernel: seconds that it runs, and bytes of its answer, on average of late.
        self._times: dict[str, float] = {}
        self._sizes: dict[str, float] = {}
        #: Agents by place and epoch.
        self._names: dict[tuple[int, int], str] = {}
        #: Slots that this hub's tasks have, by lane; and those that a lane has.
        self._held = [0] * len(_LANES)
        self._room = board.geometry.task_slots // len(_LANES)
        self._workers = self._idle = 0
        self._members_at = self._mean_at = float("-inf")
        #: Seconds that a task takes with all of its core.
        self._mean = 0.0
        self._runs: Any = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._reactor: Reactor | None = None
        self._committer = board.worker(member)
        self._commits = ThreadPoolExecutor(1, "desk-commit")
        #: This hub was declared dead: everything in hand is void.
        self.fenced = False
        #: Says whether there is memory for more.
        self.headroom: Headroom | None = None

    # -- for those outside

    def listen(self, reactor: Reactor, callback: Callable[[], bool]) -> None:
        """Has `callback` called under the reactor's lock when there are answers; False: it takes none at present."""
        self._reactor = reactor
        member = self._member

        def wait() -> None:
            while not self._closed.is_set():
                try:
                    if not self._port.wait(_WAIT):
                        continue
                except Fenced:
                    self.fenced = True
                    return
                with reactor:
                    taken = self._closed.is_set() or callback()
                if not taken:
                    self._closed.wait(_HELD_UP)
                if is_fenced(self._board.mapping.base, member.index, member.epoch):
                    # The port need not say so: it has something for us as long as nobody takes it.
                    self.fenced = True
                    return

        self._thread = threading.Thread(target=wait, name="desk-wait", daemon=True)
        self._thread.start()

    def submit(self, submit: schema.Submit, payload: Sequence[Any], path: str = "local") -> None:
        """Puts a task on the board; `path` is how it came here, as the board's statistics name it.

        Raises:
            SwarmFull: no room now, or too little memory.
            PayloadTooLarge: the arena can't hold it.
        """
        if self.headroom is not None:
            self.headroom.admit(payload_bytes(payload))
        deadline = None if submit.budget is None else time.time() + submit.budget
        if path != self._port.path:
            self._port.path = path
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
        self._held[submit.lane] += 1
        if submit.hops:
            self._hops[submit.task] = submit.hops

    def cancel(self, task: TaskId) -> None:
        """Nobody waits for it any more."""
        ticket = self._tickets.get(task)
        if ticket is not None:
            self._port.cancel(ticket)

    def withdraw(self, task: TaskId) -> bool:
        """Takes a task off the board if nobody has begun it; False: it runs, or is answered. (Unlike `cancel`, which
        asks a task that runs to end.)"""
        ticket = self._tickets.get(task)
        if ticket is None:
            return False
        board = self._board
        word = struct.unpack_from("<q", board.mapping.view, board.words[H_STATES_AT] + ticket.slot * 8)[0]
        if word & 7 != READY or (word >> 42) & GEN_MASK != ticket.gen:
            return False
        return bool(_end_ready(board.mapping.base, ticket.slot, word, R_CANCELLED))

    def answers(self) -> list[Answered]:
        """What has been answered since the last call. The port is looked at though nothing is in hand: only so does it
        learn that a death, which makes it ask for a look, left nothing behind here."""
        found = []
        try:
            answers = self._port.poll_raw(256)
        except Fenced:
            self.fenced = True
            return []
        for raw in answers:
            task = raw.ticket.task_id
            self._held[raw.ticket.lane] -= 1
            self._learn(raw.ticket.kernel, raw.run_s, len(raw.header) + payload_bytes(raw.buffers))
            # Given up, and submitted anew under the same id since: that answer is another one's.
            if self._tickets.get(task) is raw.ticket:
                del self._tickets[task]
                if self._hops:
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
        agent, node = raw.far
        agent = agent or self._name(raw.agent, raw.epoch)
        answer = schema.Answer(task, error, agent, raw.attempts, raw.queued_s, raw.run_s, raw.hops, node)
        return Answered(answer, payload)

    def _name(self, index: int, epoch: int) -> str:
        name = self._names.get((index, epoch))
        if name is None:
            if len(self._names) >= _MOST_KERNELS:
                self._names.clear()
            name = self._names[index, epoch] = self._board.member_name(index)
        return name

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
        submit = schema.Submit(
            claim.task_id,
            claim.kernel,
            claim.priority.lane,
            claim.time_left,
            self._hops.get(claim.task_id, 0),
            claim.attempt - 1,
        )
        return Claimed(submit, [bytes(claim.header), *claim.buffers], claim)

    def commit(
        self, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any], done: Callable[[bool], None]
    ) -> None:
        """Answers a claimed task with what another node has made of it; `done` learns whether that counted."""
        size = payload_bytes(payload)
        self._learn(claimed.submit.kernel, answer.run, size)
        reactor = self._reactor
        if size <= _LARGE or reactor is None:
            done(self._commit(self._worker, claimed, answer, payload))
            return
        future = self._commits.submit(self._commit, self._committer, claimed, answer, payload)
        future.add_done_callback(lambda f: reactor.post(done, f.result()))

    @staticmethod
    def _commit(worker: Any, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any]) -> bool:
        claim, hops = claimed.token, answer.hops + 1
        how: dict[str, Any] = {
            "hops": hops,
            "again": max(answer.attempts - 1, 0),
            "run_ns": int(answer.run * 1e9),
            "agent": answer.agent,
            "node": answer.node,
        }
        if answer.error is not None or not payload:
            error = answer.error or {"code": "PayloadError", "message": "another node's answer had no payload"}
            return bool(worker.commit_raw(claim, msgspec.msgpack.encode(error), ok=False, **how))
        try:
            return bool(worker.commit_raw(claim, bytes(payload[0]), payload[1:], **how))
        except (PayloadTooLarge, SwarmFull) as error:
            return bool(worker.commit_raw(claim, msgspec.msgpack.encode(to_wire(error)), ok=False, hops=hops))

    def hand_back(self, claimed: Claimed, *, untouched: bool = False) -> None:
        """Others may claim it again; a task that was touched counts as begun once more."""
        self._worker.hand_back(claimed.token, begun=not untouched)

    def resumed(self, claimed: Claimed) -> bool:
        """Whether somebody has gone on with a task that was handed back."""
        return bool(claimed.token.resumed())

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
        states = read_depths(self._board.mapping).values()
        depth = tuple(lane["ready"] for lane in states)
        room = min(_room(self._room - sum(lane.values()), held) for lane, held in zip(states, self._held, strict=True))
        words = self._board.words
        used = struct.unpack_from("<q", self._board.mapping.view, H_PAGES_USED * 8)[0]
        room_bytes = max(0, (words[H_PAGES] - used) * words[H_PAGE_BYTES])
        refuses = refused_from(self._board.mapping, now)
        # Agents that rest for a cap of power or heat, or get less than their cores, take that much longer.
        pace = self._mean / (read_pace(self._board.mapping, now) * read_weight(self._board.mapping, now))
        return Load(self._workers, self._idle, depth, room, pace, room_bytes, refuses)

    def run_time(self, kernel: str) -> float | None:
        """Seconds that a kernel has run of late; None if none of its answers has passed here."""
        return self._times.get(kernel)

    def answer_bytes(self, kernel: str) -> float:
        """Bytes that a kernel's answer has had of late; 0 if none has passed here."""
        return self._sizes.get(kernel, 0.0)

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
            took = sum(n * bound for n, bound in zip(fresh, finite, strict=True)) / count
            # What slows the node now has slowed these: `load` reckons with it as it is when it is asked.
            self._mean = took * read_weight(self._board.mapping)

    def _learn(self, kernel: str, run: float, size: int) -> None:
        if run > 0:
            known = self._times.get(kernel)
            if known is None:
                if len(self._times) >= _MOST_KERNELS:
                    self._times.clear()  # names that clients made up; the true ones are back soon
                    self._sizes.clear()
                self._times[kernel], self._sizes[kernel] = run, float(size)
            else:
                self._times[kernel] = (1 - _NEWS) * known + _NEWS * run
                self._sizes[kernel] = (1 - _NEWS) * self._sizes[kernel] + _NEWS * size

    def close(self) -> None:
        """Ends the threads; before the board is left, and not under the reactor's lock."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._commits.shutdown()
