"""Watching the other members of the board, so that the death of a whole pod is seen by its siblings.

Three witnesses, the surest first:

process    a process of this machine that is visible here is watched by a pidfd, which the kernel makes readable the
           moment it ends: declared dead within a millisecond;
lock       pods of Kubernetes have PID namespaces of their own, but every member holds a lock on its byte of the board's
           file, and the kernel lets go of it when the process ends: asked for at every look;
heartbeat  a process that lives and does nothing: silent for `suspect_after` it is suspected, for `dead_after` declared.

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

from swarm_agents.config import Failover, Role

if TYPE_CHECKING:
    from swarm_agents.shm.board import MemberInfo

__all__ = ["Verdict", "Watch", "judge"]

Key = tuple[int, int]
_AGENTS = frozenset(map(str, Role))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a member: `dead`, or only suspected. `silent` is the seconds without a sign of life."""

    dead: bool
    silent: float


def judge(silent: float, failover: Failover) -> Verdict | None:
    """The verdict on a member that has been silent for so long; None when nothing is wrong with it."""
    if silent >= failover.dead_after:
        return Verdict(True, silent)
    if silent >= failover.suspect_after:
        return Verdict(False, silent)
    return None


@dataclass(slots=True)
class _Watched:
    info: MemberInfo
    silent: float = 0.0
    suspected: bool = False
    pidfd: int | None = None


class Watch:
    """Looks after all agents of a board, in the supervisor's loop.

    `dead(info, witness, silent)` is called once for each that has died.
    """

    def __init__(
        self, log: Any, failover: Callable[[], Failover], dead: Callable[[MemberInfo, str, float], None]
    ) -> None:
        self._log = log
        self._failover = failover
        self._dead = dead
        self._members: dict[Key, _Watched] = {}

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
            calm: until then nobody had been silent for `suspect_after`, which is why nobody was looked at.
        """
        before = self._failover().suspect_after if calm else 0.0
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
            watched.silent = min(info.heartbeat_age, max(watched.silent, before) + gap)
            verdict = judge(watched.silent, self._failover())
            if verdict is None:
                watched.suspected = False
            elif verdict.dead:
                self._died(key, "heartbeat", verdict.silent)
            elif not watched.suspected:
                watched.suspected = True
                self._log.warning("suspected", member=info.name, member_epoch=info.epoch, silent=verdict.silent)
        for key in self._members.keys() - seen:
            self._forget(key)

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
