"""Submitting to the board: a port is one submitter's queue into every lane, and the ring its answers come back by.

A port belongs to one process, whose threads may share it: a lock keeps its books. Answers are copied out of the arena
by default. Rejected as the default: views into the arena. A program that keeps a few hundred results would fill the
arena for everybody on the node without a visible reason, and a copy of 1 MiB costs what one system call does; whoever
knows what they do says `copy=False`, and the block is freed when the last array that shows it is.
"""

from __future__ import annotations

import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import (
    DeadlineExceeded,
    Fenced,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    TaskCancelled,
    TaskLost,
    from_wire,
)
from swarm_agents.shm import frame, hot, tasks
from swarm_agents.shm.blocks import alloc, block_address, free_block, hold_published
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    BLOCK_MASK,
    C_CANCELLED,
    C_FULL,
    DONE,
    GEN_MASK,
    H_MAX_ATTEMPTS,
    H_PAGE_BYTES,
    H_PAGES,
    H_STATES_AT,
    INLINE_MAX,
    NO_BLOCK,
    R_CANCELLED,
    R_EXPIRED,
    RESULT_HEADER,
    SCRATCH_WORDS,
    STATUS_VALUE,
    X_OUT,
)
from swarm_agents.shm.names import kernel_id
from swarm_agents.shm.parking import poll_wait

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Answer", "Port", "RawAnswer", "Ticket"]

#: How many 256ths of the arena the tasks of each lane may fill: what is left is for the more urgent, and for results.
_SHARES = (224, 208, 192, 176)
_RESULT_WORDS = struct.Struct("<7q")
_MOST_AT_ONCE = 512
_WAIT_STEP = 0.0005


class Ticket:
    """A task of this port that has no answer yet."""

    __slots__ = ("gen", "kernel", "lane", "slot", "task_id")

    def __init__(self, task_id: tuple[int, int], kernel: str, lane: int, slot: int, gen: int) -> None:
        self.task_id = task_id
        self.kernel = kernel
        self.lane = lane
        self.slot = slot
        self.gen = gen

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.lane]

    def __repr__(self) -> str:
        return f"Ticket({self.kernel}, {self.task_id[0]:016x}{self.task_id[1]:016x})"


PRIORITIES = tuple(Priority)


class RawAnswer(msgspec.Struct, frozen=True, eq=False):
    """An answer that has not been decoded: for a hub, which passes it on."""

    ticket: Ticket
    #: The value's header; of an error the msgpack map that `errors.to_wire` makes. Empty when there was no computation.
    header: bytes
    buffers: list[Any]
    #: False: `header` is an error's.
    ok: bool
    #: Set instead of a header when the board itself answered: cancelled, expired, lost.
    error: SwarmError | None
    #: Index of the member that computed it, -1: nobody; and that member's epoch.
    agent: int
    epoch: int
    #: How often it was begun.
    attempts: int
    queued_s: float
    run_s: float
    #: Nodes that it passed.
    hops: int


class Answer(msgspec.Struct, frozen=True, eq=False):
    """A task's end: a value, or an error."""

    ticket: Ticket
    value: Any
    error: SwarmError | None
    agent: int
    epoch: int
    attempts: int
    #: Seconds between submission and the last beginning; and that the kernel ran.
    queued_s: float
    run_s: float
    hops: int


class Port:
    """Where a member submits tasks and is answered. Made by `Board.port`."""

    def __init__(self, board: Board, member: Member, number: int, owner: int) -> None:
        self._board = board
        self._mapping = board.mapping
        self._base = board.mapping.base
        self._view = board.mapping.view
        self._member = member
        self._index, self._epoch = member.index, member.epoch
        self._number, self._owner = number, owner
        self._scratch = np.zeros(SCRATCH_WORDS, np.int64)
        self._scratch_at = int(self._scratch.ctypes.data)
        self._out = self._scratch[X_OUT:]
        self._lock = threading.Lock()
        self._outstanding: dict[int, Ticket] = {}
        self._ready: deque[RawAnswer] = deque()
        self._client_id = board.new_client_id()
        self._sequence = 0
        self._names: dict[str, tuple[int, bytes]] = {}

    @property
    def pending(self) -> int:
        """Tasks that have been submitted and whose answer has not been polled."""
        return len(self._outstanding) + len(self._ready)

    # -- submitting

    def submit(
        self,
        kernel: str,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        priority: Priority = Priority.NORMAL,
        task_id: tuple[int, int] | None = None,
        deadline: float | None = None,
        timeout: float = 0.0,
    ) -> Ticket:
        """Puts a task on the board.

        Args:
            task_id: two words of 64 bits; by default this port's own and a number.
            deadline: unix seconds; measured on the monotonic clock from now on, so that a clock that jumps later
                neither kills nor revives the task.
            timeout: seconds to wait for room.

        Raises:
            SwarmFull: no room in the lane or the arena for that long.
            PayloadTooLarge: the arguments are larger than the arena.
            PayloadError: the arguments can't travel.
            Fenced: this member was declared dead.
        """
        header, buffers = codec.encode((args, kwargs or {}))
        return self.submit_raw(
            kernel, header, buffers, priority=priority, task_id=task_id, deadline=deadline, timeout=timeout
        )

    def submit_raw(
        self,
        kernel: str,
        header: bytes,
        buffers: Sequence[Any] = (),
        *,
        priority: Priority = Priority.NORMAL,
        task_id: tuple[int, int] | None = None,
        deadline: float | None = None,
        timeout: float = 0.0,
    ) -> Ticket:
        """`submit` for arguments that `codec.encode` (here or on another node) has split already."""
        known = self._names.get(kernel)
        if known is None:
            known = self._names[kernel] = (kernel_id(kernel), kernel.encode())
        number, name = known
        layout = frame.lay_out(name, header, buffers)
        lane = priority.lane
        due = 0
        if deadline is not None:
            due = hot.now_ns() + int((deadline - time.time()) * 1e9)
        wall = 0 if deadline is None else struct.unpack("<q", struct.pack("<d", deadline))[0]
        with self._lock:
            if task_id is None:
                self._sequence += 1
                task_id = (self._client_id, self._sequence)
            high, low = _signed(task_id[0]), _signed(task_id[1])
            inline = layout.as_bytes() if layout.size <= INLINE_MAX else b""
            give_up = time.monotonic() + timeout if timeout > 0 else 0.0
            while True:
                slot = self._put(number, high, low, due, wall, lane, layout, inline)
                if slot >= 0:
                    break
                if not give_up or time.monotonic() >= give_up:
                    tasks.count(self._base, self._index, C_FULL, 1)
                    raise SwarmFull(
                        f"the {PRIORITIES[lane]} lane or the arena is full: take results before you submit more, "
                        "or submit with a timeout"
                    )
                # Answers that lie there hold what is waited for: take them in, for a later poll.
                if not self._take(_MOST_AT_ONCE, copy=True):
                    self._lock.release()
                    try:
                        poll_wait(self._base, self._number, 20_000, int(_WAIT_STEP * 1e9))
                    finally:
                        self._lock.acquire()
            gen = (self._word(slot) >> 42) & GEN_MASK
            ticket = Ticket(task_id, kernel, lane, slot, gen)
            self._outstanding[slot] = ticket
            return ticket

    def _put(
        self, kernel: int, high: int, low: int, due: int, wall: int, lane: int, layout: frame.Layout, inline: bytes
    ) -> int:
        block = -1
        if not inline:
            block = self._store(layout, lane)
            if block < 0:
                return -1
        slot = tasks.submit(
            self._base, self._number, self._owner, self._index, self._epoch, lane, kernel, high, low, due, wall,
            frame.address_of(inline), layout.size, block, self._scratch_at,
        )  # fmt: skip
        if slot < 0:
            if block >= 0:
                free_block(self._base, block, self._index, self._epoch)
            if slot == -3:
                raise Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")
        return int(slot)

    def _store(self, layout: frame.Layout, lane: int) -> int:
        block = alloc(self._base, layout.size, self._index, self._epoch, _SHARES[lane], 0, self._scratch_at)
        if block == -2:
            words = self._board.words
            raise PayloadTooLarge(
                f"the arguments have {layout.size} bytes, the arena {words[H_PAGES] * words[H_PAGE_BYTES]}: split the "
                "task, or give the swarm a larger arena (spec.transport.sharedMemory)"
            )
        if block >= 0:
            frame.write(self._view, block_address(self._base, block), layout)
        return int(block)

    def _word(self, slot: int) -> int:
        return int(struct.unpack_from("<q", self._view, self._board.words[H_STATES_AT] + slot * 8)[0])

    # -- answers

    def poll(self, max_n: int = 256, *, copy: bool = True) -> list[Answer]:
        """Takes up to `max_n` answers, without waiting.

        With `copy=False` arrays of a result are views of the arena, whose room is free again when they are collected;
        they are valid until this member leaves.
        """
        return [self._decode(raw) for raw in self.poll_raw(max_n, copy=copy)]

    def poll_raw(self, max_n: int = 256, *, copy: bool = True) -> list[RawAnswer]:
        """`poll` without decoding."""
        with self._lock:
            self._take(max_n - len(self._ready), copy=copy)
            return [self._ready.popleft() for _ in range(min(max_n, len(self._ready)))]

    def wait(self, timeout: float) -> bool:
        """Waits for up to `timeout` seconds until there is an answer to poll: spinning shortly, then asleep."""
        if self._ready:
            return True
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            slice_ns = max(0, min(int(left * 1e9), 100_000_000))
            if poll_wait(self._base, self._number, self._board.spin_ns, slice_ns):
                return True
            if tasks.is_fenced(self._base, self._index, self._epoch):
                raise Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")
            if left <= 0:
                return False

    def cancel(self, ticket: Ticket) -> bool:
        """Asks that a task be given up. True: it will not be begun, and its answer is `TaskCancelled`. False: it has
        been answered, or it runs: then its kernel is told, and the answer is whatever the kernel makes of it."""
        with self._lock:
            if self._outstanding.get(ticket.slot) is not ticket:
                return False
            done = bool(tasks.cancel(self._base, ticket.slot, ticket.gen))
            if done:
                tasks.count(self._base, self._index, C_CANCELLED, 1)
            return done

    def _take(self, limit: int, *, copy: bool) -> int:
        """Moves answers from the board to `_ready`. The caller holds the lock."""
        taken = 0
        if hot.take_rescan(self._base, self._number):
            for slot in list(self._outstanding):
                word = self._word(slot)
                if word & 7 == DONE:
                    taken += self._finish(slot, word, copy)
        while taken < limit:
            found = tasks.poll(
                self._base, self._number, self._owner, min(limit - taken, _MOST_AT_ONCE), self._scratch_at + X_OUT * 8
            )
            if not found:
                break
            for slot, word in self._out[: 2 * found].reshape(found, 2).tolist():
                taken += self._finish(slot, word, copy)
        return taken

    def _finish(self, slot: int, word: int, copy: bool) -> int:
        ticket = self._outstanding.get(slot)
        if ticket is None or (word >> 42) & GEN_MASK != ticket.gen:
            return 0  # the same slot twice, or an answer that a sweep has shown again
        del self._outstanding[slot]
        block = (word >> 10) & BLOCK_MASK
        attempts = (word >> 3) & ATTEMPTS_MASK
        if block >= NO_BLOCK:
            answer = RawAnswer(
                ticket, b"", [], False, self._reason(block, ticket, attempts), -1, 0, attempts, 0.0, 0.0, 0
            )
        else:
            at = block_address(self._base, block)
            status, agent, epoch, queued, run, length, hops = _RESULT_WORDS.unpack_from(self._view, at)
            _, header, buffers = frame.read(self._view, at + RESULT_HEADER, length)
            kept: list[Any]
            if not buffers:
                kept = []
            elif copy or block < self._board.cells:
                kept = [np.frombuffer(buffer, np.uint8).copy() if buffer.nbytes else b"" for buffer in buffers]
            else:
                kept = self._lend(block, slot, ticket.gen, buffers)
            answer = RawAnswer(
                ticket, bytes(header), kept, status == STATUS_VALUE, None, agent, epoch, attempts,
                queued * 1e-9, run * 1e-9, hops,
            )  # fmt: skip
        hot.finish(self._base, slot, word, self._index, ticket.lane, self._scratch_at)
        self._ready.append(answer)
        return 1

    def _lend(self, block: int, slot: int, gen: int, buffers: list[memoryview]) -> list[Any]:
        """Views of a result's buffers that keep its block until they are collected."""
        if not hold_published(self._base, block, slot, gen, self._index, self._epoch):
            return [np.frombuffer(buffer, np.uint8).copy() for buffer in buffers]
        roots = [np.frombuffer(buffer, np.uint8) if buffer.nbytes else np.empty(0, np.uint8) for buffer in buffers]
        give_back = _Lease(self._base, block, self._index, self._epoch, len(roots), self._member, self._mapping)
        for root in roots:
            weakref.finalize(root, give_back).atexit = False
        return roots

    def _reason(self, block: int, ticket: Ticket, attempts: int) -> SwarmError:
        if block == R_CANCELLED:
            return TaskCancelled(f"{ticket.kernel} was cancelled before it was begun")
        if block == R_EXPIRED:
            return DeadlineExceeded(f"the deadline of {ticket.kernel} passed before it was begun")
        most = struct.unpack_from("<q", self._view, H_MAX_ATTEMPTS * 8)[0]
        return TaskLost(
            f"{ticket.kernel} was begun {attempts} times and each agent died over it (limit {most}): look in the "
            "agents' logs for what kills them; failover.maxAttempts says how often a task is tried"
        )

    def _decode(self, raw: RawAnswer) -> Answer:
        value, error = None, raw.error
        if error is None:
            try:
                if raw.ok:
                    value = codec.decode(raw.header, raw.buffers)
                else:
                    error = from_wire(msgspec.msgpack.decode(raw.header, type=dict[str, str]))
            except SwarmError as failed:
                error = failed
        return Answer(raw.ticket, value, error, raw.agent, raw.epoch, raw.attempts, raw.queued_s, raw.run_s, raw.hops)


class _Lease:
    """Frees a block when the last of its views has been collected."""

    __slots__ = ("_args", "_left", "_mapping", "_member")

    def __init__(
        self, base: int, block: int, index: int, epoch: int, views: int, member: Member, mapping: object
    ) -> None:
        self._args = (base, block, index, epoch)
        self._left = views
        self._member = member
        self._mapping = mapping
        member.holds += 1

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            free_block(*self._args)
            self._member.holds -= 1
            if self._member.left and not self._member.holds:
                self._member.life.release()  # whoever looks next ends the quarantine


def _signed(word: int) -> int:
    """A word of 64 bits as the signed number that compiled code takes."""
    return word - (1 << 64) if word >= 1 << 63 else word
