"""What happens when somebody is declared dead: fence, take back, repair the hints.

Any process may run any of these at any time, several at once, and may itself be killed half-way: each step is a CAS on
a truth, or sets a hint, so a repetition completes what an earlier run left and undoes nothing.

A death is declared in three steps. The member's word becomes FENCING: from then on it begins nothing more, no claim, no
commit, no submission. `sweep_tasks` takes its claims, each by CAS: a commit of it that was under way comes before that
and counts, or after it and fails. Then the word becomes FENCED, which raises the epoch. So **nothing is ever committed
under an epoch that is over**: who claims looks at his member word after the claim's CAS, and gives back what he took
after FENCING; hence all claims that could still be committed stood before it, and the sweep has met them.

Whoever is killed between the steps leaves a member that is FENCING. Its claims are void already, for all sweeps; who
looks next (`Board.reap`, who joins, who declares it dead, too) goes through the steps again.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import add, cas, fence, futex_wake, load, monotonic_ns, or_, store, xand
from swarm_agents.shm.blocks import standing
from swarm_agents.shm.hints import mark_free, mark_retry
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    ATTEMPTS_MASK,
    CLAIMED,
    DONE,
    E_DROPPED,
    E_LOST,
    E_RETRIED,
    EPOCH_MASK,
    F_DETECTED,
    F_DONE,
    F_EPOCH,
    F_FENCED,
    F_INDEX,
    F_LAST_BEAT,
    F_REQUEUED,
    F_RESUMED,
    F_TASKS,
    FAILOVER_RECORDS,
    FAILOVER_STRIDE,
    FREE,
    GEN_MASK,
    H_DONE_CAP,
    H_FAILOVER_AT,
    H_FAILOVERS,
    H_LANE_SLOTS,
    H_LANE_WORDS,
    H_PARKED,
    H_PORT_WORDS,
    H_PORTS,
    H_READY_CAP,
    H_WORK,
    L_MAPS,
    LANES,
    M_ALIVE,
    M_BEAT,
    M_EMPTY,
    M_FENCED,
    M_FENCING,
    M_GONE,
    OWNER_MASK,
    P_DONE_HEAD,
    P_FUTEX,
    P_OWNER,
    P_QUEUES,
    P_RESCAN,
    P_RINGS,
    READY,
    S_DEADLINE,
    S_PORT,
    WRITING,
    member_word,
)
from swarm_agents.shm.places import lane_at, member_at, port_at, slot_at, state_at
from swarm_agents.shm.tally import path_of, tally_task
from swarm_agents.shm.tasks import claim_is_over, expire, owner_is_over, release_slot, retry_or_lose, want_no_more

__all__ = ["bury", "declare_dead", "release_ports", "sweep_tasks"]


@jit
def _remind(base: int, port: int) -> None:
    """Tells a port to look at all its tasks, if it has an answer and no hint of it.

    Whoever answers may be killed before the hint, and need not be a member whose death is declared: a sweep may be run
    by anybody. While there are hints the port looks anyway, and a later sweep finds out what they did not say.
    """
    at = port_at(base, port)
    cap = load(base + H_DONE_CAP * 8)
    head = load(at + P_DONE_HEAD)
    entry = load(at + P_RINGS + (LANES * load(base + H_READY_CAP * 8) + (head & (cap - 1))) * 8)
    if entry >> 32 != (head // cap + 1) & 0x7FFFFFFF and load(at + P_RESCAN) == 0:
        _ask_to_rescan(at)


@jit
def _ask_to_rescan(at: int) -> None:
    """Asks the owner of the port at an address to look at all its tasks; wakes it."""
    store(at + P_RESCAN, 1)
    add(at + P_FUTEX, 1)
    futex_wake(at + P_FUTEX, 1 << 20)


@jit
def _sweep_slot(base: int, slot: int, now: int) -> int:
    """Brings one slot in order; 1 when a claim was taken away from an epoch that is over."""
    word = load(state_at(base, slot))
    state = word & 7
    if state == FREE:
        lane_slots = load(base + H_LANE_SLOTS * 8)
        lane, index = slot // lane_slots, slot % lane_slots
        bits = lane_at(base, lane) + L_MAPS + (load(base + H_PORT_WORDS * 8) + load(base + H_LANE_WORDS * 8)) * 8
        if load(bits + (index >> 6) * 8) & (1 << (index & 63)) == 0:
            mark_free(base, slot)
    elif state == WRITING:
        # Not while its process may still run: it would write into the next task's fields.
        if standing(base, (word >> 10) & OWNER_MASK, (word >> 22) & EPOCH_MASK) == 0:
            release_slot(base, slot, word)
    elif state == READY:
        if owner_is_over(base, slot):
            path = path_of(base, slot)
            if release_slot(base, slot, word):
                tally_task(base, E_DROPPED, slot, path)
        else:
            deadline = load(slot_at(base, slot) + S_DEADLINE)
            if deadline != 0 and now > deadline:
                expire(base, slot, word)
            elif (word >> 3) & (ATTEMPTS_MASK | OWNER_MASK << 7) != 0:
                # Claimed before, so no queue holds it; whoever cleared its bit to claim it may have been killed.
                mark_retry(base, slot)
    elif state == CLAIMED:
        if owner_is_over(base, slot):
            want_no_more(base, slot, (word >> 42) & GEN_MASK)
        if claim_is_over(base, word):
            path = path_of(base, slot)
            done = retry_or_lose(base, slot, word)
            if done == 2:
                tally_task(base, E_LOST, slot, path)
            if done != 0:
                tally_task(base, E_RETRIED, slot, path)
                return 1
    elif state == DONE:
        if owner_is_over(base, slot):
            release_slot(base, slot, word)
        else:
            _remind(base, load(slot_at(base, slot) + S_PORT))
    return 0


@jit
def _show_queues(base: int) -> None:
    """Sets the bit of every port whose queue holds something."""
    for port in range(load(base + H_PORTS * 8)):
        for lane in range(LANES):
            queue = port_at(base, port) + P_QUEUES + lane * 128
            if load(queue) < load(queue + 64):
                or_(lane_at(base, lane) + L_MAPS + (port >> 6) * 8, 1 << (port & 63))


@jit
def wake_everybody(base: int) -> None:
    """Wakes all parked agents, so that each looks for itself."""
    fence()
    add(base + H_WORK * 8, 1)
    futex_wake(base + H_WORK * 8, 1 << 20)


@jit
def sweep_tasks(base: int) -> int:
    """Brings every slot and hint in order; how many claims were taken away from epochs that are over."""
    now = monotonic_ns()
    taken = 0
    for slot in range(LANES * load(base + H_LANE_SLOTS * 8)):
        taken += _sweep_slot(base, slot, now)
    _show_queues(base)
    if taken > 0:
        wake_everybody(base)
    return taken


@jit
def release_ports(base: int, member: int, epoch: int) -> None:
    """Gives the ports of a member's epoch up; the tasks in them are over with it. By the member itself, when it leaves:
    those of the dead are taken over when their process is gone (see `take_port`)."""
    owner = (member + 1) | (epoch << 16)
    for port in range(load(base + H_PORTS * 8)):
        cas(port_at(base, port) + P_OWNER, owner, 0)


@jit
def _rescan_ports(base: int) -> None:
    """Tells every living port to look at all its tasks: the dead may have committed without a hint."""
    for port in range(load(base + H_PORTS * 8)):
        at = port_at(base, port)
        owner = load(at + P_OWNER)
        if owner != 0 and standing(base, (owner & 0xFFFF) - 1, owner >> 16) == 2:
            _ask_to_rescan(at)


@jit
def declare_dead(base: int, member: int, epoch: int, quietly: int) -> int:
    """Takes a member's tasks back and ends its epoch; how many. Repeating it is harmless, and completes it.

    `quietly` leaves no failover record: the member is leaving by itself.
    """
    detected = monotonic_ns()
    at = member_at(base, member)
    last_beat = load(at + M_BEAT)
    fenced = False
    while True:
        word = load(at)
        if word & 7 != M_ALIVE or (word >> 6) & EPOCH_MASK != epoch:
            break
        if cas(at, word, member_word(M_FENCING, (word >> 3) & 7, epoch)):
            fenced = True
            break
    now = monotonic_ns()
    unpark(base, member)
    if quietly != 0:
        release_ports(base, member, epoch)
    taken = sweep_tasks(base)
    word = load(at)
    if word & 7 == M_FENCING and (word >> 6) & EPOCH_MASK == epoch:
        cas(at, word, member_word(M_FENCED, (word >> 3) & 7, (epoch + 1) & EPOCH_MASK))
    _rescan_ports(base)
    if fenced and quietly == 0:
        number = add(base + H_FAILOVERS * 8, 1)
        r = base + H_FAILOVER_AT + (number % FAILOVER_RECORDS) * FAILOVER_STRIDE
        store(r + F_DONE * 8, 0)
        store(r + F_INDEX * 8, member)
        store(r + F_EPOCH * 8, epoch)
        store(r + F_LAST_BEAT * 8, last_beat)
        store(r + F_DETECTED * 8, detected)
        store(r + F_FENCED * 8, now)
        store(r + F_REQUEUED * 8, monotonic_ns())
        store(r + F_RESUMED * 8, 0)
        store(r + F_TASKS * 8, taken)
        store(r + F_DONE * 8, number + 1)
    return taken


@jit
def unpark(base: int, member: int) -> None:
    """Takes a member off the list of the parked."""
    xand(base + (H_PARKED + (member >> 6)) * 8, ~(1 << (member & 63)))


@jit
def bury(base: int, member: int, epoch: int, empty: int) -> bool:
    """Marks a fenced member's process as gone, which ends the quarantine of what it held."""
    at = member_at(base, member)
    word = load(at)
    if word & 7 != M_FENCED or (word >> 6) & EPOCH_MASK != epoch + 1:
        return False
    unpark(base, member)  # whoever declared it dead may have been killed before that
    state = M_EMPTY if empty != 0 else M_GONE
    return cas(at, word, member_word(state, (word >> 3) & 7, epoch + 1))
