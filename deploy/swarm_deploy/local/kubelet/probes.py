"""Probes: questions put to a running container over and over, and what enough equal answers in a row mean.

The counting is apart from the asking, so that it can be tested without a container: `Verdict` takes answers and says
when the result turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "Prober", "Verdict", "ask_http", "ask_tcp", "port_number"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and why."""

    good: bool
    text: str = ""


class Verdict:
    """The result of a probe: it turns after `successThreshold` good or `failureThreshold` bad answers in a row."""

    def __init__(self, probe: Object, result: bool | None = None) -> None:
        self._success = max(1, int(probe.get("successThreshold") or 1))
        self._failure = max(1, int(probe.get("failureThreshold") or 3))
        self.result = result
        self._last: bool | None = None
        self._count = 0

    def take(self, good: bool) -> bool:
        """Count an answer; True when the result has turned, or is reached for the first time."""
        self._count = self._count + 1 if good is self._last else 1
        self._last = good
        if self._count < (self._success if good else self._failure) or self.result is good:
            return False
        self.result = good
        return True


def port_number(container: Object, port: int | str) -> int:
    """The number behind a port of a probe, which may be one of the container's port names.

    Raises:
        ValueError: it names no port.
    """
    if isinstance(port, int):
        return port
    for entry in container.get("ports") or ():
        if entry.get("name") == port:
            return int(entry["containerPort"])
    if port.isdigit():
        return int(port)
    raise ValueError(f"couldn't find port: {port}")


async def ask_tcp(host: str, port: int, timeout: float) -> Answer:  # noqa: ASYNC109 - the probe's own
    """Whether something accepts connections there."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Answer(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Answer(False, f"dial tcp {host}:{port}: connect: {(error.strerror or str(error)).lower()}")
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass
    return Answer(True)


async def ask_http(
    session: Any,
    handler: Object,
    host: str,
    port: int,
    timeout: float,  # noqa: ASYNC109
) -> Answer:
    """Whether a GET is answered with 200 to 399. `session` is an aiohttp one; certificates do not matter."""
    import aiohttp

    host = handler.get("host") or host
    scheme = str(handler.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{host}:{port}{handler.get('path') or '/'}"
    headers = {entry["name"]: entry["value"] for entry in handler.get("httpHeaders") or ()}
    headers.setdefault("User-Agent", "kube-probe/embedded")
    try:
        async with session.get(
            url,
            headers=headers,
            allow_redirects=False,
            ssl=False,
            timeout=aiohttp.ClientTimeout(total=timeout),
        ) as response:
            if 200 <= response.status < 400:
                return Answer(True)
            return Answer(False, f"HTTP probe failed with statuscode: {response.status}")
    except TimeoutError:
        return Answer(False, f'Get "{url}": context deadline exceeded')
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(False, f'Get "{url}": {error}')


class Prober:
    """One probe of one run of a container."""

    def __init__(
        self,
        probe: Object,
        ask: Callable[[float], Awaitable[Answer]],
        *,
        turned: Callable[[bool, str], None],
        failed: Callable[[str], None],
        until_good: bool = False,
        result: bool | None = None,
        eager: bool = False,
    ) -> None:
        """`ask(timeout)` puts the question; `turned(result, text)` hears of results, `failed(text)` of each bad answer.

        Args:
            until_good: stop after the first good result (a startup probe).
            result: what counts before the first answer, so that only the opposite is news.
            eager: while the container is young, ask between the periods too. Such a question counts if it is answered
                well, so that nobody waits a whole period for what is ready already; if not, it does not count.
        """
        self._probe = probe
        self._ask = ask
        self._turned = turned
        self._failed = failed
        self._until_good = until_good
        self._verdict = Verdict(probe, result)
        self._eager = eager

    async def run(self) -> None:
        """Until cancelled."""
        probe = self._probe
        timeout = max(1, int(probe.get("timeoutSeconds") or 1))
        period = max(1, int(probe.get("periodSeconds") or 10))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(int(probe.get("initialDelaySeconds") or 0))
        young = loop.time() + _YOUNG if self._eager else 0.0
        while True:
            due = loop.time() + period
            answer = await self._ask(timeout)
            while not answer.good and self._verdict.result is not True and loop.time() < min(due, young):
                await asyncio.sleep(min(_EAGER_INTERVAL, max(due - loop.time(), 0)))
                answer = await self._ask(timeout)
            if not answer.good:
                self._failed(answer.text)
            if self._verdict.take(answer.good):
                self._turned(answer.good, answer.text)
                if answer.good and self._until_good:
                    return
            await asyncio.sleep(max(due - loop.time(), 0))


_EAGER_INTERVAL = 0.1
_YOUNG = 10.0
