"""The API over HTTP as an aiohttp application, and as a server with TLS on a loopback address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from swarm_deploy.local.api.access import Credentials, kubeconfig, load_credentials
from swarm_deploy.local.api.audit import AuditLog
from swarm_deploy.local.api.core import Api, LogReader
from swarm_deploy.local.api.handler import MOST_BYTES, Handler
from swarm_deploy.local.api.lifecycle import Sweeper, set_up
from swarm_deploy.local.api.meta import Clock
from swarm_deploy.local.store import Store

__all__ = ["API", "Server", "make_app", "serve"]

API: web.AppKey[Api] = web.AppKey("api", Api)


def make_app(
    store: Store,
    *,
    token: str,
    log_reader: LogReader | None = None,
    authority: str = "",
    address: str = "127.0.0.1:6443",
    clock: Clock = time.time,
    audit: AuditLog | None = None,
) -> web.Application:
    """The API over a store, as an aiohttp application; `app[API]` is the API itself.

    Args:
        token: what a client has to show.
        authority: the PEM certificate by which pods know the server.
        address: where clients reach it, `host:port`.
        audit: where requests are noted; nowhere when left out.
    """
    api = Api(store, clock=clock, log_reader=log_reader)
    api.authority = authority
    handler = Handler(api, token, address, audit)
    app = web.Application(client_max_size=MOST_BYTES)
    app[API] = api
    app.router.add_route("*", "/{path:.*}", handler.handle)

    async def background(app: web.Application) -> AsyncIterator[None]:
        del app
        host, _, port = address.rpartition(":")
        set_up(api, address=host, port=int(port))
        task = asyncio.create_task(Sweeper(api).run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    app.cleanup_ctx.append(background)
    return app


@dataclass(frozen=True, slots=True)
class Server:
    """A running API server."""

    api: Api
    url: str
    credentials: Credentials

    def kubeconfig(self, **names: str) -> str:
        """A kubeconfig for it; `name` and `namespace` may be given."""
        return kubeconfig(self.url, self.credentials.authority, self.credentials.token, **names)


@asynccontextmanager
async def serve(
    store: Store,
    *,
    state: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    log_reader: LogReader | None = None,
    clock: Clock = time.time,
    audited: bool = True,
) -> AsyncIterator[Server]:
    """Serve a store over TLS while the context lasts.

    Args:
        state: the directory in which the credentials are kept.
        port: 0 takes a free one.
        audited: whether requests are noted in the audit log.

    Raises:
        OSError: the port is in use.
        ValueError: the host is not this machine's alone.
    """
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the embedded cluster listens on a loopback address only, not on {host}")
    credentials = load_credentials(state)
    audit = AuditLog(state / "audit.log") if audited else None
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        address = f"{host}:{listener.getsockname()[1]}"
        app = make_app(
            store,
            token=credentials.token,
            log_reader=log_reader,
            authority=credentials.authority,
            address=address,
            clock=clock,
            audit=audit,
        )
        # A client that goes away ends its watch at once, not with the next event.
        # Connections are kept long: a client must not meet one that was closed while it wrote.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=1, keepalive_timeout=3600
        )
        await runner.setup()
    except BaseException:
        listener.close()
        raise
    try:
        await web.SockSite(runner, listener, ssl_context=credentials.server_context(), backlog=512).start()
        yield Server(app[API], f"https://{address}", credentials)
    finally:
        await runner.cleanup()
        if audit:
            audit.close()
        listener.close()
