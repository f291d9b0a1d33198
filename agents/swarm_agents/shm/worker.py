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
from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, SwarmFull, to_wire
from swarm_agents.shm import frame, hot, tasks
from swarm_agents.shm.blocks import alloc, block_address
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    C_HANDED_BACK,
    CELL_BYTES,
    H_LANE_SLOTS,
    H_PAGE_BYTES,
    H_PAGES,
    H_SLOTS_AT,
    H_STATES_AT,
    LANES,
    NO_BLOCK,
    RESULT_HEADER,
    S_CANCEL,
    S_INLINE,
    SCRATCH_WORDS,
    SLOT_STRIDE,
    STATUS_ERROR,
    STATUS_VALUE,
    X_OUT,
    X_RETRIES,
)
from swarm_agents.shm.parking import claim_wait

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Claim", "Worker"]

_CLAIM_WORDS = struct.Struct("<13qd")
_LONGEST_WAIT_NS = 100_000_000
_SMALL = CELL_BYTES - RESULT_HEADER
#: How long a result waits for room in the arena before its task is answered with SwarmFull (seconds).
RESULT_PATIENCE = 30.0
_PRIORITIES = tuple(Priority)
_WORD = 1 << 64


class Claim:
    """A task in this agent's hand."""

    __slots__ = (
        "_board",
        "_decoded",
        "_frame",
        "_mine",
        "attempt",
        "claimed_ns",
        "deadline",
        "kernel",
        "kernel_number",
        "priority",
        "queued_ns",
        "slot",
        "task_id",
    )

    def __init__(self, board: Board, words: tuple[Any, ...]) -> None:
        slot, mine, now, _, _, number, high, low, due, submitted, length, block, _, wall = words
        self._board = board
        self.slot = slot
        self._mine = mine
        self.claimed_ns = now
        self.queued_ns = max(0, now - submitted)
        self.kernel_number = number
        #: (client, number), two words of 64 bits
        self.task_id = (high % _WORD, low % _WORD)
        #: unix seconds, as the submitter said it, or None
        self.deadline = wall if due else None
        #: from 1: how often this task has been begun
        self.attempt = (mine >> 3) & ATTEMPTS_MASK
        self.priority = _PRIORITIES[slot // board.words[H_LANE_SLOTS]]
        view = board.mapping.view
        at = (
            block_address(board.mapping.base, block)
            if block < NO_BLOCK
            else board.words[H_SLOTS_AT] + slot * SLOT_STRIDE + S_INLINE
        )
        self._frame = frame.read(view, at, length)
        self.kernel = self._frame[0]
        self._decoded: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def header(self) -> memoryview:
        """The arguments' msgpack header, as it lies on the board."""
        return self._frame[1]

    @property
    def buffers(self) -> list[memoryview]:
        """The buffers that the header refers to, as they lie on the board."""
        return self._frame[2]

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments; decoding them may raise PayloadError."""
        return self._arguments()[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments; decoding them may raise PayloadError."""
        return self._arguments()[1]

    def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._decoded is None:
            value = codec.decode(self.header, self.buffers)
            match value:
                case [list() as args, dict() as kwargs]:
                    self._decoded = tuple(args), kwargs
                case _:
                    raise PayloadError("a task's payload is not a pair of positional and keyword arguments")
        return self._decoded

    def cancelled(self) -> bool:
        """Whether its submitter gave it up, or is gone, or the task is not this agent's any more."""
        board = self._board
        view, words = board.mapping.view, board.words
        flag = struct.unpack_from("<q", view, words[H_SLOTS_AT] + self.slot * SLOT_STRIDE + S_CANCEL)[0]
        return bool(flag) or struct.unpack_from("<q", view, words[H_STATES_AT] + self.slot * 8)[0] != self._mine

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
        self._out = self._scratch.data.cast("B")

    def claim(self, timeout: float = 0.0, *, lanes: tuple[int, int] = (0, LANES - 1)) -> Claim | None:
        """Claims the most urgent task, waiting up to `timeout` seconds for one: spinning shortly, then asleep.

        Args:
            lanes: only these, first and last included; less than all of them is for a hub that carries work away.

        Raises:
            Fenced: this member was declared dead; its claims are void.
        """
        wait = int(timeout * 1e9)
        end = 0
        while True:
            got = claim_wait(
                self._base, self._index, self._epoch, lanes[0], lanes[1], self._board.spin_ns,
                min(wait, _LONGEST_WAIT_NS), self._scratch_at,
            )  # fmt: skip
            if got == 1:
                return self._open(_CLAIM_WORDS.unpack_from(self._out, X_OUT * 8))
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

    def _open(self, words: tuple[Any, ...]) -> Claim | None:
        try:
            return Claim(self._board, words)
        except ValueError:
            # Only when this member was fenced meanwhile, and the slot is another task's by now.
            tasks.hand_back(self._base, words[0], words[1], 0)
            hot.put_down(self._base, self._index)
            return None

    def commit(self, claim: Claim, value: Any) -> bool:
        """Answers with a value. False: the task is not this agent's any more, and the value is void.

        Raises:
            PayloadError: the value can't travel; the claim stands.
            PayloadTooLarge: it is larger than the arena; the claim stands.
            SwarmFull: the arena had no room for it for a long time; the claim stands.
        """
        header, buffers = codec.encode(value)
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
        run_ns: int | None = None,
    ) -> bool:
        """`commit` for an answer that is encoded already, as it comes from another node.

        Args:
            ok: False: `header` is the map of an error (`errors.to_wire`).
            hops: how many nodes it has passed.
            run_ns: how long it was computed; by default since the claim.
        """
        layout = frame.lay_out(b"", header, buffers)
        status = STATUS_VALUE if ok else STATUS_ERROR
        lane = claim.slot // self._board.words[H_LANE_SLOTS]
        began = claim.claimed_ns if run_ns is None else hot.now_ns() - run_ns
        common = (self._index, self._epoch, lane, status, claim.queued_ns, began, hops)
        if layout.size <= _SMALL:
            data = layout.as_bytes()
            done = hot.commit_small(
                self._base, claim.slot, claim._mine, frame.address_of(data), layout.size, *common, self._scratch_at
            )
            if done >= 0:
                return bool(done)
        block = self._store(layout, claim)
        if block is None:
            return False
        return bool(hot.commit_block(self._base, claim.slot, claim._mine, block, layout.size, *common))

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

    def hand_back(self, claim: Claim, *, begun: bool = True) -> bool:
        """Gives a task back for others to claim; `begun=False` when it was not touched and does not count."""
        done = bool(tasks.hand_back(self._base, claim.slot, claim._mine, int(begun)))
        hot.put_down(self._base, self._index)
        tasks.count(self._base, self._index, C_HANDED_BACK, 1)
        return done
