"""A kubelet and agents that are no processes: pods are bound, run and are ready as soon as they are seen.

Everything goes through the API server, by requests such as a scheduler and a kubelet send: one binding, one status with
Running and Ready, and at the end one deletion without grace. Several are in flight at once. The agents' side of HTTP is
answered by one server that listens on many loopback addresses, one a pod as long as there are enough: settings are
acknowledged, a drain is acknowledged as soon as `busy` says that the agent has nothing in hand, events are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from swarm_agents.config import AGENT_PORT, decode_settings, settings_revision
from swarm_deploy.local.addresses import claim_block
from swarm_operator.kube import RESOURCES, Api, ApiError
from swarm_operator.names import LABEL_SWARM

__all__ = ["Agents", "FakePod", "Kubelet"]

#: Requests in flight at once.
_WORKERS = 24
#: Blocks of loopback addresses, 253 pods each.
_BLOCKS = 4


@dataclass
class Agent:
    """What one address answers as."""

    settings: str = ""
    draining: bool = False
    #: When the settings last changed (monotonic seconds), and the revision.
    acknowledged: list[tuple[float, str]] = field(default_factory=list)


class Agents:
    """All agents' HTTP interfaces."""

    def __init__(self, blocks: int = _BLOCKS) -> None:
        self._holders: list[socket.socket] = []
        self._addresses: list[str] = []
        self._runner: web.AppRunner | None = None
        self._revisions: dict[bytes, str] = {}
        self._run = os.urandom(4).hex()
        self._blocks = blocks
        self._turn = itertools.count()
        self.by_address: dict[str, Agent] = {}
        #: How many tasks the agent of an address has in hand.
        self.busy: Callable[[str], int] = lambda address: 0
        #: Told when an agent has taken settings: its address and their revision.
        self.on_settings: Callable[[str, str], None] = lambda address, revision: None
        self.requests = 0

    async def __aenter__(self) -> Agents:
        server = web.Server(self._answer, access_log=None, keepalive_timeout=30)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.2)
        await self._runner.setup()
        for index in range(self._blocks):
            block, holder = claim_block(f"bench-{os.getpid()}", index)
            self._holders.append(holder)
            for last in range(2, 255):
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((f"{block}.{last}", AGENT_PORT))
                await web.SockSite(self._runner, listener).start()
                self._addresses.append(f"{block}.{last}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()
        for holder in self._holders:
            holder.close()

    def address(self) -> str:
        """The next pod's; when there are more pods than addresses they are shared in turn."""
        found = self._addresses[next(self._turn) % len(self._addresses)]
        self.by_address[found] = Agent()
        return found

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        assert request.transport
        address = request.transport.get_extra_info("sockname")[0]
        agent = self.by_address.setdefault(address, Agent())
        path = request.path
        if path == "/v1/settings":
            agent.settings = self._revision(await request.read())
            agent.acknowledged.append((time.monotonic(), agent.settings))
            self.on_settings(address, agent.settings)
            said: dict[str, Any] = {"settings": agent.settings}
        elif path == "/v1/events":
            said = {"run": self._run, "last": 0, "events": []}
        else:
            if path == "/v1/drain":
                agent.draining = True
            elif path == "/v1/resume":
                agent.draining = False
            busy = self.busy(address)
            state = ("draining" if busy else "drained") if agent.draining else "ready"
            said = {"state": state, "running": busy, "settings": agent.settings}
        return web.Response(body=msgspec.json.encode(said), content_type="application/json")

    def _revision(self, body: bytes) -> str:
        if body not in self._revisions:
            self._revisions[body] = settings_revision(decode_settings(body))
        return self._revisions[body]


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    affinity: msgspec.Raw = msgspec.Raw(b"")


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")


class _Pod(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Pod


@dataclass
class FakePod:
    """A pod as the kubelet knows it."""

    name: str
    uid: str
    swarm: str
    #: Monotonic seconds: when it was seen first, and when its status said Ready (0: not yet).
    seen: float
    labels: dict[str, str]
    ready: float = 0.0
    address: str = ""


class Kubelet:
    """Scheduler and kubelet of all fake nodes, for the pods of swarms in one namespace."""

    def __init__(self, api: Api, namespace: str, nodes: list[str], agents: Agents) -> None:
        self._api, self._namespace, self._nodes, self._agents = api, namespace, nodes, agents
        self._todo: deque[_Pod] = deque()
        self._known: set[tuple[str, bool]] = set()
        self._wake = asyncio.Event()
        self._turn = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self.pods: dict[str, FakePod] = {}
        #: Told of each change of a pod, as the watch shows it: its type (ADDED...), and the pod.
        self.on_event: Callable[[str, FakePod], None] = lambda kind, pod: None
        self.synced = asyncio.Event()
        self.created = self.ready = self.removed = 0

    async def __aenter__(self) -> Kubelet:
        self._tasks = [asyncio.create_task(self._watch(), name="kubelet watch")]
        self._tasks += [asyncio.create_task(self._work(), name="kubelet") for _ in range(_WORKERS)]
        async with asyncio.timeout(30):
            await self.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, check: Callable[[], Any], what: str, deadline: float) -> Any:
        """Waits for something that the watch brings.

        Raises:
            TimeoutError: it did not come; the message says what was awaited and how far it is.
        """
        end = time.monotonic() + deadline
        while not (found := check()):
            if time.monotonic() > end:
                state = f"{len(self.pods)} pods, {sum(pod.ready > 0 for pod in self.pods.values())} ready"
                raise TimeoutError(f"in vain for {deadline:g} s: {what}; {state}")
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
        return found

    async def _watch(self) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                lines = self._api.watch(
                    "Pod", self._namespace, selector=LABEL_SWARM, version=version, server_timeout=300, silence=400
                )
                async for line in lines:
                    event = msgspec.json.decode(line, type=_Event)
                    if event.type == "ERROR":
                        version = ""
                        break
                    version = event.object.metadata.resource_version
                    self._take(event.type, event.object)
            except ApiError as error:
                version = "" if error.status == 410 else version
                await asyncio.sleep(0.2)

    async def _list(self) -> str:
        token = ""
        while True:
            page = await self._api.list_page("Pod", self._namespace, selector=LABEL_SWARM, token=token)
            for item in page.items:
                self._take("ADDED", msgspec.json.decode(item, type=_Pod))
            token = page.metadata.continue_
            if not token:
                return page.metadata.resource_version

    def _take(self, kind: str, pod: _Pod) -> None:
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return
        meta, now = pod.metadata, time.monotonic()
        known = self.pods.get(meta.uid)
        if kind == "DELETED":
            if known and self.pods.pop(meta.uid, None):
                self.removed += 1
                self.on_event(kind, known)
            self._known -= {(meta.uid, True), (meta.uid, False)}
            return
        if known is None:
            known = self.pods[meta.uid] = FakePod(meta.name, meta.uid, meta.labels.get(LABEL_SWARM, ""), now, {})
            self.created += 1
        known.labels = meta.labels
        mark = (meta.uid, meta.deletion_timestamp is not None)
        if mark not in self._known:
            self._known.add(mark)
            self._todo.append(pod)
            self._wake.set()
        self.on_event(kind, known)

    async def _work(self) -> None:
        while True:
            while not self._todo:
                self._wake.clear()
                await self._wake.wait()
            pod = self._todo.popleft()
            try:
                await (self._end(pod) if pod.metadata.deletion_timestamp else self._start(pod))
            except ApiError as error:
                if error.status == 404:
                    continue
                await asyncio.sleep(0.1)
                self._todo.append(pod)
                self._wake.set()

    async def _start(self, pod: _Pod) -> None:
        meta = pod.metadata
        path = RESOURCES["Pod"].path(meta.namespace, meta.name)
        if pod.status.pod_ip:
            return
        if not pod.spec.node_name:
            target = {"apiVersion": "v1", "kind": "Node", "name": self._node_of(pod)}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta.name}, "target": target}
            try:
                await self._api.request("POST", f"{path}/binding", "Pod", body=body)
            except ApiError as error:
                if error.status != 409:  # a real scheduler was faster
                    raise
        address = self._agents.address()
        known = self.pods.get(meta.uid)
        if known:
            known.address = address
        body = {"metadata": {"uid": meta.uid}, "status": _running(address)}
        await self._api.request(
            "PATCH", f"{path}/status", "Pod", body=body, content_type="application/strategic-merge-patch+json"
        )
        if known:
            known.ready = time.monotonic()
            self.ready += 1

    async def _end(self, pod: _Pod) -> None:
        meta = pod.metadata
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta.uid}}
        path = RESOURCES["Pod"].path(meta.namespace, meta.name)
        with contextlib.suppress(ApiError):
            await self._api.request("DELETE", path, "Pod", body=body)

    def _node_of(self, pod: _Pod) -> str:
        """The one it is pinned to, or the next in turn."""
        wish = bytes(pod.spec.affinity)
        pinned = [node for node in self._nodes if f'"{node}"'.encode() in wish]
        return pinned[0] if pinned else self._nodes[next(self._turn) % len(self._nodes)]


def _running(address: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": [
            {
                "name": "agent",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": "bench",
                "imageID": "",
                "state": {"running": {"startedAt": now}},
            }
        ],
    }
