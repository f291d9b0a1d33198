"""The connection to the API server under faults: what is read from an answer, and what is not sent any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from swarm_operator.kube import Api, ApiError, NotLeader, connect

CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "users": [{"name": "one", "user": {}}],
    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
    "current-context": "one",
}
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


class Server:
    """Answers each request by `answer`, and counts them."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.answer: Any = lambda request: web.json_response({"kind": "Pod"})
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.paths.append(f"{request.method} {request.path}")
        answer = self.answer(request)
        return await answer if asyncio.iscoroutine(answer) else answer  # type: ignore[no-any-return]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    runner = web.ServerRunner(web.Server(one), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    one.url = f"http://{host}:{port}"
    yield one
    await runner.cleanup()


@pytest.fixture
async def api(server: Server, tmp_path: Path) -> AsyncIterator[Api]:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(CONFIG | {"clusters": [{"name": "one", "cluster": {"server": server.url}}]}))
    one = await connect(str(path))
    yield one
    await one.close()


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Mon, 23 Nov 2026 08:00:09 GMT", 9.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 08:00:00 GMT", 300.0),
        ("86400", 300.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
async def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_server_s_own_clock(
    server: Server, api: Api, wish: str, seconds: float | None
) -> None:
    server.answer = lambda request: web.Response(status=429, headers={"Retry-After": wish, "Date": DATE})
    with pytest.raises(ApiError) as caught:
        await api.get("Pod", "default", "one")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'{"kind": "Pod", "metada'])
async def test_an_answer_that_is_no_json_is_an_error_and_not_a_crash(server: Server, api: Api, body: bytes) -> None:
    server.answer = lambda request: web.Response(body=body)
    for request in (api.get("Pod", "default", "one"), api.list_page("Pod", "default")):
        with pytest.raises(ApiError) as caught:
            await request
        assert (caught.value.status, caught.value.reason) == (0, "BadAnswer")


async def test_a_list_with_another_shape_is_an_error(server: Server, api: Api) -> None:
    server.answer = lambda request: web.json_response({"items": 3})
    with pytest.raises(ApiError, match="list of Pods"):
        await api.list_page("Pod", "default")


async def test_a_replica_that_does_not_lead_sends_no_write_but_reads_and_asks_for_the_lease(
    server: Server, api: Api
) -> None:
    api.may_write = lambda: False
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "default"}}
    for request in (api.create(pod), api.apply(pod), api.replace(pod), api.delete("Pod", "default", "one", "u")):
        with pytest.raises(NotLeader):
            await request
    assert server.paths == []
    await api.get("Pod", "default", "one")
    await api.replace({**pod, "kind": "Lease"})
    assert len(server.paths) == 2


async def test_what_waits_for_a_connection_while_the_leadership_is_lost_is_not_sent(server: Server, api: Api) -> None:
    """A stopped process goes on where it was: with requests that were decided on long ago."""
    api.configuration.connection_pool_maxsize = 1
    await api.close()
    asked, held, leads = asyncio.Event(), asyncio.Event(), True
    api._client.rest_client.maxsize, api._client.rest_client.pool_manager = 1, None
    api.may_write = lambda: leads

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await held.wait()
        return web.json_response({"kind": "Pod"})

    server.answer = slow
    first = asyncio.create_task(api.get("Pod", "default", "one"))
    async with asyncio.timeout(5):
        await asked.wait()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two", "namespace": "default"}}
    second = asyncio.create_task(api.create(pod))
    await asyncio.sleep(0.05)
    leads = False
    held.set()
    await first
    with pytest.raises(NotLeader):
        await second
    assert server.paths == ["GET /api/v1/namespaces/default/pods/one"]
    leads = True
    await api.create(pod)
    assert len(server.paths) == 2, "the connection is given back"
