"""What is counted on the way of a task, in shared memory: histograms of durations, and events by priority and path.

A histogram belongs to one member, lane and kind, and only that member's process writes it: two loads and two stores of
aligned words, 2 ns, no read-modify-write instruction and no line that two cores want. It has two buckets an octave from
128 ns on, and the exact sum of what was counted. The kinds are how long a task waited (`queued`) and ran (`run`), which
the agent knows, and the round trip by the path that the task came by, which its submitter knows.

Events are what does not happen to most tasks: each has a counter for each lane and path that all members share. They
cost an atomic addition, which is nothing beside what they are about.

The path of a task is written into its slot by its submitter, from a word of its own scratch: a program on this node
writes none, the hub the kind of session that it submits for.
"""

from __future__ import annotations

from swarm_agents.shm.atomics import add, clz, load, peek, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    H_HIST_AT,
    H_LANE_SLOTS,
    H_SLOTS_AT,
    H_TALLIES_AT,
    HIST_BUCKETS,
    HIST_SHIFT,
    HIST_WORDS,
    HISTOGRAMS,
    LANES,
    PATH_MASK,
    PATHS,
    S_PATH,
    SLOT_STRIDE,
)

__all__ = ["path_of", "record", "tally", "tally_task"]

_PATHS = len(PATHS)


@jit
def record(base: int, member: int, lane: int, kind: int, nanos: int) -> None:
    """Counts a duration in a member's histogram."""
    bucket = 0
    if nanos >= 1 << HIST_SHIFT:
        top = 63 - clz(nanos)
        bucket = min(HIST_BUCKETS - 1, 2 * (top - HIST_SHIFT) + 1 + ((nanos >> (top - 1)) & 1))
    at = base + load(base + H_HIST_AT * 8) + ((member * LANES + lane) * HISTOGRAMS + kind) * HIST_WORDS * 8
    store(at + bucket * 8, load(at + bucket * 8) + 1)
    store(at + HIST_BUCKETS * 8, load(at + HIST_BUCKETS * 8) + nanos)


@jit
def path_of(base: int, slot: int) -> int:
    """The path by which the task in a slot came."""
    return peek(base + load(base + H_SLOTS_AT * 8) + slot * SLOT_STRIDE + S_PATH) & PATH_MASK


@jit
def tally(base: int, event: int, lane: int, path: int) -> None:
    """Counts an event."""
    add(base + load(base + H_TALLIES_AT * 8) + ((event * LANES + lane) * _PATHS + path) * 8, 1)


@jit
def tally_task(base: int, event: int, slot: int, path: int) -> None:
    """Counts an event of the task in a slot; the path is read before the slot is given away."""
    tally(base, event, slot // load(base + H_LANE_SLOTS * 8), path)
