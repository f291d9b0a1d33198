"""The compiled calls that Python makes: each does a whole exchange, because a call costs as much as ten atomics."""

from __future__ import annotations

from swarm_agents.shm.atomics import cas, copy, load, monotonic_ns, peek, poke, store
from swarm_agents.shm.blocks import alloc, block_address, free_block
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    C_ANSWERED,
    C_COMMITTED,
    C_FAILED,
    C_FENCED,
    H_PORTS,
    M_BEAT,
    M_RUNNING,
    M_SLOT,
    P_OWNER,
    P_RESCAN,
    R_AGENT,
    R_EPOCH,
    R_HOPS,
    R_LENGTH,
    R_QUEUED,
    R_RUN,
    R_STATUS,
    RESULT_HEADER,
    S_SUBMITTED,
)
from swarm_agents.shm.tasks import commit, count, is_fenced, member_at, port_at, record, release, slot_at

__all__ = ["beat", "commit_block", "commit_small", "finish", "now_ns", "put_down", "take_port", "take_rescan"]


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
    """Takes a free port; -1 when there is none."""
    for port in range(load(base + H_PORTS * 8)):
        at = port_at(base, port)
        if load(at + P_OWNER) == 0 and cas(at + P_OWNER, 0, owner):
            store(at + P_RESCAN, 0)
            return port
    return -1


@jit
def take_rescan(base: int, port: int) -> bool:
    """Whether the port has to look at all its tasks; asks it once."""
    at = port_at(base, port) + P_RESCAN
    return load(at) != 0 and cas(at, 1, 0)


@jit
def _settle(base: int, slot: int, mine: int, block: int, member: int, epoch: int, lane: int, status: int,
            queued: int, run: int) -> int:  # fmt: skip
    done = commit(base, slot, mine, block, member, epoch)
    at = member_at(base, member)
    store(at + M_SLOT, 0)
    store(at + M_RUNNING, load(at + M_RUNNING) - 1)
    if done == 0:
        free_block(base, block, member, epoch)
        count(base, member, C_FENCED, 1)
        return 0
    count(base, member, C_COMMITTED, 1)
    if status != 0:
        count(base, member, C_FAILED, 1)
    record(base, member, lane, 0, queued)
    record(base, member, lane, 1, run)
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
    return at


@jit
def commit_small(base: int, slot: int, mine: int, payload: int, length: int, member: int, epoch: int, lane: int,
                 status: int, queued: int, claimed_at: int, hops: int, scratch: int) -> int:  # fmt: skip
    """Answers with a frame that fits a cell: takes one, copies, commits. 1, 0 fenced, -1 no room now."""
    block = alloc(base, RESULT_HEADER + length, member, epoch, 256, 1, scratch)
    if block < 0:
        return -1
    run = monotonic_ns() - claimed_at
    at = _result_header(base, block, status, member, epoch, queued, run, length, hops)
    copy(at + RESULT_HEADER, payload, length)
    return _settle(base, slot, mine, block, member, epoch, lane, status, queued, run)


@jit
def commit_block(base: int, slot: int, mine: int, block: int, length: int, member: int, epoch: int, lane: int,
                 status: int, queued: int, claimed_at: int, hops: int) -> int:  # fmt: skip
    """Answers with a block whose frame is written already. 1, or 0 when fenced."""
    run = monotonic_ns() - claimed_at
    _result_header(base, block, status, member, epoch, queued, run, length, hops)
    return _settle(base, slot, mine, block, member, epoch, lane, status, queued, run)


@jit
def finish(base: int, slot: int, word: int, member: int, lane: int, scratch: int) -> int:
    """Ends an answered task of this port, and counts it."""
    since = monotonic_ns() - peek(slot_at(base, slot) + S_SUBMITTED)
    if release(base, slot, word, scratch) == 0:
        return 0
    count(base, member, C_ANSWERED, 1)
    record(base, member, lane, 2, since)
    return 1


@jit
def put_down(base: int, member: int) -> None:
    """Shows in the member's record that it has nothing in hand: for people, never for control."""
    at = member_at(base, member)
    store(at + M_SLOT, 0)
    store(at + M_RUNNING, load(at + M_RUNNING) - 1)
