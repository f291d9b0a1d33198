"""Watching the other members of the board, so that the death of a whole pod is seen by its siblings.

Two witnesses. A process of this machine that is visible here is watched by a pidfd, which the kernel makes readable
the moment it ends: that is proof, and the death is declared at once. Without that (pods of Kubernetes have PID
namespaces of their own) the heartbeat decides: silent for `suspect_after` an agent is suspected, for `dead_after`
declared dead.

Invariants: a pid is believed only after the process's environment has shown that it is that agent (pids are reused, and
mean something else in another namespace). Silence counts only while this process itself was awake: after a pause of the
whole machine all heartbeats look old, and nobody is dead. `judge` is pure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Failover

if TYPE_CHECKING:
    from swarm_agents.shm.board import MemberInfo

__all__ = ["Verdict", "Watch", "judge"]

Key = tuple[int, int]


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
    silent: float = 0.0
    suspected: bool = False
    pidfd: int | None = None


class Watch:
    """Looks after all members but those named in `own`, in the supervisor's loop."""

    def __init__(
        self,
        log: Any,
        failover: Callable[[], Failover],
        dead: Callable[[MemberInfo, str, float], None],
    ) -> None:
        self._log = log
        self._failover = failover
        self._dead = dead
        self._members: dict[Key, _Watched] = {}

    def look(self, infos: Iterable[MemberInfo], gap: float) -> None:
        """Judges the members by what the board says now; `gap` is the seconds since this was last done."""
        seen: set[Key] = set()
        for info in infos:
            key = (info.index, info.epoch)
            seen.add(key)
            watched = self._members.get(key)
            if watched is None:
                watched = self._members[key] = _Watched()
                self._open(info, watched)
            watched.silent = min(info.heartbeat_age, watched.silent + gap)
            verdict = judge(watched.silent, self._failover())
            if verdict is None:
                watched.suspected = False
            elif verdict.dead:
                self._forget(key)
                self._dead(info, "heartbeat", verdict.silent)
            elif not watched.suspected:
                watched.suspected = True
                self._log.warning("suspected", member=info.name, member_epoch=info.epoch, silent=verdict.silent)
        for key in self._members.keys() - seen:
            self._forget(key)

    def proven(self, info: MemberInfo) -> bool:
        """Whether the end of this member's process will be seen directly."""
        watched = self._members.get((info.index, info.epoch))
        return watched is not None and watched.pidfd is not None

    def close(self) -> None:
        for key in list(self._members):
            self._forget(key)

    def _open(self, info: MemberInfo, watched: _Watched) -> None:
        pidfd = _prove(info.pid, info.name)
        if pidfd is None:
            return
        watched.pidfd = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, info)

    def _ended(self, info: MemberInfo) -> None:
        self._forget((info.index, info.epoch))
        self._dead(info, "process", 0.0)

    def _forget(self, key: Key) -> None:
        watched = self._members.pop(key, None)
        if watched is not None and watched.pidfd is not None:
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)


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
