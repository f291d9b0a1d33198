"""What the controllers have in common: a queue of keys, a worker, and a second try after an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from swarm_deploy.local.api.client import ApiError
from swarm_operator.workqueue import WorkQueue

__all__ = ["Controller"]

_log = logging.getLogger(__name__)


class Controller:
    """Runs `work(key)` for each key that was added, and again after a while when that failed."""

    def __init__(self, name: str, work: Callable[[Any], Awaitable[None]]) -> None:
        self.name = name
        self._work = work
        self._queue: WorkQueue[Any] | None = None
        self._early: list[Any] = []

    def add(self, key: Any) -> None:
        """Have a key worked on."""
        self.add_after(key, 0.0)

    def add_after(self, key: Any, seconds: float) -> None:
        """Have a key worked on later."""
        if self._queue is None:
            self._early.append(key)  # the loop does not run yet
        else:
            self._queue.add_after(key, seconds)

    async def run(self) -> None:
        """Until cancelled."""
        queue = self._queue = WorkQueue[Any](asyncio.get_running_loop().time)
        for key in self._early:
            queue.add(key)
        self._early.clear()

        async def one(key: Any, waited: float) -> None:
            del waited
            try:
                await self._work(key)
            except ApiError as error:
                if error.code not in (404, 409):
                    _log.warning("%s: %s: %s", self.name, key, error)
                queue.retry(key)
            except Exception:
                _log.exception("%s: %s", self.name, key)
                queue.retry(key)
            else:
                queue.forgive(key)

        await queue.run(one)
