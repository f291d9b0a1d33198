"""Looks at the running swarm through its boards: who is there, what waits, what was lost, taken over or done twice.

The demo runs on the machine whose simulated nodes hold the boards, so it reads them itself and asks nobody: the figures
are the data plane's own, and reading them costs it nothing. Times are CLOCK_MONOTONIC, the same for all processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swarm_agents.config import Role

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board, BoardStats, MemberInfo
    from swarm_agents.shm.stats import FailoverRecord

__all__ = ["Audit", "Sample", "Seat", "Watch"]


@dataclass(frozen=True)
class Seat:
    """A member and the node that it is on."""

    node: str
    member: MemberInfo

    @property
    def computes(self) -> bool:
        """Whether it may run kernels."""
        return self.member.role in (Role.COMPUTE, Role.STANDBY)


@dataclass(frozen=True)
class Sample:
    """The swarm at one moment."""

    at: float
    seats: tuple[Seat, ...]
    #: Tasks that wait, by priority, over all nodes.
    ready: dict[str, int]
    claimed: int
    failovers: int

    @property
    def agents(self) -> list[Seat]:
        """Living agents, without clients."""
        return [s for s in self.seats if s.member.alive and s.member.role != "client"]

    @property
    def computing(self) -> list[Seat]:
        """Living compute and standby agents."""
        return [s for s in self.agents if s.computes]

    @property
    def busy_cores(self) -> float:
        """Cores that the agents use, as they say themselves."""
        return sum(s.member.cpu for s in self.agents)


@dataclass(frozen=True)
class Audit:
    """What became of the tasks, counted by the boards between two moments when nothing was underway."""

    submitted: int = 0
    committed: int = 0
    lost: int = 0
    retried: int = 0
    #: Late commits of agents that had been declared dead, refused.
    fenced: int = 0

    @property
    def twice(self) -> int:
        """Commits beyond one a task."""
        return max(0, self.committed - self.submitted)


@dataclass
class Watch:
    """Reads the boards of a swarm, one a node. Attaching takes no place on them."""

    directories: Mapping[str, Path]
    _boards: dict[str, Board] = field(default_factory=dict)

    def sample(self) -> Sample:
        """The swarm now. A node without a board yet is left out."""
        seats: list[Seat] = []
        ready: dict[str, int] = {}
        claimed = failovers = 0
        for node, board in self._attached():
            seats += [Seat(node, member) for member in board.members()]
            stats = board.stats()
            for lane, states in stats.depth.items():
                ready[lane] = ready.get(lane, 0) + states["ready"]
                claimed += states["claimed"]
            failovers += len(stats.failovers)
        return Sample(time.monotonic(), tuple(seats), ready, claimed, failovers)

    def stats(self) -> dict[str, BoardStats]:
        """Each node's own statistics."""
        return {node: board.stats() for node, board in self._attached()}

    def failovers(self, after: float) -> list[tuple[str, FailoverRecord]]:
        """Deaths that were noticed after a moment, with their node."""
        found = [(node, record) for node, stats in self.stats().items() for record in stats.failovers]
        return sorted((pair for pair in found if pair[1].detected >= after), key=lambda pair: pair[1].detected)

    def audit(self, since: Mapping[str, BoardStats]) -> Audit:
        """What was counted since an earlier `stats`."""
        sums: dict[str, int] = {}
        for node, stats in self.stats().items():
            before = since[node].totals if node in since else {}
            for name, value in stats.totals.items():
                sums[name] = sums.get(name, 0) + value - before.get(name, 0)
        return Audit(sums["submitted"], sums["committed"], sums["lost"], sums["retried"], sums["fenced"])

    def _attached(self) -> list[tuple[str, Board]]:
        from swarm_agents.errors import SwarmError
        from swarm_agents.shm.board import Board

        for node, directory in self.directories.items():
            if node not in self._boards:
                try:
                    self._boards[node] = Board.attach(directory)
                except (SwarmError, FileNotFoundError):
                    continue
        return list(self._boards.items())
