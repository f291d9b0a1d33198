"""A node's resource agent: the product's own `resource.hub.Hub` on its `Desk`, with all threads that these have.

What is modelled is the agent around them (`resource.agent`): a heartbeat, and that a hub which was declared dead is
closed and opened anew under its next epoch. Sensors, REST, encryption and mirrored checkpoints are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.agent import Agent
from simulation.fibers import Fiber
from simulation.ledger import Task
from simulation.network import SimNetwork
from simulation.recorded import RecordedBoard
from simulation.world import MS, US
from swarm_agents.errors import Fenced, SwarmError
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.hub import Hub
from swarm_agents.wire.keys import Keys

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.pod import Pod

__all__ = ["HubAgent"]


class HubAgent(Agent):
    """See the module's text."""

    submits = True

    def __init__(self, node: Node, pod: Pod) -> None:
        self.hub: Hub | None = None
        self.port: Any = None
        #: What it has claimed to have it computed elsewhere.
        self.held: dict[Any, Task] = {}
        self.settling: set[Task] = set()
        super().__init__(node, pod)

    # -- as the auditor sees it

    def has(self, task: Task) -> bool:
        return self.process.alive and task not in self.settling and any(held is task for held in self.held.values())

    def idle_for(self, now: int) -> int:
        return 0  # it need not take anything

    def stirred(self) -> None:
        pass

    def check_once(self, origin: Task) -> None:
        """A task is about to be put on the board: no other is there under its id, but one that was given up."""
        for task in self.node.ledger.open:
            if task.origin is origin and task.owner is self and not task.unwanted:
                self.node.world.broken(f"doubled: {self.name} puts task {origin.token} on its board twice")

    # -- its life

    def join(self) -> None:
        self.fenced = False
        try:
            self.member = self.board.join(self.name, str(self.pod.role))
        except SwarmError:
            self.process.after(50 * MS, self.join)
            return
        self.node.places[self.member.index] = self
        self.node.world.say(self.process, "joins", place=self.member.index, epoch=self.member.epoch)
        self._round += 1
        self.beat(self._round)
        Fiber(self.process, self._open, self._round, name="main").start(self.node.world.rng.randrange(MS))

    def _fence(self) -> None:
        if not self.fenced:
            self.fenced = True
            self.node.world.say(self.process, "is fenced")
            Fiber(self.process, self._open_again, name="main").start(100 * US)

    def _open(self, round_: int) -> None:
        node, system = self.node, self.node.system
        assert node.fabric is not None
        if self.member is None or round_ != self._round:  # it has left meanwhile
            return
        self.held = {}
        network = SimNetwork(node.fabric, self.process, node.name, system.time.monotonic)
        hub = Hub(
            Desk(RecordedBoard(self), self.member),  # type: ignore[arg-type]
            node.settings,
            Keys(),
            node=node.name,
            name=self.name,
            host=f"{node.name}.",
            log=Log(lambda what, **fields: node.world.say(self.process, what, **fields)),
            rng=random.Random(node.world.rng.getrandbits(32)),
            network=network,  # type: ignore[arg-type]
        )
        hub.reactor.on_error = self._wrong
        self.hub = hub
        hub.start()

    def _wrong(self, error: Exception) -> None:
        """A handler of the hub has raised: that is not supposed to happen, but to one that was declared dead."""
        if isinstance(error, Fenced) and self.is_fenced():
            return
        if self.node.world.error is None:
            self.node.world.error = error

    def _shut(self) -> None:
        hub, self.hub = self.hub, None
        if hub is not None:
            hub.shut()
        self.held = {}

    def _open_again(self) -> None:
        self._shut()
        self.process.after(100 * US, self.join)

    def leave(self) -> None:
        """In order, as at the end of a run."""
        self._round += 1
        Fiber(self.process, self._leave, name="main").start()

    def _leave(self) -> None:
        self._shut()
        if self.member is not None and not self.is_fenced():
            self.node.ledger.abandoned(self)
            self.board.leave(self.member)
            self.member.process = -1
        self.member = None


class Log:
    """A structlog logger that says everything in the trace."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say

    def _line(self, event: str, *, exc_info: object = None, **fields: object) -> None:
        self._say(event, **fields)

    debug = info = warning = error = exception = _line
