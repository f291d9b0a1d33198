"""A node: its board, pods with a supervisor and an agent each, and clients. All that they do is the product's code.

What is modelled: that a child's end is told to its supervisor, that a supervisor forks anew, that a kubelet starts a
pod again (`pod`); the loops of agents (`agent`) and clients (`client`), an event at a time; of a hub only that its
process lives, dies and is stopped (`hub_agent`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulation.ledger import SOON, TIDIED, WOKEN, Ledger, Task
from simulation.system import System
from simulation.world import MS, Process, S, World
from swarm_agents.config import Failover, Settings
from swarm_agents.shm.layout import (
    EPOCH_MASK,
    H_LANE_SLOTS,
    H_MEMBERS_AT,
    H_PAGE_BYTES,
    H_PAGE_TAGS_AT,
    H_PAGES_AT,
    H_STATES_AT,
    LANES,
    M_ALIVE,
    MEMBER_STRIDE,
    TAG_GEN_AT,
    TAG_GEN_MASK,
    Geometry,
)

if TYPE_CHECKING:
    from simulation.agent import Agent
    from simulation.client import Client
    from simulation.contract import Contract
    from simulation.fabric import Fabric
    from simulation.pod import Pod
    from swarm_agents.shm.board import Board, Member

__all__ = ["Node"]

GEOMETRY = Geometry(task_slots=256, arena_bytes=96 << 10, max_members=16)


class Node:
    """Everything on one machine."""

    def __init__(
        self,
        system: System,
        world: World,
        name: str,
        failover: Failover,
        *,
        geometry: Geometry = GEOMETRY,
        settings: Settings | None = None,
    ) -> None:
        self.system = system
        self.world = world
        self.name = name
        #: With other nodes: the network, and what is promised over all of them.
        self.fabric: Fabric | None = None
        self.contract: Contract | None = None
        #: By how much the machine's wall clock is wrong (seconds).
        self.skew = 0.0
        #: The machine is lost for good.
        self.gone = False
        self.failover = failover
        self.settings = settings or Settings(swarm="sim", namespace="sim", uid="simulated", failover=failover)
        self.directory = Path("/sim") / name
        self.open = system.board(self.directory, geometry)
        self.ledger = Ledger(world, failover.max_attempts)
        self.pods: list[Pod] = []
        self.clients: list[Client] = []
        #: By place: who has it or had it last.
        self.places: dict[int, Any] = {}
        #: One who is always there, and does nothing: the board stays.
        self.anchor = Process(world, f"{name}-anchor")
        self.eye: Board = self.open()
        system.nodes[self.eye.mapping.base] = self
        self.world.step(self.anchor, self._begin)
        #: READY and DONE slots as they were first seen so.
        self._seen: dict[int, tuple[int, int]] = {}
        self.world.outside.after(50 * MS, self.audit)

    def _begin(self) -> None:
        self.eye.max_attempts = self.failover.max_attempts
        self.anchored = self.eye.join(f"{self.name}-anchor", "client")
        words, base = self.eye.words, self.eye.mapping
        count = LANES * words[H_LANE_SLOTS]
        self.states = np.frombuffer(base.view, np.int64, count, words[H_STATES_AT])

    def word_of(self, index: int) -> tuple[int, int]:
        """A member's state and epoch."""
        at = self.eye.words[H_MEMBERS_AT] + index * MEMBER_STRIDE
        word = struct.unpack_from("<q", self.eye.mapping.view, at)[0]
        return word & 7, (word >> 6) & EPOCH_MASK

    def lent_as(self, array: Any) -> int:
        """The generation of the page that an array of the arena begins in: another one is lent to somebody else."""
        words = self.eye.words
        page = (array.ctypes.data - self.eye.mapping.base - words[H_PAGES_AT]) // words[H_PAGE_BYTES]
        tag = struct.unpack_from("<q", self.eye.mapping.view, words[H_PAGE_TAGS_AT] + page * 8)[0]
        return int(tag >> TAG_GEN_AT & TAG_GEN_MASK)

    def is_fenced(self, member: Member) -> bool:
        return self.word_of(member.index) != (M_ALIVE, member.epoch)

    def declaring(self, index: int, epoch: int, quietly: bool) -> None:
        """Somebody is about to declare a living member dead."""
        place = self.places.get(index)
        if place is not None and place.member is not None and place.member.epoch == epoch:
            fault, since = place.process.fault(self.failover)
            self.ledger.declared((index, epoch), place.name, fault, since, quietly)
            if place.submits:
                self.ledger.abandoned(place)  # its tasks are dropped with it
                self.ledger.dirty = True
        else:
            self.ledger.declared((index, epoch), "?", "gone", 0, True)

    # -- the auditor

    def guarded_since(self, since: int) -> bool:
        """Whether a supervisor has been there and awake all the time."""
        return any(
            pod.process.alive and not pod.process.stopped and max(pod.process.began, pod.process.resumed_at) < since
            for pod in self.pods
        )

    def audit(self) -> None:
        """Looks from outside whether anything lies for longer than was promised."""
        world, ledger, now = self.world, self.ledger, self.world.now
        world.outside.after(50 * MS, self.audit)
        for key, (since, due) in list(ledger.due.items()):
            if now > due:
                if self.guarded_since(since):
                    world.broken(f"the death of member {key} {(now - since) / MS:.0f} ms ago has not been seen")
                ledger.due[key] = (since, now + 2 * S)
        if world.within:
            self._seen.clear()
            return
        disturbed = now - ledger.last_kill < TIDIED + int(self.failover.dead_after * S) + S
        kinds = self.states & 7
        seen: dict[int, tuple[int, int]] = {}
        for slot in np.flatnonzero((kinds == 2) | (kinds == 4)).tolist():
            word = int(self.states[slot])
            known = self._seen.get(slot)
            since = known[1] if known is not None and known[0] == word else now
            seen[slot] = (word, since)
        self._seen = seen
        if disturbed:
            return
        for slot, (word, since) in seen.items():
            if now - since < SOON:
                continue
            if word & 7 == 2:
                for agent in self.agents():
                    if agent.idle_for(now) > SOON:
                        world.broken(
                            f"slot {slot} has been ready for {(now - since) / MS:.0f} ms, and {agent.name} idle"
                        )
            else:
                for client in self.clients:
                    if client.waits_for(slot, word) and client.idle_for(now) > SOON:
                        world.broken(
                            f"slot {slot} has been answered for {(now - since) / MS:.0f} ms; {client.name} waits"
                        )

    def agents(self) -> list[Agent]:
        return [pod.agent for pod in self.pods if pod.agent is not None]

    def check_woken(self, task: Task) -> None:
        """A task was accepted, and nothing has gone wrong so far: then who is parked is woken."""
        if self.ledger.faults or task.begun or task.answers or task.cancelled or task.void:
            return
        idle = [agent for agent in self.agents() if agent.idle_for(self.world.now) > WOKEN]
        if idle and (not task.deadline or task.deadline > self.world.now):
            self.world.broken(
                f"task {task.token} was not begun within {WOKEN / MS:.0f} ms although {idle[0].name} slept"
            )

    def check_rung(self, task: Task) -> None:
        """A task was answered, and nothing has gone wrong so far: then its client has been woken."""
        client = task.owner
        if self.ledger.faults or task.answers or task.void:
            return
        if client.idle_for(self.world.now) > WOKEN:
            self.world.broken(f"the answer to task {task.token} did not wake {client.name} within {WOKEN / MS:.0f} ms")

    # -- the end

    def close(self) -> None:
        """All agents and clients leave; nothing may be left. To be called when everybody is well."""
        for client in self.clients:
            if client.process.alive:
                self.world.step(client.process, client.leave)
        for agent in self.agents():
            if agent.process.alive:
                self.world.step(agent.process, agent.leave)
