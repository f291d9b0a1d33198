"""Agents that are no processes, and the look at all pods that a measurement goes by.

The agents' side of HTTP is answered by one server that listens on many loopback addresses, one a pod as long as there
are enough: settings are acknowledged, a drain is as soon as `busy` says that the agent has nothing in hand, and of
events there are none. What makes their pods run and be ready is `kubelet`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from swarm_agents.config import AGENT_PORT, decode_settings, settings_revision
from swarm_deploy.local.addresses import claim_block
from swarm_operator.kube import Api, ApiError
from swarm_operator.names import LABEL_SWARM

__all__ = ["Agent", "Agents", "FakePod", "Pods"]

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
        #: What pods get, one after the other.
        self.addresses: list[str] = []
        self._runner: web.AppRunner | None = None
        self._revisions: dict[bytes, str] = {}
        self._run = os.urandom(4).hex()
        self._blocks = blocks
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
                self.addresses.append(f"{block}.{last}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()
        for holder in self._holders:
            holder.close()

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
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct, rename="camel"):
    pod_ip: str = msgspec.field(name="podIP", default="")
    conditions: list[_Condition] = []


class _Pod(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Pod


@dataclass
class FakePod:
    """A pod as the API server shows it."""

    name: str
    uid: str
    swarm: str
    #: Monotonic seconds: when it was seen first, and when it was seen to be ready (0: not yet).
    seen: float
    labels: dict[str, str] = field(default_factory=dict)
    ready: float = 0.0
    address: str = ""


class Pods:
    """All pods of swarms in one namespace, by a watch of the measurement's own."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._task: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        #: By UID.
        self.all: dict[str, FakePod] = {}
        #: Told of each change, as the watch shows it: its type (ADDED...), and the pod.
        self.on_event: Callable[[str, FakePod], None] = lambda kind, pod: None
        #: How many were ever seen, seen to be ready, and seen to go.
        self.created = self.ready = self.removed = 0

    async def __aenter__(self) -> Pods:
        self._task = asyncio.create_task(self._run(), name="watch of pods")
        async with asyncio.timeout(30):
            await self._synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, check: Callable[[], Any], what: str, deadline: float) -> Any:
        """Waits for something that the watch brings.

        Raises:
            TimeoutError: it did not come; the message says what was awaited and how far it is.
        """
        end = time.monotonic() + deadline
        while not (found := check()):
            if time.monotonic() > end:
                state = f"{len(self.all)} pods, {sum(pod.ready > 0 for pod in self.all.values())} ready"
                raise TimeoutError(f"in vain for {deadline:g} s: {what}; {state}")
            if self._task and self._task.done():
                self._task.result()
            await asyncio.sleep(0.01)
        return found

    async def _run(self) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self._synced.set()
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
        token, present = "", set()
        while True:
            page = await self._api.list_page("Pod", self._namespace, selector=LABEL_SWARM, token=token)
            for item in page.items:
                pod = msgspec.json.decode(item, type=_Pod)
                present.add(pod.metadata.uid)
                self._take("MODIFIED" if pod.metadata.uid in self.all else "ADDED", pod)
            token = page.metadata.continue_
            if not token:
                break
        for uid in [uid for uid in self.all if uid not in present]:
            self._take("DELETED", _Pod(_Meta(uid=uid)))
        return page.metadata.resource_version

    def _take(self, kind: str, pod: _Pod) -> None:
        if kind not in ("ADDED", "MODIFIED", "DELETED"):
            return
        meta, now = pod.metadata, time.monotonic()
        known = self.all.get(meta.uid)
        if kind == "DELETED":
            if known:
                del self.all[meta.uid]
                self.removed += 1
                self.on_event(kind, known)
            return
        if known is None:
            known = self.all[meta.uid] = FakePod(meta.name, meta.uid, meta.labels.get(LABEL_SWARM, ""), now)
            self.created += 1
        known.labels, known.address = meta.labels, pod.status.pod_ip
        if not known.ready and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions):
            known.ready = now
            self.ready += 1
        self.on_event(kind, known)
