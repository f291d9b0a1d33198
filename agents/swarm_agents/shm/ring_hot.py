"""The compiled calls that Python makes on a ring: one for a whole exchange, by the address of the handle's words.

None of them lets go of the GIL but the two that sleep, and those change nothing of the handle's: so threads of a
process can't be in the middle of a ring at the same time. Spinning holds the GIL, for `spin_ns` at most.

Of a bytes object or a bytearray the address is passed, and its length and data are found by compiled code, where this
interpreter is known to keep them (see `cpython`). `ring_methods` has the calls that enter no Python at all.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, fence, futex_wait, load, monotonic_ns, pause, peek, poke, store
from swarm_agents.shm.cpython import BYTEARRAY_DATA, BYTES_DATA, SIZE, TYPE
from swarm_agents.shm.jit import jit, jit_nogil
from swarm_agents.shm.ring_layout import (
    A_BASE,
    A_BYTEARRAY,
    A_BYTES,
    A_CELLS,
    A_MINE,
    A_MOST,
    A_OLD,
    A_OUT,
    A_POS,
    A_ROOM,
    A_SHIFT,
    A_SPIN,
    EMPTY,
    FENCED,
    HEAD_AT,
    K_RESERVED,
    LENGTH_AT,
    LENGTH_MASK,
    OTHER,
    POS_MASK,
    RX_PARKED_AT,
    STUCK,
    TOO_LONG,
    TX_WANT_AT,
    data_word,
    is_of_lap,
)
from swarm_agents.shm.ring_words import (
    acknowledge,
    begin,
    data_at,
    look,
    put,
    seal,
    take,
    wake_receiver,
    word_at,
)

__all__ = [
    "PARK_SLICE_NS",
    "put_object",
    "put_rows",
    "receive",
    "receive_into",
    "receive_now",
    "spin",
    "spin_for_room",
    "take_rows",
    "wait_for_change",
    "wait_for_room",
]

PARK_SLICE_NS = 50_000_000
_EAGER_LOOKS = 2_000
_LOOKS_A_ROUND = 32


@jit
def put_object(hand: int, thing: int) -> int:
    """`put` for the bytes or bytearray object at an address; OTHER for anything else."""
    kind = peek(thing + TYPE)
    if kind == peek(hand + A_BYTES):
        return put(hand, thing + BYTES_DATA, peek(thing + SIZE))
    if kind == peek(hand + A_BYTEARRAY):
        return put(hand, peek(thing + BYTEARRAY_DATA), peek(thing + SIZE))
    return OTHER


@jit
def put_rows(hand: int, source: int, stride: int, length: int, count: int) -> int:
    """Sends `count` messages of `length` bytes, `stride` apart: how many went, or why not even the first."""
    sent, why = 0, 0
    while sent < count:
        target = begin(hand, length)
        if target < 0:
            why = target
            break
        copy(target, source + sent * stride, length)
        why = seal(hand, length)
        if why < 0:
            break
        sent += 1
    if sent == 0:
        return why
    wake_receiver(hand)
    return sent


@jit
def spin(hand: int) -> bool:
    """Waits for a message at the next position, for as long as the handle spins: whether there is one.

    The first few microseconds pass without the spin hint, which takes 50 ns on today's x86-64: as long as the message.
    """
    at = word_at(hand, peek(hand + A_POS))
    lap = peek(hand + A_POS) >> peek(hand + A_SHIFT)
    budget = peek(hand + A_SPIN)
    if budget == 0:
        return False
    for _ in range(_EAGER_LOOKS):
        word = load(at)
        if is_of_lap(word, lap) and word & 7 != K_RESERVED:
            return True
    end = monotonic_ns() + budget
    while True:
        for _ in range(_LOOKS_A_ROUND):
            word = load(at)
            if is_of_lap(word, lap) and word & 7 != K_RESERVED:
                return True
            pause()
        if monotonic_ns() >= end:
            return False


@jit
def receive_now(hand: int, room: int) -> int:
    """`take` into the handle's own memory."""
    return take(hand, peek(hand + A_OUT), room)


@jit
def receive(hand: int, room: int) -> int:
    """`take` into the handle's own memory, spinning for a message while the handle's budget lasts."""
    got = take(hand, peek(hand + A_OUT), room)
    if got in (EMPTY, STUCK) and spin(hand):
        got = take(hand, peek(hand + A_OUT), room)
    return got


@jit
def receive_into(hand: int, out: int, room: int) -> int:
    """The same into other memory."""
    got = take(hand, out, room)
    if got in (EMPTY, STUCK) and spin(hand):
        got = take(hand, out, room)
    return got


@jit
def take_rows(hand: int, out: int, stride: int, room: int, count: int, lengths: int, spins: int) -> int:
    """Receives up to `count` messages of up to `room` bytes to memory, `stride` apart, their bytes to `lengths`.

    The head moves at the end and after every eighth of the ring: a CAS for each would make every message wait for the
    one before it to have come. Returns how many, or why not even the first (for which it spins if told to).
    """
    most = max(peek(hand + A_CELLS) >> 3, 1)
    shift = peek(hand + A_SHIFT)
    first = pos = peek(hand + A_POS)
    got, kept, size = 0, 0, 0
    why = 0
    while got < count:
        at = word_at(hand, pos)
        if load(at) != data_word(pos >> shift):
            if got > 0:
                break
            source = look(hand)  # steps over what is no message, or says what there is
            if source < 0 and (spins == 0 or source not in (EMPTY, STUCK) or not spin(hand)):
                return source
            first = pos = peek(hand + A_POS)
            continue
        says = peek(at + LENGTH_AT)
        length = says & LENGTH_MASK
        if length > room or length > peek(hand + A_MOST):
            why = look(hand) if got == 0 else 0  # tells a long message from one that a fenced receiver misreads
            why = why if why < 0 else TOO_LONG
            break
        copy(out + got * stride, data_at(hand, pos), length)
        if lengths != 0:
            poke(lengths + got * 8, length)
        got += 1
        size += length
        pos += max(says >> 40, 1)
        if pos - first >= most:
            if not acknowledge(hand, first, pos - first, got - kept, size):
                return kept if kept > 0 else FENCED
            first, kept, size = pos, got, 0
    if pos != first and not acknowledge(hand, first, pos - first, got - kept, size):
        return kept if kept > 0 else FENCED
    return got if got > 0 else why


@jit
def spin_for_room(hand: int) -> bool:
    """Waits for an eighth of the ring to become free, for as long as the handle spins: whether any room is there."""
    head = peek(hand + A_BASE) + HEAD_AT
    want = peek(hand + A_ROOM)
    plenty = want + (peek(hand + A_CELLS) >> 3) - 1
    end = monotonic_ns() + peek(hand + A_SPIN)
    while load(head) & POS_MASK < plenty and monotonic_ns() < end:
        for _ in range(_LOOKS_A_ROUND):
            pause()
    return load(head) & POS_MASK >= want


@jit_nogil
def wait_for_change(hand: int, timeout_ns: int) -> int:
    """Sleeps until the word that `look` was stopped by changes, or for a while; look again in any case."""
    base, pos = peek(hand + A_BASE), peek(hand + A_POS)
    at = word_at(hand, pos)
    seen = load(at)
    if is_of_lap(seen, pos >> peek(hand + A_SHIFT)) and seen != peek(hand + A_OLD):
        return 1
    store(base + RX_PARKED_AT, 1)
    fence()
    if load(at) == seen and load(base + HEAD_AT) == peek(hand + A_MINE) | pos:
        futex_wait(base + RX_PARKED_AT, 1, min(timeout_ns, PARK_SLICE_NS))
    return 1


@jit_nogil
def wait_for_room(hand: int, timeout_ns: int) -> int:
    """Sleeps until the receiver has made room, an eighth of the ring at best, or for a while; try again in any case."""
    base, want = peek(hand + A_BASE), peek(hand + A_ROOM)
    cas(base + TX_WANT_AT, 0, want + (peek(hand + A_CELLS) >> 3) - 1)
    seen = load(base + TX_WANT_AT)
    fence()
    if seen != 0 and load(base + HEAD_AT) & POS_MASK < want:
        futex_wait(base + TX_WANT_AT, seen & 0xFFFFFFFF, min(timeout_ns, PARK_SLICE_NS))
    return 1
