"""A simulated process of a pod, or a client's."""

from __future__ import annotations

from typing import Any

from simulation.world import Process, S, World
from swarm_agents.config import Failover

__all__ = ["SimProcess"]


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
