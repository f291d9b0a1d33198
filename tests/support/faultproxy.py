"""A proxy in front of an API server that does faults on demand, and keeps a record of what came by.

The operator under test gets a kubeconfig that names the proxy (`FaultProxy.kubeconfig`). Requests go on to the real
server with its credentials, watches line by line. A `fault` is asked for every request and says what to do with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from swarm_operator.kube import Api

__all__ = ["Fault", "FaultProxy", "Seen"]


@dataclass(frozen=True)
class Seen:
    """One request, when it came (monotonic seconds)."""

    at: float
    method: str
    path: str
    watch: bool

    @property
    def writes(self) -> bool:
        """Whether it changes something other than the Lease."""
        return self.method != "GET" and "/leases" not in self.path


@dataclass(frozen=True)
class Fault:
    """What becomes of a request: the first of these that is set."""

    #: This answer, and the request goes no further.
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = "Injected"
    #: The connection is closed: before the request goes on, or after it was carried out and before the answer.
    reset: bool = False
    reset_after: bool = False
    #: The answer is cut off in its middle, or all of it is held back for ever; a watch just says nothing more.
    truncate: bool = False
    stall: bool = False
    #: The request goes on only after so many seconds.
    delay: float = 0.0


class FaultProxy:
    """Serves plain HTTP on a loopback address."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._watches: set[asyncio.Task[Any]] = set()
        self.url = ""
        self.seen: list[Seen] = []
        #: What to do with a request; None: nothing.
        self.fault: Callable[[Seen], Fault | None] = lambda seen: None

    async def __aenter__(self) -> FaultProxy:
        context = self._api._client.rest_client.ssl_context
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context), auto_decompress=False
        )
        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        assert self._session
        await self._runner.cleanup()
        await self._session.close()

    def kubeconfig(self, path: Path, namespace: str) -> Path:
        """Writes a kubeconfig by which a client comes here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy", "namespace": namespace}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def drop_watches(self) -> int:
        """Breaks every watch that runs; how many there were."""
        for task in self._watches:
            task.cancel()
        return len(self._watches)

    def writes(self, since: float = 0.0) -> list[Seen]:
        """The writes beyond the Lease that came after a moment (monotonic seconds)."""
        return [seen for seen in self.seen if seen.writes and seen.at >= since]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        watch = request.query.get("watch") == "true"
        body = await request.read()
        seen = Seen(time.monotonic(), request.method, request.path, watch)
        self.seen.append(seen)
        fault = self.fault(seen) or Fault()
        if fault.status:
            said = {"kind": "Status", "code": fault.status, "reason": fault.reason, "message": "injected"}
            return web.Response(status=fault.status, headers=fault.headers, body=json.dumps(said).encode())
        if fault.reset:
            return self._broken(request)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        headers = {k: v for k, v in request.headers.items() if k.lower() in ("accept", "content-type", "user-agent")}
        authorization = await self._api.authorization()
        if authorization:
            headers["Authorization"] = authorization
        assert self._session
        async with self._session.request(
            request.method,
            self._api.configuration.host + request.path_qs,
            data=body or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "retry-after", "date")}
            if watch and answer.status == 200:
                return await self._watched(request, answer, kept, stall=fault.stall)
            data = await answer.read()
            if fault.reset_after:
                return self._broken(request)
            if fault.stall:
                await asyncio.sleep(3600)
            if fault.truncate:
                response = web.StreamResponse(status=answer.status, headers=kept)
                response.content_length = len(data)
                await response.prepare(request)
                await response.write(data[: len(data) // 2])
                return self._broken(request)
            return web.Response(status=answer.status, headers=kept, body=data)

    async def _watched(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, headers: dict[str, str], *, stall: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)

        async def pump() -> None:
            if stall:
                await asyncio.sleep(3600)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)

        task = asyncio.create_task(pump())
        self._watches.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                return self._broken(request)
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                task.result()
        finally:
            task.cancel()
            self._watches.discard(task)
        return response

    @staticmethod
    def _broken(request: web.BaseRequest) -> web.StreamResponse:
        """As a load balancer breaks a connection."""
        if request.transport:
            request.transport.abort()
        raise ConnectionResetError
