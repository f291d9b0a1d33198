"""Degrades the node on purpose while it has more work than it can carry, and lets it recover by itself.

Looks at the board with each look at the sensors; what is refused then `overload` decides, `shm.shedding` tells those
who submit, and here it is put on record: an event with its cause at each change, and metrics. Meanwhile the node looks
less often at what changes slowly (`stretch`): the time goes to the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import Metric

from swarm_agents.config import Priority, Role
from swarm_agents.resource.exported import ACTION
from swarm_agents.resource.overload import Level, Overload
from swarm_agents.shm.shedding import oldest_waits, refuse

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board

__all__ = ["Degrade"]

#: Seconds that what is told to submitters holds, unless it is told again: longer than a look, short enough for the
#: case that the resource agent dies meanwhile.
HOLDS = 3.0
#: How many times longer the pauses between readings of slow sensors are, by level.
_STRETCH = {Level.NORMAL: 1.0, Level.SHED_BULK: 3.0, Level.SHED_NORMAL: 5.0}
_COMPUTES = frozenset({str(Role.COMPUTE), str(Role.STANDBY)})


class Degrade:
    """A looker of the resource agent; see the module's text."""

    def __init__(
        self,
        board: Board,
        tell: Callable[..., None] = lambda event, **fields: None,
        overload: Overload | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.overload = overload or Overload()
        self.changes = dict.fromkeys(Level, 0)
        self._board, self._tell, self._clock_ns = board, tell, clock_ns

    @property
    def stretch(self) -> float:
        """How many times longer than otherwise to pause between readings of what changes slowly."""
        return _STRETCH[self.overload.level]

    def look(self, now: float, readings: Mapping[str, Any]) -> None:
        """Looks at what waits on the board, and has it refuse what the node can't carry."""
        board, overload, stamp = self._board, self.overload, self._clock_ns()
        waits = oldest_waits(board.mapping, board.words, stamp)
        # Who computes is asked only where it matters: a board has many members.
        matters = max(waits) > overload.target
        workers = sum(info.alive and str(info.role) in _COMPUTES for info in board.members()) if matters else 1
        pressure = readings.get("pressure")
        full = pressure.series.get("pressure_full_ratio", {}) if pressure is not None else {}
        change = overload.look(now, waits, workers, full.get("memory", 0.0))
        if change is not None or overload.level:
            refuse(board.mapping, int(overload.level), overload.retry_after, HOLDS, stamp * 1e-9)
        if change is not None:
            self.changes[change.level] += 1
            up = change.level > change.before
            refused = [str(lane) for lane in Priority if lane.lane >= len(Priority) - change.level]
            self._tell(
                "Overloaded" if up else "OverloadEased",
                level="warning" if up else "info",
                state=change.level.name,
                before=change.before.name,
                cause=change.cause,
                refused=", ".join(refused) or "nothing",
            )

    def report(self) -> dict[str, Any]:
        """For `GET /v1/swarm`."""
        overload = self.overload
        return {
            "state": overload.level.name,
            "retryAfterSeconds": overload.retry_after if overload.level else 0.0,
            "oldestWaitSeconds": {str(lane): overload.waits[lane.lane] for lane in Priority},
            "waitingForMemoryRatio": overload.memory,
        }

    def metrics(self) -> Iterable[Metric]:
        """What the node refuses at present, how often that changed, and why."""
        overload = self.overload
        yield ACTION["swarm_node_overload_level"].gauge(((), float(overload.level)))
        yield ACTION["swarm_node_overload_changes"].counter(
            *(((level.name.lower(),), count) for level, count in self.changes.items())
        )
        yield ACTION["swarm_node_oldest_wait_seconds"].gauge(
            *(((str(lane),), overload.waits[lane.lane]) for lane in Priority)
        )
