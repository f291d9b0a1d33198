"""Where a board's members, ports, lanes and slots lie, and what a member's own record says of it.

Everything is found by the offsets in the header, which never change: see `layout`.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import load, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    EPOCH_MASK,
    H_LANE_STRIDE,
    H_LANES_AT,
    H_MEMBERS_AT,
    H_PORT_STRIDE,
    H_PORTS_AT,
    H_SLOTS_AT,
    H_STATES_AT,
    M_ALIVE,
    M_COUNTERS,
    MEMBER_STRIDE,
    SLOT_STRIDE,
)

__all__ = ["count", "is_fenced", "lane_at", "member_at", "port_at", "slot_at", "state_at"]


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
