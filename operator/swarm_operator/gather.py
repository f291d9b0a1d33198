"""Reads what happened to the agents from their pods, and makes Kubernetes Events of it: deaths, takeovers, restarts.

Agents know no Kubernetes: each keeps its last events for whoever asks (`GET /v1/events?after=N`), and the operator asks
in turn, not more often than `RATE` times a second over all swarms and every `INTERVAL` a pod at most. An event is told
some seconds late then, with the times that the agent measured in it; nothing waits for it.

Where many pods have nothing to tell they are asked the less often, `QUIET_RATE` times a second over all, so that
thousands of quiet agents cost an idle operator a hundredth of a core. Once one pod of a swarm has news, all pods of
that swarm are asked often for a while, since what happens to one is told by its siblings, too.

An Event's name is made of the pod, its supervisor's run and the event's number, so an operator that was started anew,
or another leader, tells nothing twice: the API server answers that it exists. What is older than `OLDEST` is history.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from swarm_agents.config import AGENT_PORT
from swarm_operator.actions import AskAgent
from swarm_operator.agents import Agents
from swarm_operator.cache import Cache
from swarm_operator.events import Note, Recorder
from swarm_operator.names import Key, parse_pod_name
from swarm_operator.views import PodView, SwarmView

__all__ = ["Gatherer", "Happened", "note_of"]

#: Seconds between two questions to one pod, at least.
INTERVAL: Final = 2.0
#: Questions a second, over all.
RATE: Final = 50.0
#: The same while there is nothing to tell, and the longest time (seconds) between two questions to one pod: agents
#: keep their last events for longer than that.
QUIET_RATE: Final = 5.0
QUIET_MAX: Final = 480.0
#: How long (seconds) a swarm that had news is asked often.
HOT: Final = 60.0
#: Seconds after which an event is not told any more.
OLDEST: Final = 600.0
#: What people want to know of, and what is a warning.
_TOLD: Final = {
    "AgentDeclaredDead": "Warning",
    "AgentDied": "Warning",
    "AgentHopeless": "Warning",
    "AgentHung": "Warning",
    "AgentKilled": "Warning",
    "AgentReplaced": "Normal",
    "AgentStuck": "Warning",
    "CapEased": "Normal",
    "CapReached": "Warning",
    "FailedOver": "Normal",
    "FailurePredicted": "Warning",
    "Fenced": "Warning",
    "HubBack": "Normal",
    "HubLost": "Warning",
    "NodeRecovered": "Normal",
    "NodeSlowed": "Warning",
    "OverloadEased": "Normal",
    "Overloaded": "Warning",
    "PlacementMet": "Normal",
    "PlacementUnmet": "Warning",
    "SiblingDeclaredDead": "Warning",
    "StandbyActivated": "Normal",
    "StandbySteppedBack": "Normal",
    "TaskOvertaken": "Normal",
    "TaskRunTwice": "Normal",
    "TasksResumed": "Normal",
}

#: What changes what an agent says of itself when it is asked.
_MOVED: Final = frozenset({"CoresChanged", "FailurePredicted", "KeysServed", "PlacementMet", "PlacementUnmet"})

log = structlog.get_logger("gather")


class Happened(msgspec.Struct):
    """What a pod answers."""

    run: str = ""
    last: int = 0
    events: list[dict[str, Any]] = []


def _ms(seconds: Any) -> str:
    return f"{float(seconds) * 1e3:.1f} ms"


def note_of(pod: PodView, run: str, event: dict[str, Any]) -> Note | None:
    """An agent's event for people; None for one that only its pod's log needs."""
    kind = str(event.get("event", ""))
    if kind not in _TOLD:
        return None
    who = str(event.get("member") or pod.name)
    epoch = event.get("member_epoch")
    about = who if epoch is None else f"{who} (epoch {epoch})"
    match kind:
        case "FailedOver":
            parts = [
                f"held for dead {_ms(event.get('detect', 0))} after its last heartbeat",
                f"its {event.get('tasks', 0)} tasks free {_ms(event.get('claim', 0))} later",
            ]
            if "resume" in event:
                parts.append(f"the first of them running elsewhere after {_ms(event['resume'])}")
            text = f"{about}: " + ", ".join(parts)
        case "AgentReplaced":
            text = f"{about}: a new agent is ready {_ms(event.get('seconds', 0))} after the death of the last"
        case _:
            known = ("number", "time", "event", "level", "member", "member_epoch")
            text = f"{about}: " + ", ".join(f"{k} {v}" for k, v in event.items() if k not in known)
    return Note(
        _TOLD[kind],
        kind,
        text.rstrip(": ")[:900],
        identity=f"{pod.uid}/{run}/{event.get('number')}",
        record={"pod": pod.name, "node": pod.node, **event},
    )


@dataclass
class _Read:
    run: str = ""
    after: int = 0
    #: When it was asked last, and before when it is not asked again.
    asked: float = float("-inf")
    held: float = float("-inf")
    restarts: int = 0


class Gatherer:
    """Asks the running pods of all swarms, while this replica leads."""

    def __init__(
        self,
        cache: Cache,
        agents: Agents,
        recorder: Recorder,
        leads: Callable[[], bool],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._cache, self._agents, self._recorder = cache, agents, recorder
        self._leads, self._clock, self._now = leads, clock, now
        #: By the pod's UID and the agent's port.
        self._read: dict[tuple[str, int], _Read] = {}
        #: Swarms that had news, by UID, and until when they are asked often.
        self._hot: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            quiet = await self.round()
            # looking through thousands of pods for who is due costs something, too
            await asyncio.sleep(INTERVAL / 2 if self._hot else max(INTERVAL / 2, quiet / 60))

    async def round(self) -> float:
        """Asks everybody who is due, one after the other in time; returns how often (seconds) a quiet pod is asked."""
        pods = [*self._pods()] if self._leads() else []
        present = {pod.uid for _, pod in pods}
        now = self._clock()
        self._read = {key: read for key, read in self._read.items() if key[0] in present}
        self._hot = {uid: until for uid, until in self._hot.items() if until > now}
        quiet = max(INTERVAL, min(len(pods) / QUIET_RATE, QUIET_MAX))
        asked: set[asyncio.Task[None]] = set()
        for swarm, pod in pods:
            for port in pod.ports:
                if self._due(swarm, pod, port, quiet):
                    task = asyncio.create_task(self.ask(swarm, pod, port))
                    asked.add(task)
                    task.add_done_callback(asked.discard)
                    await asyncio.sleep(1 / RATE)
        if asked:
            await asyncio.wait([*asked])
        return quiet

    def _due(self, swarm: SwarmView, pod: PodView, port: int, quiet: float) -> bool:
        """Whether an agent is to be asked now; that it was is noted."""
        read, now = self._read.setdefault((pod.uid, port), _Read(restarts=pod.restarts)), self._clock()
        often = swarm.uid in self._hot or read.restarts != pod.restarts
        if now < read.held or now < read.asked + (INTERVAL if often else quiet):
            return False
        if read.asked == float("-inf"):
            now -= quiet * random.random()  # those that came together need not be asked together for ever
        read.asked, read.restarts = now, pod.restarts
        return True

    def _pods(self) -> Iterator[tuple[SwarmView, PodView]]:
        for key in self._cache.swarms():
            swarm = self._cache.store("Swarm", key.namespace).get(*key)
            if not isinstance(swarm, SwarmView):
                continue
            for pod in self._cache.store("Pod", key.namespace).of(key):
                if not isinstance(pod, PodView) or swarm.uid not in pod.owners or pod.deleting:
                    continue
                if pod.phase == "Running" and pod.ip and parse_pod_name(pod.name, key.name):
                    yield swarm, pod

    async def ask(self, swarm: SwarmView, pod: PodView, port: int = AGENT_PORT) -> None:
        """Asks one agent of a pod, and tells what is new."""
        token = self._cache.token(Key(swarm.namespace, swarm.name))
        read = self._read.setdefault((pod.uid, port), _Read())
        try:
            said = msgspec.json.decode(await self._agents.events(pod.ip, port, token, read.after), type=Happened)
            if said.run != read.run and read.after:
                said = msgspec.json.decode(await self._agents.events(pod.ip, port, token, 0), type=Happened)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, ValueError) as error:
            read.held = self._clock() + 5 * INTERVAL
            log.debug("a pod does not tell its events", pod=pod.name, error=str(error))
            return
        if said.events and (said.run, said.last) != (read.run, read.after):
            self._hot[swarm.uid] = self._clock() + HOT
        read.run, read.after = said.run, said.last
        if any(event.get("event") in _MOVED for event in said.events):
            await self._agents.look(AskAgent("Pod", pod.name, pod.uid, pod.ip, pod.restarts, pod.ports), token)
            self._cache.on_key(Key(swarm.namespace, swarm.name))
        oldest = self._now() - OLDEST
        fresh = [event for event in said.events if float(event.get("time", 0)) >= oldest]
        self._recorder.record(swarm, filter(None, (note_of(pod, said.run, event) for event in fresh)))
