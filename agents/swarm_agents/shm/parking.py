"""Waiting: spin for a bounded time, then sleep on a futex until somebody publishes.

A parked agent sets its bit, reads the futex word, looks once more, and only then sleeps. A submitter publishes, and
after a fence looks at the bits. So either the submitter sees the bit and changes the word, or the agent sees the task.
A sleep is cut into slices: should the one who was woken be killed, or stopped before it claims, another agent finds the
task at its next slice rather than never. At 20 slices a second this costs a parked agent far less than 1 % of a core.

Spinning pays where the next task or answer comes sooner than a sleeper is woken, and else takes a core's time from who
might compute on it. So who has waited longer than that, `_VAIN` times in a row, sleeps at once, until a wait was short.

Every wait ends in time for Python to see signals; the callers repeat it.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, fence, futex_wait, load, monotonic_ns, or_, pause, peek, poke, store
from swarm_agents.shm.claims import try_claim
from swarm_agents.shm.jit import jit, jit_nogil
from swarm_agents.shm.layout import (
    C_PARKS,
    H_DONE_CAP,
    H_PARKED,
    H_READY_CAP,
    H_WORK,
    LANES,
    P_DONE_HEAD,
    P_FUTEX,
    P_PARKED,
    P_RESCAN,
    P_RINGS,
    X_VAIN,
)
from swarm_agents.shm.places import count, port_at
from swarm_agents.shm.sweep import unpark

__all__ = ["PARK_SLICE_NS", "claim_wait", "poll_wait"]

PARK_SLICE_NS = 50_000_000
_LOOKS_A_ROUND = 16
_VAIN = 3


@jit
def _waited(scratch: int, waited_ns: int, spin_ns: int) -> None:
    """Notes how long a wait was, for the next one."""
    vain = peek(scratch + X_VAIN * 8)
    if waited_ns <= spin_ns:
        poke(scratch + X_VAIN * 8, 0)
    elif vain < _VAIN:
        poke(scratch + X_VAIN * 8, vain + 1)


@jit_nogil
def claim_wait(
    base: int, member: int, epoch: int, first: int, last: int, spin_ns: int, timeout_ns: int, scratch: int
) -> int:
    """`try_claim`, repeated for up to `timeout_ns`: spinning first, then parked. The same results."""
    got = try_claim(base, member, epoch, first, last, scratch)
    if got != 0 or timeout_ns <= 0:
        return got
    begin = monotonic_ns()
    end = begin + timeout_ns
    spin_end = begin if peek(scratch + X_VAIN * 8) >= _VAIN else min(begin + spin_ns, end)
    now = begin
    while now < spin_end:
        for _ in range(_LOOKS_A_ROUND):
            pause()
        got = try_claim(base, member, epoch, first, last, scratch)
        if got != 0:
            _waited(scratch, 0, spin_ns)
            return got
        now = monotonic_ns()
    all_lanes = first == 0 and last == LANES - 1
    while now < end:
        if all_lanes:
            or_(base + (H_PARKED + (member >> 6)) * 8, 1 << (member & 63))
        fence()
        seen = load(base + H_WORK * 8)
        got = try_claim(base, member, epoch, first, last, scratch)
        if got == 0:
            count(base, member, C_PARKS, 1)
            if all_lanes:
                futex_wait(base + H_WORK * 8, seen & 0xFFFFFFFF, min(end - now, PARK_SLICE_NS))
            else:
                # One that takes only some lanes must not be woken in the place of one that takes all: it sleeps
                # shortly, unlisted, and on a word that nobody wakes.
                futex_wait(base + (H_WORK + 1) * 8, 0, min(end - now, 2_000_000))
            got = try_claim(base, member, epoch, first, last, scratch)
        now = monotonic_ns()
        if got != 0:
            break
    if all_lanes:
        unpark(base, member)
    _waited(scratch, now - begin, spin_ns)
    return got


@jit_nogil
def poll_wait(base: int, port: int, spin_ns: int, timeout_ns: int, scratch: int) -> int:
    """Waits until a port has an answer, for up to `timeout_ns`: 1 if it has."""
    at = port_at(base, port)
    cap = load(base + H_DONE_CAP * 8)
    head = load(at + P_DONE_HEAD)
    cell = at + P_RINGS + (LANES * load(base + H_READY_CAP * 8) + (head & (cap - 1))) * 8
    lap = (head // cap + 1) & 0x7FFFFFFF
    if load(cell) >> 32 == lap or load(at + P_RESCAN) != 0:
        return 1
    if timeout_ns <= 0:
        return 0
    begin = monotonic_ns()
    end = begin + timeout_ns
    spin_end = begin if peek(scratch + X_VAIN * 8) >= _VAIN else min(begin + spin_ns, end)
    now = begin
    while now < spin_end:
        for _ in range(_LOOKS_A_ROUND):
            pause()
            if load(cell) >> 32 == lap:
                _waited(scratch, 0, spin_ns)
                return 1
        now = monotonic_ns()
    found = 0
    while now < end:
        store(at + P_PARKED, 1)
        fence()
        seen = load(at + P_FUTEX)
        if load(cell) >> 32 == lap or load(at + P_RESCAN) != 0:
            found = 1
            break
        futex_wait(at + P_FUTEX, seen & 0xFFFFFFFF, min(end - now, PARK_SLICE_NS))
        now = monotonic_ns()
        if load(cell) >> 32 == lap or load(at + P_RESCAN) != 0:
            found = 1
            break
    cas(at + P_PARKED, 1, 0)
    _waited(scratch, now - begin, spin_ns)
    return found
