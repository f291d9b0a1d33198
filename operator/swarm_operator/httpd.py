"""The operator's own HTTP port: /metrics, /targets, /healthz, /readyz.

Alive means that the API server was heard of on every watch lately: a watch that has silently stalled would otherwise
look like a quiet cluster for ever. Ready means that everything was listed once; the replica that does not lead is ready
too, since it could lead the next moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from swarm_operator.metrics import Metrics

__all__ = ["STALE_AFTER", "serve", "split_address"]

#: A watch that was not heard of for so long (seconds) fails the liveness probe.
STALE_AFTER: Final = 240.0


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPV6]:PORT` or `:PORT` (every address).

    Raises:
        ValueError: there is no port, or it is no number up to 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address to listen on: write HOST:PORT, such as 127.0.0.1:9403")
    return host.strip("[]") or "0.0.0.0", int(port)


async def serve(
    address: str,
    metrics: Metrics,
    alive: Callable[[], str],
    ready: Callable[[], str],
    found: Callable[[], list[dict[str, Any]]] = list,
) -> tuple[web.AppRunner, int]:
    """Serves until the runner is cleaned up; returns it and the port. `alive` and `ready` say what is wrong, or "";
    `found` is what there is to scrape, for Prometheus' HTTP service discovery.

    Raises:
        OSError: the address can't be listened on.
    """

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), content_type="text/plain", charset="utf-8")

    async def targets(_: web.Request) -> web.Response:
        return web.json_response(found())

    def probe(check: Callable[[], str]) -> Callable[[web.Request], web.Response]:
        async def handler(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

        return handler  # type: ignore[return-value]

    app = web.Application()
    app.router.add_get("/metrics", exposition)
    app.router.add_get("/targets", targets)
    app.router.add_get("/healthz", probe(alive))  # type: ignore[arg-type]
    app.router.add_get("/readyz", probe(ready))  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, port = split_address(address)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])
