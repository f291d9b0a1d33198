"""Does what a plan says. Stage after stage; within a stage at once, within bounds.

An action that fails does not keep the others of its stage from being done. Pods are not created while what they need is
refused; agents that are there are still served, and deletions go on (a quota that is used up must not stop a drain).
What the API server answers to a write goes into the store at once, so that the next plan need not wait for the watch.

Agents are asked in the background, one question an agent at a time: one that does not answer (its node is lost, say)
must not keep the others of its swarm from being replaced. An answer is an observation, and the key is added for it.

An object that is not in the cache is never applied blindly: server-side apply with force would take over a Service of
the same name that is somebody else's. It is read first, and refused when it has another owner.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from swarm_agents.config import encode_settings
from swarm_operator import objects
from swarm_operator.actions import (
    Action,
    Apply,
    AskAgent,
    CreatePod,
    Delete,
    DeletePod,
    DrainPod,
    EnsureKeys,
    EnsurePodGroup,
    FailGang,
    LiftGate,
    Plan,
    PushSettings,
    RepairPod,
    ResumePod,
    StartGang,
    TurnKeys,
)
from swarm_operator.agents import Agents
from swarm_operator.cache import Cache
from swarm_operator.keys import KeyMemory, complete, keep_record, observe, turned
from swarm_operator.kube import Api, ApiError, NotLeader
from swarm_operator.names import Key
from swarm_operator.rotation import wishes
from swarm_operator.snapshot import Refused, Snapshot
from swarm_operator.starter import Starter
from swarm_operator.views import AgentReport, ObjectView, PodView, View, decode, secret_data

__all__ = ["Executor", "Failure", "NotLeader", "Outcome"]

#: Writes in flight at once for one Swarm, and for all.
_PER_KEY: Final = 24
_GLOBAL: Final = 64
#: How soon to look again after an agent did not answer; the planner knows when to ask it again.
UNANSWERED: Final = 0.5

#: Answers that say that a pod is not admitted as it is, and for how many Swarms they are remembered.
_REFUSALS: Final = (400, 403, 422)
_REFUSED_KEPT: Final = 1000

log = structlog.get_logger("execute")


@dataclass(frozen=True)
class Failure:
    """An action that the API server refused."""

    action: Action
    error: ApiError

    def __str__(self) -> str:
        return f"{self.action.describe()}: {self.error}"


@dataclass
class Outcome:
    """What became of a plan."""

    done: list[Action] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def retry_after(self) -> float:
        """What the API server asked for with 429 or 503."""
        return max((failure.error.retry_after or 0.0 for failure in self.failures), default=0.0)


class Executor:
    """Carries out plans."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        agents: Agents,
        memory: KeyMemory,
        *,
        leads: Callable[[], bool] = lambda: True,
        new_keys: Callable[[Any, Any], dict[str, str]] = complete,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api, self._cache, self._agents, self._memory = api, cache, agents, memory
        self._leads, self._new_keys = leads, new_keys
        self.leads = leads
        self._limit = asyncio.Semaphore(_GLOBAL)
        self._asking: dict[str, asyncio.Task[None]] = {}
        #: UIDs of pods that are told to go on: what they have said before does not count any more.
        self._resuming: set[str] = set()
        #: Told of a Swarm whose agents said something new, and how soon (seconds) to look at it again.
        self.on_news: Callable[[Key, float], None] = lambda key, delay: None
        self._now = now
        self._refused: dict[Key, Refused] = {}
        self._starter = Starter(api, cache, lambda key: self.on_news(key, 0.0))
        cache.gang = self._starter.view
        cache.refused = self._refused.get

    async def execute(self, snapshot: Snapshot, plan: Plan) -> Outcome:
        """Does all actions of a plan.

        Raises:
            NotLeader: the leadership was lost meanwhile; the rest is left to the new leader.
        """
        outcome = Outcome()
        own = asyncio.Semaphore(_PER_KEY)
        for stage in sorted({action.stage for action in plan.actions}):
            if stage == 1 and outcome.failures:
                continue
            batch = [action for action in plan.actions if action.stage == stage and self._stands(action)]
            results = await asyncio.gather(
                *(self._bounded(own, action, snapshot, plan) for action in batch), return_exceptions=True
            )
            for action, result in zip(batch, results, strict=True):
                if isinstance(result, ApiError) and not isinstance(result, NotLeader):
                    outcome.failures.append(Failure(action, result))
                elif isinstance(result, BaseException):
                    raise result
                else:
                    outcome.done.append(action)
        self._note_refusals(snapshot.key, outcome)
        return outcome

    def _stands(self, action: Action) -> bool:
        """False for deleting an agent that is not as it was when that was decided, by its last answer, or that is being
        told to go on. The next plan, made of its answer, decides anew.
        """
        if not isinstance(action, DeletePod) or not action.state:
            return True
        report = self._agents.reports((action.uid,)).get(action.uid)
        return report is not None and report.state == action.state and action.uid not in self._resuming

    def _note_refusals(self, key: Key, outcome: Outcome) -> None:
        """Remembers since when no pod could be made; that is forgotten once one is, or none is wanted."""
        made = any(isinstance(action, CreatePod) for action in outcome.done)
        refused = [f.error for f in outcome.failures if isinstance(f.action, CreatePod) and f.error.status in _REFUSALS]
        before = self._refused.pop(key, None)
        if refused and not made:
            self._refused[key] = Refused(before.since if before else self._now(), str(refused[0])[:300])
        elif before and any(failure.action.stage == 0 for failure in outcome.failures):
            self._refused[key] = before  # pods were not even tried
        while len(self._refused) > _REFUSED_KEPT:
            del self._refused[next(iter(self._refused))]

    async def _bounded(self, own: asyncio.Semaphore, action: Action, snapshot: Snapshot, plan: Plan) -> None:
        async with own, self._limit:
            if not self._leads():
                raise NotLeader
            await self._do(action, snapshot, plan)

    async def _do(self, action: Action, snapshot: Snapshot, plan: Plan) -> None:
        match action:
            case Apply():
                await self._apply(action, snapshot)
            case EnsureKeys():
                await self._ensure_keys(action, snapshot)
            case TurnKeys():
                await self._turn_keys(action, snapshot)
            case CreatePod():
                await self._create_pod(action, snapshot)
            case RepairPod():
                manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {**action.metadata, "uid": action.uid}}
                await self._gone_is_fine(self._write("Pod", snapshot, self._api.apply(manifest)))
            case DeletePod() | Delete():
                await self._delete(action, snapshot)
            case AskAgent() | PushSettings() | DrainPod() | ResumePod():
                self._ask(action, snapshot, plan)
            case EnsurePodGroup() | StartGang() | LiftGate() | FailGang():
                await self._starter.do(action, snapshot)
            case _:
                raise TypeError(f"an action of unknown kind: {action!r}")

    async def _write(self, kind: str, snapshot: Snapshot, request: Awaitable[bytes]) -> None:
        view = _read(kind, await request)
        self._cache.store(kind, snapshot.key.namespace).put_written(view)

    async def _gone_is_fine(self, request: Awaitable[None]) -> None:
        """404 and a UID that is another one's: the object that was meant is gone, and the next plan knows."""
        try:
            await request
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _apply(self, action: Apply, snapshot: Snapshot) -> None:
        kind, namespace = action.kind, snapshot.key.namespace
        if not action.exists:
            await self._must_be_ours(kind, action.name, snapshot)
        try:
            if action.remove:
                await self._write(kind, snapshot, self._api.merge(kind, namespace, action.name, action.remove))
            await self._write(kind, snapshot, self._api.apply(action.manifest))
        except ApiError as error:
            if not error.immutable:
                raise
            await self._remake(action.manifest, snapshot)

    async def _remake(self, manifest: dict[str, Any], snapshot: Snapshot) -> None:
        """A field that can't be changed back was edited: delete the object and make it anew, in one go."""
        kind, name, namespace = manifest["kind"], manifest["metadata"]["name"], snapshot.key.namespace
        there = await self._must_be_ours(kind, name, snapshot)
        if there:
            await self._api.delete(kind, namespace, name, there.uid)
        await self._write(kind, snapshot, self._api.apply(manifest))

    async def _must_be_ours(self, kind: str, name: str, snapshot: Snapshot) -> ObjectView | PodView | None:
        """The object of this name if there is one; refused when it belongs to somebody else."""
        try:
            view = _read(kind, await self._api.get(kind, snapshot.key.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        assert isinstance(view, ObjectView | PodView)
        uid = snapshot.swarm.uid
        if uid in view.owners or (isinstance(view, PodView) and view.swarm_uid == uid and not view.owners):
            return view
        raise ApiError(
            409,
            "NameTaken",
            f"{kind} {name} exists and does not belong to this Swarm; delete or rename it, or rename the Swarm",
        )

    async def _ensure_keys(self, action: EnsureKeys, snapshot: Snapshot) -> None:
        uid = snapshot.swarm.uid
        there = await self._must_be_ours(action.kind, action.name, snapshot) if not action.exists else None
        if action.exists:
            there = await self._read(action.kind, action.name, snapshot)
        have = secret_data(there) if isinstance(there, ObjectView) else {}
        memory = self._memory.of(uid)
        asked = wishes(snapshot.swarm, snapshot.spec).asked if snapshot.spec else ""
        keys = keep_record(self._new_keys(have, memory), have, memory, asked, self._now())
        await self._write_keys(keys, snapshot, action.remove)

    async def _turn_keys(self, action: TurnKeys, snapshot: Snapshot) -> None:
        """Only from the stage that the plan was made in: a plan that was made twice must not make keys twice."""
        there = await self._read(action.kind, action.name, snapshot)
        have = secret_data(there) if isinstance(there, ObjectView) else {}
        state = observe(have)
        if there is None or state.missing or state.record != action.before:
            return
        keys = turned(have, action.to)
        await self._write_keys(keys, snapshot, {}, there.resource_version)
        log.info("the keys are renewed", swarm=str(snapshot.key), stage=str(action.to.stage))

    async def _write_keys(
        self, keys: dict[str, str], snapshot: Snapshot, remove: dict[str, Any], version: str = ""
    ) -> None:
        data = {name: base64.b64encode(value.encode()).decode() for name, value in sorted(keys.items())}
        manifest = objects.secret_manifest(snapshot.swarm, data)
        if version:  # refused if somebody has written meanwhile
            manifest["metadata"]["resourceVersion"] = version
        name = manifest["metadata"]["name"]
        await self._apply(Apply("Secret", name, manifest, exists=True, remove=remove), snapshot)
        self._memory.remember(snapshot.swarm.uid, keys)

    async def _read(self, kind: str, name: str, snapshot: Snapshot) -> ObjectView | None:
        try:
            view = _read(kind, await self._api.get(kind, snapshot.key.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return view if isinstance(view, ObjectView) else None

    async def _create_pod(self, action: CreatePod, snapshot: Snapshot) -> None:
        try:
            await self._write("Pod", snapshot, self._api.create(action.manifest))
        except ApiError as error:
            if error.status != 409 or error.reason != "AlreadyExists":
                raise
            # A stale cache asked twice: success. But a pod that lost its label is not seen by our watch: label it.
            there = await self._must_be_ours("Pod", action.name, snapshot)
            if isinstance(there, PodView) and not there.deleting:
                meta = {**action.manifest["metadata"], "uid": there.uid}
                manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
                await self._gone_is_fine(self._write("Pod", snapshot, self._api.apply(manifest)))

    async def _delete(self, action: DeletePod | Delete, snapshot: Snapshot) -> None:
        namespace = snapshot.key.namespace
        store = self._cache.store(action.kind, namespace)
        try:
            answer = await self._api.delete(action.kind, namespace, action.name, action.uid)
        except ApiError as error:
            if error.status == 404:
                held = store.get(namespace, action.name)
                if held is not None and getattr(held, "uid", "") == action.uid:
                    store.remove(namespace, action.name)
            elif error.status != 409:
                raise
            return
        if msgspec.json.decode(answer, type=_Kind).kind == action.kind:
            store.put_written(_read(action.kind, answer))

    def _ask(self, action: AskAgent | PushSettings | DrainPod | ResumePod, snapshot: Snapshot, plan: Plan) -> None:
        if action.uid in self._asking:
            return  # the next plan, made of its answer, asks again if that is still needed
        task = asyncio.create_task(self._asked(action, snapshot, plan), name=f"ask {action.name}")
        self._asking[action.uid] = task
        if isinstance(action, ResumePod):
            self._resuming.add(action.uid)
        task.add_done_callback(lambda _: self._answered(action.uid))

    def _answered(self, uid: str) -> None:
        self._asking.pop(uid, None)
        self._resuming.discard(uid)

    async def _asked(
        self, action: AskAgent | PushSettings | DrainPod | ResumePod, snapshot: Snapshot, plan: Plan
    ) -> None:
        token = self._cache.token(snapshot.key)
        before = snapshot.agents.get(action.uid)
        if isinstance(action, PushSettings):
            assert plan.settings is not None
            report = await self._agents.push(action, token, encode_settings(plan.settings))
        elif isinstance(action, DrainPod):
            report = await self._agents.drain(action, token)
        elif isinstance(action, AskAgent):
            report = await self._agents.look(action, token)
        else:
            report = await self._agents.resume(action, token)
        if report.failures:
            if not (before and before.failures):
                log.warning("agent does not answer", swarm=str(snapshot.key), pod=action.name, error=report.error)
            self.on_news(snapshot.key, UNANSWERED)
        elif before is None or _said(before) != _said(report):
            self.on_news(snapshot.key, 0.0)

    async def close(self) -> None:
        """Stops asking."""
        for task in [*self._asking.values()]:
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)


def _said(report: AgentReport) -> tuple[Any, ...]:
    place = report.cores, report.exclusive, report.cores_code, report.numa, report.unfit
    fears = report.failing, report.failing_why
    return report.settings, report.state, report.failures, report.drain_since, place, fears, report.keys


def _read(kind: str, answer: bytes) -> View:
    try:
        return decode(kind, answer)
    except msgspec.DecodeError as error:
        raise ApiError(0, "BadAnswer", f"the answer is no {kind}: {error}") from error


class _Kind(msgspec.Struct):
    kind: str = ""
