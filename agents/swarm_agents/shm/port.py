"""Submitting to the board: a port is one submitter's queue into every lane, and the ring its answers come back by.

A port belongs to one process, whose threads may share it: a lock keeps its books. Answers are copied out of the arena
by default. Rejected as the default: views into the arena. A program that keeps a few hundred results would fill the
arena for everybody on the node without a visible reason, and a copy of 1 MiB costs what one system call does; whoever
knows what they do says `copy=False`, and the block is freed when the last array that shows it is.
"""

from __future__ import annotations

import itertools
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
    StaleReference,
    SwarmError,
    SwarmFull,
    TaskCancelled,
    TaskLost,
    from_wire,
)
from swarm_agents.shm import frame, hot, tasks
from swarm_agents.shm.blocks import alloc, block_address, free_block, hold_published
from swarm_agents.shm.handover import Forms, receive, send_array
from swarm_agents.shm.jit import direct
from swarm_agents.shm.layout import (
    AGAIN_AT,
    ATTEMPTS_MASK,
    BLOCK_MASK,
    C_CANCELLED,
    C_FULL,
    E_CANCELLED,
    E_FULL,
    GEN_MASK,
    H_MAX_ATTEMPTS,
    H_PAGE_BYTES,
    H_PAGES,
    INLINE_MAX,
    PATHS,
    R_CANCELLED,
    R_EXPIRED,
    RESULT_HEADER,
    SCRATCH_WORDS,
    STATUS_ERROR,
    STATUS_VALUE,
    X_PATH,
)
from swarm_agents.shm.leases import STALE
from swarm_agents.shm.names import kernel_id
from swarm_agents.shm.parking import poll_wait
from swarm_agents.shm.references import REFERENCE_BYTES, Shared, bind, checked, start_apart, unbind
from swarm_agents.shm.tally import tally

if TYPE_CHECKING:
    from swarm_agents.shm.arena import Arena
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Answer", "Port", "RawAnswer", "Ticket"]

#: How many 256ths of the arena the tasks of each lane may fill: what is left is for the more urgent, and for results.
_SHARES = (224, 208, 192, 176)
_RECORD = struct.Struct("<11q")
_NAME_START = struct.Struct("<2q")
_RESULT_WORDS = struct.Struct("<7q")
_HEAD = struct.Struct("<Q")
_WAIT_STEP = 0.0005
_TAKE_IN_EVERY = 31
_WORD, _HALF = 1 << 64, 1 << 63
#: Headers that are made and read most of all: no arguments, and no value.
_NO_ARGUMENTS = codec.encode(((), {}))[0]
NIL = codec.encode(None)[0]
#: Stands for the header of a value that was decoded when it was taken, and is the only one of the buffers.
_DECODED = b"decoded"
#: What `RawAnswer` is made of, in its order.
_Taken = tuple["Ticket", bytes, list[Any], bool, "SwarmError | None", int, int, int, float, float, int]
_LONGEST_WAIT_NS = 100_000_000


class Ticket(msgspec.Struct, eq=False):
    """A task of this port that has no answer yet."""

    #: Two words of 64 bits: this port's own and a number, or what the submitter said.
    task_id: tuple[int, int]
    kernel: str
    lane: int
    slot: int
    gen: int

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
        start_apart(self._scratch, self._index, board.words)
        self._hand = np.array([self._base, number, owner, self._index, self._epoch, self._scratch_at], np.int64)
        self._hand_at = int(self._hand.ctypes.data)
        self._records = np.zeros(hot.TAKE_MOST * hot.TAKE_STRIDE, np.uint8)
        self._records_at = int(self._records.ctypes.data)
        self._records_view = self._records.data
        self._send, self._take_some, self._take_slot = direct(hot.send), direct(hot.take), direct(hot.take_slot)
        self._wait: Any = direct(poll_wait)
        self._finish = direct(hot.finish)
        self._lock = threading.Lock()
        self._outstanding: dict[int, Ticket] = {}
        self._ready: deque[_Taken] = deque()
        #: How many tasks have been submitted by this port.
        self.submitted = 0
        self._client_id = board.new_client_id()
        self._sequence = itertools.count(1)
        #: By kernel: its number, its name in bytes, and the whole frame of a call without arguments.
        self._names: dict[str, tuple[int, bytes, bytes]] = {}
        self._arrays = board.arrays
        self._arena: Arena | None = None
        self._forms = Forms()
        self._send_array: Any = None
        self._receive: Any = None
        self._path = 0

    @property
    def path(self) -> str:
        """How the tasks come that are submitted from now on, one of `PATHS`: for the statistics."""
        return PATHS[self._path]

    @path.setter
    def path(self, path: str) -> None:
        if path not in PATHS:
            raise ValueError(f"{path!r} is no path by which tasks come; there are {', '.join(PATHS)}")
        self._path = PATHS.index(path)
        self._scratch[X_PATH] = self._path

    @property
    def pending(self) -> int:
        """Tasks that have been submitted and whose answer has not been polled."""
        return len(self._outstanding) + len(self._ready)

    # -- shared arrays

    @property
    def arena(self) -> Arena:
        """Makes and keeps arrays that are passed on without copying."""
        if self._arena is None:
            self._arena = self._board.arena(self._member)
        return self._arena

    def array(
        self, shape: int | tuple[int, ...], dtype: Any = np.float64, *, timeout: float = 0.0
    ) -> np.ndarray[Any, Any]:
        """`Arena.empty`: lends memory of the arena to write an argument in place."""
        return self.arena.empty(shape, dtype, timeout=timeout)

    def put(self, array: Any, *, timeout: float = 0.0) -> np.ndarray[Any, Any]:
        """`Arena.put`: copies an array into the arena once, for any number of tasks."""
        return self.arena.put(array, timeout=timeout)

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
            StaleReference: a shared array among them is not there any more; only if it was not kept.
            Fenced: this member was declared dead.
        """
        header: bytes
        buffers: Sequence[Any]
        if args or kwargs:
            sharing = self._arrays.sharing
            if sharing is not None and len(args) == 1 and not kwargs and type(args[0]) is np.ndarray:
                ticket = self._submit_array(kernel, args[0], priority.lane, task_id, deadline)
                if ticket is not None:
                    return ticket
            header, buffers = codec.encode((args, kwargs or {}), sharing)
        else:
            header, buffers = _NO_ARGUMENTS, ()
        return self.submit_raw(
            kernel, header, buffers, priority=priority, task_id=task_id, deadline=deadline, timeout=timeout
        )

    def _submit_array(
        self,
        kernel: str,
        array: np.ndarray[Any, Any],
        lane: int,
        task_id: tuple[int, int] | None,
        deadline: float | None,
    ) -> Ticket | None:
        """The short way of a task whose only argument is a shared array; None if it has to go the long way."""
        known = self._names.get(kernel)
        if known is None:
            return None
        form = self._forms.made((kernel, array.dtype, array.shape), known[1], ((array,), {}))
        if len(form) > INLINE_MAX:
            return None
        if self._send_array is None:
            self._send_array = direct(send_array)
        due, wall = (0, 0) if deadline is None else _clocks(deadline)
        if task_id is None:
            task_id = (self._client_id, next(self._sequence))
        high, low = task_id
        if high >= _HALF:
            high -= _WORD
        if low >= _HALF:
            low -= _WORD
        with self._lock:
            got = self._send_array(
                self._hand_at, lane, known[0], high, low, due, wall, frame.address_of(form), len(form), id(array),
                array.itemsize,
            )  # fmt: skip
            if got < 0:
                return None
            slot = got & 0xFFFFFF
            ticket = self._outstanding[slot] = Ticket(task_id, kernel, lane, slot, got >> 24)
            self.submitted += 1
            if not self.submitted & _TAKE_IN_EVERY and len(self._outstanding) > _TAKE_IN_EVERY:
                self._ready.extend(self._take(hot.TAKE_MOST, True))
            return ticket

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
            name = kernel.encode()
            known = kernel_id(kernel), name, frame.lay_out(name, _NO_ARGUMENTS, ()).prefix
            self._names[kernel] = known
        number, name, alone = known
        lane = priority.lane
        due, wall = (0, 0) if deadline is None else _clocks(deadline)
        if task_id is None:
            task_id = (self._client_id, next(self._sequence))
        high, low = task_id
        if high >= _HALF:
            high -= _WORD
        if low >= _HALF:
            low -= _WORD
        layout, block = None, -1
        shared: Sequence[int] = ()
        if header is _NO_ARGUMENTS:
            inline = alone
        else:
            layout = frame.lay_out(name, header, buffers)
            shared = checked(layout.names)
            inline = layout.as_bytes() if layout.size <= INLINE_MAX else b""
        give_up = 0.0
        while True:
            with self._lock:
                if inline:
                    size = len(inline)
                else:
                    assert layout is not None
                    size = layout.size
                    block = self._store(layout, lane)
                got = -1
                if inline or block >= 0:
                    if shared:
                        bind(self._scratch, shared)
                    got = self._send(
                        self._hand_at, lane, number, high, low, due, wall, frame.address_of(inline), size, block
                    )
                    if shared:
                        unbind(self._scratch)
                    if got >= 0:
                        slot = got & 0xFFFFFF
                        outstanding = self._outstanding
                        ticket = outstanding[slot] = Ticket(task_id, kernel, lane, slot, got >> 24)
                        self.submitted += 1
                        if not self.submitted & _TAKE_IN_EVERY and len(outstanding) > _TAKE_IN_EVERY:
                            # Who submits many before he asks for the first answer would fill the lane with answers.
                            self._ready.extend(self._take(hot.TAKE_MOST, True))
                        return ticket
                    if block >= 0:
                        free_block(self._base, block, self._index, self._epoch)
                    if got == -3:
                        raise self._fenced()
                    if got == STALE:
                        raise StaleReference("a shared array among the arguments is not there any more: keep() it")
                # Answers that lie there hold what is waited for: take them in, for a later poll.
                taken = self._take(hot.TAKE_MOST, True)
                self._ready.extend(taken)
            now = time.monotonic()
            if not give_up:
                give_up = now + timeout
            if now >= give_up:
                tasks.count(self._base, self._index, C_FULL, 1)
                tally(self._base, E_FULL, lane, self._path)
                raise SwarmFull(
                    f"the {PRIORITIES[lane]} lane or the arena is full: take results before you submit more, "
                    "or submit with a timeout"
                )
            if not taken:
                self._wait(self._base, self._number, 20_000, int(_WAIT_STEP * 1e9))

    def _fenced(self) -> Fenced:
        return Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")

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

    # -- answers

    def poll(self, max_n: int = 256, *, copy: bool = True) -> list[Answer]:
        """Takes up to `max_n` answers, without waiting.

        With `copy=False` arrays of a result are views of the arena, whose room is free again when they are collected;
        they are valid until this member leaves.
        """
        with self._lock:
            taken = self._drain(max_n, copy) if self._ready else self._take(max_n, copy)
        return [_decode(one) for one in taken]

    def poll_raw(self, max_n: int = 256, *, copy: bool = True) -> list[RawAnswer]:
        """`poll` without decoding."""
        with self._lock:
            taken = self._drain(max_n, copy) if self._ready else self._take(max_n, copy)
        return [RawAnswer(*_encoded(one)) for one in taken]

    def _drain(self, max_n: int, copy: bool) -> list[_Taken]:
        """What was taken before, then what lies on the board."""
        ready = self._ready
        while len(ready) < max_n and (taken := self._take(max_n - len(ready), copy)):
            ready.extend(taken)
        return [ready.popleft() for _ in range(min(max_n, len(ready)))]

    def wait(self, timeout: float) -> bool:
        """Waits for up to `timeout` seconds until there is an answer to poll: spinning shortly, then asleep."""
        if self._ready:
            return True
        left = int(timeout * 1e9)
        end = 0
        while True:
            if self._wait(self._base, self._number, self._board.spin_ns, max(0, min(left, _LONGEST_WAIT_NS))):
                return True
            if tasks.is_fenced(self._base, self._index, self._epoch):
                raise self._fenced()
            if left <= _LONGEST_WAIT_NS:
                return False
            # In slices, so that Python sees signals.
            now = hot.now_ns()
            if not end:
                end = now + left - _LONGEST_WAIT_NS
            left = end - now

    def cancel(self, ticket: Ticket) -> bool:
        """Asks that a task be given up. True: it will not be begun, and its answer is `TaskCancelled`. False: it has
        been answered, or it runs: then its kernel is told, and the answer is whatever the kernel makes of it."""
        with self._lock:
            if self._outstanding.get(ticket.slot) is not ticket:
                return False
            done = bool(tasks.cancel(self._base, ticket.slot, ticket.gen))
            if done:
                tasks.count(self._base, self._index, C_CANCELLED, 1)
                tally(self._base, E_CANCELLED, ticket.lane, self._path)
            return done

    def _take(self, limit: int, copy: bool) -> list[_Taken]:
        """Takes answers off the board, at most `limit` or a buffer's worth. The caller holds the lock."""
        found = self._take_some(self._hand_at, limit if limit < hot.TAKE_MOST else hot.TAKE_MOST, self._records_at)
        out: list[_Taken] = []
        if found > 0:
            for number in range(found):
                self._read(number, copy, out)
        elif found < 0:
            for slot, ticket in list(self._outstanding.items()):
                if self._take_slot(self._hand_at, slot, ticket.gen, self._records_at):
                    self._read(0, copy, out)
            self._ready.extend(out[limit:])
            del out[limit:]
        return out

    def _read(self, number: int, copy: bool, out: list[_Taken]) -> None:
        """Makes of a record what `RawAnswer` is made of."""
        view, at = self._records_view, number * hot.TAKE_STRIDE
        slot, word, kind, status, agent, epoch, queued, run, length, hops, _ = _RECORD.unpack_from(view, at)
        ticket = self._outstanding.get(slot)
        if ticket is None or (word >> 42) & GEN_MASK != ticket.gen:
            return  # an answer that a sweep has shown again
        header: bytes = b""
        kept: list[Any] = []
        error = None
        attempts = (word >> 3) & ATTEMPTS_MASK
        if kind == hot.T_NONE:
            header = NIL
        elif kind == hot.T_PLAIN:
            at += hot.T_PAYLOAD
            sizes = _HEAD.unpack_from(view, at)[0]
            begin = at + 8 + (sizes >> 48)
            header = bytes(view[begin : begin + (sizes & 0xFFFFFFFF)])
        elif kind == hot.T_BUFFERS:
            _, found, buffers = frame.read(view, at + hot.T_PAYLOAD, length)
            header, kept = bytes(found), [_copied(buffer) for buffer in buffers]
        elif kind == hot.T_BLOCK or kind == hot.T_SHARED:
            block = (word >> 10) & BLOCK_MASK
            done = -1
            try:
                if kind == hot.T_SHARED and not copy:
                    at += hot.T_PAYLOAD
                    value, done = self._arrived(bytes(view[at : at + length]), slot, word, ticket.lane)
                    header, kept = _DECODED, [value]
                else:
                    at = block_address(self._base, block) + RESULT_HEADER
                    _, found, buffers = frame.read(self._view, at, length, self._arrays.locate)
                    header = bytes(found)
                    if buffers and not copy:
                        kept = self._lend(block, slot, ticket.gen, buffers)
                    else:
                        kept = [_copied(buffer) for buffer in buffers]
            except SwarmError as failed:  # a shared array that can't be kept, or is not what it should be
                error = failed
            if done < 0:
                done = self._finish(self._base, slot, word, self._index, ticket.lane, self._scratch_at)
            if not done:
                return
        else:
            status, agent, epoch, queued, run, hops = STATUS_ERROR, -1, 0, 0, 0, 0
            error = self._reason((word >> 10) & BLOCK_MASK, ticket, attempts)
        del self._outstanding[slot]
        out.append(
            (
                ticket,
                header,
                kept,
                status == STATUS_VALUE,
                error,
                agent,
                epoch,
                attempts + (hops >> AGAIN_AT),
                queued * 1e-9,
                run * 1e-9,
                hops & ((1 << AGAIN_AT) - 1),
            )
        )

    def _arrived(self, raw: bytes, slot: int, word: int, lane: int) -> tuple[Any, int]:
        """The value in a small frame that refers to shared arrays, which are kept until they are collected; and what
        `hot.finish` says, or -1 when it has to be called yet."""
        arrays, arena = self._arrays, self.arena
        known = arrays.known.get(raw[:-REFERENCE_BYTES])
        if known is not None:
            dtype, shape, size, item = known
            at = len(raw) - REFERENCE_BYTES
            name, start = _NAME_START.unpack_from(raw, at)
            root = arena.root(name)
            if self._receive is None:
                self._receive = direct(receive)
            done = self._receive(self._hand_at, slot, word, lane, id(raw) + frame.BYTES_AT + at, size, item)
            if done >= 0:
                return np.ndarray(shape, dtype, root, start), done
        _, header, buffers = frame.read(memoryview(raw), 0, len(raw), arrays.locate)
        for buffer in buffers:
            if isinstance(buffer, Shared):
                arena.hold(buffer)
        value = codec.decode(header, buffers)
        arrays.learn(raw, 0, buffers, value)
        return value, -1

    def _lend(self, block: int, slot: int, gen: int, buffers: list[Any]) -> list[Any]:
        """Views of a result's buffers that keep its block until they are collected; shared arrays are kept likewise."""
        own = [buffer for buffer in buffers if not isinstance(buffer, Shared)]
        if len(own) < len(buffers):
            for buffer in buffers:
                if isinstance(buffer, Shared):
                    self.arena.hold(buffer)
            lent = iter(self._lend(block, slot, gen, own) if own else ())
            return [buffer if isinstance(buffer, Shared) else next(lent) for buffer in buffers]
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


def _decode(taken: _Taken) -> Answer:
    ticket, header, buffers, ok, error, agent, epoch, attempts, queued, run, hops = taken
    value = None
    if ok and error is None:
        if header is _DECODED:
            value = buffers[0]
        elif header is not NIL:
            try:
                value = codec.decode(header, buffers)
            except SwarmError as failed:
                error = failed
    elif error is None:
        error = from_wire(msgspec.msgpack.decode(header, type=dict[str, str]))
    return Answer(ticket, value, error, agent, epoch, attempts, queued, run, hops)


def _clocks(deadline: float) -> tuple[int, int]:
    """A deadline in Unix seconds as a slot holds it: on the monotonic clock, and as it was said."""
    return hot.now_ns() + int((deadline - time.time()) * 1e9), struct.unpack("<q", struct.pack("<d", deadline))[0]


def _encoded(taken: _Taken) -> _Taken:
    """What was decoded when it was taken, for those who want it as it was."""
    return (taken[0], *codec.encode(taken[2][0]), *taken[3:]) if taken[1] is _DECODED else taken


def _copied(buffer: Any) -> Any:
    if isinstance(buffer, Shared):
        return buffer.copied()
    return np.frombuffer(buffer, np.uint8).copy() if buffer.nbytes else b""


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
        member.holds.add(self)

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            free_block(*self._args)
            self._member.holds.discard(self)
            if self._member.left and not self._member.holds:
                self._member.life.release()  # whoever looks next ends the quarantine
