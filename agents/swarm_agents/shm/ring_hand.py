"""A handle's private words, what is called with their address, and what both ends of a ring have in common.

A *hand* holds all that a compiled call needs to know of its caller, so that the call passes one integer: unboxing one
costs as much as an atomic operation does.
"""

from __future__ import annotations

import functools
import os
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from swarm_agents.errors import Fenced, PayloadError, RingMismatch
from swarm_agents.shm import ring_hot, ring_repair, ring_words
from swarm_agents.shm import ring_layout as rl
from swarm_agents.shm.atomics import cas, load, peek, poke
from swarm_agents.shm.cpython import Held, layout_known
from swarm_agents.shm.files import LifeLock
from swarm_agents.shm.jit import direct, jit

if TYPE_CHECKING:
    from swarm_agents.shm.ring import Ring

__all__ = [
    "CLOSED_HAND", "FOREVER", "OPEN_HAND", "End", "Hand", "cas_word", "compiled", "count_one", "deadline", "load_word",
    "make_hand",
]  # fmt: skip

FOREVER = 1 << 62
CLOSED_HAND, OPEN_HAND = 1, 2


@jit
def load_word(address: int) -> int:
    """A shared word, for Python."""
    return load(address)


@jit
def cas_word(address: int, expected: int, desired: int) -> bool:
    """Compare and swap, for Python."""
    return cas(address, expected, desired)


@jit
def count_one(address: int) -> None:
    poke(address, peek(address) + 1)


class Hand:
    """A handle's private words."""

    __slots__ = ("__weakref__", "at", "words")

    def __init__(self) -> None:
        self.words = np.zeros(rl.HAND_WORDS, np.int64)
        self.at = int(self.words.ctypes.data)
        _HANDS.add(self)

    def __getitem__(self, index: int) -> int:
        return int(self.words[index >> 3])

    def __setitem__(self, index: int, value: int) -> None:
        self.words[index >> 3] = value


class Compiled:
    """The compiled entries, each as it is called most cheaply; made when the first handle is."""

    def __init__(self) -> None:
        readable = layout_known()
        self.bytes = id(bytes) if readable else -1
        self.bytearray = id(bytearray) if readable else -1
        self.put: Any = direct(ring_words.put)
        self.put_object: Any = direct(ring_hot.put_object)
        self.put_rows: Any = direct(ring_hot.put_rows)
        self.begin: Any = direct(ring_words.begin)
        self.commit: Any = direct(ring_words.commit)
        self.rollback: Any = direct(ring_words.rollback)
        self.spin_for_room: Any = direct(ring_hot.spin_for_room)
        self.wait_for_room: Any = direct(ring_hot.wait_for_room)
        self.receive: Any = direct(ring_hot.receive)
        self.receive_now: Any = direct(ring_hot.receive_now)
        self.receive_into: Any = direct(ring_hot.receive_into)
        self.take_rows: Any = direct(ring_hot.take_rows)
        self.look: Any = direct(ring_words.look)
        self.release: Any = direct(ring_words.release)
        self.resolve: Any = direct(ring_repair.resolve)
        self.wait_for_change: Any = direct(ring_hot.wait_for_change)


@functools.cache
def compiled() -> Compiled:
    return Compiled()


_HANDS: weakref.WeakSet[Hand] = weakref.WeakSet()


def _stop_inherited() -> None:
    """A forked child must not go on with its parent's handles: both would write to the same cells."""
    for hand in list(_HANDS):
        hand[rl.A_STOP] = CLOSED_HAND


os.register_at_fork(after_in_child=_stop_inherited)


def make_hand(base: int, geometry: tuple[int, ...]) -> Hand:
    """A hand for a ring at an address."""
    hand = Hand()
    alone = os.cpu_count() == 1  # who shares its core with the other end must not spin for it
    same = {
        rl.A_MANY: rl.G_MANY, rl.A_VARIABLE: rl.G_VARIABLE, rl.A_CELLS: rl.G_CELLS, rl.A_SHIFT: rl.G_SHIFT,
        rl.A_MOST: rl.G_MOST, rl.A_DATA_STRIDE: rl.G_DATA_STRIDE,
    }  # fmt: skip
    for mine, its in same.items():
        hand[mine] = geometry[its]
    for mine, value in (
        (rl.A_BASE, base),
        (rl.A_WORDS, base + geometry[rl.G_WORDS_AT]),
        (rl.A_DATA, base + geometry[rl.G_DATA_AT]),
        (rl.A_SPIN, 0 if alone else geometry[rl.G_SPIN_NS]),
        (rl.A_BYTES, compiled().bytes),
        (rl.A_BYTEARRAY, compiled().bytearray),
        (rl.A_NONE, id(None)),
        (rl.A_TRUE, id(True)),
    ):
        hand[mine] = value
    return hand


class End(Held):
    """What both ends have: a seat in the ring, held until `close` or death."""

    __slots__ = ("__weakref__", "_at", "_calls", "_hand", "_life", "_ring", "_view")

    def __init__(self, ring: Ring, life: LifeLock, hand: Hand) -> None:
        self._ring = ring
        self._life = life
        self._hand = hand
        self._words = hand.words
        self._at = hand.at
        self._calls = compiled()
        self._view = ring.view

    @property
    def at(self) -> int:
        """The address of the hand: what compiled code of yours passes to `ring_words` and `ring_hot`."""
        return self._at

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the seat; a second call does nothing."""
        self._hand[rl.A_STOP] = CLOSED_HAND
        self._life.release()

    def _in_place(self, view: memoryview) -> Iterator[memoryview]:
        """Gives a view away; until it comes back the handle does nothing else."""
        self._hand[rl.A_STOP] = OPEN_HAND
        try:
            yield view
        finally:
            view.release()
            if self._hand[rl.A_STOP] == OPEN_HAND:
                self._hand[rl.A_STOP] = 0

    def _refuse(self, code: int, what: str) -> None:
        """Raises what a compiled call's answer means, if it means an error."""
        path = self._ring.path
        if code == rl.FENCED:
            raise Fenced(f"another {what} has taken this one's place in {path}: what it did since then is void")
        if code == rl.CLOSED and self._hand[rl.A_STOP] == OPEN_HAND:
            raise ValueError(f"a loan or view of this {what} is open: end its block first")
        if code == rl.CLOSED:
            raise ValueError(f"this {what} of {path} was closed, or belongs to the parent of this process: take a seat")
        if code not in (rl.EMPTY, rl.FULL, rl.STUCK, rl.ASK):
            raise RingMismatch(f"{path} holds what no sender wrote (answer {code}): remove it and make it anew")

    def _address(self, thing: Any, *, write: bool) -> tuple[int, int, Any]:
        """Where a buffer's bytes are, how many, and what keeps them there."""
        array = thing if isinstance(thing, np.ndarray) else np.frombuffer(thing, np.uint8) if len(thing) else _NOTHING
        if array.dtype.hasobject:
            raise PayloadError("an array of Python objects can't travel: they mean nothing in another process")
        if not array.flags.c_contiguous:
            if write:
                raise ValueError("messages are received into contiguous memory: give a C-contiguous array")
            array = np.ascontiguousarray(array)
        if write and not array.flags.writeable:
            raise ValueError("this buffer is read-only: give a bytearray or a writable array")
        return int(array.ctypes.data), array.nbytes, array

    def _rows(self, rows: np.ndarray[Any, Any], *, write: bool) -> tuple[int, int, int, int]:
        """Address, bytes from row to row, bytes of a row, number of rows."""
        if rows.dtype.hasobject:
            raise PayloadError("an array of Python objects can't travel: they mean nothing in another process")
        if rows.ndim == 1:
            length = rows.itemsize
        elif rows.ndim >= 2 and rows[:1].flags.c_contiguous:
            length = rows.nbytes // len(rows) if len(rows) else 0
        else:
            raise ValueError("rows must be contiguous each: give an array whose first axis counts the messages")
        if write and not rows.flags.writeable:
            raise ValueError("this array is read-only: give a writable one")
        return int(rows.ctypes.data), rows.strides[0], length, len(rows)


_NOTHING = np.zeros(0, np.uint8)


def deadline(timeout: float | None) -> int:
    return FOREVER if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
