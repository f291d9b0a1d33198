"""What a board refuses while its node is overloaded: one word, which whoever submits looks at.

The node's resource agent writes it (`resource.overload` decides what), and writes it anew again and again, for it says
until when it holds: a resource agent that dies while work is refused leaves nobody locked out. It is a hint to those
who submit, and no truth about any task: what is on the board stays there and is answered. Urgent lanes, critical and
high, can't be named in it.

    bits  0-2   how many lanes are refused, from bulk upwards: 0, 1 or 2
    bits  3-22  milliseconds after which it is worth trying again
    bits 23-62  until when it holds, CLOCK_MONOTONIC in milliseconds

On a board that an older release has made the word is 0, which refuses nothing.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import numpy as np

from swarm_agents.config import Priority
from swarm_agents.errors import Overloaded
from swarm_agents.shm.atomics import load, monotonic_ns
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    H_LANE_SLOTS,
    H_OVERLOAD,
    H_SLOTS_AT,
    H_STATES_AT,
    LANES,
    READY,
    S_SUBMITTED,
    SLOT_STRIDE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm_agents.shm.files import Mapping

__all__ = ["MOST_LANES", "MOST_RETRY", "SHED", "oldest_waits", "refusal", "refuse", "refused_from", "sheds"]

#: What `tasks.submit` returns for a task that is refused.
SHED = -7
#: Bulk and normal.
MOST_LANES = 2
#: Seconds; what is said of when to try again is no more.
MOST_RETRY = 600.0
_RETRY_AT, _UNTIL_AT = 3, 23
_RETRY_MASK = (1 << 20) - 1
_PRIORITIES = tuple(map(str, Priority))


@jit
def sheds(base: int, lane: int) -> bool:
    """Whether tasks of a lane are refused now: one load for nearly all."""
    word = load(base + H_OVERLOAD * 8)
    if word == 0 or lane < LANES - min(word & 7, 2):
        return False
    return monotonic_ns() // 1_000_000 < word >> 23


def refuse(mapping: Mapping, lanes: int, retry_after: float, seconds: float, now: float | None = None) -> None:
    """Refuses new tasks of so many lanes, from bulk upwards, for some seconds from now (monotonic); 0: none.

    Raises:
        ValueError: `lanes` would name an urgent one.
    """
    if not 0 <= lanes <= MOST_LANES:
        raise ValueError(f"lanes={lanes}: bulk (1), or bulk and normal (2), and no others, can be refused")
    word = 0
    if lanes:
        until = int(((time.monotonic() if now is None else now) + seconds) * 1e3)
        retry = int(min(max(retry_after, 0.001), MOST_RETRY) * 1e3)
        word = lanes | retry << _RETRY_AT | until << _UNTIL_AT
    struct.pack_into("<q", mapping.view, H_OVERLOAD * 8, word)


def _refused(mapping: Mapping, now: float | None) -> tuple[int, float]:
    """How many lanes are refused now, and the seconds after which it is worth trying again."""
    word = struct.unpack_from("<q", mapping.view, H_OVERLOAD * 8)[0]
    if not word or int((time.monotonic() if now is None else now) * 1e3) >= word >> _UNTIL_AT:
        return 0, 0.0
    return min(word & 7, MOST_LANES), (word >> _RETRY_AT & _RETRY_MASK) * 1e-3


def refused_from(mapping: Mapping, now: float | None = None) -> int:
    """The most urgent lane of which tasks are refused now; `LANES`: none is."""
    return LANES - _refused(mapping, now)[0]


def refusal(mapping: Mapping, lane: int, now: float | None = None) -> Overloaded | None:
    """What a submitter is told of a task of this lane; None where it is taken."""
    lanes, retry = _refused(mapping, now)
    if lane < LANES - lanes:
        return None
    refused = " and ".join(reversed(_PRIORITIES[LANES - lanes :]))
    are = "work is" if lanes == 1 else "work are"
    return Overloaded(f"overloaded: {refused} {are} refused, retry after {retry:g} s", retry)


def oldest_waits(mapping: Mapping, words: dict[int, int], now_ns: int) -> Sequence[float]:
    """For each lane, the seconds that the task which has waited longest to be begun has been on the board; 0: none.

    A task that was given back counts from when it was submitted.
    """
    slots = words[H_LANE_SLOTS] * LANES
    view = mapping.view
    states = np.frombuffer(view, np.int64, slots, words[H_STATES_AT]).reshape(LANES, -1)
    ready = (states & 7) == READY
    if not ready.any():
        return (0.0,) * LANES
    fields = np.frombuffer(view, np.int64, slots * (SLOT_STRIDE // 8), words[H_SLOTS_AT])
    submitted = fields[S_SUBMITTED // 8 :: SLOT_STRIDE // 8].reshape(LANES, -1)
    found = []
    for lane in range(LANES):
        times = submitted[lane][ready[lane]]
        found.append(max(now_ns - int(times.min()), 0) * 1e-9 if times.size else 0.0)
    return tuple(found)
