"""What was promised for each task, and whether it is kept: the checker.

It knows the truth that no process knows: who really lives, when each call began and ended, what each task's arguments
and value are. Each rule is a promise of the product to its users; a rule that does not hold ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.world import MS, S
from swarm_agents.errors import SwarmError
from swarm_agents.shm.layout import GEN_MASK

if TYPE_CHECKING:
    from simulation.node import Agent, Client
    from simulation.world import World

__all__ = ["Ledger", "Task", "is_filled"]

#: An idle agent finds a task, and a submitter its answer, within this (ns)…
SOON = 130 * MS
#: …or, after somebody was killed in the midst of a call, when the board has been tidied twice.
TIDIED = 2 * S + 300 * MS
#: Deadlines are told in floating-point seconds of the wall clock (ns).
ROUNDING = 2_000
#: Who sleeps on a futex is up within this when it is woken (ns).
WOKEN = 3 * MS


@dataclass(eq=False, slots=True)
class Task:
    """A task that a client wants done."""

    token: int
    lane: int
    kind: str
    #: Bytes of a buffer among its arguments, and of its value's.
    size: int
    nanos: int
    #: CLOCK_MONOTONIC ns, 0: none.
    deadline: int
    #: The clock was set while it was submitted: it has a deadline, and nobody can say when.
    vague: bool = False
    owner: Any = None
    ticket: Any = None
    accepted: int = 0
    #: It was asked to be given up; and that was said to be done.
    unwanted: bool = False
    cancelled: bool = False
    answers: int = 0
    #: Its submitter has died, or was fenced: nobody waits for it.
    void: bool = False
    begun: int = 0
    committed: int = 0
    #: The task as its submitter, on another board or off the node, knows it; there it is counted how often it was
    #: begun anywhere.
    origin: Any = None
    begun_anywhere: int = 0
    #: Who has it in hand, by this ledger.
    holders: list[Any] = field(default_factory=list)


class Ledger:
    """See the module's text."""

    def __init__(self, world: World, max_attempts: int) -> None:
        self.world = world
        self.max_attempts = max_attempts
        #: By slot and generation; and by token those whose submission has not returned.
        self.tasks: dict[tuple[int, int], Task] = {}
        self._coming: dict[int, Task] = {}
        #: By lane: what is surely to be seen by whoever claims.
        self.ready: tuple[dict[int, Task], ...] = ({}, {}, {}, {})
        self.open: set[Task] = set()
        self.fenced: dict[tuple[int, int], int] = {}
        #: Deaths of agents: (place, epoch) to when it died or was stopped, and by when it must have been declared.
        self.due: dict[tuple[int, int], tuple[int, int]] = {}
        self.detected: list[tuple[str, int]] = []
        #: Calls that were cut short: a claim may have counted and never have returned.
        self.hides = 0
        self.last_kill = -(1 << 62)
        #: Something has happened that a swarm without faults does not see.
        self.faults = 0
        #: Somebody has died, or was stopped in the midst of a call: what it held is for the sweeps to free.
        self.dirty = False
        self.counts: dict[str, int] = {}

    def count(self, what: str, amount: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + amount

    def swept(self, blocks: int) -> None:
        """A sweep has freed blocks: those of the dead and of nobody else."""
        if blocks and not self.dirty:
            self.world.broken(f"leak: a sweep had to free {blocks} blocks, and nobody has died")

    # -- the life of a task

    def expects(self, task: Task) -> None:
        """A task is about to be submitted."""
        self._coming[task.token] = task

    def accepted(self, client: Any, task: Task, ticket: Any, *, whole: bool) -> None:
        """A submission has returned; `whole`: nobody was cut short meanwhile, so nobody has seen the task yet."""
        self._coming.pop(task.token, None)
        self.tasks[ticket.slot, ticket.gen] = task
        task.ticket, task.owner, task.accepted = ticket, client, self.world.now
        self.count("accepted")
        if client.is_fenced():  # it slept over the call, and was declared dead: nobody waits for this any more
            task.void = True
            return
        self.open.add(task)
        if whole:
            self.ready[task.lane][task.token] = task

    def hidden(self, *, killed: bool) -> None:
        """Somebody was stopped in the midst of a call: until it goes on, or the board is tidied, hints may be wrong."""
        for lane in self.ready:
            lane.clear()
        self.faults += 1
        self.hides += 1
        self.dirty = True
        if killed:
            self.last_kill = self.world.now

    def begins(self, agent: Agent, claim: Any, before: tuple[bool, int], stands: bool, *, first: int = 0) -> Task:
        """An agent has claimed a task.

        Args:
            first: no lane before this one was to be looked at.
            before: whether it was fenced, and the world's cuts, when the call began.
            stands: whether the board says that it has the task now. Else it was stopped in the midst of the call for so
                long that it was declared dead meanwhile: what it does with the task must have no effect.
        """
        world = self.world
        fenced, cuts = before
        token = claim.task_id[1]
        task = self.tasks.get((claim.slot, (claim._mine >> 42) & GEN_MASK)) or self._coming.get(token)
        if task is None or task.token != token:
            world.broken(f"{agent.name} claimed a task that nobody has submitted: {claim.task_id}")
        assert task is not None
        if task.origin is not None:
            task.origin.begun_anywhere += 1
        if not stands and cuts != world.cuts:
            task.begun += 1
            return task
        if not stands:
            world.broken(f"{agent.name} was given task {token}, and the board does not say so")
        self.ready[task.lane].pop(token, None)
        if fenced:
            world.broken(f"claim under an old epoch: {agent.name} was declared dead before it claimed task {token}")
        args = self._arguments(agent, claim, cuts)
        if args is None:
            task.begun += 1
            return task
        if args[0] != token or args[1] != task.kind or not is_filled(args[2], token, task.size):
            world.broken(f"torn arguments: task {token} was claimed with those of task {args[0]}")
        if claim.priority.lane != task.lane:
            world.broken(f"task {token} of lane {task.lane} was claimed from lane {claim.priority.lane}")
        if task.answers and not task.void:
            world.broken(f"task {token} is begun again by {agent.name} after it was answered")
        if task.cancelled:
            world.broken(f"task {token} is begun by {agent.name} after it was said to be cancelled")
        if task.deadline and not task.vague and claim.claimed_ns > task.deadline + ROUNDING:
            world.broken(f"task {token} is begun {(claim.claimed_ns - task.deadline) / MS:.1f} ms after its deadline")
        if claim.attempt > self.max_attempts:
            world.broken(f"task {token} is begun for the {claim.attempt}th time; {self.max_attempts} are allowed")
        for holder in task.holders:
            if holder.has(task) and not holder.is_fenced():
                world.broken(f"task {token} is claimed by {agent.name} while {holder.name}, which lives, has it")
        if cuts == world.cuts:
            for lane in range(first, task.lane):
                for other in self.ready[lane].values():
                    if not other.deadline or other.deadline > world.now:
                        world.broken(
                            f"priority: {agent.name} claimed task {token} of lane {task.lane} while task "
                            f"{other.token} of lane {lane} was ready"
                        )
        task.begun += 1
        task.holders.append(agent)
        self.count("begun")
        if claim.attempt > 1:
            self.count("retried")
        return task

    def _arguments(self, agent: Agent, claim: Any, cuts: int) -> tuple[Any, ...] | None:
        """A claim's arguments; None when the agent was stopped over them, and the claim is not its own any more."""
        try:
            args = claim.args
        except (SwarmError, ValueError) as error:
            args, torn = (), error
        else:
            torn = None
        if int(agent.node.states[claim.slot]) != claim._mine and cuts != self.world.cuts:
            return None
        if torn is not None:
            self.world.broken(f"the arguments of task {claim.task_id[1]} can't be read by {agent.name}: {torn!r}")
        return tuple(args)

    def committed(self, agent: Agent, task: Task, mine: bool, fenced: bool) -> None:
        """A commit counted; `mine` and `fenced`: whether the claim stood, and its epoch was over, at the beginning."""
        if not mine:
            self.world.broken(f"{agent.name} committed task {task.token}, which was not its own any more")
        if fenced:
            self.world.broken(f"commit under an old epoch: {agent.name}, declared dead before, answered {task.token}")
        task.committed += 1
        self.count("committed")

    def answered(self, client: Client, answer: Any) -> None:
        world, error = self.world, answer.error
        task = self._answered(client, answer.ticket)
        token = task.token
        if error is None:
            value = answer.value
            if value[0] != token or not is_filled(value[1], token, task.size if task.kind in ("big", "array") else 0):
                world.broken(f"torn value: task {token} was answered with that of task {value[0]}")
            if task.cancelled:
                world.broken(f"task {token} was said to be cancelled, and was answered with a value")
            self.count("answered")
            return
        self._excused(task, error)

    def taken(self, hub: Any, ticket: Any, error: BaseException | None) -> None:
        """A hub has taken an answer off the board, to send it to where the task came from."""
        task = self._answered(hub, ticket)
        self.count("passed on")
        if error is not None:
            self._excused(task, error)

    def _answered(self, owner: Any, ticket: Any) -> Task:
        task, world = self.tasks[ticket.slot, ticket.gen], self.world
        token = task.token
        if task.owner is not owner or task.ticket is not ticket:
            world.broken(f"{owner.name} got an answer to task {token}, which is not its own")
        task.answers += 1
        if task.answers > 1:
            world.broken(f"doubled: task {token} has been answered twice")
        self.open.discard(task)
        self.ready[task.lane].pop(token, None)
        return task

    def _excused(self, task: Task, error: BaseException) -> None:
        """A task was answered with an error: there must be a reason."""
        world, token, name = self.world, task.token, type(error).__name__
        self.count(name)
        if task.void:
            return  # its submitter was declared dead, and takes what it finds before it has noticed
        if name == "TaskLost":
            if task.begun + self.hides < self.max_attempts:
                world.broken(f"task {token} was given up after {task.begun} of {self.max_attempts} attempts")
        elif name == "DeadlineExceeded":
            if not task.deadline or (world.now < task.deadline - ROUNDING and not task.vague):
                world.broken(f"task {token} was answered as too late before its deadline")
        elif name == "TaskCancelled":
            if not task.unwanted:
                world.broken(f"task {token} was answered as cancelled, and nobody had cancelled it")
        elif not (name == "KernelError" and task.kind == "fail") and name != "SwarmFull":
            world.broken(f"task {token} was answered with {name}: {error}")

    def abandoned(self, client: Any) -> None:
        """A client is gone: nobody waits for its tasks."""
        for task in [task for task in self.open if task.owner is client]:
            task.void = True
            self.open.discard(task)
            self.ready[task.lane].pop(task.token, None)

    # -- deaths

    def declared(self, key: tuple[int, int], name: str, fault: str, since: int, quietly: bool) -> None:
        """A member's epoch is over."""
        self.fenced[key] = self.world.now
        due = self.due.pop(key, None)
        if quietly:
            return
        self.faults += 1
        if due is not None:
            self.detected.append((fault, self.world.now - due[0]))
        elif fault == "none":
            self.world.broken(f"false death: {name} was declared dead and has been running for {since / MS:.0f} ms")


def is_filled(value: Any, token: int, size: int) -> bool:
    """Whether a buffer is what the task of this token should have there."""
    if not size:
        return value is None
    return len(value) == size and bool((value == token & 0xFF).all())
