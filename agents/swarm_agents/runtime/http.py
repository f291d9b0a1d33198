"""What a pod answers on its port: probes and metrics to everybody, the rest to who has the token.

Served from the supervisor's own loop. Every endpoint is a coroutine function: Starlette runs plain functions on a
thread pool, and a process with threads can't be forked safely. For the same reason the socket is bound beforehand, by
address (no resolver thread). uvicorn is kept from the process's signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from swarm_agents.errors import BoardMismatch
from swarm_agents.runtime.control import RefusedError

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["PortError", "Server", "application", "bind"]

#: Settings of a swarm with thousands of hubs fit (bytes).
_MAX_BODY = 4 << 20


class PortError(OSError):
    """The pod's port can't be listened on; the message says what to do."""


def bind(address: str, port: int) -> socket.socket:
    """A listening socket for the pod's HTTP.

    Raises:
        PortError: the port is taken, or the address is not this machine's.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(128)
    except OverflowError as error:
        sock.close()
        raise PortError(f"{port} is not a port: set transport.agentPort to one from 1 to 65535") from error
    except OSError as error:
        sock.close()
        raise PortError(
            f"can't listen on {address} port {port}: {error.strerror}. "
            "Each agent needs this port of its pod's address (POD_IP) for itself: stop what listens there "
            f"(`ss -ltnp 'sport = :{port}'` shows it), or give the swarm another port in its transport settings"
        ) from error
    sock.setblocking(False)
    return sock


class Server(uvicorn.Server):
    """uvicorn inside somebody else's loop: it leaves signals alone, and starts no thread."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                timeout_keep_alive=30,
                timeout_graceful_shutdown=1,
                server_header=False,
                date_header=False,
            )
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the supervisor says itself when it starts and ends
        self._over = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # uvicorn's own wakes up ten times a second to look at `should_exit` and to write the date.
        await self._over.wait()

    def stop(self) -> None:
        """Ends `serve`."""
        self.should_exit = True
        self._over.set()


def application(supervisor: Supervisor, keys_dir: Path) -> Starlette:
    """The pod's HTTP interface; what it says and does is the supervisor's."""

    def refusal(request: Request) -> Response | None:
        try:
            token = (keys_dir / "token").read_text().strip()  # read each time: a Secret may be renewed
        except OSError as error:
            return _error(503, f"the pod's token can't be read: {error}")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token and hmac.compare_digest(given.strip().encode(), token.encode()):
            return None
        return _error(
            401, "needs the swarm's token: Authorization: Bearer <token>", {"WWW-Authenticate": 'Bearer realm="swarm"'}
        )

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reason = supervisor.unready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(await supervisor.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(request: Request) -> Response:
        return refusal(request) or JSONResponse(supervisor.status())

    async def settings(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY:
                return _error(413, f"settings may have {_MAX_BODY} bytes at most")
        try:
            return JSONResponse({"settings": await supervisor.apply(bytes(body))})
        except (ValueError, RefusedError) as error:
            return _error(400, str(error))
        except (TimeoutError, ConnectionError) as error:
            return _error(503, f"the agent has not taken the settings: {error or 'no answer in time'}; push them again")

    async def events(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        after = request.query_params.get("after", "0")
        if not after.isdecimal():
            return _error(400, f"after={after!r}: expected the number of an event")
        kept = supervisor.events
        return JSONResponse({"run": kept.run, "last": kept.last, "events": kept.recent(int(after))})

    async def load(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        try:
            # not sooner: NumPy and Numba read the environment that is set after the port was bound
            from swarm_agents.runtime.load import read_load

            return JSONResponse(read_load(supervisor.board, supervisor.identity.node))
        except BoardMismatch as error:
            return _error(503, str(error))

    async def drain(request: Request) -> Response:
        refused = refusal(request)
        if refused is None:
            await supervisor.drain()
        return refused or JSONResponse(supervisor.status(), 202)

    async def resume(request: Request) -> Response:
        refused = refusal(request)
        if refused is None:
            await supervisor.resume()
        return refused or JSONResponse(supervisor.status(), 202)

    async def not_found(request: Request, _: Exception) -> Response:
        return _error(404, f"nothing is at {request.url.path}")

    async def wrong_method(request: Request, error: Exception) -> Response:
        return _error(405, f"{request.method} is not possible here", getattr(error, "headers", None))

    async def failed(_: Request, error: Exception) -> Response:
        return _error(500, f"{type(error).__name__}: {error}")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/status", status),
            Route("/v1/events", events),
            Route("/v1/load", load),
            Route("/v1/settings", settings, methods=["PUT"]),
            Route("/v1/drain", drain, methods=["POST"]),
            Route("/v1/resume", resume, methods=["POST"]),
        ],
        exception_handlers={404: not_found, 405: wrong_method, 500: failed},
    )


def _error(status: int, message: str, headers: Any = None) -> Response:
    return Response(json.dumps({"error": message}), status, headers, "application/json")
