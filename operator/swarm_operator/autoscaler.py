"""Asks the nodes for their load, and writes how many compute agents there should be: the shell round `autoscale`.

A loop beside the planner, as an HPA is: what it writes is `spec.compute.replicas`, by the scale subresource and under a
field manager of its own, and everything after that (pods, drain, audit trail, status) goes the way that it goes when a
person scales. It acts while this replica leads, on Swarms that have both compute.min and compute.max, are accepted and
not suspended; of all others nobody but their users touches the count, so an HPA or KEDA can own it.

One agent a board is asked, the resource agent where there is one, every `INTERVAL`, or less often where that would be
more than `RATE` questions a second over all swarms. An answer stands for a while when the next one does not come; then
the node is missing, and while one is, nothing leaves.

A person's `kubectl scale` meanwhile is a count like any other: one that is too low for the load, or outside the bounds,
is corrected at once; one that is higher stays for a window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
import msgspec
import structlog

from swarm_agents.config import Role
from swarm_operator.agents import Agents
from swarm_operator.autoscale import (
    NO_DATA,
    SCALED_IN,
    SCALED_OUT,
    STALE,
    Decision,
    History,
    Policy,
    policy_of,
    recommend,
)
from swarm_operator.cache import Cache
from swarm_operator.events import Note, Recorder
from swarm_operator.kube import Api, ApiError
from swarm_operator.loads import NodeLoad, sample_of
from swarm_operator.metrics import Metrics
from swarm_operator.names import AUTOSCALER, Key
from swarm_operator.nodes import losses
from swarm_operator.plan import agents_of
from swarm_operator.rollout import Agent
from swarm_operator.schedule import raised
from swarm_operator.snapshot import Snapshot
from swarm_operator.views import PodView, SwarmView

__all__ = ["INTERVAL", "Autoscaler"]

#: Seconds between two decisions about a Swarm, at least.
INTERVAL: Final = 1.0
#: Questions a second, over all.
RATE: Final = 100.0
#: Seconds that an agent has to answer.
_PATIENCE: Final = 2.0
#: Seconds for which what was written is waited for to be seen.
_SEEN_WITHIN: Final = 5.0
#: Numbers in the status are at least so old (seconds) before they are renewed, and only when they have changed much:
#: a status is no place for telemetry.
_RENEWED: Final = 30.0
_MUCH: Final = 0.25

log = structlog.get_logger("autoscale")


@dataclass
class _Watched:
    """One Swarm, as it has been seen since this replica leads or the Swarm is autoscaled."""

    history: History = field(default_factory=History)
    policy: Policy | None = None
    loads: dict[str, NodeLoad] = field(default_factory=dict)
    read_at: dict[str, float] = field(default_factory=dict)
    begun: float | None = None
    #: Nodes that did not answer when they were asked last.
    unread: int = 0
    due: float = 0.0
    #: What was written and not yet seen, and until when it is waited for.
    written: tuple[int, float] | None = None
    decision: Decision | None = None
    shown: Decision | None = None
    shown_at: float = float("-inf")


class Autoscaler:
    """Decides on the replicas of all Swarms that ask for it."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        agents: Agents,
        recorder: Recorder,
        metrics: Metrics,
        leads: Callable[[], bool],
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._api, self._cache, self._agents = api, cache, agents
        self._recorder, self._metrics, self._leads = recorder, metrics, leads
        self._clock, self._now = clock, now
        self._watched: dict[str, _Watched] = {}
        self._names: dict[str, Key] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def decision(self, uid: str) -> Decision | None:
        """What was decided on a Swarm, for its status; None while nothing was, or nothing is to be."""
        watched = self._watched.get(uid)
        return watched.shown if watched else None

    @property
    def unread(self) -> int:
        """Nodes of all swarms that did not tell their load when they were asked last."""
        return sum(watched.unread for watched in self._watched.values())

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.begin()
                await asyncio.sleep(INTERVAL / 2)
        finally:
            for task in [*self._tasks.values()]:
                task.cancel()

    def begin(self) -> list[asyncio.Task[None]]:
        """Starts a round for each Swarm that is due, and forgets those that are not autoscaled any more."""
        wanted = {swarm.uid: swarm for swarm in self._swarms()} if self._leads() else {}
        for uid in [uid for uid in self._watched if uid not in wanted]:
            self._forget(uid)
        now = self._clock()
        questions = sum(max(len(watched.loads), 1) for watched in self._watched.values())
        begun = []
        for uid, swarm in wanted.items():
            watched = self._watched.setdefault(uid, _Watched())
            self._names[uid] = Key(swarm.namespace, swarm.name)
            if now < watched.due or uid in self._tasks:
                continue
            watched.due = now + max(INTERVAL, questions / RATE)
            task = asyncio.create_task(self._guarded(uid, watched), name=f"autoscale {swarm.name}")
            self._tasks[uid] = task
            task.add_done_callback(lambda _, uid=uid: self._tasks.pop(uid, None))  # type: ignore[misc]
            begun.append(task)
        return begun

    def _swarms(self) -> list[SwarmView]:
        """Those that have both bounds; whatever else keeps one from being scaled is looked at in its round."""
        found = []
        for store in self._cache.stores("Swarm"):
            for view in store:
                if isinstance(view, SwarmView) and not view.deleting:
                    compute = view.spec.get("compute") or {}
                    if compute.get("min") is not None and compute.get("max") is not None:
                        found.append(view)
        return found

    def _forget(self, uid: str) -> None:
        del self._watched[uid]
        key = self._names.pop(uid, None)
        if key:
            self._metrics.autoscale_gone(key.namespace, key.name)

    async def _guarded(self, uid: str, watched: _Watched) -> None:
        key = self._names[uid]
        try:
            await self.round(key, uid, watched)
        except ApiError as error:
            self._metrics.autoscales.labels("failed").inc()
            watched.due = self._clock() + max(error.retry_after or 0.0, 2 * INTERVAL)
            log.warning("replicas not written", swarm=str(key), error=str(error))
        except Exception:
            # a defect of ours in one Swarm must not take the others down with it
            self._metrics.autoscales.labels("failed").inc()
            watched.due = self._clock() + 30 * INTERVAL
            log.exception("autoscaling crashed", swarm=str(key))

    async def round(self, key: Key, uid: str, watched: _Watched) -> None:
        """Reads the load, decides, and writes once.

        Raises:
            ApiError: the count could not be written.
        """
        snapshot = self._cache.snapshot(key)
        policy = self._policy(snapshot, uid)
        if snapshot is None or snapshot.spec is None or policy is None:
            self._watched[uid] = _Watched(due=watched.due)
            return
        if watched.policy and watched.policy.target != policy.target:
            watched.history = replace(watched.history, enough=(), since=None)
        watched.policy = policy
        agents = _agents(snapshot, self._now())
        before = dict(watched.loads)
        missing = await self._read(snapshot, agents, watched)
        snapshot = self._cache.snapshot(key)  # as it is now: asking has taken its time
        if snapshot is None or snapshot.spec is None or self._policy(snapshot, uid) != policy or not self._leads():
            return
        if not self._seen(watched, snapshot.spec.compute.replicas):
            return
        now = self._now()
        ready = sum(agent.available for agent in _agents(snapshot, now) if agent.name.role is Role.COMPUTE)
        sample = sample_of(before, watched.loads, now, ready) if watched.loads else None
        replicas = snapshot.spec.compute.replicas
        history, decision = recommend(
            watched.history,
            sample,
            policy,
            replicas=replicas,
            now=now,
            raised=raised(snapshot.spec.autoscaling.schedule, now) if snapshot.spec.autoscaling else None,
            missing=missing,
        )
        if decision.desired != replicas:
            await self._write(snapshot, decision, replicas)
            watched.written = (decision.desired, self._clock() + _SEEN_WITHIN)
        watched.history, watched.decision = history, decision
        self._show(key, watched, decision)

    def _policy(self, snapshot: Snapshot | None, uid: str) -> Policy | None:
        if snapshot is None or snapshot.spec is None or snapshot.swarm.uid != uid or snapshot.swarm.deleting:
            return None
        return None if snapshot.spec.suspend or snapshot.refusals(snapshot.spec) else policy_of(snapshot.spec)

    def _seen(self, watched: _Watched, replicas: int) -> bool:
        """Whether what was written last is in the cache, or was waited for long enough."""
        if watched.written is None:
            return True
        wanted, until = watched.written
        if replicas != wanted and self._clock() < until:
            return False
        watched.written = None
        return True

    async def _read(self, snapshot: Snapshot, agents: list[Agent], watched: _Watched) -> str:
        """Asks a pod of each node. Returns what could not be read, for people."""
        token = self._cache.token(snapshot.key)
        pods = _one_a_node(agents)
        for node in set(watched.read_at) - set(pods):
            watched.loads.pop(node, None)
            del watched.read_at[node]
        answers = await asyncio.gather(*(self._ask(pod, token) for pod in pods.values()))
        now = self._clock()
        watched.begun = now if watched.begun is None else watched.begun
        silent = []
        for (node, pod), answer in zip(pods.items(), answers, strict=True):
            if isinstance(answer, NodeLoad):
                watched.loads[node], watched.read_at[node] = answer, now
            elif now - watched.read_at.setdefault(node, now) > STALE:
                watched.loads.pop(node, None)
                if pod.ready:  # where no agent is ready, none is missing
                    silent.append(f"{node} does not tell its load ({answer})")
        watched.unread = sum(not isinstance(answer, NodeLoad) for answer in answers)
        return "; ".join(sorted(silent)[:3])

    async def _ask(self, pod: PodView, token: str) -> NodeLoad | str:
        try:
            async with asyncio.timeout(_PATIENCE):
                return msgspec.json.decode(await self._agents.load(pod.ip, pod.ports[0], token), type=NodeLoad)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError, ValueError) as error:
            log.debug("a pod does not tell its load", pod=pod.name, error=str(error))
            return f"{type(error).__name__}: {error}"[:200]

    async def _write(self, snapshot: Snapshot, decision: Decision, replicas: int) -> None:
        swarm = snapshot.swarm
        try:
            await self._api.scale("Swarm", swarm.namespace, swarm.name, swarm.uid, decision.desired, AUTOSCALER)
        except ApiError as error:
            if error.status in (404, 409):
                return  # gone, or another one: the next round knows
            raise
        direction = "out" if decision.desired > replicas else "in"
        self._metrics.autoscales.labels(direction).inc()
        reason = SCALED_OUT if direction == "out" else SCALED_IN
        self._recorder.record(swarm, [Note("Normal", reason, decision.message)])
        log.info("scaled", swarm=str(snapshot.key), replicas=replicas, desired=decision.desired, why=decision.message)

    def _show(self, key: Key, watched: _Watched, decision: Decision) -> None:
        """Has the decision in metrics at once, and in the status when it is news."""
        self._metrics.autoscale(
            key.namespace,
            key.name,
            {
                "desired": decision.desired,
                "queue_seconds": decision.queue_time,
                "arrivals_per_second": decision.arrivals,
                "completions_per_second": decision.completions,
                "task_seconds": decision.service,
                "waiting_tasks": decision.waiting,
                "busy_agents": decision.busy,
            },
        )
        shown = watched.shown
        fresh = self._clock() - watched.shown_at < _RENEWED
        if shown is not None and _same_decision(shown, decision) and (fresh or not _moved(shown, decision)):
            return
        if decision.reason == NO_DATA and (watched.begun is None or self._clock() - watched.begun < STALE):
            return  # just begun: agents are starting
        watched.shown, watched.shown_at = decision, self._clock()
        self._cache.on_key(key)


def _agents(snapshot: Snapshot, now: float) -> list[Agent]:
    assert snapshot.spec is not None
    return agents_of(snapshot, losses(snapshot.spec, snapshot.nodes, snapshot.gone_nodes, now).lost)


def _one_a_node(agents: list[Agent]) -> dict[str, PodView]:
    """The pod that is asked of each board, by whose it is: the resource agent, or whoever is there."""

    def rank(agent: Agent) -> tuple[bool, bool, str]:
        return (agent.name.role is not Role.RESOURCE, not agent.pod.ready, agent.pod.name)

    found: dict[str, PodView] = {}
    for agent in sorted((a for a in agents if a.alive and a.running and not a.lost), key=rank):
        if agent.pod.ready or agent.pod.board not in found:
            found.setdefault(agent.pod.board, agent.pod)
    return found


def _same_decision(a: Decision, b: Decision) -> bool:
    return (a.desired, a.reason, a.low, a.high) == (b.desired, b.reason, b.low, b.high)


def _moved(a: Decision, b: Decision) -> bool:
    """Whether the numbers tell another story than those that are shown."""
    pairs = ((a.queue_time, b.queue_time), (a.arrivals, b.arrivals), (a.service, b.service))
    return any(abs(x - y) > _MUCH * max(x, y) for x, y in pairs) or (a.message != b.message and bool(b.waiting))
