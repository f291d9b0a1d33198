"""Claiming a task: the most urgent first, the ports of a lane in turn.

READY -> CLAIMED is one CAS on the slot's state word. All that leads to it (bits of ports, queues, bits of slots to be
tried again) are hints: the word is looked at before, and decides. The claim's CAS comes before the queue's head moves,
so a queue loses no entry; only a retry bit is taken before, and one who is killed between the two leaves the task to a
sweep.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, ctz, fence, load, monotonic_ns, or_, peek, poke, store, xand
from swarm_agents.shm.hints import mark_retry
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    C_CLAIMED,
    CLAIMED,
    F_RESUMED,
    F_TASKS,
    FAILOVER_RECORDS,
    FAILOVER_STRIDE,
    GEN_MASK,
    H_CELLS,
    H_FAILOVER_AT,
    H_FAILOVERS,
    H_LANE_SLOTS,
    H_LANE_WORDS,
    H_PORT_WORDS,
    H_PORTS,
    H_READY_CAP,
    L_CURSOR,
    L_MAPS,
    L_RETRIES,
    M_CLAIMED_AT,
    M_RUNNING,
    M_SLOT,
    P_QUEUES,
    P_RINGS,
    READY,
    S_BLOCK,
    S_DEADLINE,
    UNQUEUED,
    X_HOME,
    X_HOME_END,
    X_NEAR,
    X_NEAR_PORT,
    X_OUT,
    X_RETRIES,
    slot_word,
)
from swarm_agents.shm.places import count, is_fenced, lane_at, member_at, port_at, slot_at, state_at
from swarm_agents.shm.tasks import expire

__all__ = ["try_claim"]


@jit
def _try_slot(base: int, slot: int, word: int, member: int, epoch: int, now: int, scratch: int) -> int:
    """Claims a slot seen ready. 1: claimed, 0: not, look further; -3: fenced."""
    s = slot_at(base, slot)
    deadline = load(s + S_DEADLINE)
    if deadline != 0 and now > deadline:
        expire(base, slot, word)
        return 0
    # Never beyond its bits, whatever a supervisor has set as the limit: the next ones are the owner's.
    attempts = min(((word >> 3) & ATTEMPTS_MASK) + 1, ATTEMPTS_MASK)
    gen = (word >> 42) & GEN_MASK
    mine = slot_word(CLAIMED, attempts, member, epoch, gen)
    if not cas(state_at(base, slot), word, mine):
        return 0
    if is_fenced(base, member, epoch):
        # Declared dead between the last look and the claim: nobody would sweep up after this epoch again.
        if cas(state_at(base, slot), mine, slot_word(READY, attempts - 1, UNQUEUED, 0, gen)):
            mark_retry(base, slot)
        return -3
    poke(scratch + X_OUT * 8, slot)
    poke(scratch + (X_OUT + 1) * 8, mine)
    poke(scratch + (X_OUT + 2) * 8, now)
    copy(scratch + (X_OUT + 3) * 8, s, 88)
    count(base, member, C_CLAIMED, 1)
    me = member_at(base, member)
    store(me + M_SLOT, slot + 1)
    store(me + M_CLAIMED_AT, now)
    store(me + M_RUNNING, load(me + M_RUNNING) + 1)
    if attempts > 1:
        _note_resumed(base, now)
    return 1


@jit
def _note_resumed(base: int, now: int) -> None:
    """Writes into the failover records that wait for it that their tasks run again."""
    begun = load(base + H_FAILOVERS * 8)
    for back in range(min(begun, 4)):
        at = base + H_FAILOVER_AT + ((begun - 1 - back) % FAILOVER_RECORDS) * FAILOVER_STRIDE
        if load(at + F_RESUMED * 8) == 0 and load(at + F_TASKS * 8) > 0:
            store(at + F_RESUMED * 8, now)


@jit
def _claim_retry(base: int, lane: int, member: int, epoch: int, now: int, scratch: int) -> int:
    at = lane_at(base, lane)
    seen = load(at + L_RETRIES)
    if seen == peek(scratch + (X_RETRIES + lane) * 8):
        return 0
    words, lane_slots = load(base + H_LANE_WORDS * 8), load(base + H_LANE_SLOTS * 8)
    bits = at + L_MAPS + load(base + H_PORT_WORDS * 8) * 8
    for index in range(words):
        set_bits = load(bits + index * 8)
        while set_bits != 0:
            bit = ctz(set_bits)
            mask = 1 << bit
            set_bits &= ~mask
            if xand(bits + index * 8, ~mask) & mask == 0:
                continue
            slot = lane * lane_slots + index * 64 + bit
            word = load(state_at(base, slot))
            if word & 7 != READY:
                continue
            got = _try_slot(base, slot, word, member, epoch, now, scratch)
            if got != 0:
                return got
    # All bits that stood at that count have been looked at: until it rises there is nothing here.
    poke(scratch + (X_RETRIES + lane) * 8, seen)
    return 0


@jit
def _claim_queue(base: int, lane: int, port: int, member: int, epoch: int, now: int, scratch: int) -> int:
    cap = load(base + H_READY_CAP * 8)
    at = port_at(base, port)
    queue = at + P_QUEUES + lane * 128
    ring = at + P_RINGS + lane * cap * 8
    while True:
        head = load(queue)
        if head >= load(queue + 64):
            break
        hint = load(ring + (head & (cap - 1)) * 8)
        slot = hint & 0xFFFFFF
        word = load(state_at(base, slot))
        if word & 7 == READY and (word >> 42) & GEN_MASK == (hint >> 24) & GEN_MASK:
            got = _try_slot(base, slot, word, member, epoch, now, scratch)
            cas(queue, head, head + 1)
            if got != 0:
                return got
        else:
            cas(queue, head, head + 1)
    bits = lane_at(base, lane) + L_MAPS + (port >> 6) * 8
    xand(bits, ~(1 << (port & 63)))
    fence()
    if load(queue) < load(queue + 64):
        or_(bits, 1 << (port & 63))
    return 0


@jit
def _round(bits: int, words: int, start: int, step: int) -> tuple[int, int]:
    """A step of one round of a bitmap from bit `start` on: a word's index, and those of its bits that are due.

    Of `words + 1` steps the first has the upper bits of the word that `start` lies in, the last its lower ones.
    """
    index = ((start >> 6) + step) % words
    due = load(bits + index * 8)
    if step == 0:
        due &= -1 << (start & 63)
    elif step == words:
        due &= ~(-1 << (start & 63))
    return index, due


_NEAR_IN_A_ROW = 3


@jit
def _is_near(base: int, lane: int, port: int, scratch: int) -> bool:
    """Whether the payload of a queue's next task lies in this process's segment, as far as can be seen in passing."""
    cap = load(base + H_READY_CAP * 8)
    at = port_at(base, port)
    queue = at + P_QUEUES + lane * 128
    head = load(queue)
    if head >= load(queue + 64):
        return False
    slot = load(at + P_RINGS + lane * cap * 8 + (head & (cap - 1)) * 8) & 0xFFFFFF
    page = load(slot_at(base, slot) + S_BLOCK) - load(base + H_CELLS * 8)
    return peek(scratch + X_HOME * 8) <= page < peek(scratch + X_HOME_END * 8)


@jit
def _claim_near(base: int, lane: int, member: int, epoch: int, scratch: int) -> int:
    """Claims a task whose payload is near; 0 when there is none, and after three in a row: it is the turn of all.

    The ports take turns by a word of this process's own: where the lane's cursor stands is for all ports, and those
    that are far from here would be stepped over for ever if this moved it.
    """
    row = scratch + (X_NEAR + lane) * 8
    if peek(row) >= _NEAR_IN_A_ROW:
        poke(row, 0)
        return 0
    words = load(base + H_PORT_WORDS * 8)
    bits = lane_at(base, lane) + L_MAPS
    last = peek(scratch + X_NEAR_PORT * 8)
    for step in range(words + 1):
        index, ports = _round(bits, words, last + 1, step)
        while ports != 0:
            bit = ctz(ports)
            ports &= ~(1 << bit)
            port = index * 64 + bit
            if not _is_near(base, lane, port, scratch):
                continue
            got = _claim_queue(base, lane, port, member, epoch, monotonic_ns(), scratch)
            if got != 0:
                poke(scratch + X_NEAR_PORT * 8, port)
                poke(row, peek(row) + 1)
                return got
    return 0


@jit
def try_claim(base: int, member: int, epoch: int, first: int, last: int, scratch: int) -> int:
    """Claims the most urgent task of the lanes `first` to `last`; ports of a lane take turns, with more than one NUMA
    node three of four times those whose payload is near.

    Returns 1 (what was claimed stands in the scratch words from X_OUT on: slot, state word, time of the claim, and the
    slot's first 88 bytes), 0 when there is none, -3 when this member is fenced.
    """
    if is_fenced(base, member, epoch):
        return -3
    words = load(base + H_PORT_WORDS * 8)
    now = 0
    for lane in range(first, last + 1):
        at = lane_at(base, lane)
        if load(at + L_RETRIES) != peek(scratch + (X_RETRIES + lane) * 8):
            got = _claim_retry(base, lane, member, epoch, monotonic_ns(), scratch)
            if got != 0:
                return got
        if peek(scratch + X_HOME_END * 8) != 0:
            got = _claim_near(base, lane, member, epoch, scratch)
            if got != 0:
                return got
        bits = at + L_MAPS
        start = load(at + L_CURSOR)
        for step in range(words + 1):
            index, ports = _round(bits, words, start, step)
            while ports != 0:
                bit = ctz(ports)
                ports &= ~(1 << bit)
                if now == 0:
                    now = monotonic_ns()
                port = index * 64 + bit
                got = _claim_queue(base, lane, port, member, epoch, now, scratch)
                if got != 0:
                    following = port + 1
                    store(at + L_CURSOR, following if following < load(base + H_PORTS * 8) else 0)
                    return got
    return 0
