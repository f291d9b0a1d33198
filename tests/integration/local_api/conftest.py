"""A server on a free port of the loopback address, and ways to speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.local_api import Clock, make_definition
from swarm_deploy.local.api.app import Server, serve
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.store import Store

Object = dict[str, Any]


@dataclass
class Http:
    """A client that has the token."""

    server: Server
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers, body; underscores in a header's name stand for dashes."""
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        if isinstance(body, dict | list):
            sent.setdefault("Content-Type", "application/json")
        arguments: Object = {"json": body} if isinstance(body, dict | list) else {"data": body}
        async with self.session.request(method, self.server.url + path, headers=sent, **arguments) as answer:
            raw = await answer.read()
            is_json = "json" in answer.headers.get("Content-Type", "") and raw
            return answer.status, answer.headers, await answer.json(content_type=None) if is_json else raw


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The API alone: no kubelet, no controllers, and a clock that stands."""

    async def reader(namespace: str, pod: str, container: str, options: Object) -> Any:
        async def lines() -> AsyncIterator[bytes]:
            yield f"{namespace}/{pod}/{container} {options}\n".encode()
            if options["follow"]:
                await asyncio.Event().wait()

        return lines()

    store = Store(tmp_path / "cluster.db")
    async with serve(store, state=tmp_path / "pki", log_reader=reader, clock=Clock()) as running:
        yield running
    store.close()


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Http]:
    """A client with the token, and the Widget kind."""
    await LocalClient(server.api, "test").create("customresourcedefinitions.apiextensions.k8s.io", make_definition())
    connector = aiohttp.TCPConnector(ssl=server.credentials.client_context())
    headers = {"Authorization": f"Bearer {server.credentials.token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield Http(server, session)
