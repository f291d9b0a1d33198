"""The life of a task on the board, as compiled functions on plain addresses.

    FREE -> WRITING -> READY -> CLAIMED -> DONE -> FREE (next generation)
              |          |  ^------'  |
              '-> FREE   '-> DONE     '-> DONE (lost)

| change | who | by |
|---|---|---|
| FREE -> WRITING | the submitting member | CAS; its free-bit was cleared before |
| WRITING -> READY | the same | CAS, after the slot's fields and block are in place |
| READY -> CLAIMED | any agent | CAS; raises `attempts` |
| CLAIMED -> DONE | that agent, by its epoch | CAS; the result's block is published before |
| CLAIMED -> READY | that agent (hands back), or a sweep once its epoch is over | CAS |
| CLAIMED -> DONE lost | the same, when the attempts are used up | CAS |
| READY -> DONE cancelled/expired | the submitter; whoever sees the deadline has passed | CAS |
| DONE -> FREE | the submitter, when it has read the answer; a sweep when it is gone | CAS |

So a commit is one CAS from (CLAIMED, me, my epoch, this generation): late ones fail. Slot fields are written in WRITING
only, by one member, whose slot is given to nobody else while its process may still run. Results are written only into
blocks that their writer holds.

Hints: an agent that is killed between two steps leaves hints that say too much (harmless: the truth is checked) or, at
two places, too little: between taking a retry bit and the claim, and between a commit and the answer's ring. A sweep
sets both again. The ready queue cannot lose an entry: the claim's CAS comes first, and any other agent moves the head
past an entry that is not ready any more. The submitter is the queue's only producer.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, ctz, fence, load, monotonic_ns, or_, peek, poke, store, xand
from swarm_agents.shm.blocks import block_address, free_published, publish_block, standing
from swarm_agents.shm.hints import free_bits, is_stale, mark_free, mark_retry, push_done, wake_worker
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    BLOCK_MASK,
    C_SUBMITTED,
    E_EXPIRED,
    E_LOST,
    EPOCH_MASK,
    FREE,
    GEN_MASK,
    H_IDS_AT,
    H_LANE_SLOTS,
    H_LANE_WORDS,
    H_MAX_ATTEMPTS,
    H_PORT_WORDS,
    H_READY_CAP,
    L_MAPS,
    LANES,
    NO_BLOCK,
    P_OWNER,
    P_QUEUES,
    P_RINGS,
    R_CANCELLED,
    R_CHAIN_MASK,
    R_EXPIRED,
    R_LEASES,
    R_LOST,
    READY,
    S_BLOCK,
    S_CANCEL,
    S_DEADLINE,
    S_ID_HI,
    S_ID_LO,
    S_INLINE,
    S_KERNEL,
    S_LEASES,
    S_LENGTH,
    S_PATH,
    S_PORT,
    S_PORT_OWNER,
    S_SUBMITTED,
    S_WALL_DEADLINE,
    UNQUEUED,
    WRITING,
    X_ACCEPTED,
    X_HELD,
    X_PATH,
    X_REFS,
    X_ROTOR,
    done_word,
    slot_word,
)
from swarm_agents.shm.leases import end_leases, lend
from swarm_agents.shm.places import count, is_fenced, lane_at, port_at, slot_at, state_at
from swarm_agents.shm.shedding import SHED, sheds
from swarm_agents.shm.tally import path_of, tally_task

__all__ = [
    "cancel",
    "claim_is_over",
    "commit",
    "depths",
    "expire",
    "find",
    "hand_back",
    "owner_is_over",
    "release",
    "release_slot",
    "retry_or_lose",
    "submit",
    "want_no_more",
]


ID_MIX = -7046029254386353131  # 2**64 / golden ratio, odd: spreads the sequence numbers over the word


@jit
def _take_slot(base: int, lane: int, member: int, epoch: int, scratch: int) -> int:
    """Takes a free slot of a lane: its number, now WRITING; -1 when there is none."""
    words, lane_slots = load(base + H_LANE_WORDS * 8), load(base + H_LANE_SLOTS * 8)
    bits = lane_at(base, lane) + L_MAPS + (load(base + H_PORT_WORDS * 8) + words) * 8
    at = peek(scratch + (X_ROTOR + lane) * 8)
    for _ in range(words):
        if at >= words:
            at = 0
        free = load(bits + at * 8)
        while free != 0:
            bit = ctz(free)
            mask = 1 << bit
            free &= ~mask
            if xand(bits + at * 8, ~mask) & mask == 0:
                continue  # another submitter was faster
            slot = lane * lane_slots + at * 64 + bit
            address = state_at(base, slot)
            word = load(address)
            if word & 7 == FREE and cas(address, word, slot_word(WRITING, 0, member, epoch, (word >> 42) & GEN_MASK)):
                poke(scratch + (X_ROTOR + lane) * 8, at)
                return slot
        at += 1
    return -1


@jit
def submit(
    base: int,
    port: int,
    owner: int,
    member: int,
    epoch: int,
    lane: int,
    kernel: int,
    id_hi: int,
    id_lo: int,
    deadline: int,
    wall_deadline: int,
    payload: int,
    length: int,
    block: int,
    scratch: int,
) -> int:
    """Puts a task on the board: slot | generation << 24; or -1 when the lane is full for this port, -3 when the member
    is fenced, -4 when a shared array that the scratch names is gone, SHED when the lane is refused for overload.

    A payload of up to INLINE_MAX bytes is copied from the address `payload`; a larger one lies in `block`, which the
    member holds. A port may hold three times as many slots of a lane as are free in it, and a 32nd of the lane (16 at
    most) in any case while there are any. So one alone may fill three quarters, and those who flood a lane together get
    equal shares and leave room for another one: n of them leave 1 / (3 n + 1).
    """
    if is_fenced(base, member, epoch):
        return -3
    if lane > 1 and sheds(base, lane) and peek(scratch + X_ACCEPTED * 8) == 0:
        return SHED
    cap = load(base + H_READY_CAP * 8)
    at = port_at(base, port)
    queue = at + P_QUEUES + lane * 128
    ring = at + P_RINGS + lane * cap * 8
    tail = load(queue + 64)
    head = load(queue)
    while tail - head >= cap:
        # Entries of cancelled tasks may clog the ring when no agent is there to pass them.
        if not is_stale(base, load(ring + (head & (cap - 1)) * 8)):
            return -1
        cas(queue, head, head + 1)
        head = load(queue)
    held = peek(scratch + (X_HELD + lane) * 8)
    if held >= min(16, load(base + H_LANE_SLOTS * 8) >> 5) and held > 3 * free_bits(base, lane):
        return -1
    slot = _take_slot(base, lane, member, epoch, scratch)
    if slot < 0:
        return -1
    gen = (load(state_at(base, slot)) >> 42) & GEN_MASK
    s = slot_at(base, slot)
    now = monotonic_ns()
    poke(s + S_PORT, port)
    poke(s + S_PORT_OWNER, owner)
    poke(s + S_KERNEL, kernel)
    poke(s + S_ID_HI, id_hi)
    poke(s + S_ID_LO, id_lo)
    poke(s + S_DEADLINE, deadline)
    poke(s + S_WALL_DEADLINE, wall_deadline)
    poke(s + S_SUBMITTED, now)
    poke(s + S_LENGTH, length)
    poke(s + S_CANCEL, 0)
    poke(s + S_PATH, peek(scratch + X_PATH * 8))
    writing = slot_word(WRITING, 0, member, epoch, gen)
    shared = 0
    if peek(scratch + X_REFS * 8) != 0:
        shared = lend(base, slot, gen, 0, member, epoch, scratch)
        if shared < 0:
            release_slot(base, slot, writing)
            return shared
    poke(s + S_LEASES, shared)
    if block < 0:
        copy(s + S_INLINE, payload, length)
        poke(s + S_BLOCK, NO_BLOCK)
    else:
        if not publish_block(base, block, member, epoch, slot, gen):
            release_slot(base, slot, writing)
            return -3
        poke(s + S_BLOCK, block)
    store(base + load(base + H_IDS_AT * 8) + slot * 8, id_hi ^ (id_lo * ID_MIX))
    # The hint is written before the slot is ready but shown after: shown before, an agent would drop it as stale.
    store(ring + (tail & (cap - 1)) * 8, slot | (gen << 24))
    if not cas(state_at(base, slot), writing, slot_word(READY, 0, 0, 0, gen)):
        return -3
    store(queue + 64, tail + 1)
    poke(scratch + (X_HELD + lane) * 8, held + 1)
    fence()
    bits = lane_at(base, lane) + L_MAPS + (port >> 6) * 8
    if load(bits) & (1 << (port & 63)) == 0:
        or_(bits, 1 << (port & 63))
    count(base, member, C_SUBMITTED, 1)
    wake_worker(base)
    # Not what the slot says by now: who slept here, and was fenced, would take another's task for his own.
    return slot | (gen << 24)


@jit
def commit(base: int, slot: int, mine: int, block: int, member: int, epoch: int) -> int:
    """Answers a claimed task with a block that this member holds.

    Returns 1; 0 when the claim is not this member's any more, or it was declared dead: then the block is freed.
    """
    if is_fenced(base, member, epoch):
        return 0
    gen = (mine >> 42) & GEN_MASK
    port = load(slot_at(base, slot) + S_PORT)
    if not publish_block(base, block, member, epoch, slot, gen):
        return 0
    if not cas(state_at(base, slot), mine, done_word((mine >> 3) & ATTEMPTS_MASK, block, gen)):
        free_published(base, block, slot, gen)
        return 0
    push_done(base, port, slot)
    return 1


@jit
def hand_back(base: int, slot: int, mine: int, most: int) -> int:
    """Makes a claimed task claimable again: 1; or answers it as lost, 2, when it has been begun `most` times already.

    With `most` 0 it was not begun this time: that does not count as an attempt. Returns 0 when the claim is void.
    """
    attempts = ((mine >> 3) & ATTEMPTS_MASK) - (0 if most else 1)
    if 0 < most <= attempts:
        path = path_of(base, slot)
        if not lose(base, slot, mine):
            return 0
        tally_task(base, E_LOST, slot, path)
        return 2
    if not cas(state_at(base, slot), mine, slot_word(READY, attempts, UNQUEUED, 0, (mine >> 42) & GEN_MASK)):
        return 0
    mark_retry(base, slot)
    fence()
    wake_worker(base)
    return 1


@jit
def release(base: int, slot: int, word: int, scratch: int) -> int:
    """Ends an answered task: its slot is free again, and its blocks too, unless they were taken over before."""
    gen = (word >> 42) & GEN_MASK
    arguments, leases = load(slot_at(base, slot) + S_BLOCK), load(slot_at(base, slot) + S_LEASES)
    result = (word >> 10) & BLOCK_MASK
    shared = 0 if result >= NO_BLOCK else load(base + block_address(base, result) + R_LEASES) & R_CHAIN_MASK
    lane = slot // load(base + H_LANE_SLOTS * 8)
    if not release_slot(base, slot, word):
        return 0
    poke(scratch + (X_HELD + lane) * 8, peek(scratch + (X_HELD + lane) * 8) - 1)
    if arguments < NO_BLOCK:
        free_published(base, arguments, slot, gen)
    if result < NO_BLOCK:
        free_published(base, result, slot, gen)
    if leases != 0:
        end_leases(base, leases, slot, gen)
    if shared != 0:
        end_leases(base, shared, slot, gen)
    return 1


@jit
def release_slot(base: int, slot: int, word: int) -> bool:
    """Ends a slot's generation: FREE, and its free bit set."""
    if not cas(state_at(base, slot), word, slot_word(FREE, 0, 0, 0, ((word >> 42) + 1) & GEN_MASK)):
        return False
    mark_free(base, slot)
    return True


@jit
def want_no_more(base: int, slot: int, gen: int) -> None:
    """Says that nobody waits for the task of that generation. Whoever slept meanwhile says it of no later one."""
    if (load(state_at(base, slot)) >> 42) & GEN_MASK == gen:
        store(slot_at(base, slot) + S_CANCEL, gen + 1)


@jit
def cancel(base: int, slot: int, gen: int) -> int:
    """Cancels a task of this port: 1 when it will not run (its answer says so), 0 when it is running or answered."""
    want_no_more(base, slot, gen)
    while True:
        word = load(state_at(base, slot))
        if word & 7 != READY or (word >> 42) & GEN_MASK != gen:
            return 0
        if _end_ready(base, slot, word, R_CANCELLED):
            return 1


@jit
def _end_ready(base: int, slot: int, word: int, reason: int) -> bool:
    """Answers a task that will not run (any more), with the reason."""
    port = load(slot_at(base, slot) + S_PORT)
    if not cas(state_at(base, slot), word, done_word((word >> 3) & ATTEMPTS_MASK, reason, (word >> 42) & GEN_MASK)):
        return False
    push_done(base, port, slot)
    return True


@jit
def expire(base: int, slot: int, word: int) -> bool:
    """Answers a ready task whose deadline has passed."""
    path = path_of(base, slot)
    if not _end_ready(base, slot, word, R_EXPIRED):
        return False
    tally_task(base, E_EXPIRED, slot, path)
    return True


@jit
def lose(base: int, slot: int, word: int) -> bool:
    """Answers a task that used up its attempts."""
    return _end_ready(base, slot, word, R_LOST)


@jit
def retry_or_lose(base: int, slot: int, word: int) -> int:
    """Takes a claim away from an epoch that is over: 1 claimable again, 2 lost, 0 somebody else was first."""
    attempts = (word >> 3) & ATTEMPTS_MASK
    if attempts >= load(base + H_MAX_ATTEMPTS * 8):
        return 2 if lose(base, slot, word) else 0
    if not cas(state_at(base, slot), word, slot_word(READY, attempts, 0, 0, (word >> 42) & GEN_MASK)):
        return 0
    mark_retry(base, slot)
    return 1


@jit
def claim_is_over(base: int, word: int) -> bool:
    """Whether a claimed slot's agent has lost its epoch."""
    return standing(base, (word >> 10) & 4095, (word >> 22) & EPOCH_MASK) != 2


@jit
def owner_is_over(base: int, slot: int) -> bool:
    """Whether the port that a slot was submitted through has changed hands or has none."""
    s = slot_at(base, slot)
    owner = load(s + S_PORT_OWNER)
    if load(port_at(base, load(s + S_PORT)) + P_OWNER) != owner:
        return True
    return standing(base, (owner & 0xFFFF) - 1, owner >> 16) != 2


@jit
def find(base: int, id_hi: int, id_lo: int) -> int:
    """The slot of a task id that is on the board in any state but FREE and WRITING, or -1."""
    wanted = id_hi ^ (id_lo * ID_MIX)
    ids = base + load(base + H_IDS_AT * 8)
    for slot in range(LANES * load(base + H_LANE_SLOTS * 8)):
        if load(ids + slot * 8) == wanted and load(state_at(base, slot)) & 7 >= READY:
            s = slot_at(base, slot)
            if load(s + S_ID_HI) == id_hi and load(s + S_ID_LO) == id_lo:
                return slot
    return -1


@jit
def depths(base: int, out: int) -> None:
    """Counts the slots of every lane by state: LANES x 5 words to `out`."""
    lane_slots = load(base + H_LANE_SLOTS * 8)
    for index in range(LANES * 5):
        poke(out + index * 8, 0)
    for slot in range(LANES * lane_slots):
        at = out + ((slot // lane_slots) * 5 + (load(state_at(base, slot)) & 7)) * 8
        poke(at, peek(at) + 1)
