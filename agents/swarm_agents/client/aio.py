"""`AsyncSwarm`: the same swarm from an event loop. The work is `Swarm`'s; here its futures are awaited.

A full swarm would block `Swarm.submit`, and must not block a loop: so a submission is tried, and tried again after a
pause that grows. Cancelling the coroutine cancels the task in the swarm.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from swarm_agents.client.connection import Connection
from swarm_agents.client.swarm import Swarm
from swarm_agents.client.task import SwarmFuture
from swarm_agents.config import Priority
from swarm_agents.errors import Overloaded, SwarmFull

__all__ = ["AsyncSwarm"]

_PAUSE, _PAUSE_MOST = 0.001, 0.05


class AsyncSwarm:
    """A connection to a swarm, for asyncio.

    async with await AsyncSwarm.connect() as swarm:
        value = await swarm.submit("risk.monte_carlo", returns, weights, paths=1_000_000, seed=7)
        async for digest in swarm.map("hash.sha256_tree", blocks):
            ...
    """

    def __init__(self, swarm: Swarm) -> None:
        """Shares a `Swarm`'s connection. `connect` makes one of its own."""
        self._swarm = swarm

    @classmethod
    async def connect(cls, target: str | os.PathLike[str] | Connection | None = None, **options: Any) -> Self:
        """Connects; see `Swarm.connect` for what it takes and raises."""
        return cls(await asyncio.to_thread(Swarm.connect, target, **options))

    async def submit(
        self,
        kernel: Any,
        /,
        *args: Any,
        priority: Priority | str = Priority.NORMAL,
        deadline: float | timedelta | datetime | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # of the submission alone, as in Swarm.submit
        **kwargs: Any,
    ) -> Any:
        """Submits a task and returns its value; see `Swarm.submit`. Run several by `asyncio.gather`."""
        return await self._answer(kernel, args, kwargs, priority, deadline, timeout)

    async def map(
        self,
        kernel: Any,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        window: int = 128,
        priority: Priority | str = Priority.NORMAL,
    ) -> AsyncIterator[Any]:
        """The kernel's values for the items of the iterables, plain or asynchronous, in order; see `Swarm.map`."""
        items = [_items(iterable) for iterable in iterables]
        underway: deque[asyncio.Future[Any]] = deque()
        more = True
        try:
            while more or underway:
                while more and len(underway) < window:
                    try:
                        args = tuple([await anext(item) for item in items])
                    except StopAsyncIteration:
                        more = False
                        break
                    future = await self._submit(kernel, args, {}, priority, None, None)
                    underway.append(asyncio.ensure_future(self._answer(kernel, args, {}, priority, None, None, future)))
                if underway:
                    yield await underway.popleft()
        finally:
            for waiting in underway:
                waiting.cancel()

    async def info(self) -> dict[str, Any]:
        """What the swarm says of itself; see `Swarm.info`."""
        return await asyncio.to_thread(self._swarm.info)

    async def close(self) -> None:
        """Closes the connection; what is pending fails."""
        await asyncio.to_thread(self._swarm.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._swarm.shutdown, kind is None, cancel_futures=kind is not None)

    async def _answer(
        self,
        kernel: Any,
        args: Any,
        kwargs: Any,
        priority: Any,
        deadline: Any,
        within: float | None,
        future: SwarmFuture | None = None,
    ) -> Any:
        """The value of a task; one that is refused for overload on its way is submitted again, as long as allowed."""
        until = None if within is None else time.monotonic() + within
        while True:
            if future is None:
                left = None if until is None else max(until - time.monotonic(), 0.0)
                future = await self._submit(kernel, args, kwargs, priority, deadline, left)
            try:
                return await asyncio.wrap_future(future)
            except Overloaded as error:
                if until is not None and time.monotonic() + error.retry_after > until:
                    raise
                if deadline is not None:  # it counts from now, and is not to begin anew
                    raise
                future = None
                await asyncio.sleep(error.retry_after)

    async def _submit(
        self, kernel: Any, args: Any, kwargs: Any, priority: Any, deadline: Any, within: float | None
    ) -> SwarmFuture:
        until = None if within is None else time.monotonic() + within
        pause = _PAUSE
        while True:
            try:
                return self._swarm.submit(kernel, *args, priority=priority, deadline=deadline, timeout=0, **kwargs)
            except SwarmFull:
                if until is not None and time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_MOST)


async def _items(iterable: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item
