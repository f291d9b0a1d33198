"""Startup, liveness and readiness probes, with the thresholds and times of Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

__all__ = ["Exec", "check", "watch_probe"]

Object = dict[str, Any]
#: Runs a command in the container's environment; returns its exit code and output.
Exec = Callable[[list[str], float], Awaitable[tuple[int, str]]]


async def check(probe: Object, container: Object, address: str, run: Exec) -> str | None:
    """Probes once; None when all is well, else what the event says."""
    timeout = float(probe.get("timeoutSeconds", 1))
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], container, address)
            if "tcpSocket" in probe:
                port = _port(probe["tcpSocket"]["port"], container)
                _, writer = await asyncio.open_connection(probe["tcpSocket"].get("host") or address, port)
                writer.close()
                return None
            if "exec" in probe:
                code, output = await run(probe["exec"].get("command", []), timeout)
                return None if code == 0 else output.strip() or f"command exited with {code}"
    except TimeoutError:
        return f"context deadline exceeded: no answer within {timeout:g}s"
    except (OSError, aiohttp.ClientError) as error:
        return str(error)
    return f"the embedded cluster can't probe by {', '.join(k for k in probe if k in ('grpc',)) or 'this'}"


async def _http(get: Object, container: Object, address: str) -> str | None:
    port = _port(get["port"], container)
    scheme = get.get("scheme", "HTTP").lower()
    url = f"{scheme}://{get.get('host') or address}:{port}{get.get('path', '/') or '/'}"
    headers = {h["name"]: h["value"] for h in get.get("httpHeaders", ())}
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        return None if 200 <= answer.status < 400 else f"HTTP probe failed with statuscode: {answer.status}"


def _port(port: int | str, container: Object) -> int:
    if isinstance(port, int) or port.isdecimal():
        return int(port)
    for named in container.get("ports", ()):
        if named.get("name") == port:
            return int(named["containerPort"])
    raise OSError(f"the container has no port named {port}")


async def watch_probe(
    probe: Object, once: Callable[[], Awaitable[str | None]], *, changed: Callable[[bool, str], None], healthy: bool
) -> None:
    """Probes for ever, and tells when the result has changed after enough successes or failures in a row.

    `changed(ok, message)` is also called on every failure past the threshold: a liveness probe restarts again.
    """
    await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
    good = bad = 0
    while True:
        problem = await once()
        if problem is None:
            good, bad = good + 1, 0
            if not healthy and good >= int(probe.get("successThreshold", 1)):
                healthy = True
                changed(True, "")
        else:
            good, bad = 0, bad + 1
            if bad >= int(probe.get("failureThreshold", 3)):
                healthy = False
                changed(False, problem)
        # A container that is not ready yet is asked oftener than its period says: an agent is up within milliseconds.
        await asyncio.sleep(
            float(probe.get("periodSeconds", 10)) if healthy else min(0.1, probe.get("periodSeconds", 10))
        )
