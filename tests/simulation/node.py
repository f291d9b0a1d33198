"""A node: its board, pods with a supervisor and an agent each, and clients. All that they do is the product's code.

An agent's loop here does what `swarm_agents.compute.agent` does, an event at a time; a supervisor runs the product's
own `runtime.guard.Guard`. What is modelled: that a child's end is told to its supervisor, that a supervisor forks
anew, that a kubelet starts a pod again.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from simulation.ledger import SOON, TIDIED, WOKEN, Ledger, Task
from simulation.system import Slept, System, run_coroutine
from simulation.world import MS, US, Parked, Process, S, World
from swarm_agents.config import Failover, Priority, Role, Settings
from swarm_agents.errors import Fenced, StaleReference, SwarmError, SwarmFull, TaskCancelled
from swarm_agents.runtime.guard import Guard
from swarm_agents.shm import sweep, tasks
from swarm_agents.shm.layout import (
    EPOCH_MASK,
    H_LANE_SLOTS,
    H_MEMBERS_AT,
    H_PORT_STRIDE,
    H_PORTS_AT,
    H_STATES_AT,
    LANES,
    M_ALIVE,
    MEMBER_STRIDE,
    P_PARKED,
    Geometry,
)

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, Claim, Member, Port, Worker

__all__ = ["Agent", "Client", "Node", "Pod"]

GEOMETRY = Geometry(task_slots=256, arena_bytes=96 << 10, max_members=16)
_LANES = tuple(Priority)
_LOOK = 50 * MS
#: How often a result is tried to be committed while the arena is full, before its task is answered with SwarmFull.
_PATIENCE = 60


class Node:
    """Everything on one machine."""

    def __init__(
        self, system: System, world: World, name: str, failover: Failover, *, geometry: Geometry = GEOMETRY
    ) -> None:
        self.system = system
        self.world = world
        self.name = name
        self.failover = failover
        self.settings = Settings(swarm="sim", namespace="sim", uid="simulated", failover=failover)
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

    def is_fenced(self, member: Member) -> bool:
        return self.word_of(member.index) != (M_ALIVE, member.epoch)

    def declaring(self, index: int, epoch: int, quietly: bool) -> None:
        """Somebody is about to declare a living member dead."""
        place = self.places.get(index)
        if place is not None and place.member is not None and place.member.epoch == epoch:
            fault, since = place.process.fault(self.failover)
            self.ledger.declared((index, epoch), place.name, fault, since, quietly)
            if isinstance(place, Client):
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


class Pod:
    """A supervisor and its agent."""

    def __init__(self, node: Node, name: str, role: Role) -> None:
        self.node = node
        self.name = name
        self.role = role
        self.agent: Agent | None = None
        self.active = role is not Role.STANDBY
        self.closed = False
        node.pods.append(self)
        self.start()

    def start(self) -> None:
        """As a kubelet does."""
        node = self.node
        process = self.process = SimProcess(node.world, f"{self.name}/sup", self)
        process.on_death.append(self._lost)
        self.board = node.open()
        self.settings = node.settings
        self.identity = SimpleNamespace(pod=self.name, role=self.role, node=node.name)
        self.stopping = False
        self.active = self.role is not Role.STANDBY
        self.log = _Silent()
        self.events = SimpleNamespace(record=lambda name, **fields: node.world.say(process, name, **_plain(fields)))
        self.exported = _Silent()
        self.declared_at = 0
        run_coroutine(process, Guard(self).run())  # type: ignore[arg-type]
        process.after(node.world.rng.randrange(5 * MS), self.fork)

    def __getattr__(self, name: str) -> Any:
        # What the guard tells its supervisor and the simulation does not need.
        if name.startswith("_"):
            raise AttributeError(name)
        return _Silent()

    def _lost(self) -> None:
        """The supervisor has died, and its container with it."""
        if self.agent is not None:
            self.agent.process.kill()
        if not self.closed:
            world = self.node.world
            world.outside.after(world.rng.randrange(200 * MS, 900 * MS), self.start)

    def fork(self) -> None:
        agent = self.agent = Agent(self.node, self)
        agent.process.on_death.append(lambda: self.process.after(self.node.world.rng.randrange(MS), self.reap, agent))

    def reap(self, agent: Agent) -> None:
        """SIGCHLD."""
        if agent.member is not None:
            self.board.declare_dead(agent.member.index, agent.member.epoch)
        if agent is self.agent:
            self.agent = None
            if not self.closed:
                self.process.after(self.node.world.rng.randrange(5 * MS, 30 * MS), self.fork)

    # -- what the guard asks of its supervisor

    def activate(self, active: bool) -> None:
        if active != self.active:
            self.active = active
            self.node.world.say(self.process, "activates" if active else "deactivates")
            if self.agent is not None:
                self.agent.stirred()

    def declared(self, *args: Any) -> None:
        pass


class SimProcess(Process):
    """A process of a pod, or a client's."""

    def __init__(self, world: World, name: str, owner: Any) -> None:
        super().__init__(world, name)
        self.owner = owner

    def fault(self, failover: Failover) -> tuple[str, int]:
        """What is wrong with it (`none`, `killed`, `stopped`), and for how long it has run undisturbed."""
        now = self.world.now
        if not self.alive:
            return "killed", 0
        since = now - max(self.resumed_at, self.began)
        if self.stopped or self in self.world.within or since < int(failover.suspect_after * S):
            return "stopped", since
        return "none", since


class Agent:
    """A compute agent or standby."""

    def __init__(self, node: Node, pod: Pod) -> None:
        self.node = node
        self.pod = pod
        self.name = pod.name
        self.process = SimProcess(node.world, pod.name, self)
        self.pid = self.process.pid
        self.board = node.open()
        self.member: Member | None = None
        self.worker: Worker | None = None
        self.claim: tuple[Claim, Task] | None = None
        self.idle_since = 0
        self.fenced = False
        #: So long it will hang (ns) when it has its next task in hand.
        self.hang_next = 0
        self._parked = False
        self._round = 0
        self._tries = 0
        #: It is in the midst of the call that ends its claim.
        self._settling = False
        self.process.on_death.append(self._died)
        self.process.on_resume = self._resumed
        self.process.after(node.world.rng.randrange(100 * US, 3 * MS), self.join)

    # as the supervisor's guard sees it
    @property
    def index(self) -> int:
        return self.member.index if self.member is not None else -1

    @property
    def epoch(self) -> int:
        return self.member.epoch if self.member is not None else 0

    def has(self, task: Task) -> bool:
        return self.process.alive and not self._settling and self.claim is not None and self.claim[1] is task

    def is_fenced(self) -> bool:
        return self.member is None or self.node.is_fenced(self.member)

    def idle_for(self, now: int) -> int:
        """For how long it has looked for work in vain (ns)."""
        process = self.process
        if not (process.alive and self.idle_since) or process.stopped or self.fenced or not self.pod.active:
            return 0
        if self.is_fenced():
            return 0
        return now - max(self.idle_since, process.resumed_at)

    def _died(self) -> None:
        self.node.ledger.dirty = True
        if self.member is not None:
            self.member.process = -1
            self.node.ledger.faults += 1
            if not self.is_fenced():
                self.expect_declared(1300 * MS)

    def _resumed(self) -> None:
        if self.member is not None:
            self.node.ledger.due.pop((self.member.index, self.member.epoch), None)

    def expect_declared(self, within: int) -> None:
        """It is dead, or stopped for long: somebody must say so."""
        assert self.member is not None
        now = self.node.world.now
        self.node.ledger.due.setdefault((self.member.index, self.member.epoch), (now, now + within))

    def join(self) -> None:
        self.fenced = False
        try:
            self.member = self.board.join(self.name, str(self.pod.role))
        except SwarmError:
            self.process.after(50 * MS, self.join)
            return
        self.node.places[self.member.index] = self
        self.worker = self.board.worker(self.member)
        self.node.world.say(self.process, "joins", place=self.member.index, epoch=self.member.epoch)
        self._round += 1
        self.beat(self._round)
        self.look(self._round)

    def beat(self, round_: int) -> None:
        """The thread that gives the sign of life."""
        if round_ != self._round or self.member is None:
            return
        try:
            self.board.heartbeat(self.member)
        except Fenced:
            self._fence()
            return
        pause = int(self.node.failover.heartbeat_interval * S)
        self.process.after(pause + self.node.world.rng.randrange(pause // 4 + 1), self.beat, round_)

    def _fence(self) -> None:
        """It has been told that it was declared dead: what it has in hand is void, and it joins anew."""
        if not self.fenced:
            self.fenced = True
            self.idle_since = 0
            self.node.world.say(self.process, "is fenced")
            if self.claim is None:
                self.process.after(100 * US, self.join)

    def stirred(self) -> None:
        if self.claim is None and self.member is not None and not self._parked:
            self.process.after(10 * US, self.look, self._round)

    def look(self, round_: int) -> None:
        """Claims, or sleeps until there is something."""
        world = self.node.world
        if round_ != self._round or self.fenced or self.claim is not None:
            return
        if not self.pod.active:
            self.idle_since = 0
            self.process.after(_LOOK, self.look, round_)
            return
        assert self.worker is not None
        before = self.is_fenced(), world.cuts
        was_parked, self._parked = self._parked, False
        if not self.idle_since:
            self.idle_since = world.now
        self.process.begins("claim")
        try:
            claim = self.worker.claim(0.05)
        except Parked:
            self._parked = True
            world.sleep_on(self.process, lambda: self.look(round_))
            return
        except Fenced:
            self._fence()
            return
        if claim is None:
            self.process.after(US, self.look, round_)
            return
        if was_parked:
            assert self.member is not None
            sweep.unpark(self.board.mapping.base, self.member.index)
        self.idle_since = 0
        if self.hang_next:
            self.process.after(US, self.process.stop_for, self.hang_next)
            self.hang_next = 0
        stands = int(self.node.states[claim.slot]) == claim._mine
        task = self.node.ledger.begins(self, claim, before, stands)
        self.claim = (claim, task)
        world.say(self.process, "begins", task=task.token, attempt=claim.attempt, lane=task.lane)
        if task.kind == "poison":
            self.process.after(min(task.nanos, MS), self.process.kill)
        elif task.kind == "back" and task.begun == 1:
            self.process.after(task.nanos // 2, self.hand_back)
        else:
            self.process.after(task.nanos, self.finish)

    def hand_back(self) -> None:
        assert self.claim is not None
        assert self.worker is not None
        claim, task = self.claim
        begun = self.node.world.rng.random() < 0.5
        self.process.begins("commit")
        task.handed_back += begun
        self._settling = True
        self.worker.hand_back(claim, begun=begun)
        self.node.world.say(self.process, "hands back", task=task.token, begun=begun)
        self._ended(50 * MS)

    def finish(self) -> None:
        """Computes the value and commits it."""
        assert self.claim is not None
        assert self.worker is not None
        assert self.member is not None
        claim, task = self.claim
        node = self.node
        self._settling = True
        fenced = self.is_fenced()
        mine = int(node.states[claim.slot]) == claim._mine
        self.process.begins("commit")
        try:
            if self._tries >= _PATIENCE:
                done = self.worker.fail(claim, SwarmFull("no room for the result"), "")
            elif task.kind == "fail":
                done = self.worker.fail(claim, ValueError("as it should"), "")
            elif claim.cancelled() and task.kind == "long":
                done = self.worker.fail(claim, TaskCancelled("it was cancelled"), "")
            else:
                value: Any = None
                if task.kind == "array":
                    value = self.worker.array(task.size, np.uint8, timeout=0.0)
                    value[:] = task.token & 0xFF
                elif task.kind == "big":
                    value = np.full(task.size, task.token & 0xFF, np.uint8)
                done = self.worker.commit(claim, (task.token, value))
        except Slept as slept:
            self._try_again(int(slept.seconds * S))
            return
        except (SwarmFull, StaleReference) as error:
            node.world.say(self.process, "finds no room", task=task.token, error=type(error).__name__)
            self._try_again(5 * MS)
            return
        except Fenced:
            done = False
        node.world.say(self.process, "commits" if done else "is refused", task=task.token)
        if done:
            node.ledger.committed(self, task, mine, fenced)
            node.world.outside.after(WOKEN + MS, node.check_rung, task)
        else:
            node.ledger.count("refused")
        self._ended(0)

    def _try_again(self, pause: int) -> None:
        self._tries += 1
        self._settling = False
        self.process.after(pause, self.finish)

    def _ended(self, pause: int) -> None:
        self.claim = None
        self._settling = False
        self._tries = 0
        if self.fenced:
            self.process.after(100 * US, self.join)
        else:
            self.process.after(pause + self.node.world.rng.randrange(US, 20 * US), self.look, self._round)

    def leave(self) -> None:
        """In order: what is in hand is handed back."""
        self._round += 1
        if self.member is not None and not self.is_fenced():
            self.board.leave(self.member)
            self.member.process = -1
        self.member = None


class Client:
    """Submits tasks, takes answers."""

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
        self._waits_since = 0
        self.process.after(MS, self.join)

    def submit(self, task: Task) -> None:
        world = self.node.world
        if self.port is None:
            self.process.after(5 * MS, self.submit, task)
            return
        self.node.ledger.tasks[task.token] = task
        self.process.begins("submit")
        cuts = world.cuts
        deadline = None
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
        if round_ != self._round or self.port is None:
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
        if self.member is not None and not self.is_fenced():
            self.node.ledger.abandoned(self)
            self.board.leave(self.member)
        self.member = self.port = None


class _Silent:
    """Takes whatever is said to it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return self


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("level", None)
    return fields


__all__ += ["tasks"]
