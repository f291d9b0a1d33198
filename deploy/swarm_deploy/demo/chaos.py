"""Kills one busy compute agent, and says how the swarm got over it.

The victim is an agent in the middle of a long task. Before it is killed it is made certain that the process is what the
board says: it is held by a pidfd (so that its number can't pass to another process meanwhile), and its environment must
name this swarm's UID and the pod. Anything else is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm_agents.config import Role
from swarm_deploy.demo.runner import Record
from swarm_deploy.demo.watch import Seat, Watch

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


def kill(watch: Watch, *, uid: str, timeout: float = 5.0) -> Victim | None:
    """Kills a busy compute agent by SIGKILL; None when none was busy within the time."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        seat = pick(watch.sample().seats, time.monotonic())
        victim = _shoot(seat, uid) if seat is not None else None
        if victim is not None:
            return victim
        time.sleep(0.002)
    return None


def _shoot(seat: Seat, uid: str) -> Victim | None:
    member = seat.member
    try:
        handle = os.pidfd_open(member.pid)
    except OSError:
        return None
    try:
        if not verified(member.pid, uid=uid, pod=member.name):
            return None
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return None
    finally:
        os.close(handle)
    return Victim(seat.node, member.name, member.index, member.epoch, member.pid, time.monotonic())


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
