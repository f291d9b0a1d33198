"""Kills one busy compute agent, and says how the swarm got over it.

The victim is an agent in the middle of a long task. Before it is killed it is made certain that the process is what the
board says: it is held by a pidfd (so that its number can't pass to another process meanwhile), and its environment must
name this swarm's UID and the pod. Anything else is left alone. Then it is stopped for a moment, and only killed if it
still has the same task in hand; otherwise it goes on and another one is looked for. So the kill never comes just too
late, between two tasks, when there would be nothing to take over.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_agents.config import Role
from swarm_deploy.demo.runner import Record
from swarm_deploy.demo.watch import Seat, Watch

if TYPE_CHECKING:
    from swarm_agents.shm.board import MemberInfo

__all__ = ["Failover", "Victim", "kill", "pick", "recovered", "verified"]

#: A task that has run this long is one of the long ones, with time left to be killed in.
_LONG_ENOUGH = 0.012


@dataclass(frozen=True)
class Victim:
    """Whom the demo killed, and when (monotonic seconds)."""

    node: str
    agent: str
    index: int
    epoch: int
    pid: int
    killed: float


@dataclass(frozen=True)
class Failover:
    """How the swarm got over it; spans are seconds from the kill."""

    victim: Victim
    #: Tasks that it held.
    tasks: int
    detected: float
    requeued: float
    #: The first of its tasks begun again; None when it held none.
    resumed: float | None
    #: Tasks that were begun more than once and answered; agents that finished them.
    finished: int
    finished_by: tuple[str, ...]


def pick(seats: Sequence[Seat], now: float) -> Seat | None:
    """A compute agent in the middle of a long task; None when there is none at the moment."""
    busy = [
        s
        for s in seats
        if s.member.alive
        and s.member.role == Role.COMPUTE
        and s.member.running
        and now - s.member.claimed > _LONG_ENOUGH
    ]
    return min(busy, key=lambda s: now - s.member.claimed, default=None)


def verified(pid: int, *, uid: str, pod: str, environment: Callable[[int], bytes] | None = None) -> bool:
    """Whether the process is an agent of this swarm in this pod, by the environment that it was started with."""
    try:
        raw = environment(pid) if environment else Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return {f"SWARM_UID={uid}".encode(), f"POD_NAME={pod}".encode()} <= set(raw.split(b"\0"))


def kill(watch: Watch, *, uid: str, node: str = "", timeout: float = 5.0) -> Victim | None:
    """Kills a busy compute agent by SIGKILL, one of `node` if given; None when none was busy in time."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        seat = pick([s for s in watch.sample().seats if s.node == (node or s.node)], time.monotonic())
        victim = _shoot(seat, uid, watch) if seat is not None else None
        if victim is not None:
            return victim
        time.sleep(0.002)
    return None


def _shoot(seat: Seat, uid: str, watch: Watch) -> Victim | None:
    member = seat.member
    try:
        handle = os.pidfd_open(member.pid)
    except OSError:
        return None
    stopped = False
    try:
        if not verified(member.pid, uid=uid, pod=member.name):
            return None
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        stopped = True
        if not (_is_stopped(member.pid) and _still_at_it(seat, watch)):
            return None
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        stopped = False
    except OSError:
        return None
    finally:
        if stopped:
            with suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
        os.close(handle)
    return Victim(seat.node, member.name, member.index, member.epoch, member.pid, time.monotonic())


def _is_stopped(pid: int, patience: float = 0.05) -> bool:
    """Waits until none of the process's threads runs any more; a fraction of a millisecond as a rule."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            states = {
                path.read_bytes().rpartition(b")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
            }
        except OSError:
            return False
        if states == {b"T"}:
            return True
    return False


def _still_at_it(seat: Seat, watch: Watch) -> bool:
    def hand(member: MemberInfo) -> tuple[int, int, float, int]:
        return member.index, member.epoch, member.claimed, member.running

    return any(s.node == seat.node and hand(s.member) == hand(seat.member) for s in watch.sample().seats)


def recovered(watch: Watch, victim: Victim, records: Sequence[Record]) -> Failover | None:
    """What the boards say of the victim's death; None as long as they have not noticed."""
    for node, record in watch.failovers(victim.killed - 0.05):
        if node == victim.node and record.index == victim.index and record.epoch >= victim.epoch:
            again = [r for r in records if r.attempts > 1]
            return Failover(
                victim,
                record.tasks,
                max(record.detected - victim.killed, 0.0),
                max(record.requeued - victim.killed, 0.0),
                None if record.resumed is None else max(record.resumed - victim.killed, 0.0),
                len(again),
                tuple(sorted({r.agent for r in again})),
            )
    return None
