"""The short way of one shared array: as a task's only argument, or as its result.

Between two agents that pass arrays on, a task's arguments are mostly one array of the same dtype and shape as the last
one's. Then everything in the frame but the reference is the same, too. So a submitter keeps such frames as *forms* to
be filled in, by kernel, dtype and shape, and one compiled call finds the reference, fills it in, takes the lease and
submits; a reader remembers what the bytes before a reference mean. Nothing here is another protocol: the frames are the
same, to the byte, as those that `codec` and `frame` make and read, and whatever is not as expected goes their way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from swarm_agents import codec
from swarm_agents.shm import frame
from swarm_agents.shm.atomics import copy, peek, poke
from swarm_agents.shm.hot import N_BASE, N_MEMBER, N_SCRATCH, finish, reply, send
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    X_OUT,
    X_REFS,
    X_REFS_AT,
)
from swarm_agents.shm.references import REFERENCE_BYTES, REFERENCE_WORDS, arrive, identify

__all__ = ["OTHERWISE", "Forms", "form_of", "receive", "reply_array", "send_array"]

_Array = np.ndarray[Any, Any]
#: The array is not shared, or not contiguous, or may still be written to: it goes the long way.
OTHERWISE = -6
_MOST_FORMS = 256


@jit
def _fill_in(base: int, scratch: int, form: int, length: int, array: int, item: int) -> int:
    """Copies a form to the scratch and fills the reference in; False when it is no such array."""
    at = scratch + X_OUT * 8
    copy(at, form, length)
    place = at + length - REFERENCE_BYTES
    if identify(base, array, item, place) != REFERENCE_WORDS:
        return False
    poke(scratch + X_REFS_AT * 8, peek(place))
    poke(scratch + X_REFS * 8, 1)
    return True


@jit
def send_array(hand: int, lane: int, kernel: int, id_hi: int, id_lo: int, deadline: int, wall_deadline: int, form: int,
               length: int, array: int, item: int) -> int:  # fmt: skip
    """`hot.send` of one shared array: what that returns, or OTHERWISE."""
    base, scratch = peek(hand + N_BASE * 8), peek(hand + N_SCRATCH * 8)
    if not _fill_in(base, scratch, form, length, array, item):
        return OTHERWISE
    payload = scratch + X_OUT * 8
    got = send(hand, lane, kernel, id_hi, id_lo, deadline, wall_deadline, payload, length, -1)
    poke(scratch + X_REFS * 8, 0)
    return got


@jit
def reply_array(hand: int, slot: int, mine: int, form: int, length: int, lane: int, queued: int, claimed_at: int,
                array: int, item: int) -> int:  # fmt: skip
    """`hot.reply` with one shared array: what that returns, or OTHERWISE."""
    base, scratch = peek(hand + N_BASE * 8), peek(hand + N_SCRATCH * 8)
    if not _fill_in(base, scratch, form, length, array, item):
        return OTHERWISE
    done = reply(hand, slot, mine, scratch + X_OUT * 8, length, lane, 0, queued, claimed_at, 0)
    poke(scratch + X_REFS * 8, 0)
    return done


@jit
def receive(hand: int, slot: int, word: int, lane: int, reference: int, size: int, item: int) -> int:
    """`references.arrive` for a result, and `hot.finish`: 1; 0 when the task was over; -1 if something is amiss.

    The caller keeps the array by a lease of its own.
    """
    base = peek(hand + N_BASE * 8)
    if arrive(base, reference, size, item) < 0:
        return -1
    return finish(base, slot, word, peek(hand + N_MEMBER * 8), lane, peek(hand + N_SCRATCH * 8))


def form_of(name: bytes, value: Any) -> bytes:
    """The frame of a value that holds one contiguous array, without the reference to it."""
    blank = frame.Reference(REFERENCE_BYTES)
    header, buffers = codec.encode(value, lambda array: blank)
    return frame.lay_out(name, header, buffers).as_bytes()


class Forms(dict[Any, bytes]):
    """Forms by what they are made from. When there are too many, all are forgotten: they are made again quickly."""

    def made(self, key: Any, name: bytes, value: Any) -> bytes:
        """The form for a key, made from a value like those that come."""
        form = self.get(key)
        if form is None:
            if len(self) >= _MOST_FORMS:
                self.clear()
            form = self[key] = form_of(name, value)
        return form
