"""The receiving half of a port: answers are taken off its ring, or looked for in its slots when hints may be missing.

A record of a small answer is made by the compiled call that takes it, payload included; a large one is read where it
lies, in a block of the arena, before its slot is given up. Answers are copied out of the arena by default. Rejected as
the default: views into the arena. A program that keeps a few hundred results would fill the arena for everybody on the
node without a visible reason, and a copy of 1 MiB costs what one system call does; whoever knows what they do says
`copy=False`, and the block is freed when the last array that shows it is.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents import codec
from swarm_agents.errors import Fenced, PayloadError, SwarmError
from swarm_agents.shm import frame, hot
from swarm_agents.shm.answers import DECODED, NIL, Answer, RawAnswer, Ticket, copied, decode, encoded, who_far
from swarm_agents.shm.answers import reason as board_reason
from swarm_agents.shm.blocks import block_address, free_block, hold_published
from swarm_agents.shm.handover import receive
from swarm_agents.shm.jit import direct
from swarm_agents.shm.layout import (
    AGAIN_AT,
    ATTEMPTS_MASK,
    BLOCK_MASK,
    GEN_MASK,
    H_MAX_ATTEMPTS,
    RESULT_HEADER,
    SCRATCH_WORDS,
    STATUS_ERROR,
    STATUS_VALUE,
)
from swarm_agents.shm.parking import poll_wait
from swarm_agents.shm.places import is_fenced
from swarm_agents.shm.references import REFERENCE_BYTES, Shared, start_apart

if TYPE_CHECKING:
    from swarm_agents.shm.arena import Arena
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Inbox"]

_RECORD = struct.Struct("<11q")
_NAME_START = struct.Struct("<2q")
_HEAD = struct.Struct("<Q")
_LONGEST_WAIT_NS = 100_000_000
_HERE = ("", "")


class Inbox:
    """Takes the answers of a port's tasks. Several threads may use it: a lock keeps its books."""

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
        self._take_some, self._take_slot = direct(hot.take), direct(hot.take_slot)
        self._finish = direct(hot.finish)
        self._wait: Any = direct(poll_wait)
        self._receive: Any = None
        self._lock = threading.Lock()
        #: By slot those that have no answer yet; and answers that were taken and not polled.
        self._outstanding: dict[int, Ticket] = {}
        self._ready: deque[RawAnswer] = deque()
        self._arrays = board.arrays
        self._arena: Arena | None = None

    @property
    def arena(self) -> Arena:
        """Makes and keeps arrays that are passed on without copying."""
        if self._arena is None:
            self._arena = self._board.arena(self._member)
        return self._arena

    @property
    def pending(self) -> int:
        """Tasks that have been submitted and whose answer has not been polled."""
        return len(self._outstanding) + len(self._ready)

    def poll(self, max_n: int = 256, *, copy: bool = True) -> list[Answer]:
        """Takes up to `max_n` answers, without waiting.

        With `copy=False` arrays of a result are views of the arena, whose room is free again when they are collected;
        they are valid until this member leaves.

        Raises:
            Fenced: this member was declared dead; what it waits for is over.
        """
        return [decode(one) for one in self.take(max_n, copy=copy)]

    def poll_raw(self, max_n: int = 256, *, copy: bool = True) -> list[RawAnswer]:
        """`poll` without decoding."""
        return [encoded(one) for one in self.take(max_n, copy=copy)]

    def take(self, max_n: int = 256, *, copy: bool = True) -> list[RawAnswer]:
        """`poll` for who looks at the values by `answers.value_of`: some of them are decoded already."""
        with self._lock:
            return self._drain(max_n, copy) if self._ready else self._take(max_n, copy)

    def wait(self, timeout: float) -> bool:
        """Waits for up to `timeout` seconds until there is an answer to poll: spinning shortly, then asleep.

        Raises:
            Fenced: this member was declared dead.
        """
        if self._ready:
            return True
        left = int(timeout * 1e9)
        end = 0
        while True:
            step = max(0, min(left, _LONGEST_WAIT_NS))
            if self._wait(self._base, self._number, self._board.spin_ns, step, self._scratch_at):
                return True
            if is_fenced(self._base, self._index, self._epoch):
                raise self._fenced()
            if left <= _LONGEST_WAIT_NS:
                return False
            # In slices, so that Python sees signals.
            now = hot.now_ns()
            if not end:
                end = now + left - _LONGEST_WAIT_NS
            left = end - now

    def _fenced(self) -> Fenced:
        return Fenced(f"{self._member.name} was declared dead in epoch {self._epoch}: join again")

    # -- taking; the caller holds the lock

    def _drain(self, max_n: int, copy: bool) -> list[RawAnswer]:
        """What was taken before, then what lies on the board."""
        ready = self._ready
        while len(ready) < max_n and (taken := self._take(max_n - len(ready), copy)):
            ready.extend(taken)
        return [ready.popleft() for _ in range(min(max_n, len(ready)))]

    def _take(self, limit: int, copy: bool) -> list[RawAnswer]:
        """Takes answers off the board, at most `limit` or a buffer's worth.

        Raises:
            Fenced: this member was declared dead, and nothing is left of what was taken before.
        """
        found = self._take_some(self._hand_at, limit if limit < hot.TAKE_MOST else hot.TAKE_MOST, self._records_at)
        out: list[RawAnswer] = []
        if found > 0:
            for number in range(found):
                self._read(number, copy, out)
        elif found == -1:
            for slot, ticket in list(self._outstanding.items()):
                if self._take_slot(self._hand_at, slot, ticket.gen, self._records_at):
                    self._read(0, copy, out)
            self._ready.extend(out[limit:])
            del out[limit:]
        elif found < 0 and not self._ready:
            raise self._fenced()
        return out

    def _read(self, number: int, copy: bool, out: list[RawAnswer]) -> None:
        """Makes an answer of a record."""
        view, at = self._records_view, number * hot.TAKE_STRIDE
        slot, word, kind, status, agent, epoch, queued, run, length, hops, _ = _RECORD.unpack_from(view, at)
        ticket = self._outstanding.get(slot)
        if ticket is None or (word >> 42) & GEN_MASK != ticket.gen:
            return  # an answer that a sweep has shown again
        header: bytes = b""
        kept: Sequence[Any] = ()
        error = None
        attempts = (word >> 3) & ATTEMPTS_MASK
        far = _HERE
        if kind == hot.T_NONE:
            header = NIL
        elif kind == hot.T_PLAIN:
            at += hot.T_PAYLOAD
            sizes = _HEAD.unpack_from(view, at)[0]
            begin = at + 8 + (sizes >> 48)
            header = bytes(view[begin : begin + (sizes & 0xFFFFFFFF)])
            if sizes >> 48:
                far = who_far(str(view[at + 8 : begin], "utf-8"))
        elif kind == hot.T_BUFFERS:
            name, found, buffers = frame.read(view, at + hot.T_PAYLOAD, length)
            header, kept = bytes(found), [copied(buffer) for buffer in buffers]
            if name:
                far = who_far(name)
        elif kind == hot.T_BLOCK or kind == hot.T_SHARED:
            block = (word >> 10) & BLOCK_MASK
            done = -1
            try:
                if kind == hot.T_SHARED and not copy:
                    at += hot.T_PAYLOAD
                    value, done = self._arrived(bytes(view[at : at + length]), slot, word, ticket.lane)
                    header, kept = DECODED, [value]
                else:
                    at = block_address(self._base, block) + RESULT_HEADER
                    name, found, buffers = frame.read(self._view, at, length, self._arrays.locate)
                    header = bytes(found)
                    if name:
                        far = who_far(name)
                    if buffers and not copy:
                        kept = self._lend(block, slot, ticket.gen, buffers)
                    else:
                        kept = [copied(buffer) for buffer in buffers]
            except SwarmError as failed:  # a shared array that can't be kept, or is not what it should be
                error = failed
            except ValueError as torn:  # another's by now, if this member was fenced while it slept: `_finish` will say
                error = PayloadError(f"the result of {ticket.kernel} can't be read: {torn}")
            if done < 0:
                done = self._finish(self._base, slot, word, self._index, ticket.lane, self._scratch_at)
            if not done:
                return
        else:
            status, agent, epoch, queued, run, hops = STATUS_ERROR, -1, 0, 0, 0, 0
            most = struct.unpack_from("<q", self._view, H_MAX_ATTEMPTS * 8)[0]
            error = board_reason((word >> 10) & BLOCK_MASK, ticket.kernel, attempts, most)
        del self._outstanding[slot]
        out.append(
            RawAnswer(
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
                far,
            )
        )

    # -- without copying

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
        give_back = _Lent(self._base, block, self._index, self._epoch, len(roots), self._member, self._mapping)
        for root in roots:
            weakref.finalize(root, give_back).atexit = False
        return roots


class _Lent:
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
