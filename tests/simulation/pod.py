"""A pod: a supervisor, which runs the product's own `runtime.guard.Guard`, and the agent that it forks anew."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from simulation.agent import Agent
from simulation.process import SimProcess
from simulation.system import run_coroutine
from simulation.world import MS
from swarm_agents.config import Role
from swarm_agents.runtime.guard import Guard

if TYPE_CHECKING:
    from simulation.node import Node

__all__ = ["Pod", "Silent"]


class Pod:
    """A supervisor and its agent."""

    def __init__(self, node: Node, name: str, role: Role, make: Callable[[Node, Pod], Agent] = Agent) -> None:
        self.node = node
        self.name = name
        self.role = role
        self.agent: Agent | None = None
        self._make = make
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
        self.log = Silent()
        self.events = SimpleNamespace(record=lambda name, **fields: node.world.say(process, name, **_plain(fields)))
        self.exported = Silent()
        self.declared_at = 0
        run_coroutine(process, Guard(self).run())  # type: ignore[arg-type]
        process.after(node.world.rng.randrange(5 * MS), self.fork)

    def __getattr__(self, name: str) -> Any:
        # What the guard tells its supervisor and the simulation does not need.
        if name.startswith("_"):
            raise AttributeError(name)
        return Silent()

    def _lost(self) -> None:
        """The supervisor has died, and its container with it."""
        if self.agent is not None:
            self.agent.process.kill()
        if not self.closed:
            world = self.node.world
            world.outside.after(world.rng.randrange(200 * MS, 900 * MS), self.start)

    def fork(self) -> None:
        agent = self.agent = self._make(self.node, self)
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


class Silent:
    """Takes whatever is said to it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return self


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    fields.pop("level", None)
    return fields
