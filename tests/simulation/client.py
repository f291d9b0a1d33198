"""A client on the node: submits tasks to the board, takes answers."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from simulation.ledger import WOKEN, Task
from simulation.process import SimProcess
from simulation.world import MS, US, Parked, S
from swarm_agents.config import Priority
from swarm_agents.errors import Fenced, StaleReference, SwarmError, SwarmFull
from swarm_agents.shm.layout import H_PORT_STRIDE, H_PORTS_AT, P_PARKED

if TYPE_CHECKING:
    from simulation.node import Node
    from swarm_agents.shm.board import Member, Port

__all__ = ["Client"]

_LANES = tuple(Priority)


class Client:
    """Submits tasks, takes answers."""

    submits = True

    def __init__(self, node: Node, name: str, wishes: list[tuple[int, Task]], role: str = "client") -> None:
        self.node = node
        self.name = name
        self.role = role
        self.process = SimProcess(node.world, name, self)
        self.board = node.open()
        self.member: Member | None = None
        self.port: Port | None = None
        self.wishes = len(wishes)
        self.refused = 0
        self._waits_since = 0
        self._round = 0
        self._waiting = False
        node.clients.append(self)
        self.process.on_death.append(self._died)
        self.process.after(0, self.join)
        for when, task in wishes:
            self.process.after(when, self.submit, task)

    def is_fenced(self) -> bool:
        return self.member is None or self.node.is_fenced(self.member)

    def waits_for(self, slot: int, word: int) -> bool:
        port = self.port
        if port is None or self.is_fenced():
            return False
        ticket = port._outstanding.get(slot)
        return ticket is not None and ticket.gen == (word >> 42) & ((1 << 22) - 1)

    def idle_for(self, now: int) -> int:
        process = self.process
        if not process.alive or process.stopped or not self._waits_since:
            return 0
        return now - max(self._waits_since, process.resumed_at)

    def _died(self) -> None:
        if self.member is not None:
            self.member.process = -1
        self.node.ledger.faults += 1
        self.node.ledger.dirty = True
        self.node.ledger.abandoned(self)

    def join(self) -> None:
        try:
            self.member = self.board.join(self.name, self.role)
            self.port = self.board.port(self.member)
        except SwarmError:
            self.process.after(30 * MS, self.join)
            return
        self.node.places[self.member.index] = self
        self._round += 1
        if self.role != "client":
            self.beat(self._round)

    def beat(self, round_: int) -> None:
        if round_ != self._round or self.member is None:
            return
        try:
            self.board.heartbeat(self.member)
        except Fenced:
            self._fenced()
            return
        self.process.after(int(self.node.failover.heartbeat_interval * S), self.beat, round_)

    def _fenced(self) -> None:
        """Its tasks are dropped; it knows, and joins anew."""
        self.node.world.say(self.process, "is fenced")
        self.node.ledger.abandoned(self)
        self.port = None
        self._round += 1
        self._waiting = False
        self._waits_since = 0
        self.process.after(MS, self.join)

    def submit(self, task: Task) -> None:
        world = self.node.world
        if self.port is None:
            self.process.after(5 * MS, self.submit, task)
            return
        self.node.ledger.expects(task)
        if self.node.contract is not None:
            self.node.contract.tasks[self.process.pid, task.token] = task
        self.process.begins("submit")
        cuts = world.cuts
        deadline = None
        clock = self.process.skew, self.node.skew
        if task.deadline:
            deadline = self.node.system.time.time() + (task.deadline - world.now) * 1e-9
        try:
            buffer: Any = None
            if task.size and task.kind == "array":
                buffer = self.port.array(task.size, np.uint8, timeout=0.0)
                buffer[:] = task.token & 0xFF
            elif task.size:
                buffer = np.full(task.size, task.token & 0xFF, np.uint8)
            ticket = self.port.submit(
                "sim.work",
                (task.token, task.kind, buffer),
                priority=_LANES[task.lane],
                task_id=(self.process.pid, task.token),
                deadline=deadline,
            )
        except SwarmFull:
            self.refused += 1
            self.node.ledger.count("full")
            self.process.after(world.rng.randrange(2 * MS, 20 * MS), self.submit, task)
            return
        except (Fenced, StaleReference):
            self.process.after(5 * MS, self.submit, task)
            return
        self.wishes -= 1
        task.vague = clock != (self.process.skew, self.node.skew)
        self.node.ledger.accepted(self, task, ticket, whole=cuts == world.cuts)
        world.say(self.process, "submits", task=task.token, lane=task.lane, kind=task.kind)
        world.outside.after(WOKEN + MS, self.node.check_woken, task)
        if not self._waiting:
            self._waiting = True
            self.process.after(2 * US, self.poll, self._round)

    def cancel(self, task: Task) -> None:
        if self.port is None or task.ticket is None or task.owner is not self or task.answers:
            return
        task.unwanted = True
        if self.port.cancel(task.ticket):
            task.cancelled = True
            self.node.ledger.ready[task.lane].pop(task.token, None)
            self.node.world.say(self.process, "cancels", task=task.token)

    def poll(self, round_: int) -> None:
        world = self.node.world
        self._waits_since = 0
        if round_ != self._round:
            return  # of a membership that is over
        if self.port is None:
            self._waiting = False
            return
        self.process.begins("poll")
        try:
            answers = self.port.poll()
        except Fenced:
            self._waiting = False
            self._fenced()
            return
        for answer in answers:
            world.say(self.process, "is answered", task=answer.ticket.task_id[1], error=type(answer.error).__name__)
            self.node.ledger.answered(self, answer)
        if self.is_fenced() and self.role != "client":
            self._waiting = False
            self._fenced()
            return
        if not self.port.pending:
            self._waiting = False
            return
        try:
            self.port.wait(0.05)
        except Parked:
            self._waits_since = world.now
            world.sleep_on(self.process, lambda: self._woken(round_))
            return
        except Fenced:
            self._waiting = False
            self._fenced()
            return
        self.process.after(US, self.poll, round_)

    def _woken(self, round_: int) -> None:
        if self.port is not None:
            words = self.board.words
            at = words[H_PORTS_AT] + self.port._number * words[H_PORT_STRIDE] + P_PARKED
            struct.pack_into("<q", self.board.mapping.view, at, 0)
        self.poll(round_)

    def leave(self) -> None:
        self._round += 1
        self._waiting = False
        if self.member is not None and not self.is_fenced():
            self.node.ledger.abandoned(self)
            self.board.leave(self.member)
        self.member = self.port = None
