"""A compute agent or standby: its loop does what `swarm_agents.compute.agent` does, an event at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simulation.ledger import WOKEN, Task
from simulation.process import SimProcess
from simulation.system import Slept
from simulation.world import MS, US, Parked, S
from swarm_agents.errors import Fenced, StaleReference, SwarmError, SwarmFull, TaskCancelled
from swarm_agents.shm import sweep

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.pod import Pod
    from swarm_agents.shm.board import Claim, Member, Worker

__all__ = ["Agent"]

_LOOK = 50 * MS
#: How often a result is tried to be committed while the arena is full, before its task is answered with SwarmFull.
_PATIENCE = 60


class Agent:
    """A compute agent or standby."""

    #: Whether it puts tasks on the board, which are dropped when it is declared dead.
    submits = False

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
        #: Room for its result, which it writes to when it is done.
        self._lent: Any = None
        #: The generation of the page that it begins in, when it was lent.
        self._lent_as = 0
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
        if task.kind == "array":
            self._borrow(task)
        world.say(self.process, "begins", task=task.token, attempt=claim.attempt, lane=task.lane)
        if task.kind == "poison":
            self.process.after(min(task.nanos, MS), self.process.kill)
        elif task.kind == "back" and task.begun == 1:
            self.process.after(task.nanos // 2, self.hand_back)
        else:
            self.process.after(task.nanos, self.finish)

    def _borrow(self, task: Task) -> None:
        """Takes room for a result when the task begins: what is stopped, and declared dead, may write to it later."""
        assert self.worker is not None
        try:
            self._lent = self.worker.array(task.size, np.uint8, timeout=0.0)
            self._lent_as = self.node.lent_as(self._lent)
        except (Slept, SwarmFull, Fenced):
            self._lent = None

    def hand_back(self) -> None:
        assert self.claim is not None
        assert self.worker is not None
        claim, task = self.claim
        begun = self.node.world.rng.random() < 0.5
        self.process.begins("commit")
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
                    value = self.worker.array(task.size, np.uint8, timeout=0.0) if self._lent is None else self._lent
                    if value.flags.writeable:  # else a commit was tried before, and found no room
                        if value is self._lent and node.lent_as(value) != self._lent_as:
                            node.world.broken(f"{self.name} writes to memory that was lent to it and now is another's")
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
        self.claim = self._lent = None
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
