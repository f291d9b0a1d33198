"""Foresight on behalf of a node's resource agent: looks at its sensors and at the board's members, and tells.

Called after each reading of the sensors (every 100 ms). What is sampled then is the node's figures; once a second there
is a step of the forecasts and a look at each agent. What it finds is
- forecasts of the node's load, memory and heat, and of each agent's CPU and memory (`report`, and metrics);
- a verdict on each agent, for its supervisor to serve (`runtime.foreseen`).

Agents are told apart by their names on the board; what is known of one that has gone is kept for `_KEPT` seconds. At
most `_AGENTS` are forecast; all are judged.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from swarm_agents.config import Role
from swarm_agents.resource.foresight.forecast import Forecast, Forecaster
from swarm_agents.resource.foresight.hazards import WORTH_TELLING, Hazards, Signs, Verdict
from swarm_agents.resource.foresight.seconds import Seconds
from swarm_agents.runtime.foreseen import Foreseen, write_foreseen
from swarm_agents.shm.layout import H_HIST_AT, HIST_BUCKETS, HIST_RUN, HIST_WORDS, HISTOGRAMS, LANES
from swarm_agents.shm.members import MemberInfo, counters_at, record_at

if TYPE_CHECKING:
    from swarm_agents.shm.board import Board

__all__ = ["NODE_SERIES", "Foresight", "HasValues"]

#: The node's series that are forecast: the name in `report` and in metrics, and the sensors' value.
NODE_SERIES: Mapping[str, str] = {
    "cpu": "cpu_busy_ratio",
    "memory": "memory_available_bytes",
    "temperature": "temperature_celsius",
    "load": "load1",
}
#: Where CPUs are switched off, if no sensor says it (degrees Celsius): what most servers' CPUs name as critical.
_HEAT_LIMIT = 100.0
_EVERY = 1.0
_KEPT = 120.0
_AGENTS = 30
_RUN = HISTOGRAMS * HIST_WORDS
_JUDGED = frozenset({str(Role.COMPUTE), str(Role.STANDBY), str(Role.RESOURCE)})


class HasValues(Protocol):
    """What a sensor's reading is taken for here."""

    @property
    def values(self) -> Mapping[str, float]: ...


class _Agent:
    """What is kept of one agent."""

    def __init__(self, dead_after: float) -> None:
        self.hazards = Hazards(dead_after)
        self.verdict = Verdict()
        self.place = (-1, -1)
        self.deaths = 0
        self.seen = 0.0


class Foresight:
    """See the module's text. `dead_after` is asked at each look, for it may change while the swarm runs."""

    def __init__(
        self,
        board: Board,
        dead_after: Callable[[], float],
        own: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        places = len(NODE_SERIES) + 2 * _AGENTS
        self._board, self._dead_after, self._own, self._clock = board, dead_after, own, clock
        self._seconds = Seconds(places)
        self._forecaster = Forecaster(places)
        self._agents: dict[str, _Agent] = {}
        self._due = -math.inf
        self._told = False
        #: Seconds of CPU time that looks have taken, and how many there were.
        self.spent, self.looks = 0.0, 0

    def look(self, now: float, readings: Mapping[str, HasValues]) -> None:
        """Takes what the sensors say now (monotonic seconds), and once a second looks at the agents."""
        began = time.thread_time()
        values: dict[str, float] = {}
        for reading in readings.values():
            values |= reading.values
        sampled = {f"node/{name}": values[key] for name, key in NODE_SERIES.items() if key in values}
        if now >= self._due or now < self._due - 2 * _EVERY:
            self._due = now + _EVERY
            sampled |= self._judge(values)
        for row in self._seconds.add(now, sampled):
            self._forecaster.step(row)
        self.spent += time.thread_time() - began
        self.looks += 1

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What is foreseen of each agent, by its name."""
        return {name: agent.verdict for name, agent in self._agents.items() if agent.place[0] >= 0}

    def forecasts(self) -> dict[str, dict[int, Forecast]]:
        """Of the node, by series and horizon; a series that is not known is absent."""
        return {name: found for name in NODE_SERIES if (found := self._of(f"node/{name}"))}

    def report(self) -> dict[str, Any]:
        """For `GET /v1/swarm`."""
        return {
            "node": {name: _plain(found) for name, found in self.forecasts().items()},
            "agents": {
                name: {
                    "failing": {"probability": verdict.probability, "reasons": [*verdict.reasons]},
                    "cpu": _plain(self._of(f"agent/{name}/cpu")),
                    "memory": _plain(self._of(f"agent/{name}/memory")),
                }
                for name, verdict in self.verdicts.items()
            },
        }

    def _of(self, name: str) -> dict[int, Forecast]:
        place = self._seconds.places.get(name)
        return {} if place is None else self._forecaster.forecast(place)

    def _judge(self, values: Mapping[str, float]) -> dict[str, float]:
        """A look at each agent; returns what is to be forecast of them."""
        now, board, sampled = self._clock(), self._board, {}
        present = [info for info in board.members() if str(info.role) in _JUDGED and info.alive]
        for info in present:
            agent = self._agents.get(info.name)
            if agent is None:
                agent = self._agents[info.name] = _Agent(self._dead_after())
            place = (info.index, info.epoch)
            if agent.place[0] >= 0 and place != agent.place:
                agent.deaths += 1
            agent.place, agent.seen = place, now
            agent.hazards.dead_after = self._dead_after()
            if self._forecasts(info.name):
                sampled[f"agent/{info.name}/cpu"] = info.cpu
                sampled[f"agent/{info.name}/memory"] = float(info.rss)
        for info in present:
            agent = self._agents[info.name]
            siblings = [
                failed
                for other in present
                if other is not info and (failed := self._agents[other.name].hazards.failed_lately) is not None
            ]
            signs = self._signs(info, agent, now, values)
            agent.verdict = agent.hazards.look(now, signs, min(siblings) if siblings else None)
        for name in [name for name, agent in self._agents.items() if now - agent.seen > _KEPT]:
            del self._agents[name]
            for series in (f"agent/{name}/cpu", f"agent/{name}/memory"):
                freed = self._seconds.release(series)
                if freed is not None:
                    self._forecaster.forget(freed)
        self._hand_over(now, present)
        return sampled

    def _forecasts(self, name: str) -> bool:
        """Whether an agent's load and memory are forecast: those of the first `_AGENTS` are."""
        known = f"agent/{name}/cpu" in self._seconds.places
        return known or len(self._seconds.places) + 2 <= len(NODE_SERIES) + 2 * _AGENTS

    def _hand_over(self, now: float, present: list[MemberInfo]) -> None:
        said = {
            (info.index, info.epoch): Foreseen(verdict.probability, verdict.reasons)
            for info in present
            if (verdict := self._agents[info.name].verdict).probability >= WORTH_TELLING
        }
        if said or self._told:  # the last one says that it is over
            write_foreseen(self._board.directory, now, said)
        self._told = bool(said)

    def _signs(self, info: MemberInfo, agent: _Agent, now: float, values: Mapping[str, float]) -> Signs:
        board = self._board
        counters = counters_at(board.mapping, record_at(board.words, info.index))
        heat = values.get("temperature_celsius")
        available = values.get("memory_available_bytes")
        hub = info.role == Role.RESOURCE  # its tasks are others', and are done elsewhere
        return Signs(
            # one's own heartbeat is late when oneself is: whoever looks is not silent
            age=None if info.name == self._own else info.heartbeat_age,
            running=0 if hub else info.running,
            held=now - info.claimed if info.running and info.claimed else 0.0,
            done=None if hub else float(counters["committed"]),
            failed=None if hub else float(counters["failed"]),
            busy_seconds=None if hub else self._run_seconds(info.index),
            cpu=info.cpu,
            memory=float(info.rss) if info.rss else None,
            memory_limit=available + info.rss if available is not None and info.rss else None,
            heat=heat,
            heat_limit=None if heat is None else values.get("temperature_critical_celsius", _HEAT_LIMIT),
            stolen=values.get("cpu_steal_ratio"),
            disk=values.get("disk_wait_seconds"),
            deaths=agent.deaths,
        )

    def _run_seconds(self, index: int) -> float:
        """Seconds that a member's tasks have run, of the board's histograms."""
        mapping, words = self._board.mapping, self._board.words
        first = words[H_HIST_AT] + 8 * (index * LANES * _RUN + HIST_RUN * HIST_WORDS + HIST_BUCKETS)
        nanoseconds = (int(struct.unpack_from("<q", mapping.view, first + 8 * lane * _RUN)[0]) for lane in range(LANES))
        return sum(nanoseconds) * 1e-9


def _plain(found: Mapping[int, Forecast]) -> dict[str, Any]:
    return {
        f"{horizon}s": {
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "error": None if math.isnan(each.error) else each.error,
            "errorOfLastValue": None if math.isnan(each.error_last) else each.error_last,
            "method": each.method,
        }
        for horizon, each in found.items()
    }
