"""Does what `gang` asks for: looks for room, lifts gates, marks groups that failed, and writes PodGroups.

Room is looked for by one list of the cluster's pods that have not ended, read page by page; of each pod only its
node and its requests are taken, summed up, and the rest is dropped, so that memory is that of one page and of one sum a
node. One group at a time is looked at and let go, over all Swarms, and those that were let go are in the next list: so
two groups never count on the same room.

What is found is kept by Swarm, as an observation that the next plan reads; it is lost with the process.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from swarm_operator import names
from swarm_operator.actions import EnsurePodGroup, FailGang, LiftGate, StartGang
from swarm_operator.cache import Cache
from swarm_operator.capacity import Claim, Usage, candidates, room_for
from swarm_operator.drift import covers
from swarm_operator.gang import GangView, GroupState, Survey
from swarm_operator.kube import RESOURCES, Api, ApiError, Page, Resource
from swarm_operator.names import FIELD_MANAGER, Key
from swarm_operator.quantities import amounts
from swarm_operator.snapshot import Snapshot
from swarm_operator.views import decode

__all__ = ["Starter"]

#: Swarms whose gangs are remembered.
_KEPT: Final = 4096
_PAGE: Final = 500
_RUNNING: Final = "status.phase!=Succeeded,status.phase!=Failed"

log = structlog.get_logger("gang")


class _Resources(msgspec.Struct):
    requests: dict[str, str | int] = {}


class _Container(msgspec.Struct, rename="camel"):
    resources: _Resources = msgspec.field(default_factory=_Resources)
    restart_policy: str = ""


class _Field(msgspec.Struct):
    key: str = ""
    operator: str = ""
    values: list[str] = []


class _Term(msgspec.Struct, rename="camel"):
    match_fields: list[_Field] = []


class _Selector(msgspec.Struct, rename="camel"):
    node_selector_terms: list[_Term] = []


class _NodeAffinity(msgspec.Struct):
    required: _Selector | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class _Affinity(msgspec.Struct, rename="camel"):
    node_affinity: _NodeAffinity | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] = []
    overhead: dict[str, str | int] = {}
    scheduling_gates: list[dict[str, Any]] = []
    affinity: _Affinity | None = None


class _Meta(msgspec.Struct, rename="camel"):
    deletion_timestamp: str | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)


def request_of(spec: _Spec) -> dict[str, int]:
    """What a pod takes of a node: the sum of its containers, or what one init container needs, whichever is more."""
    total: dict[str, int] = {}
    most: dict[str, int] = {}
    sidecars = [c for c in spec.init_containers if c.restart_policy == "Always"]
    for container in [*spec.containers, *sidecars]:
        for name, amount in amounts(container.resources.requests).items():
            total[name] = total.get(name, 0) + amount
    for container in spec.init_containers:
        for name, amount in amounts(container.resources.requests).items():
            most[name] = max(most.get(name, 0), amount)
    out = {name: max(total.get(name, 0), most.get(name, 0)) for name in {**total, **most}}
    for name, amount in amounts(spec.overhead).items():
        out[name] = out.get(name, 0) + amount
    return {**out, "pods": 1}


def _only_node(spec: _Spec) -> str:
    required = spec.affinity.node_affinity.required if spec.affinity and spec.affinity.node_affinity else None
    for term in required.node_selector_terms if required else ():
        for wanted in term.match_fields:
            if wanted.key == "metadata.name" and wanted.operator == "In" and wanted.values:
                return wanted.values[0]
    return ""


def take(usage: Usage, raw: bytes | msgspec.Raw) -> None:
    """Adds one pod of the list."""
    pod = msgspec.json.decode(raw, type=_Pod)
    if pod.spec.node_name:
        usage.add(pod.spec.node_name, request_of(pod.spec))
    elif not pod.spec.scheduling_gates and pod.metadata.deletion_timestamp is None:
        usage.waiting.append(Claim(request_of(pod.spec), _only_node(pod.spec)))


class Starter:
    """Carries out the gangs' actions, and keeps what was found."""

    def __init__(
        self, api: Api, cache: Cache, on_news: Callable[[Key], None], now: Callable[[], float] = time.time
    ) -> None:
        self._api, self._cache, self._on_news, self._now = api, cache, on_news, now
        self._views: OrderedDict[str, GangView] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    def view(self, uid: str) -> GangView:
        """What is known of one Swarm's gang."""
        return self._views.get(uid, GangView())

    def _note(self, uid: str, **changes: Any) -> None:
        known = self._views.pop(uid, GangView())
        self._views[uid] = GangView(**{"survey": known.survey, "group": known.group, **changes})
        while len(self._views) > _KEPT:
            self._views.popitem(last=False)

    async def do(self, action: EnsurePodGroup | StartGang | LiftGate | FailGang, snapshot: Snapshot) -> None:
        """One action.

        Raises:
            ApiError: a pod could not be changed. What stands in the way of a PodGroup is noted instead.
        """
        match action:
            case EnsurePodGroup():
                await self._ensure(action, snapshot)
            case StartGang():
                async with self._one_at_a_time:
                    await self._start(action, snapshot)
            case LiftGate():
                await self._lift(snapshot.key.namespace, action.name, action.uid)
            case FailGang():
                note = {"metadata": {"uid": action.uid, "annotations": {names.ANNOTATION_GANG_FAILED: "true"}}}
                await self._patch(snapshot.key.namespace, action.name, note)

    # -- gates

    async def _start(self, action: StartGang, snapshot: Snapshot) -> None:
        assert snapshot.spec is not None
        scheduling, key = snapshot.spec.scheduling, snapshot.key
        try:
            usage = await self._usage()
            nodes = candidates(self._cache.nodes(), scheduling.node_selector, scheduling.tolerations, action.avoid)
            room = room_for(action.demand, nodes, usage)
        except ApiError as error:
            if error.status != 403:
                self._note(
                    snapshot.swarm.uid, survey=Survey(action.label, self._now(), error=f"no room known: {error}")
                )
                self._on_news(key)
                return
            # all that is left is to try: who is placed alone is taken back
            log.warning("may not list the cluster's pods: a gang is tried", swarm=str(key), error=str(error))
            room = action.demand.count
        if room >= action.demand.count:
            log.info("a gang starts", swarm=str(key), gang=action.label, agents=len(action.pods))
            lifted = await asyncio.gather(
                *(self._lift(key.namespace, name, uid) for name, uid in action.pods), return_exceptions=True
            )
            failed = [error for error in lifted if isinstance(error, BaseException)]
            if failed:
                raise failed[0]
        self._note(snapshot.swarm.uid, survey=Survey(action.label, self._now(), room))
        self._on_news(key)

    async def _usage(self) -> Usage:
        usage, token = Usage(), ""
        while True:
            query: dict[str, Any] = {"limit": _PAGE, "fieldSelector": _RUNNING}
            if token:
                query["continue"] = token
            data = await self._api.request("GET", RESOURCES["Pod"].path(), "Pod", query=query)
            page = msgspec.json.decode(data, type=Page)
            for item in page.items:
                take(usage, item)
            token = page.metadata.continue_
            if not token:
                return usage

    async def _lift(self, namespace: str, name: str, uid: str) -> None:
        # by name and not the whole list: another gate may have been put there by somebody else
        gates = [{"$patch": "delete", "name": names.GANG_GATE}]
        await self._patch(namespace, name, {"metadata": {"uid": uid}, "spec": {"schedulingGates": gates}})

    async def _patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        try:
            answer = await self._api.request(
                "PATCH",
                RESOURCES["Pod"].path(namespace, name),
                "Pod",
                query={"fieldManager": FIELD_MANAGER},
                body=patch,
                content_type="application/strategic-merge-patch+json",
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return  # it is gone, or another one's by now; the next plan knows
        self._cache.store("Pod", namespace).put_written(decode("Pod", answer))

    # -- PodGroups

    async def _ensure(self, action: EnsurePodGroup, snapshot: Snapshot) -> None:
        error = ""
        try:
            await self._write_group(action, snapshot)
        except ApiError as refused:
            error = _explained(refused, action)
            log.warning("the PodGroup can't be written", swarm=str(snapshot.key), error=error)
        self._note(snapshot.swarm.uid, group=GroupState(action.digest, self._now(), error))
        self._on_news(snapshot.key)

    async def _write_group(self, action: EnsurePodGroup, snapshot: Snapshot) -> None:
        manifest = action.manifest
        path = Resource("PodGroup", manifest["apiVersion"], "podgroups").path(snapshot.key.namespace, action.name)
        try:
            held = msgspec.json.decode(await self._api.request("GET", path, "PodGroup"))
        except ApiError as error:
            if error.status != 404:
                raise
            held = None  # or its kind is not there; writing it will tell
        if held is not None:
            owners = [owner.get("uid") for owner in held["metadata"].get("ownerReferences") or ()]
            if snapshot.swarm.uid not in owners:
                raise ApiError(409, "NameTaken", f"PodGroup {action.name} exists and belongs to somebody else")
            surplus = set(held.get("spec") or {}) & {"minResources"} - set(manifest["spec"])
            if covers(manifest["spec"], held.get("spec")) and not surplus:
                return
        await self._api.request(
            "PATCH",
            path,
            "PodGroup",
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )


def _explained(error: ApiError, action: EnsurePodGroup) -> str:
    api = action.manifest["apiVersion"]
    if error.status == 404:
        return f"the cluster has no PodGroup of {api}: install the gang scheduler, or choose another scheduling.gang"
    if error.status == 403 and "webhook" not in error.message:
        return (
            f"the operator may not write PodGroups of {api}: grant it get, create and patch on "
            f"podgroups.{api.split('/')[0]}"
        )
    return f"the PodGroup can't be written: {error}"
