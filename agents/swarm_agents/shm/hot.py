"""The compiled calls that Python makes: each does a whole exchange, because a call costs as much as ten atomics.

What does not change from one call to the next (the board's address, who calls) stands in the caller's *hand*, a few
private words whose address goes in its place: unboxing an integer costs as much as an atomic does. What comes back
stands in records of private memory, small payloads included, so that nothing on the board is looked at from Python on
the way of a small task. None of these calls lets go of the GIL (but `claim_next`, which may sleep): so two threads of a
process can't be in two of them at once, and a port's books need no other lock here.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, load, monotonic_ns, peek, poke, store
from swarm_agents.shm.blocks import alloc, block_address, free_block, standing
from swarm_agents.shm.jit import jit, jit_nogil
from swarm_agents.shm.layout import (
    BLOCK_MASK,
    C_ANSWERED,
    C_COMMITTED,
    C_FAILED,
    C_FENCED,
    DONE,
    GEN_MASK,
    H_DONE_CAP,
    H_LANE_SLOTS,
    H_PORTS,
    H_READY_CAP,
    HIST_QUEUED,
    HIST_ROUND_TRIP,
    HIST_RUN,
    INLINE_MAX,
    LANES,
    M_BEAT,
    M_RUNNING,
    M_SLOT,
    NO_BLOCK,
    P_DONE_HEAD,
    P_OWNER,
    P_RESCAN,
    P_RINGS,
    R_AGENT,
    R_CHAIN_MASK,
    R_EPOCH,
    R_HOPS,
    R_LEASES,
    R_LENGTH,
    R_QUEUED,
    R_RUN,
    R_SHARED,
    R_STATUS,
    RESULT_HEADER,
    S_BLOCK,
    S_INLINE,
    S_KERNEL,
    S_LEASES,
    S_LENGTH,
    S_PORT_OWNER,
    S_SUBMITTED,
    X_OUT,
    X_REFS,
)
from swarm_agents.shm.leases import end_leases, lend
from swarm_agents.shm.parking import claim_wait
from swarm_agents.shm.places import count, is_fenced, member_at, port_at, slot_at, state_at
from swarm_agents.shm.tally import path_of, record
from swarm_agents.shm.tasks import commit, release, submit

__all__ = [
    "CLAIM_AT",
    "CLAIM_PAYLOAD",
    "HAND_WORDS",
    "TAKE_MOST",
    "TAKE_STRIDE",
    "beat",
    "claim_next",
    "commit_block",
    "commit_small",
    "finish",
    "now_ns",
    "put_down",
    "reply",
    "send",
    "take",
    "take_port",
    "take_slot",
]

# --- a hand: private words by index
N_BASE, N_PORT, N_OWNER, N_MEMBER, N_EPOCH, N_SCRATCH = range(6)
HAND_WORDS = 6

# --- a record of an answer that was taken: words by index, then a small payload
(T_SLOT, T_WORD, T_KIND, T_STATUS, T_AGENT, T_EPOCH, T_QUEUED, T_RUN, T_LENGTH, T_HOPS, T_LANE) = range(11)
T_PAYLOAD = 128  # bytes
#: A record's kind: the board's own answer, None, a plain value, one with buffers, one that still lies in its block, one
#: that refers to shared arrays and whose task is not ended yet, either.
T_REASON, T_NONE, T_PLAIN, T_BUFFERS, T_BLOCK, T_SHARED = range(6)
T_INLINE = 448
TAKE_STRIDE = T_PAYLOAD + T_INLINE
TAKE_MOST = 64
# A frame without name and buffers whose header is msgpack's nil, as its first eight and its last byte.
_NIL_HEAD, _NIL = 1, 0xC0

# --- what `claim_next` leaves after a scratch's X_OUT, in bytes: `try_claim`'s three words and the slot's fields, eight
# words that are read for every task (kernel, ns queued, lane, length, where the header of a frame without buffers
# begins or 0, slot, state word, ns of the claim), and an inline payload
_FIELDS = 24
CLAIM_AT = 112
CLAIM_PAYLOAD = 192


@jit
def now_ns() -> int:
    """CLOCK_MONOTONIC in nanoseconds."""
    return monotonic_ns()


@jit
def beat(base: int, member: int, epoch: int) -> bool:
    """Writes a heartbeat; False when the member is fenced."""
    if is_fenced(base, member, epoch):
        return False
    store(member_at(base, member) + M_BEAT, monotonic_ns())
    return True


@jit
def take_port(base: int, owner: int) -> int:
    """Takes a free port, or one whose owner's process is gone; -1 when there is none.

    Not one whose owner is only fenced: it may go on in the midst of a submission, and set its successor's tail back.
    """
    for port in range(load(base + H_PORTS * 8)):
        at = port_at(base, port)
        had = load(at + P_OWNER)
        if had != 0 and standing(base, (had & 0xFFFF) - 1, had >> 16) != 0:
            continue
        if cas(at + P_OWNER, had, owner):
            store(at + P_RESCAN, 0)
            return port
    return -1


@jit
def put_down(base: int, member: int) -> None:
    """Shows in the member's record that it has nothing in hand: for people, never for control."""
    at = member_at(base, member)
    store(at + M_SLOT, 0)
    store(at + M_RUNNING, load(at + M_RUNNING) - 1)


@jit
def _settle(base: int, slot: int, mine: int, block: int, member: int, epoch: int, lane: int, status: int,
            queued: int, run: int) -> int:  # fmt: skip
    leases = peek(base + block_address(base, block) + R_LEASES) & R_CHAIN_MASK
    done = commit(base, slot, mine, block, member, epoch)
    put_down(base, member)
    if done == 0:
        free_block(base, block, member, epoch)
        end_leases(base, leases, slot, (mine >> 42) & GEN_MASK)
        count(base, member, C_FENCED, 1)
        return 0
    count(base, member, C_COMMITTED, 1)
    if status != 0:
        count(base, member, C_FAILED, 1)
    record(base, member, lane, HIST_QUEUED, queued)
    record(base, member, lane, HIST_RUN, run)
    return 1


@jit
def _result_header(base: int, block: int, status: int, agent: int, epoch: int, queued: int, run: int, length: int,
                   hops: int) -> int:  # fmt: skip
    at = base + block_address(base, block)
    poke(at + R_STATUS, status)
    poke(at + R_AGENT, agent)
    poke(at + R_EPOCH, epoch)
    poke(at + R_QUEUED, queued)
    poke(at + R_RUN, run)
    poke(at + R_LENGTH, length)
    poke(at + R_HOPS, hops)
    poke(at + R_LEASES, 0)
    return at


@jit
def _bind(base: int, at: int, slot: int, mine: int, member: int, epoch: int, scratch: int) -> int:
    """Binds the shared arrays that the scratch names to a result, if there are any; below 0 when that can't be."""
    arguments = load(slot_at(base, slot) + S_LEASES)
    leases = lend(base, slot, (mine >> 42) & GEN_MASK, arguments, member, epoch, scratch)
    if leases >= 0:
        poke(at + R_LEASES, leases | R_SHARED)
    return leases


@jit
def commit_small(base: int, slot: int, mine: int, payload: int, length: int, member: int, epoch: int, lane: int,
                 status: int, queued: int, claimed_at: int, hops: int, scratch: int) -> int:  # fmt: skip
    """Answers with a frame that fits a cell: takes one, copies, commits. 1, 0 fenced, -1 no room now, -4 a shared array
    is gone."""
    block = alloc(base, RESULT_HEADER + length, member, epoch, 256, 1, scratch)
    if block < 0:
        return -1
    run = monotonic_ns() - claimed_at
    at = _result_header(base, block, status, member, epoch, queued, run, length, hops)
    copy(at + RESULT_HEADER, payload, length)
    if peek(scratch + X_REFS * 8) != 0:
        bound = _bind(base, at, slot, mine, member, epoch, scratch)
        if bound < 0:
            free_block(base, block, member, epoch)
            return bound
    return _settle(base, slot, mine, block, member, epoch, lane, status, queued, run)


@jit
def commit_block(base: int, slot: int, mine: int, block: int, length: int, member: int, epoch: int, lane: int,
                 status: int, queued: int, claimed_at: int, hops: int, scratch: int) -> int:  # fmt: skip
    """Answers with a block whose frame is written already. Returns as `commit_small`; below 0 the block is freed."""
    run = monotonic_ns() - claimed_at
    at = _result_header(base, block, status, member, epoch, queued, run, length, hops)
    if peek(scratch + X_REFS * 8) != 0:
        bound = _bind(base, at, slot, mine, member, epoch, scratch)
        if bound < 0:
            free_block(base, block, member, epoch)
            return bound
    return _settle(base, slot, mine, block, member, epoch, lane, status, queued, run)


@jit
def finish(base: int, slot: int, word: int, member: int, lane: int, scratch: int) -> int:
    """Ends an answered task of this port, and counts it."""
    since, path = monotonic_ns() - peek(slot_at(base, slot) + S_SUBMITTED), path_of(base, slot)
    if release(base, slot, word, scratch) == 0:
        return 0
    count(base, member, C_ANSWERED, 1)
    record(base, member, lane, HIST_ROUND_TRIP + path, since)
    return 1


@jit
def send(hand: int, lane: int, kernel: int, id_hi: int, id_lo: int, deadline: int, wall_deadline: int, payload: int,
         length: int, block: int) -> int:  # fmt: skip
    """`tasks.submit` by a port's hand: slot | generation << 24, or what `submit` returns below 0."""
    base = peek(hand + N_BASE * 8)
    return submit(
        base, peek(hand + N_PORT * 8), peek(hand + N_OWNER * 8), peek(hand + N_MEMBER * 8), peek(hand + N_EPOCH * 8),
        lane, kernel, id_hi, id_lo, deadline, wall_deadline, payload, length, block, peek(hand + N_SCRATCH * 8),
    )  # fmt: skip


@jit
def _take_one(hand: int, slot: int, word: int, out: int) -> int:
    """Takes an answer that is this port's: 1, and its record; 0 when it has been taken already."""
    base, member, scratch = peek(hand + N_BASE * 8), peek(hand + N_MEMBER * 8), peek(hand + N_SCRATCH * 8)
    lane = slot // load(base + H_LANE_SLOTS * 8)
    block = (word >> 10) & BLOCK_MASK
    poke(out + T_SLOT * 8, slot)
    poke(out + T_WORD * 8, word)
    poke(out + T_LANE * 8, lane)
    kind = T_REASON
    if block < NO_BLOCK:
        at = base + block_address(base, block)
        length = peek(at + R_LENGTH)
        copy(out + T_STATUS * 8, at, 56)
        if length > T_INLINE:
            poke(out + T_KIND * 8, T_BLOCK)
            return 1
        if peek(at + R_LEASES) != 0:
            # Shared arrays are kept by the slot's generation: what is to be kept longer is taken over before it ends.
            copy(out + T_PAYLOAD, at + RESULT_HEADER, length)
            poke(out + T_KIND * 8, T_SHARED)
            return 1
        at += RESULT_HEADER
        copy(out + T_PAYLOAD, at, length)
        head = peek(at)
        if head == _NIL_HEAD and length == 9 and peek(out + T_PAYLOAD + 8) & 255 == _NIL:
            kind = T_NONE
        elif (head >> 32) & 0xFFFF == 0:
            kind = T_PLAIN
        else:
            kind = T_BUFFERS
    poke(out + T_KIND * 8, kind)
    return finish(base, slot, word, member, lane, scratch)


@jit
def take(hand: int, limit: int, out: int) -> int:
    """Takes up to `limit` answers off a port's ring: a record of TAKE_STRIDE bytes each to `out`; how many.

    -1 when the port has to look at all its tasks first: somebody died who may have answered without a hint. -3 when the
    port's member is fenced: its tasks are over with it, whoever still answers them.
    """
    base, owner = peek(hand + N_BASE * 8), peek(hand + N_OWNER * 8)
    if is_fenced(base, peek(hand + N_MEMBER * 8), peek(hand + N_EPOCH * 8)):
        return -3
    at = port_at(base, peek(hand + N_PORT * 8))
    if load(at + P_RESCAN) != 0 and cas(at + P_RESCAN, 1, 0):
        return -1
    cap = load(base + H_DONE_CAP * 8)
    ring = at + P_RINGS + LANES * load(base + H_READY_CAP * 8) * 8
    first = load(at + P_DONE_HEAD)
    head = first
    found = 0
    while found < limit:
        entry = load(ring + (head & (cap - 1)) * 8)
        if entry >> 32 != (head // cap + 1) & 0x7FFFFFFF:
            break
        head += 1
        slot = entry & 0xFFFFFFFF
        word = load(state_at(base, slot))
        if word & 7 == DONE and load(slot_at(base, slot) + S_PORT_OWNER) == owner:
            found += _take_one(hand, slot, word, out + found * TAKE_STRIDE)
    if head != first:
        store(at + P_DONE_HEAD, head)
    return found


@jit
def take_slot(hand: int, slot: int, gen: int, out: int) -> int:
    """`take` for one task of this port, by its slot and generation; 0 when it has no answer yet."""
    word = load(state_at(peek(hand + N_BASE * 8), slot))
    if word & 7 != DONE or (word >> 42) & GEN_MASK != gen:
        return 0
    return _take_one(hand, slot, word, out)


@jit_nogil
def claim_next(hand: int, first: int, last: int, spin: int, timeout: int) -> int:
    """`parking.claim_wait` by a worker's hand. What was claimed stands in the scratch from X_OUT on, as `CLAIM` reads
    it; after it an inline payload: as it was when it was claimed, whatever happens to the slot when this member is
    fenced. A claim's words of this member are `claim_wait`'s."""
    base, scratch = peek(hand + N_BASE * 8), peek(hand + N_SCRATCH * 8)
    got = claim_wait(base, peek(hand + N_MEMBER * 8), peek(hand + N_EPOCH * 8), first, last, spin, timeout, scratch)
    if got == 1:
        out = scratch + X_OUT * 8
        slot = peek(out)
        length = peek(out + _FIELDS + S_LENGTH)
        begin = 0
        if peek(out + _FIELDS + S_BLOCK) == NO_BLOCK and 8 <= length <= INLINE_MAX:
            copy(out + CLAIM_PAYLOAD, slot_at(base, slot) + S_INLINE, length)
            # A frame without buffers is whole when its name and its header fill it.
            head = peek(out + CLAIM_PAYLOAD)
            name = (head >> 48) & 0xFFFF
            if (head >> 32) & 0xFFFF == 0 and 8 + name + (head & 0xFFFFFFFF) == length:
                begin = 8 + name
        poke(out + CLAIM_AT, peek(out + _FIELDS + S_KERNEL))
        poke(out + CLAIM_AT + 8, max(0, peek(out + 16) - peek(out + _FIELDS + S_SUBMITTED)))
        poke(out + CLAIM_AT + 16, slot // load(base + H_LANE_SLOTS * 8))
        poke(out + CLAIM_AT + 24, length)
        poke(out + CLAIM_AT + 32, begin)
        poke(out + CLAIM_AT + 40, slot)
        poke(out + CLAIM_AT + 48, peek(out + 8))
        poke(out + CLAIM_AT + 56, peek(out + 16))
    return got


@jit
def reply(hand: int, slot: int, mine: int, payload: int, length: int, lane: int, status: int, queued: int,
          claimed_at: int, hops: int) -> int:  # fmt: skip
    """`commit_small` by a worker's hand."""
    return commit_small(
        peek(hand + N_BASE * 8), slot, mine, payload, length, peek(hand + N_MEMBER * 8), peek(hand + N_EPOCH * 8),
        lane, status, queued, claimed_at, hops, peek(hand + N_SCRATCH * 8),
    )  # fmt: skip
