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
| CLAIMED -> DONE lost | a sweep, when the attempts are used up | CAS |
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

from swarm_agents.shm.atomics import (
    add,
    cas,
    copy,
    ctz,
    fence,
    futex_wake,
    load,
    monotonic_ns,
    or_,
    peek,
    poke,
    popcount,
    store,
    xand,
)
from swarm_agents.shm.blocks import block_address, free_published, publish_block, standing
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    BLOCK_MASK,
    C_CLAIMED,
    C_SUBMITTED,
    CLAIMED,
    DONE,
    E_EXPIRED,
    EPOCH_MASK,
    F_RESUMED,
    F_TASKS,
    FAILOVER_RECORDS,
    FAILOVER_STRIDE,
    FREE,
    GEN_MASK,
    H_DONE_CAP,
    H_FAILOVER_AT,
    H_FAILOVERS,
    H_IDS_AT,
    H_LANE_SLOTS,
    H_LANE_STRIDE,
    H_LANE_WORDS,
    H_LANES_AT,
    H_MAX_ATTEMPTS,
    H_MEMBER_WORDS,
    H_MEMBERS_AT,
    H_PARKED,
    H_PORT_STRIDE,
    H_PORT_WORDS,
    H_PORTS,
    H_PORTS_AT,
    H_READY_CAP,
    H_SLOTS_AT,
    H_STATES_AT,
    H_WORK,
    L_CURSOR,
    L_MAPS,
    L_RETRIES,
    LANES,
    M_ALIVE,
    M_CLAIMED_AT,
    M_COUNTERS,
    M_RUNNING,
    M_SLOT,
    MEMBER_STRIDE,
    NO_BLOCK,
    P_DONE_HEAD,
    P_DONE_TAIL,
    P_FUTEX,
    P_OWNER,
    P_PARKED,
    P_QUEUES,
    P_RESCAN,
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
    SLOT_STRIDE,
    UNQUEUED,
    WRITING,
    X_HELD,
    X_OUT,
    X_PATH,
    X_REFS,
    X_RETRIES,
    X_ROTOR,
    done_word,
    slot_word,
)
from swarm_agents.shm.leases import end_leases, lend
from swarm_agents.shm.tally import path_of, tally_task

__all__ = [
    "cancel",
    "commit",
    "count",
    "depths",
    "expire",
    "find",
    "hand_back",
    "is_fenced",
    "poll",
    "release",
    "submit",
    "try_claim",
]

ID_MIX = -7046029254386353131  # 2**64 / golden ratio, odd: spreads the sequence numbers over the word


@jit
def member_at(base: int, member: int) -> int:
    return base + load(base + H_MEMBERS_AT * 8) + member * MEMBER_STRIDE


@jit
def port_at(base: int, port: int) -> int:
    return base + load(base + H_PORTS_AT * 8) + port * load(base + H_PORT_STRIDE * 8)


@jit
def lane_at(base: int, lane: int) -> int:
    return base + load(base + H_LANES_AT * 8) + lane * load(base + H_LANE_STRIDE * 8)


@jit
def state_at(base: int, slot: int) -> int:
    return base + load(base + H_STATES_AT * 8) + slot * 8


@jit
def slot_at(base: int, slot: int) -> int:
    return base + load(base + H_SLOTS_AT * 8) + slot * SLOT_STRIDE


@jit
def count(base: int, member: int, counter: int, amount: int) -> None:
    """Adds to a counter of a member. Only that member writes it: no read-modify-write instruction is needed."""
    address = member_at(base, member) + M_COUNTERS + counter * 8
    store(address, load(address) + amount)


@jit
def is_fenced(base: int, member: int, epoch: int) -> bool:
    """Whether this member was declared dead, or has left."""
    word = load(member_at(base, member))
    return word & 7 != M_ALIVE or (word >> 6) & EPOCH_MASK != epoch


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
def release_slot(base: int, slot: int, word: int) -> bool:
    """Ends a slot's generation: FREE, and its free bit set."""
    if not cas(state_at(base, slot), word, slot_word(FREE, 0, 0, 0, ((word >> 42) + 1) & GEN_MASK)):
        return False
    mark_free(base, slot)
    return True


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
def _stale(base: int, hint: int) -> bool:
    """Whether a ready hint's slot is not ready (any more) in the hint's generation."""
    word = load(state_at(base, hint & 0xFFFFFF))
    return word & 7 != READY or (word >> 42) & GEN_MASK != (hint >> 24) & GEN_MASK


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
    """Puts a task on the board: the slot, or -1 when the lane is full for this port, -3 when the member is fenced, -4
    when a shared array that the scratch names is gone.

    A payload of up to INLINE_MAX bytes is copied from the address `payload`; a larger one lies in `block`, which the
    member holds. A port may hold three times as many slots of a lane as are free in it, and a 32nd of the lane (16 at
    most) in any case while there are any. So one alone may fill three quarters, and those who flood a lane together get
    equal shares and leave room for another one: n of them leave 1 / (3 n + 1).
    """
    if is_fenced(base, member, epoch):
        return -3
    cap = load(base + H_READY_CAP * 8)
    at = port_at(base, port)
    queue = at + P_QUEUES + lane * 128
    ring = at + P_RINGS + lane * cap * 8
    tail = load(queue + 64)
    head = load(queue)
    while tail - head >= cap:
        # Entries of cancelled tasks may clog the ring when no agent is there to pass them.
        if not _stale(base, load(ring + (head & (cap - 1)) * 8)):
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
    return slot


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


@jit
def _end_ready(base: int, slot: int, word: int, reason: int) -> bool:
    """Answers a ready task that will not run, with the reason."""
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
def _try_slot(base: int, slot: int, word: int, member: int, epoch: int, now: int, scratch: int) -> int:
    """Claims a slot seen ready. 1: claimed, 0: not, look further; -3: fenced."""
    s = slot_at(base, slot)
    deadline = load(s + S_DEADLINE)
    if deadline != 0 and now > deadline:
        expire(base, slot, word)
        return 0
    attempts = ((word >> 3) & ATTEMPTS_MASK) + 1
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
def try_claim(base: int, member: int, epoch: int, first: int, last: int, scratch: int) -> int:
    """Claims the most urgent task of the lanes `first` to `last`; ports of a lane take turns.

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
        bits = at + L_MAPS
        start = load(at + L_CURSOR)
        # One round from the cursor: its word's upper bits, the other words, its word's lower bits.
        for step in range(words + 1):
            index = ((start >> 6) + step) % words
            ports = load(bits + index * 8)
            if step == 0:
                ports &= -1 << (start & 63)
            elif step == words:
                ports &= ~(-1 << (start & 63))
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


@jit
def commit(base: int, slot: int, mine: int, block: int, member: int, epoch: int) -> int:
    """Answers a claimed task with a block that this member holds.

    Returns 1; 0 when the claim is not this member's any more (its epoch is over): then the block is freed.
    """
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
def hand_back(base: int, slot: int, mine: int, begun: int) -> int:
    """Makes a claimed task claimable again; with `begun` 0 it was not begun, which does not count as an attempt."""
    attempts = ((mine >> 3) & ATTEMPTS_MASK) - (0 if begun else 1)
    if not cas(state_at(base, slot), mine, slot_word(READY, attempts, UNQUEUED, 0, (mine >> 42) & GEN_MASK)):
        return 0
    mark_retry(base, slot)
    fence()
    wake_worker(base)
    return 1


@jit
def poll(base: int, port: int, owner: int, limit: int, out: int) -> int:
    """Takes up to `limit` answered slots off a port's ring: pairs (slot, state word) to `out`; how many.

    The same slot may come twice; a slot that was answered may be missing only while the port's rescan word is set.
    """
    at = port_at(base, port)
    cap = load(base + H_DONE_CAP * 8)
    ring = at + P_RINGS + LANES * load(base + H_READY_CAP * 8) * 8
    head = load(at + P_DONE_HEAD)
    found = 0
    while found < limit:
        entry = load(ring + (head & (cap - 1)) * 8)
        if entry >> 32 != (head // cap + 1) & 0x7FFFFFFF:
            break
        head += 1
        slot = entry & 0xFFFFFFFF
        word = load(state_at(base, slot))
        if word & 7 == DONE and load(slot_at(base, slot) + S_PORT_OWNER) == owner:
            poke(out + found * 16, slot)
            poke(out + found * 16 + 8, word)
            found += 1
    store(at + P_DONE_HEAD, head)
    return found


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
def cancel(base: int, slot: int, gen: int) -> int:
    """Cancels a task of this port: 1 when it will not run (its answer says so), 0 when it is running or answered."""
    store(slot_at(base, slot) + S_CANCEL, 1)
    while True:
        word = load(state_at(base, slot))
        if word & 7 != READY or (word >> 42) & GEN_MASK != gen:
            return 0
        if _end_ready(base, slot, word, R_CANCELLED):
            return 1


@jit
def lose(base: int, slot: int, word: int) -> bool:
    """Answers a task that used up its attempts; for sweeps."""
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
