"""Watching the other members of the board, so that the death of a whole pod is seen by its siblings.

Three witnesses, the surest first:

process    a process of this machine that is visible here is watched by a pidfd, which the kernel makes readable the
           moment it ends: declared dead within a millisecond;
lock       pods of Kubernetes have PID namespaces of their own, but every member holds a lock on its byte of the board's
           file, and the kernel lets go of it when the process ends: asked for at every look;
heartbeat  a process that lives and does nothing: from some silence on it is suspected, and a second witness is asked
           (see `witness`). How long a silence that is follows the node's jitter (see `accrual`).

Invariants: a pid is believed only after the process's environment has shown that it is that agent (pids are reused, and
mean something else in another namespace). Silence counts only while this process itself was awake: after a pause of the
whole machine all heartbeats look old, and nobody is dead. Clients give no heartbeat; the board reaps those whose
process is gone. `judge` is pure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Role
from swarm_agents.runtime.accrual import Limits
from swarm_agents.runtime.witness import Opinion

if TYPE_CHECKING:
    from swarm_agents.shm.board import MemberInfo

__all__ = ["PATIENCE", "Verdict", "Watch", "judge"]

Key = tuple[int, int]
_AGENTS = frozenset(map(str, Role))
#: So many times as long as any other may an agent be silent that is seen to wait for a core.
PATIENCE = 4.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a member: `dead`, or only suspected. `silent` is the seconds without a sign of life."""

    dead: bool
    silent: float
    opinion: Opinion = Opinion.NONE


def judge(silent: float, limits: Limits, opinion: Opinion = Opinion.NONE) -> Verdict | None:
    """The verdict on a member that has been silent for so long; None when nothing is wrong with it."""
    if silent < limits.suspect:
        return None
    enough = {
        Opinion.STOPPED: limits.suspect,
        Opinion.DYING: limits.suspect,
        Opinion.CONFIRMED: limits.confirmed,
        Opinion.STARVED: limits.dead * PATIENCE,
        Opinion.NONE: limits.dead,
    }
    return Verdict(silent >= enough[opinion], silent, opinion)


@dataclass(slots=True)
class _Watched:
    info: MemberInfo
    silent: float = 0.0
    suspected: bool = False
    pidfd: int | None = None


class Watch:
    """Looks after all agents of a board, in the supervisor's loop.

    Args:
        limits: the thresholds of the moment.
        dead: `dead(info, witness, silent)` is called once for each that has died.
        ask: the second witness, asked about each suspect at each look: `ask(info, seen)`; `seen` says whether its
            process is visible here.
        heard: `heard(info, silent)` is called when a suspect shows life again, after so much silence.
    """

    def __init__(
        self,
        log: Any,
        limits: Callable[[], Limits],
        dead: Callable[[MemberInfo, str, float], None],
        *,
        ask: Callable[[MemberInfo, bool], Opinion] = lambda info, seen: Opinion.NONE,
        heard: Callable[[MemberInfo, float], None] = lambda info, silent: None,
    ) -> None:
        self._log = log
        self._limits = limits
        self._dead = dead
        self._ask = ask
        self._heard = heard
        self._members: dict[Key, _Watched] = {}
        #: How often somebody was suspected, and how often that was taken back.
        self.suspicions = self.withdrawn = 0

    @property
    def unseen(self) -> list[int]:
        """The places of those whose process is not visible here: their lock has to be asked for."""
        return [watched.info.index for watched in self._members.values() if watched.pidfd is None]

    @property
    def uneasy(self) -> bool:
        """Whether somebody is suspected."""
        return any(watched.suspected for watched in self._members.values())

    def look(self, infos: Iterable[MemberInfo], gap: float, *, calm: bool = False) -> None:
        """Judges the members by what the board says now.

        Args:
            gap: seconds that this process was awake since it last looked.
            calm: until then nobody had been silent for long enough to be suspected, so nobody was looked at.
        """
        limits = self._limits()
        before = limits.suspect if calm else 0.0
        seen: set[Key] = set()
        for info in infos:
            if not info.alive or info.role not in _AGENTS:
                continue
            key = (info.index, info.epoch)
            seen.add(key)
            watched = self._members.get(key)
            if watched is None:
                watched = self._members[key] = _Watched(info)
                self._open(watched)
            was = watched.silent
            watched.silent = min(info.heartbeat_age, max(was, before) + gap)
            self._judge(key, watched, info, was, limits)
        for key in self._members.keys() - seen:
            self._forget(key)

    def _judge(self, key: Key, watched: _Watched, info: MemberInfo, was: float, limits: Limits) -> None:
        verdict = judge(watched.silent, limits)
        if verdict is None:
            if watched.suspected:
                watched.suspected = False
                self.withdrawn += 1
                self._log.info("heard again", member=info.name, member_epoch=info.epoch, silent=round(was, 4))
                self._heard(info, was)
            return
        if not watched.suspected:
            watched.suspected = True
            self.suspicions += 1
            self._log.warning("suspected", member=info.name, member_epoch=info.epoch, silent=round(verdict.silent, 4))
        verdict = judge(watched.silent, limits, self._ask(info, watched.pidfd is not None))
        if verdict is not None and verdict.dead:
            known = verdict.opinion in (Opinion.STOPPED, Opinion.DYING, Opinion.CONFIRMED)
            self._died(key, str(verdict.opinion.value) if known else "heartbeat", verdict.silent)

    def released(self, index: int) -> None:
        """The lock of the member in this place is gone."""
        for key, watched in list(self._members.items()):
            if watched.info.index == index:
                self._died(key, "lock", 0.0)

    def proven(self, info: MemberInfo) -> bool:
        """Whether the end of this member's process will be seen directly."""
        watched = self._members.get((info.index, info.epoch))
        return watched is not None and watched.pidfd is not None

    def close(self) -> None:
        for key in list(self._members):
            self._forget(key)

    def _open(self, watched: _Watched) -> None:
        info = watched.info
        watched.pidfd = _prove(info.pid, info.name)
        if watched.pidfd is not None:
            key = (info.index, info.epoch)
            asyncio.get_running_loop().add_reader(watched.pidfd, self._died, key, "process", 0.0)

    def _died(self, key: Key, witness: str, silent: float) -> None:
        watched = self._forget(key)
        if watched is not None:
            self._dead(watched.info, witness, silent)

    def _forget(self, key: Key) -> _Watched | None:
        watched = self._members.pop(key, None)
        if watched is not None and watched.pidfd is not None:
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)
        return watched


def _prove(pid: int, name: str) -> int | None:
    """A pidfd of the agent `name`, if the process `pid` that is seen here is it."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if f"POD_NAME={name}".encode() in environ.read().split(b"\0"):
                return pidfd
    except OSError:
        pass
    os.close(pidfd)
    return None
