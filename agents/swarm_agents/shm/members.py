"""Members of a board, as Python sees them: reading and writing their records.

A record is written by its member, or under the directory's lock by who makes it a member; whoever reads it may see a
count that is a moment old, which is all that people and balancers need. Control looks at the member word alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_agents.config import Role
from swarm_agents.shm.layout import (
    C_COMMITTED,
    COUNTER_NAMES,
    EPOCH_MASK,
    H_MAX_MEMBERS,
    H_MEMBERS_AT,
    M_ALIVE,
    M_BEAT,
    M_CLAIMED_AT,
    M_COUNTERS,
    M_CPU_MILLI,
    M_DONE_BASE,
    M_EMPTY,
    M_FENCING,
    M_JOINED,
    M_NAME,
    M_NAME_LEN,
    M_PID,
    M_RSS,
    M_RUNNING,
    M_START,
    M_WORD,
    MEMBER_STRIDE,
    NAME_MAX,
)

if TYPE_CHECKING:
    from swarm_agents.shm.files import LifeLock, Mapping

__all__ = ["CLIENT", "ROLES", "Member", "MemberInfo", "MemberState", "iterate", "record_at"]

CLIENT = "client"
#: The roles by their number on the board.
ROLES: tuple[str, ...] = (CLIENT, Role.COMPUTE, Role.STANDBY, Role.RESOURCE)


class MemberState(StrEnum):
    """Where a member is: empty places are not shown."""

    ALIVE = "alive"
    #: Declared dead; its process may still run, and what it may still write to is kept from others.
    FENCED = "fenced"
    #: Declared dead, and its process is gone.
    GONE = "gone"


#: From M_ALIVE on.
_STATES = (MemberState.ALIVE, MemberState.FENCED, MemberState.GONE, MemberState.FENCED)


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What the board says of a member."""

    index: int
    name: str
    #: `compute`, `standby`, `resource` or `client`.
    role: str
    #: The epoch it has or, when it is dead, had.
    epoch: int
    #: In the member's own PID namespace.
    pid: int
    state: MemberState
    #: Seconds since it last showed life.
    heartbeat_age: float
    #: Tasks in hand.
    running: int
    #: Tasks committed in this epoch.
    done: int
    #: Share of a core that it used lately, as it says itself.
    cpu: float
    #: Resident bytes, as it says itself.
    rss: int
    #: CLOCK_MONOTONIC seconds at which it joined, and at which it took what it has in hand (0: nothing yet).
    joined: float
    claimed: float

    @property
    def alive(self) -> bool:
        """Whether it has not been declared dead."""
        return self.state is MemberState.ALIVE


class Member:
    """This process's place on a board: what `Board.join` gives."""

    __slots__ = ("epoch", "holds", "index", "left", "life", "name", "process", "role")

    def __init__(self, index: int, epoch: int, name: str, role: str, life: LifeLock) -> None:
        self.index = index
        self.epoch = epoch
        self.name = name
        self.role = role
        self.life = life
        #: Who joined; a forked child that inherits this object is not the member.
        self.process = os.getpid()
        #: One for each block of the arena that this process still shows to its program. Not a number: it changes in
        #: whatever thread the collector runs, in the midst of another change.
        self.holds: set[object] = set()
        self.left = False

    def __repr__(self) -> str:
        return f"Member({self.name!r}, role={str(self.role)!r}, index={self.index}, epoch={self.epoch})"


def record_at(words: dict[int, int], index: int) -> int:
    """The offset of a member's record."""
    return words[H_MEMBERS_AT] + index * MEMBER_STRIDE


def start_time() -> int:
    """Clock ticks since boot at which this process started: with the pid, who it is."""
    try:
        text = Path("/proc/self/stat").read_text()
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def write_record(mapping: Mapping, at: int, name: str, pid: int, start: int, now_ns: int) -> None:
    """Fills a record, but for its word, which makes it valid."""
    view = mapping.view
    done = struct.unpack_from("<q", view, at + M_COUNTERS + C_COMMITTED * 8)[0]
    for offset, value in (
        (M_BEAT, now_ns),
        (M_PID, pid),
        (M_START, start),
        (M_JOINED, now_ns),
        (M_RUNNING, 0),
        (M_CLAIMED_AT, 0),
        (M_DONE_BASE, done),
        (M_CPU_MILLI, 0),
        (M_RSS, 0),
    ):
        struct.pack_into("<q", view, at + offset, value)
    raw = name.encode()
    struct.pack_into("<q", view, at + M_NAME_LEN, len(raw))
    view[at + M_NAME : at + M_NAME + len(raw)] = raw


def name_at(mapping: Mapping, at: int) -> str:
    """The name in a record."""
    length = min(max(struct.unpack_from("<q", mapping.view, at + M_NAME_LEN)[0], 0), NAME_MAX)
    return str(mapping.view[at + M_NAME : at + M_NAME + length], "utf-8", "replace")


def word_at(mapping: Mapping, at: int) -> tuple[int, int, int]:
    """A record's state, role number and epoch."""
    word = struct.unpack_from("<q", mapping.view, at + M_WORD)[0]
    return word & 7, (word >> 3) & 7, (word >> 6) & EPOCH_MASK


def counters_at(mapping: Mapping, at: int) -> dict[str, int]:
    """A record's counters by name: of all the epochs of this place."""
    values = struct.unpack_from(f"<{len(COUNTER_NAMES)}q", mapping.view, at + M_COUNTERS)
    return dict(zip(COUNTER_NAMES, values, strict=True))


def iterate(mapping: Mapping, words: dict[int, int], now_ns: int) -> Iterator[MemberInfo]:
    """Everybody who is on the board, dead ones included until their place is taken."""
    view = mapping.view
    for index in range(words[H_MAX_MEMBERS]):
        at = record_at(words, index)
        state, role, epoch = word_at(mapping, at)
        if state == M_EMPTY:
            continue
        _, beat, pid, _, joined, running, _, claimed, base, cpu, rss = struct.unpack_from("<11q", view, at)
        done = struct.unpack_from("<q", view, at + M_COUNTERS + C_COMMITTED * 8)[0]
        yield MemberInfo(
            index=index,
            name=name_at(mapping, at),
            role=ROLES[role] if role < len(ROLES) else "unknown",
            epoch=epoch if state in (M_ALIVE, M_FENCING) else epoch - 1,
            pid=pid,
            state=_STATES[state - M_ALIVE],
            heartbeat_age=max(0.0, (now_ns - beat) * 1e-9),
            running=running if state == M_ALIVE else 0,
            done=done - base,
            cpu=cpu / 1000,
            rss=rss,
            joined=joined * 1e-9,
            claimed=claimed * 1e-9,
        )
