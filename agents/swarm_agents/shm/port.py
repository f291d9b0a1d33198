"""Submitting to the board: a port is one submitter's queue into every lane, and the ring its answers come back by.

A port belongs to one process, whose threads may share it: a lock keeps its books. Here is its sending half; `inbox` is
the receiving one. Arguments of a task are copied to the board once, into the slot or a block of the arena; shared
arrays among them are referred to and not copied.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import PayloadTooLarge, StaleReference, SwarmFull
from swarm_agents.shm import frame, hot, tasks
from swarm_agents.shm.answers import PRIORITIES, Ticket
from swarm_agents.shm.blocks import alloc, block_address, free_block
from swarm_agents.shm.handover import Forms, send_array
from swarm_agents.shm.inbox import Inbox
from swarm_agents.shm.jit import direct
from swarm_agents.shm.layout import (
    C_CANCELLED,
    C_FULL,
    E_CANCELLED,
    E_FULL,
    E_SHED,
    H_PAGE_BYTES,
    H_PAGES,
    INLINE_MAX,
    PATHS,
    X_ACCEPTED,
    X_PATH,
)
from swarm_agents.shm.leases import STALE
from swarm_agents.shm.names import kernel_id
from swarm_agents.shm.places import count
from swarm_agents.shm.references import bind, checked, unbind
from swarm_agents.shm.shedding import SHED, refusal
from swarm_agents.shm.tally import tally

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.members import Member

__all__ = ["Port"]

#: How many 256ths of the arena the tasks of each lane may fill: what is left is for the more urgent, and for results.
_SHARES = (224, 208, 192, 176)
_WAIT_STEP = 0.0005
#: While tasks are refused for overload, it is looked again after this long at most (seconds).
_SHED_STEP = 0.1
_TAKE_IN_EVERY = 31
_WORD, _HALF = 1 << 64, 1 << 63
#: The header that is made most of all: no arguments.
_NO_ARGUMENTS = codec.encode(((), {}))[0]


class Port(Inbox):
    """Where a member submits tasks and is answered. Made by `Board.port`."""

    def __init__(self, board: Board, member: Member, number: int, owner: int) -> None:
        super().__init__(board, member, number, owner)
        self._send = direct(hot.send)
        #: How many tasks have been submitted by this port.
        self.submitted = 0
        self._client_id = board.new_client_id()
        self._sequence = itertools.count(1)
        #: By kernel: its number, its name in bytes, and the whole frame of a call without arguments.
        self._names: dict[str, tuple[int, bytes, bytes]] = {}
        self._forms = Forms()
        self._send_array: Any = None
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

    @contextlib.contextmanager
    def accepted(self) -> Iterator[None]:
        """What is submitted meanwhile was accepted before: it is not refused for overload."""
        self._scratch[X_ACCEPTED] = 1
        try:
            yield
        finally:
            self._scratch[X_ACCEPTED] = 0

    # -- shared arrays

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
            Overloaded: the node has refused tasks of this priority for that long (it is a SwarmFull).
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
        return self._post(kernel, header, buffers, priority.lane, task_id, deadline, timeout)

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
            task_id = high, low = self._client_id, next(self._sequence)
        else:
            high, low = signed_id(task_id)
        with self._lock:
            got = self._send_array(
                self._hand_at, lane, known[0], high, low, due, wall, frame.address_of(form), len(form), id(array),
                array.itemsize,
            )  # fmt: skip
            if got < 0:
                return None
            return self._booked(task_id, kernel, lane, got)

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
        return self._post(kernel, header, buffers, priority.lane, task_id, deadline, timeout)

    def _post(
        self,
        kernel: str,
        header: bytes,
        buffers: Sequence[Any],
        lane: int,
        task_id: tuple[int, int] | None,
        deadline: float | None,
        timeout: float,
    ) -> Ticket:
        known = self._names.get(kernel)
        if known is None:
            name = kernel.encode()
            known = kernel_id(kernel), name, frame.lay_out(name, _NO_ARGUMENTS, ()).prefix
            self._names[kernel] = known
        number, name, inline = known
        due, wall = (0, 0) if deadline is None else _clocks(deadline)
        if task_id is None:
            task_id = self._client_id, next(self._sequence)
        high, low = task_id
        if high >= _HALF or low >= _HALF:
            high, low = signed_id(task_id)
        layout = None
        if header is not _NO_ARGUMENTS:
            layout = frame.lay_out(name, header, buffers)
            inline = layout.as_bytes() if layout.size <= INLINE_MAX else b""
        if inline and (layout is None or not layout.names):
            with self._lock:
                got = self._send(
                    self._hand_at, lane, number, high, low, due, wall, id(inline) + frame.BYTES_AT, len(inline), -1
                )
                if got >= 0:
                    return self._booked(task_id, kernel, lane, got)
        return self._post_slowly(kernel, number, lane, task_id, (high, low, due, wall), layout, inline, timeout)

    def _booked(self, task_id: tuple[int, int], kernel: str, lane: int, got: int) -> Ticket:
        """Notes what was sent. The caller holds the lock."""
        slot = got & 0xFFFFFF
        outstanding = self._outstanding
        ticket = outstanding[slot] = Ticket(task_id, kernel, lane, slot, got >> 24)
        self.submitted += 1
        if not self.submitted & _TAKE_IN_EVERY and len(outstanding) > _TAKE_IN_EVERY:
            # Who submits many before he asks for the first answer would fill the lane with answers.
            self._ready.extend(self._take(hot.TAKE_MOST, True))
        return ticket

    def _post_slowly(
        self,
        kernel: str,
        number: int,
        lane: int,
        task_id: tuple[int, int],
        words: tuple[int, int, int, int],
        layout: frame.Layout | None,
        inline: bytes,
        timeout: float,
    ) -> Ticket:
        """Sends what takes a block or refers to shared arrays, and what found no room at first; see `submit`."""
        shared = () if layout is None else checked(layout.names)
        size, block = len(inline), -1
        give_up = 0.0
        while True:
            refused = None if self._scratch[X_ACCEPTED] else refusal(self._board.mapping, lane)
            with self._lock:
                if not inline and refused is None:
                    assert layout is not None
                    size = layout.size
                    block = self._store(layout, lane)
                got = -1
                if refused is None and (inline or block >= 0):
                    if shared:
                        bind(self._scratch, shared)
                    got = self._send(self._hand_at, lane, number, *words, frame.address_of(inline), size, block)
                    if shared:
                        unbind(self._scratch)
                    if got >= 0:
                        return self._booked(task_id, kernel, lane, got)
                    if block >= 0:
                        free_block(self._base, block, self._index, self._epoch)
                    if got == -3:
                        raise self._fenced()
                    if got == SHED:
                        refused = refusal(self._board.mapping, lane)
                    if got == STALE:
                        raise StaleReference("a shared array among the arguments is not there any more: keep() it")
                # Answers that lie there hold what is waited for: take them in, for a later poll.
                taken = self._take(hot.TAKE_MOST, True)
                self._ready.extend(taken)
            now = time.monotonic()
            if not give_up:
                give_up = now + timeout
            if now >= give_up and refused is not None:
                tally(self._base, E_SHED, lane, self._path)
                raise refused
            if now >= give_up:
                count(self._base, self._index, C_FULL, 1)
                tally(self._base, E_FULL, lane, self._path)
                raise SwarmFull(
                    f"the {PRIORITIES[lane]} lane or the arena is full: take results before you submit more, "
                    "or submit with a timeout"
                )
            if refused is not None:
                time.sleep(min(refused.retry_after, give_up - now, _SHED_STEP))
            elif not taken:
                self._wait(self._base, self._number, 20_000, int(_WAIT_STEP * 1e9), self._scratch_at)

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

    def cancel(self, ticket: Ticket) -> bool:
        """Asks that a task be given up. True: it will not be begun, and its answer is `TaskCancelled`. False: it has
        been answered, or it runs: then its kernel is told, and the answer is whatever the kernel makes of it."""
        with self._lock:
            if self._outstanding.get(ticket.slot) is not ticket:
                return False
            done = bool(tasks.cancel(self._base, ticket.slot, ticket.gen))
            if done:
                count(self._base, self._index, C_CANCELLED, 1)
                tally(self._base, E_CANCELLED, ticket.lane, self._path)
            return done


def _clocks(deadline: float) -> tuple[int, int]:
    """A deadline in Unix seconds as a slot holds it: on the monotonic clock, and as it was said."""
    return hot.now_ns() + int((deadline - time.time()) * 1e9), struct.unpack("<q", struct.pack("<d", deadline))[0]


def signed_id(task_id: tuple[int, int]) -> tuple[int, int]:
    """A task's id as a slot holds it: its two words of 64 bits as signed numbers."""
    high, low = task_id
    return high - _WORD if high >= _HALF else high, low - _WORD if low >= _HALF else low
