"""Keeps one store equal to one collection of the API server: list, then watch, and list again now and then.

kopf's own watches are not enough to plan from: an object that vanishes while a watch is broken gives no event, and its
indices keep the ghost. Here every list is compared with what is held, so that what vanished is told.

A watch that has silently stalled looks exactly like a quiet cluster (kopf#698). So bookmarks are asked for, a watch
without a line for `SILENCE` is given up, and `age` says how long ago the API server was last heard of; it fails the
liveness probe. Lists are paged, and answered from a consistent read.

Rejected: the client's own informer (models, no age, no paging by bytes).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from swarm_operator.kube import Api, ApiError
from swarm_operator.store import Store
from swarm_operator.views import View

__all__ = ["PAGE", "SILENCE", "Reflector"]

PAGE: Final = 500
#: The server ends a watch after about this long; it is resumed where it was.
WATCH_SECONDS: Final = 300
#: API servers send a bookmark about once a minute.
SILENCE: Final = 150.0
#: A full list at least this often, whatever the watch says.
RELIST_SECONDS: Final = 1800.0
_BACKOFF: Final = (0.2, 30.0)

log = structlog.get_logger("reflector")


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Partial(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    code: int = 0
    message: str = ""
    reason: str = ""


class Reflector:
    """One kind in one namespace (or in all: `""`), into one store."""

    def __init__(
        self,
        api: Api,
        kind: str,
        namespace: str,
        store: Store,
        decode: Callable[[msgspec.Raw | bytes], View],
        *,
        selector: str = "",
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.kind = kind
        self.namespace = namespace
        self.store = store
        self.synced = asyncio.Event()
        #: Set when it is synced, or the API server has said that this may not be read (`forbidden`).
        self.answered = asyncio.Event()
        self.forbidden = False
        #: The error of the last attempt, empty when it went well.
        self.error = ""
        self._api, self._decode, self._selector = api, decode, selector
        self._clock, self._jitter = clock, jitter
        self._heard = clock()
        self._version = ""
        self._listed = 0.0

    def age(self) -> float:
        """Seconds since the API server was last heard of here."""
        return self._clock() - self._heard

    async def run(self) -> None:
        """Lists and watches until cancelled."""
        delay = _BACKOFF[0]
        while True:
            try:
                if not self._version or self._clock() - self._listed > RELIST_SECONDS * (1 + self._jitter() / 4):
                    await self._list()
                begun = self._clock()
                await self._watch()
                self.error = ""
                # a server that ends every watch at once must not be asked in a tight loop
                delay = _BACKOFF[0] if self._clock() - begun > 1.0 else min(delay * 2, _BACKOFF[1])
                if delay > _BACKOFF[0]:
                    await asyncio.sleep(delay * (0.5 + self._jitter()))
            except ApiError as error:
                self.error = str(error)
                if error.status == 403:
                    self.forbidden = True
                    self.answered.set()
                if error.status == 410:
                    # Our place in history is gone. List again, at once: this is no failure.
                    self._version = ""
                    log.info("relist", kind=self.kind, why=error.message)
                    continue
                if error.status == 0 and error.reason == "Timeout" and self._version:
                    log.warning("watch fell silent", kind=self.kind)
                else:
                    log.warning("watch failed", kind=self.kind, error=str(error), retry_in=round(delay, 1))
                await asyncio.sleep(max(delay * (0.5 + self._jitter()), error.retry_after or 0.0))
                delay = min(delay * 2, _BACKOFF[1])

    async def _list(self) -> None:
        views: list[View] = []
        token = ""
        while True:
            page = await self._api.list_page(
                self.kind, self.namespace, selector=self._selector, limit=PAGE, token=token
            )
            views += [self._read(item) for item in page.items]
            self._heard = self._clock()
            token = page.metadata.continue_
            if not token:
                break
        self.store.replace(views, page.metadata.resource_version)
        self._version = page.metadata.resource_version
        self._listed = self._clock()
        self.error, self.forbidden = "", False
        self.synced.set()
        self.answered.set()

    async def _watch(self) -> None:
        lines = self._api.watch(
            self.kind,
            self.namespace,
            selector=self._selector,
            version=self._version,
            server_timeout=int(WATCH_SECONDS * (1 + self._jitter() / 4)),
            silence=SILENCE,
        )
        async for line in lines:
            try:
                event = msgspec.json.decode(line, type=_Event)
            except msgspec.DecodeError as error:
                raise ApiError(0, "BadLine", f"the watch of {self.kind} sent no JSON: {error}") from error
            self._heard = self._clock()
            self._take(event)

    def _read(self, raw: msgspec.Raw | bytes) -> View:
        try:
            return self._decode(raw)
        except msgspec.DecodeError as error:
            raise ApiError(0, "BadAnswer", f"an object is no {self.kind}: {error}") from error

    def _take(self, event: _Event) -> None:
        partial: Any = msgspec.json.decode(event.object, type=_Partial)
        if event.type == "ERROR":
            raise ApiError(partial.code or 500, partial.reason, partial.message or f"the watch of {self.kind} ended")
        if event.type in ("ADDED", "MODIFIED"):
            self.store.put(self._read(event.object))
        elif event.type == "DELETED":
            meta = partial.metadata
            self.store.remove(meta.namespace, meta.name, meta.resource_version)
        self._version = partial.metadata.resource_version or self._version
