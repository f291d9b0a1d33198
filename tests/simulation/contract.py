"""What was promised to clients over all nodes: each task taken on is settled once, in time, with its own value.

A node's ledger knows what happens on one board; here is what a client sees, wherever its task was computed and however
often it was sent there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation.ledger import Task, is_filled

if TYPE_CHECKING:
    from simulation.world import World

__all__ = ["Contract"]

#: Clocks are read in floating-point seconds (ns).
_ROUNDING = 2_000


class Contract:
    """See the module's text."""

    def __init__(self, world: World, max_attempts: int) -> None:
        self.world = world
        self.max_attempts = max_attempts
        #: By its id in the swarm.
        self.tasks: dict[tuple[int, int], Task] = {}
        self.open: set[Task] = set()
        self.counts: dict[str, int] = {}
        #: How often a task's agent died, was stopped or fenced over it, anywhere; by token.
        self.begun: dict[int, int] = {}

    def count(self, what: str, amount: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + amount

    def taken(self, client: Any, task_id: tuple[int, int], task: Task) -> None:
        """`Swarm.submit` is about to be called."""
        self.tasks[task_id] = task
        task.owner, task.accepted = client, self.world.now

    def accepted(self, task: Task) -> None:
        """It has returned a future."""
        self.count("accepted off the node")
        if not task.answers:
            self.open.add(task)

    def settled(self, task: Task, future: Any) -> None:
        """The future is done."""
        world, token = self.world, task.token
        task.answers += 1
        self.open.discard(task)
        if task.answers > 1:
            world.broken(f"doubled: the future of task {token} has been settled twice")
        if future.cancelled():
            self.count("cancelled off the node")
            return
        error = future.exception(0)
        if error is None:
            value = future.result(0)
            if value[0] != token or not is_filled(value[1], token, task.size if task.kind in ("big", "array") else 0):
                world.broken(f"torn value: task {token} was answered with that of task {value[0]}")
            self.count("answered off the node")
            return
        name = type(error).__name__
        self.count(f"{name} off the node")
        if name == "DeadlineExceeded":
            if not task.deadline or world.now < task.deadline - _ROUNDING:
                world.broken(f"task {token} was answered as too late before its deadline")
        elif name == "TaskLost":
            if task.begun_anywhere < self.max_attempts:
                world.broken(f"task {token} was given up after {task.begun_anywhere} of {self.max_attempts} attempts")
        elif not (name == "KernelError" and task.kind == "fail") and name != "SwarmFull":
            world.broken(f"task {token} was answered with {name}: {error}")
