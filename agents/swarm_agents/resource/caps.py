"""Keeps the node below the spec's caps of power and heat, by letting its agents work less of their time.

Each look at the sensors; `capping` decides, `shm.pace` tells the agents, and the hubs of other nodes see the node's
work take longer. That a cap holds the work back, and that it does no more, are events with the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric

from swarm_agents.resource.capping import Capping
from swarm_agents.resource.exported import ACTION
from swarm_agents.shm.pace import set_pace

if TYPE_CHECKING:
    from swarm_agents.config import Sensing
    from swarm_agents.shm.board import Board

__all__ = ["Caps"]

#: Seconds that what is told to agents holds, unless it is told again.
_HOLDS = 3.0


class Caps:
    """A looker of the resource agent; see the module's text. `sensing` is asked at each look: the caps are live."""

    def __init__(
        self, board: Board, sensing: Callable[[], Sensing], tell: Callable[..., None] = lambda event, **fields: None
    ) -> None:
        self.capping = Capping()
        self._board, self._sensing, self._tell = board, sensing, tell
        self._capped = False
        self._missing: tuple[str, ...] = ()

    def look(self, now: float, readings: Mapping[str, Any]) -> None:
        """Takes what the sensors say now (monotonic seconds)."""
        sensing, capping = self._sensing(), self.capping
        values: dict[str, float] = {}
        for reading in readings.values():
            values |= reading.values
        watts, celsius = values.get("power_watts"), values.get("temperature_celsius")
        if not capping.look(now, watts, celsius, sensing.power_cap, sensing.heat_cap):
            return
        self._missing = tuple(
            name
            for name, cap, value in (("power", sensing.power_cap, watts), ("temperature", sensing.heat_cap, celsius))
            if cap > 0 and value is None
        )
        capped = capping.share < 1.0
        if capped or self._capped:
            set_pace(self._board.mapping, capping.share, _HOLDS, now)
        if capped != self._capped:
            self._capped = capped
            if capped:
                self._tell("CapReached", level="warning", cause=capping.cause)
            else:
                self._tell("CapEased", cause="the node has been below its caps with all agents at work")

    def report(self) -> dict[str, Any]:
        """For `GET /v1/swarm`."""
        return {
            "workShare": self.capping.share,
            "cause": self.capping.cause,
            "unseen": [f"there is a cap, but no sensor of {name}" for name in self._missing],
        }

    def metrics(self) -> Iterable[Metric]:
        """How much of their time agents may work."""
        yield ACTION["swarm_node_work_share_ratio"].gauge(((), self.capping.share))
