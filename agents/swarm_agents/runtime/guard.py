"""Guarding the node's board from a supervisor: who has died is declared dead, and what the killed left is tidied.

Each supervisor guards, so that no single one is needed: declaring is idempotent, and the board knows who was first.
What it costs is a glance in compiled code; the members are read only when that says that something is not as it was.

Invariants: only a member that is alive on the board is declared dead, so an agent that left in order is never mourned;
an agent of this pod that was fenced and does not join again is killed: it hangs, or computes what nobody will take. A
board that somebody has cut short ends the pod, for a reason that can be read, before the kernel does by SIGBUS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from swarm_agents.config import Role
from swarm_agents.errors import BoardMismatch
from swarm_agents.runtime.accrual import Accrual, Limits
from swarm_agents.runtime.standby import wanted
from swarm_agents.runtime.store import Janitor
from swarm_agents.runtime.watch import Watch
from swarm_agents.runtime.witness import Opinion, Witness, opinion_of, read_threads
from swarm_agents.shm import files
from swarm_agents.shm.vigil import glance
from swarm_agents.shm.witness import longest_pause

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor
    from swarm_agents.shm.board import MemberInfo

__all__ = ["Guard"]

#: How long after a death its stages are counted: by then its tasks run again, or there is nobody to run them.
_FOLLOW_UP = 1.0
#: How often the board is tidied: clients who are gone, deadlines, hints that the killed have left (seconds).
_TIDY_INTERVAL = 1.0
_SHORTEST_PAUSE = 0.005


class Guard:
    """Looks after the board on behalf of one supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.accrual = Accrual()
        self._witness = Witness(lambda: supervisor.board, self._place)
        self.watch = Watch(supervisor.log, self.limits, self._died, ask=self._ask, heard=self._heard)
        self._janitor = Janitor(supervisor.board)
        self._members: list[MemberInfo] = []
        #: When the pod's own agent was first seen to be fenced (monotonic seconds), and under which epoch.
        self._fenced: tuple[float, int] | None = None

    def limits(self) -> Limits:
        """From which silence on somebody is suspected or dead, now."""
        return self.accrual.limits(self._supervisor.settings.failover)

    def _place(self) -> int:
        agent = self._supervisor.agent
        return agent.index if agent is not None else -1

    def _ask(self, info: MemberInfo, seen: bool) -> Opinion:
        return self._witness.ask(info, seen, 2 * self._supervisor.settings.failover.suspect_after)

    def _heard(self, info: MemberInfo, silent: float) -> None:
        self._witness.heard(info)
        self.accrual.learn(silent, 0.0)

    async def run(self) -> None:
        """Glances at the board at each heartbeat, until cancelled."""
        supervisor = self._supervisor
        last = tidied = time.monotonic()
        sign, calm = 0, False
        try:
            while True:
                failover, limits = supervisor.settings.failover, self.limits()
                pause = max(failover.heartbeat_interval, _SHORTEST_PAUSE)
                if not (self.watch.unseen or self.watch.uneasy):
                    # The end of every process will be told; what is left to look for is agents that hang.
                    pause = max(pause, limits.suspect / 4)
                await asyncio.sleep(pause)
                now = time.monotonic()
                supervisor.board.refuse_cut()
                # A gap much longer than what was asked for: this process was not awake to see any heartbeat.
                gap, last, late = min(now - last, 5 * pause), now, now - last - pause
                tidy = now - tidied >= _TIDY_INTERVAL
                base, suspicious = supervisor.board.mapping.base, int(limits.suspect * 1e9)
                seen, silent = glance(base, suspicious)
                if not self.watch.uneasy:
                    # A suspect's silence is learned when it ends: else one that hangs would make itself believed.
                    self.accrual.learn(max(longest_pause(base, suspicious) * 1e-9, late, 0.0), gap)
                calm_before, calm = calm, not (seen != sign or silent or tidy or self.watch.uneasy)
                if not calm:
                    self._look(gap, calm_before)
                    sign = seen
                self._ask_for_locks()
                self._look_at_own(now)
                if tidy:
                    tidied = now
                    self._tidy()
        except BoardMismatch as error:
            supervisor.board_lost(error)
        finally:
            self.watch.close()

    def _look(self, gap: float, calm: bool) -> None:
        self._members = self._supervisor.board.members()
        self.watch.look(self._members, gap, calm=calm)
        self._fill_places()

    def _tidy(self) -> None:
        supervisor = self._supervisor
        for info in supervisor.board.reap():
            supervisor.events.record("MemberReaped", member=info.name, role=info.role, member_epoch=info.epoch)
        supervisor.board.sweep()
        self._janitor.tidy((info.index, info.epoch) for info in supervisor.board.members() if info.alive)

    def _fill_places(self) -> None:
        """Has a standby take part when a compute agent's place is empty, and step back when it is filled again."""
        if self._supervisor.identity.role is Role.STANDBY:
            self._supervisor.activate(wanted(self._members, self._supervisor.identity.pod))

    def _ask_for_locks(self) -> None:
        places = self.watch.unseen
        if not places:
            return
        try:
            with files.probe(self._supervisor.board.directory) as descriptor:
                free = [index for index in places if not files.is_alive(descriptor, index)]
        except OSError:
            return  # the board has been removed: everybody has left
        for index in free:
            self.watch.released(index)

    def _look_at_own(self, now: float) -> None:
        supervisor, agent = self._supervisor, self._supervisor.agent
        if agent is None or agent.index < 0 or supervisor.stopping:
            return
        if _is_on(self._members, agent.index, agent.epoch):
            self._fenced = None
            return
        if self._fenced is None or self._fenced[1] != agent.epoch:
            self._fenced = now, agent.epoch
            supervisor.events.record(
                "Fenced", level="warning", member=supervisor.identity.pod, member_epoch=agent.epoch
            )
        waited = now - self._fenced[0]
        if opinion_of({}, read_threads(agent.pid)) is Opinion.STOPPED:
            why = "fenced, and stopped"
        elif waited > supervisor.settings.failover.dead_after:
            why = "fenced, and did not join again"
        else:
            return
        self._fenced = now, agent.epoch
        supervisor.events.record("AgentKilled", level="warning", agent_pid=agent.pid, reason=why)
        os.kill(agent.pid, signal.SIGKILL)

    def _died(self, info: MemberInfo, witness: str, silent: float) -> None:
        supervisor, agent = self._supervisor, self._supervisor.agent
        try:
            supervisor.board.refuse_cut()  # who has died may have died of it
        except BoardMismatch as error:
            supervisor.board_lost(error)
            return
        own = agent is not None and (info.index, info.epoch) == (agent.index, agent.epoch)
        if own and witness in ("process", "lock"):
            return  # SIGCHLD says the same, and knows how it ended
        if _is_on(supervisor.board.members(), info.index, info.epoch):
            began = time.monotonic()
            supervisor.note_death(info.index, info.epoch, witness)
            tasks = supervisor.board.declare_dead(info.index, info.epoch)
            supervisor.exported.fenced(witness)
            self.follow_up(info.index, info.epoch, began)
            supervisor.events.record(
                "AgentHung" if own else "SiblingDeclaredDead",
                level="warning",
                member=info.name,
                member_epoch=info.epoch,
                witness=witness,
                silent=round(silent, 4),
                tasks=tasks,
            )
            if own and agent is not None:
                supervisor.declared(agent, began)
                os.kill(agent.pid, signal.SIGKILL)
        # Else it has left in order, or another supervisor was faster; a standby has to know in any case.
        self._members = supervisor.board.members()
        self._fill_places()

    def follow_up(self, index: int, epoch: int, since: float) -> None:
        """Counts and records a failover's stages when they are over, if it was this pod that declared the death."""
        supervisor = self._supervisor
        name = supervisor.board.member_name(index)  # the place may have another in a second

        def count() -> None:
            for record in supervisor.board.stats().failovers:
                if (record.index, record.epoch) != (index, epoch) or record.detected < since - 1e-3:
                    continue
                stages: dict[str, Any] = {
                    "detect": record.detected - record.last_heartbeat,
                    "claim": record.requeued - record.detected,
                }
                if record.resumed is not None:
                    stages["resume"] = record.resumed - record.detected
                for stage, seconds in stages.items():
                    supervisor.exported.failover(stage, seconds)
                supervisor.events.record(
                    "FailedOver",
                    member=name,
                    member_epoch=epoch,
                    tasks=record.tasks,
                    **{stage: round(max(seconds, 0.0), 6) for stage, seconds in stages.items()},
                )

        asyncio.get_running_loop().call_later(_FOLLOW_UP, count)


def _is_on(members: list[MemberInfo], index: int, epoch: int) -> bool:
    return any((info.index, info.epoch, info.alive) == (index, epoch, True) for info in members)
