"""Hints: which slots are free or to be tried again, which ports have answers, who is to be woken.

None of them is the truth. One that says too much is checked against the slot's state word; where one may say too little
after somebody was killed, `sweep` sets it again, and `tasks` says where that can be. The done hints of a port are the
only ones with an order: a ring whose every entry names its lap, so that one who writes to it may be stopped anywhere.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import add, cas, fence, futex_wake, load, or_, popcount, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    GEN_MASK,
    H_DONE_CAP,
    H_LANE_SLOTS,
    H_LANE_WORDS,
    H_MEMBER_WORDS,
    H_PARKED,
    H_PORT_WORDS,
    H_READY_CAP,
    H_WORK,
    L_MAPS,
    L_RETRIES,
    LANES,
    P_DONE_HEAD,
    P_DONE_TAIL,
    P_FUTEX,
    P_PARKED,
    P_RESCAN,
    P_RINGS,
    READY,
)
from swarm_agents.shm.places import lane_at, port_at, state_at

__all__ = ["free_bits", "is_stale", "mark_free", "mark_retry", "push_done", "wake_worker"]


@jit
def wake_worker(base: int) -> int:
    """Wakes a parked agent, if there is one. To be called after the work was published and a fence."""
    for word in range(load(base + H_MEMBER_WORDS * 8)):
        if load(base + (H_PARKED + word) * 8) != 0:
            add(base + H_WORK * 8, 1)
            return futex_wake(base + H_WORK * 8, 1)
    return 0


@jit
def free_bits(base: int, lane: int) -> int:
    """About how many slots of a lane are free: counted over at most 64 words spread over its bitmap."""
    words = load(base + H_LANE_WORDS * 8)
    bits = lane_at(base, lane) + L_MAPS + (load(base + H_PORT_WORDS * 8) + words) * 8
    step = max(1, words // 64)
    free, looked = 0, 0
    word = 0
    while word < words:
        free += popcount(load(bits + word * 8))
        looked += 1
        word += step
    return free * words // looked


@jit
def mark_free(base: int, slot: int) -> None:
    words, lane_slots = load(base + H_LANE_WORDS * 8), load(base + H_LANE_SLOTS * 8)
    lane, index = slot // lane_slots, slot % lane_slots
    bits = lane_at(base, lane) + L_MAPS + (load(base + H_PORT_WORDS * 8) + words) * 8
    or_(bits + (index >> 6) * 8, 1 << (index & 63))


@jit
def mark_retry(base: int, slot: int) -> None:
    """Hints that a slot is ready although no queue holds it."""
    lane_slots = load(base + H_LANE_SLOTS * 8)
    lane, index = slot // lane_slots, slot % lane_slots
    at = lane_at(base, lane)
    or_(at + L_MAPS + (load(base + H_PORT_WORDS * 8) + (index >> 6)) * 8, 1 << (index & 63))
    add(at + L_RETRIES, 1)


@jit
def is_stale(base: int, hint: int) -> bool:
    """Whether a ready hint's slot is not ready (any more) in the hint's generation."""
    word = load(state_at(base, hint & 0xFFFFFF))
    return word & 7 != READY or (word >> 42) & GEN_MASK != (hint >> 24) & GEN_MASK


@jit
def push_done(base: int, port: int, slot: int) -> None:
    """Hints to a port that a slot has its answer; wakes it when it is parked."""
    at = port_at(base, port)
    cap = load(base + H_DONE_CAP * 8)
    ring = at + P_RINGS + LANES * load(base + H_READY_CAP * 8) * 8
    while True:
        tail = load(at + P_DONE_TAIL)
        if tail - load(at + P_DONE_HEAD) >= cap:
            store(at + P_RESCAN, 1)
            break
        cell = ring + (tail & (cap - 1)) * 8
        lap = (tail // cap + 1) & 0x7FFFFFFF
        entry = load(cell)
        if entry >> 32 == lap:
            # Its writer was stopped before it could move the tail: do it for it.
            cas(at + P_DONE_TAIL, tail, tail + 1)
            continue
        # An entry of a later lap: while this was stopped the ring has come round. It must not be written over.
        if entry >> 32 == (lap - 1) & 0x7FFFFFFF and cas(cell, entry, (lap << 32) | slot):
            cas(at + P_DONE_TAIL, tail, tail + 1)
            break
    fence()
    if load(at + P_PARKED) != 0:
        add(at + P_FUTEX, 1)
        futex_wake(at + P_FUTEX, 1)
