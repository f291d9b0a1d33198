"""Claiming from the board: one task at a time, the most urgent first, so that nothing claimed waits behind anything.

A claim is valid while this member's epoch is. Its arguments are read-only views of the slot or the arena: valid until
it is committed, failed or handed back; a kernel that keeps one longer copies it. (An agent that was fenced may see them
change under its hands: its result is refused.)
"""

from __future__ import annotations

import struct
import time
import traceback as tracebacks
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, StaleReference, SwarmFull, to_wire
from swarm_agents.shm import frame, hot, tasks
from swarm_agents.shm.answers import name_far
from swarm_agents.shm.blocks import alloc, block_address
from swarm_agents.shm.handover import OTHERWISE, Forms, reply_array
from swarm_agents.shm.jit import direct
from swarm_agents.shm.layout import (
    AGAIN_AT,
    ATTEMPTS_MASK,
    C_HANDED_BACK,
    CELL_BYTES,
    GEN_MASK,
    H_PAGE_BYTES,
    H_PAGES,
    H_SLOTS_AT,
    H_STATES_AT,
    INLINE_MAX,
    LANES,
    MAX_ATTEMPTS,
    NO_BLOCK,
    READY,
    RESULT_HEADER,
    S_BLOCK,
    S_CANCEL,
    S_DEADLINE,
    S_ID_HI,
    S_ID_LO,
    S_LENGTH,
    S_WALL_DEADLINE,
    SCRATCH_WORDS,
    SLOT_STRIDE,
    STATUS_ERROR,
    STATUS_VALUE,
    X_OUT,
    X_RETRIES,
)
from swarm_agents.shm.leases import STALE
from swarm_agents.shm.places import count
from swarm_agents.shm.references import Shared, bind, checked, start_apart, unbind

if TYPE_CHECKING:
    from swarm_agents.shm.arena import Arena
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Claim", "Worker"]

_CLAIM_WORDS = struct.Struct("<8q")
_FIELDS = 24  # bytes of a claim before the fields of its slot
_LONGEST_WAIT_NS = 100_000_000
_SMALL = CELL_BYTES - RESULT_HEADER
#: How long a result waits for room in the arena before its task is answered with SwarmFull (seconds).
RESULT_PATIENCE = 30.0
_PRIORITIES = tuple(Priority)
_WORD = 1 << 64
#: What is read and written most of all: no arguments, and no value.
_NO_ARGUMENTS = codec.encode(((), {}))[0]
_NIL_FRAME = frame.lay_out(b"", codec.encode(None)[0], ()).as_bytes()
_NIL_AT = frame.address_of(_NIL_FRAME)


class Claim:
    """A task in this agent's hand."""

    __slots__ = (
        "_begin",
        "_board",
        "_decoded",
        "_frame",
        "_mine",
        "_raw",
        "claimed_ns",
        "kernel_number",
        "lane",
        "queued_ns",
        "slot",
    )

    def __init__(self, board: Board, words: tuple[int, ...], raw: bytes) -> None:
        """`words` as `claim_next` leaves them; `raw`: those of the slot before them, and after them an inline frame."""
        self._board = board
        self._raw = raw
        #: 64 bits that stand for the kernel's name; the lane; how long it had waited and when it was claimed, in ns.
        self.kernel_number, self.queued_ns, self.lane, _, self._begin, self.slot, self._mine, self.claimed_ns = words
        self._frame: tuple[str, memoryview, list[memoryview]] | None = None
        self._decoded: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def _field(self, offset: int) -> int:
        """A word of the slot, as it was when it was claimed."""
        return int.from_bytes(self._raw[_FIELDS + offset : _FIELDS + offset + 8], "little", signed=True)

    @property
    def task_id(self) -> tuple[int, int]:
        """(client, number), two words of 64 bits."""
        return self._field(S_ID_HI) % _WORD, self._field(S_ID_LO) % _WORD

    @property
    def deadline(self) -> float | None:
        """Unix seconds, as the submitter said it, or None."""
        if not self._field(S_DEADLINE):
            return None
        return float(struct.unpack_from("<d", self._raw, _FIELDS + S_WALL_DEADLINE)[0])

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, or None: by the monotonic clock, whatever somebody sets the other one to."""
        due = self._field(S_DEADLINE)
        return (due - hot.now_ns()) * 1e-9 if due else None

    @property
    def attempt(self) -> int:
        """From 1: how often this task has been begun."""
        return (self._mine >> 3) & ATTEMPTS_MASK

    @property
    def priority(self) -> Priority:
        return _PRIORITIES[self.lane]

    def open(self) -> tuple[str, memoryview, list[memoryview]]:
        """The frame: the kernel's name, the arguments' header, and the buffers that it refers to.

        Raises:
            ValueError: it is torn. Only when this member was fenced, and the slot is another task's by now.
        """
        if self._frame is None:
            block, length = self._field(S_BLOCK), self._field(S_LENGTH)
            mapping, locate = self._board.mapping, self._board.arrays.locate
            if block == NO_BLOCK:
                self._frame = frame.read(memoryview(self._raw), hot.CLAIM_PAYLOAD, length, locate)
            else:
                self._frame = frame.read(mapping.view, block_address(mapping.base, block), length, locate)
        return self._frame

    @property
    def kernel(self) -> str:
        """The kernel's name."""
        return self.open()[0]

    @property
    def header(self) -> memoryview:
        """The arguments' msgpack header, as it lies on the board."""
        return self.open()[1]

    @property
    def buffers(self) -> list[memoryview]:
        """The buffers that the header refers to, as they lie on the board; of a shared array that is not contiguous a
        copy.

        Raises:
            PayloadError: a shared array is not there, or not what it should be.
        """
        found: list[Any] = self.open()[2]
        return [buffer.contiguous() if isinstance(buffer, Shared) else buffer for buffer in found]

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments; decoding them may raise PayloadError."""
        return self.arguments()[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments; decoding them may raise PayloadError."""
        return self.arguments()[1]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments.

        Raises:
            PayloadError: they can't be read.
        """
        if self._decoded is None:
            if self._begin:
                header = self._raw[hot.CLAIM_PAYLOAD + self._begin :]
                if header == _NO_ARGUMENTS:
                    self._decoded = (), {}
                    return self._decoded
                value = codec.decode(header)
            else:
                _, found, buffers = self.open()
                value = codec.decode(found, buffers)
            match value:
                case [list() as args, dict() as kwargs]:
                    self._decoded = tuple(args), kwargs
                    if len(args) == 1 and not kwargs and not self._begin and self.kernel:
                        self._board.arrays.learn(self._raw, hot.CLAIM_PAYLOAD, self.open()[2], args[0])
                case _:
                    raise PayloadError("a task's payload is not a pair of positional and keyword arguments")
        return self._decoded

    def cancelled(self) -> bool:
        """Whether its submitter gave it up, or is gone, or the task is not this agent's any more."""
        board = self._board
        view, words = board.mapping.view, board.words
        flag = struct.unpack_from("<q", view, words[H_SLOTS_AT] + self.slot * SLOT_STRIDE + S_CANCEL)[0]
        if flag == (self._mine >> 42 & GEN_MASK) + 1:
            return True
        return bool(struct.unpack_from("<q", view, words[H_STATES_AT] + self.slot * 8)[0] != self._mine)

    def resumed(self) -> bool:
        """Whether somebody has gone on with the task since it was handed back: begun it, or ended it."""
        board = self._board
        word = struct.unpack_from("<q", board.mapping.view, board.words[H_STATES_AT] + self.slot * 8)[0]
        waits = word & 7 == READY and (word ^ self._mine) >> 42 & GEN_MASK == 0
        return word != self._mine and not waits

    def __repr__(self) -> str:
        return f"Claim({self.kernel}, {self.task_id[0]:016x}{self.task_id[1]:016x}, attempt {self.attempt})"


class Worker:
    """What a member claims and answers tasks by. Made by `Board.worker`; used by one thread."""

    def __init__(self, board: Board, member: Member) -> None:
        self._board = board
        self._base = board.mapping.base
        self._view = board.mapping.view
        self._member = member
        self._index, self._epoch = member.index, member.epoch
        self._scratch = np.zeros(SCRATCH_WORDS, np.int64)
        self._scratch[X_RETRIES : X_RETRIES + LANES] = -1  # nothing has been looked at yet
        self._scratch_at = int(self._scratch.ctypes.data)
        start_apart(self._scratch, self._index, board.words)
        self._out = self._scratch.data.cast("B")[X_OUT * 8 :]
        self._hand = np.array([self._base, -1, 0, self._index, self._epoch, self._scratch_at], np.int64)
        self._hand_at = int(self._hand.ctypes.data)
        self._next, self._reply = direct(hot.claim_next), direct(hot.reply)
        self._arrays = board.arrays
        self._arena: Arena | None = None
        self._forms = Forms()
        self._reply_array: Any = None

    @property
    def arena(self) -> Arena:
        """Makes and keeps arrays that are passed on without copying."""
        if self._arena is None:
            self._arena = self._board.arena(self._member)
        return self._arena

    def array(
        self, shape: int | tuple[int, ...], dtype: Any = np.float64, *, timeout: float = RESULT_PATIENCE
    ) -> np.ndarray[Any, Any]:
        """`Arena.empty`: lends memory of the arena to write a result in place, which is then committed as it lies."""
        return self.arena.empty(shape, dtype, timeout=timeout)

    def claim(self, timeout: float = 0.0, *, lanes: tuple[int, int] = (0, LANES - 1)) -> Claim | None:
        """Claims the most urgent task, waiting up to `timeout` seconds for one: spinning shortly, then asleep.

        Args:
            lanes: only these, first and last included; less than all of them is for a hub that carries work away.

        Raises:
            Fenced: this member was declared dead; its claims are void.
        """
        wait = int(timeout * 1e9)
        first, last = lanes
        end = 0
        while True:
            got = self._next(
                self._hand_at, first, last, self._board.spin_ns, wait if wait < _LONGEST_WAIT_NS else _LONGEST_WAIT_NS
            )
            if got == 1:
                return self._open()
            if got == -3:
                raise Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")
            if wait <= _LONGEST_WAIT_NS:
                return None
            # In slices, so that Python sees signals.
            now = hot.now_ns()
            if not end:
                end = now + wait - _LONGEST_WAIT_NS
            wait = end - now
            if wait <= 0:
                return None

    claim_raw = claim

    def _open(self) -> Claim | None:
        words = _CLAIM_WORDS.unpack_from(self._out, hot.CLAIM_AT)
        length, begin = words[3], words[4]
        end = hot.CLAIM_PAYLOAD + (length if length <= INLINE_MAX else 0)
        raw = bytes(self._out[:end])
        claim = Claim(self._board, words, raw)
        if not begin:
            array = self._arrays.arrived(raw, hot.CLAIM_PAYLOAD)
            if array is not None:
                claim._decoded = (array,), {}
                return claim
            try:
                claim.open()
            except (ValueError, struct.error):
                # Only when this member was fenced meanwhile, and the slot is another task's by now.
                self.hand_back(claim, begun=False)
                return None
        return claim

    def commit(self, claim: Claim, value: Any) -> bool:
        """Answers with a value. False: the task is not this agent's any more, and the value is void.

        Raises:
            PayloadError: the value can't travel; the claim stands.
            PayloadTooLarge: it is larger than the arena; the claim stands.
            SwarmFull: the arena had no room for it for a long time; the claim stands.
        """
        if value is None:
            done = self._reply(
                self._hand_at, claim.slot, claim._mine, _NIL_AT, len(_NIL_FRAME), claim.lane, STATUS_VALUE,
                claim.queued_ns, claim.claimed_ns, 0,
            )  # fmt: skip
            if done >= 0:
                return bool(done)
        sharing = self._arrays.sharing
        if sharing is not None and type(value) is np.ndarray:
            done = self._commit_array(claim, value)
            if done >= 0:
                return bool(done)
        header, buffers = codec.encode(value, sharing)
        return self.commit_raw(claim, header, buffers)

    def fail(self, claim: Claim, error: BaseException, traceback: str | None = None) -> bool:
        """Answers with an error. False as with `commit`."""
        if traceback is None:
            traceback = "".join(tracebacks.format_exception(error)) if error.__traceback__ is not None else ""
        return self.commit_raw(claim, msgspec.msgpack.encode(to_wire(error, traceback)), ok=False)

    def commit_raw(
        self,
        claim: Claim,
        header: bytes,
        buffers: Sequence[Any] = (),
        *,
        ok: bool = True,
        hops: int = 0,
        again: int = 0,
        run_ns: int | None = None,
        agent: str = "",
        node: str = "",
    ) -> bool:
        """`commit` for an answer that is encoded already, as it comes from another node.

        Args:
            ok: False: `header` is the map of an error (`errors.to_wire`).
            hops: how many nodes it has passed.
            again: how often it was begun there after the first time; its submitter is told of these too.
            run_ns: how long it was computed; by default since the claim.
            agent: who computed it there, and on which node; by default this member.
            node: see `agent`.
        """
        layout = frame.lay_out(name_far(agent, node), header, buffers)
        hops |= min(again, ATTEMPTS_MASK) << AGAIN_AT
        status = STATUS_VALUE if ok else STATUS_ERROR
        began = claim.claimed_ns if run_ns is None else hot.now_ns() - run_ns
        if layout.names:
            return self._commit_shared(claim, header, buffers, layout)
        if layout.size <= _SMALL:
            data = layout.as_bytes()
            done = self._reply(
                self._hand_at, claim.slot, claim._mine, frame.address_of(data), layout.size, claim.lane, status,
                claim.queued_ns, began, hops,
            )  # fmt: skip
            if done >= 0:
                return bool(done)
        block = self._store(layout, claim)
        if block is None:
            return False
        return bool(
            hot.commit_block(
                self._base, claim.slot, claim._mine, block, layout.size, self._index, self._epoch, claim.lane, status,
                claim.queued_ns, began, hops, self._scratch_at,
            )
        )  # fmt: skip

    def _commit_array(self, claim: Claim, value: np.ndarray[Any, Any]) -> int:
        """The short way of a value that is one shared array: 1, 0 fenced, below 0 if it has to go the long way."""
        form = self._forms.made((value.dtype, value.shape), b"", value)
        if len(form) > _SMALL:
            return OTHERWISE
        if self._reply_array is None:
            self._reply_array = direct(reply_array)
        done: int = self._reply_array(
            self._hand_at, claim.slot, claim._mine, frame.address_of(form), len(form), claim.lane, claim.queued_ns,
            claim.claimed_ns, id(value), value.itemsize,
        )  # fmt: skip
        return done

    def _commit_shared(self, claim: Claim, header: bytes, buffers: Sequence[Any], layout: frame.Layout) -> bool:
        """Answers with a value that refers to shared arrays; should no lease on one be free, with copies of them."""
        bind(self._scratch, checked(layout.names))
        try:
            done = -1
            if layout.size <= _SMALL:
                data = layout.as_bytes()
                done = self._reply(
                    self._hand_at, claim.slot, claim._mine, frame.address_of(data), layout.size, claim.lane,
                    STATUS_VALUE, claim.queued_ns, claim.claimed_ns, 0,
                )  # fmt: skip
            if done == -1:
                block = self._store(layout, claim)
                if block is None:
                    return False
                done = hot.commit_block(
                    self._base, claim.slot, claim._mine, block, layout.size, self._index, self._epoch, claim.lane,
                    STATUS_VALUE, claim.queued_ns, claim.claimed_ns, 0, self._scratch_at,
                )  # fmt: skip
        finally:
            unbind(self._scratch)
        if done == STALE:
            raise StaleReference("a shared array in the result is not there any more: the kernel did not keep it")
        if done < 0:
            locate = self._arrays.locate
            own = [locate(b).contiguous() if type(b) is frame.Reference else b for b in buffers]
            return self.commit_raw(claim, header, own)
        return bool(done)

    def _store(self, layout: frame.Layout, claim: Claim) -> int | None:
        """A block with the result in it; None when the claim is void. Waits while the arena is full."""
        size = RESULT_HEADER + layout.size
        give_up, pause = time.monotonic() + RESULT_PATIENCE, 50e-6
        while True:
            block = alloc(self._base, size, self._index, self._epoch, 256, 0, self._scratch_at)
            if block >= 0:
                frame.write(self._view, block_address(self._base, block) + RESULT_HEADER, layout)
                return int(block)
            words = self._board.words
            if block == -2:
                raise PayloadTooLarge(
                    f"the result has {layout.size} bytes, the arena {words[H_PAGES] * words[H_PAGE_BYTES]}: return "
                    "less, or give the swarm a larger arena (spec.transport.sharedMemory)"
                )
            if struct.unpack_from("<q", self._view, words[H_STATES_AT] + claim.slot * 8)[0] != claim._mine:
                return None
            if time.monotonic() > give_up:
                raise SwarmFull(
                    f"the arena had no room for a result of {layout.size} bytes for {RESULT_PATIENCE:.0f} s: "
                    "clients must take their answers, or the swarm needs a larger arena"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.005)

    def hand_back(self, claim: Claim, *, begun: bool = True, attempts: int | None = None) -> bool:
        """Gives a task back for others to claim. False as with `commit`.

        Args:
            begun: False when it was not touched: this time does not count as an attempt.
            attempts: how often it may be begun, 1 to `MAX_ATTEMPTS`; by default as often as the board says. One that
                has been begun so often is not ready again, but answered with `TaskLost`.
        """
        most = 0
        if begun:
            most = min(max(self._board.max_attempts if attempts is None else attempts, 1), MAX_ATTEMPTS)
        done = bool(tasks.hand_back(self._base, claim.slot, claim._mine, most))
        hot.put_down(self._base, self._index)
        count(self._base, self._index, C_HANDED_BACK, 1)
        return done
