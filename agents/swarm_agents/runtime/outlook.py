"""Watches what `prospects` reckons with, on behalf of one supervisor: memory, deaths, heartbeats, once in two seconds.

`GET /v1/status` says the forecast, and an event `FailurePredicted` is recorded when it passes what the least certain
Swarm would act upon; what is done about it is the operator's (`failover.prediction`). What the node's resource agent
foresees of the agent comes to it as well (see `foreseen`), and the graver of the two is the figure. It costs four small
files and a look at the board; nothing is read of a container's memory where there is none of its own: outside of one
(an embedded cluster's agents, where the supervisor is not the first process) the limit that the kernel shows is
somebody else's.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_agents import cgroups
from swarm_agents.errors import BoardMismatch
from swarm_agents.runtime.foreseen import read_foreseen
from swarm_agents.runtime.prospects import Forecast, Prospects

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["LIKELY", "Outlook", "read_memory"]

_INTERVAL = 2.0
#: The probability from which on it is told, the least that `failover.prediction.threshold` may be; it is told again
#: after it was half of that.
LIKELY = 0.5


def read_memory(root: Path = Path("/")) -> tuple[float, float] | None:
    """Bytes that the container's cgroup uses and can't give back, and its limit; None where there is none."""
    tightest = cgroups.tightest_memory(root)
    return None if tightest is None else (tightest.working, tightest.limit)


class Outlook:
    """What is to be expected of one pod's agent."""

    def __init__(self, supervisor: Supervisor, root: Path = Path("/"), contained: bool | None = None) -> None:
        self._supervisor, self._root = supervisor, root
        self._contained = os.getpid() == 1 if contained is None else contained
        self._prospects = Prospects()
        self._deaths = 0
        self._told = False
        self.forecast = Forecast()

    async def run(self) -> None:
        """Looks, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        """One look, at a moment in monotonic seconds."""
        supervisor, prospects = self._supervisor, self._prospects
        for _ in range(supervisor.restarts.total - self._deaths):
            prospects.died(now)
        self._deaths = supervisor.restarts.total
        memory = read_memory(self._root) if self._contained else None
        if memory is not None:
            prospects.memory(now, *memory)
        age = self._silent()
        if age is not None:
            prospects.silence(age)
        self.forecast = self._graver(now, prospects.forecast(now, supervisor.settings.failover.dead_after))
        if self.forecast.probability < LIKELY / 2:
            self._told = False
        elif self.forecast.probability >= LIKELY and not self._told:
            self._told = True
            supervisor.events.record("FailurePredicted", level="warning", **self._words())

    def report(self) -> dict[str, Any]:
        """The part of `GET /v1/status` that tells of it."""
        return {"failing": {"probability": self.forecast.probability, "reasons": [*self.forecast.reasons]}}

    def _graver(self, now: float, own: Forecast) -> Forecast:
        """The graver of the supervisor's own forecast and of what the node's resource agent foresees (`foreseen`).

        They see some of the same signs, so the two are not held for independent.
        """
        agent, board = self._supervisor.agent, self._supervisor.board
        if agent is None:
            return own
        seen = read_foreseen(board.directory, now, agent.index, agent.epoch)
        if seen is None or seen.probability <= own.probability:
            return own
        return Forecast(seen.probability, (*seen.reasons, *own.reasons))

    def _words(self) -> dict[str, Any]:
        return {"probability": self.forecast.probability, "why": "; ".join(self.forecast.reasons)}

    def _silent(self) -> float | None:
        """How long ago the agent's last heartbeat was (seconds); None while there is none."""
        agent, board = self._supervisor.agent, self._supervisor.board
        if agent is None or not agent.ready.is_set():
            return None
        try:
            board.refuse_cut()
        except BoardMismatch:
            return None  # the guard ends the pod for it
        for info in board.members():
            if (info.index, info.epoch) == (agent.index, agent.epoch):
                return info.heartbeat_age
        return None
