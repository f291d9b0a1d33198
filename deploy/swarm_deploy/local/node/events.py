"""Events, as components of Kubernetes record them: repeated ones are counted, not multiplied."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient

__all__ = ["Recorder"]

Object = dict[str, Any]


class Recorder:
    """Records events under one component's name. Recording never blocks and never fails its caller."""

    def __init__(self, client: LocalClient, component: str, host: str = "") -> None:
        self._client = client
        self._source = {"component": component, **({"host": host} if host else {})}
        self._component = component
        self._host = host
        self._known: dict[tuple[str, ...], tuple[str, int, str]] = {}
        self._queue: asyncio.Queue[tuple[Object, str, str, str]] = asyncio.Queue(10_000)
        self._task = asyncio.create_task(self._write())

    def record(self, about: Object, kind: str, reason: str, message: str) -> None:
        """`kind` is Normal or Warning."""
        try:
            self._queue.put_nowait((about, kind, reason, message))
        except asyncio.QueueFull:
            pass  # events are best effort; losing them must not stop a pod

    async def close(self) -> None:
        """Stops writing."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            about, kind, reason, message = await self._queue.get()
            try:
                await self._one(about, kind, reason, message)
            except ApiError:
                pass  # its namespace is gone

    async def _one(self, about: Object, kind: str, reason: str, message: str) -> None:
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = (meta.get("uid", ""), kind, reason, message)
        if key in self._known:
            name, count, first = self._known[key]
            try:
                await self._client.patch("events", name, {"count": count + 1, "lastTimestamp": stamp}, namespace)
                self._known[key] = (name, count + 1, first)
                return
            except ApiError as error:
                if error.code != 404:
                    raise
        name = f"{meta['name']}.{time.time_ns():x}"
        await self._client.create(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "apiVersion": about.get("apiVersion", "v1"), "kind": about.get("kind", "Pod"), "name": meta["name"],
                    "namespace": meta.get("namespace", ""), "uid": meta.get("uid", ""),
                    "resourceVersion": meta.get("resourceVersion", ""),
                },
                "type": kind, "reason": reason, "message": message[:1024], "source": self._source, "count": 1,
                "firstTimestamp": stamp, "lastTimestamp": stamp, "eventTime": None,
                "reportingComponent": self._component, "reportingInstance": self._host,
            },
        )  # fmt: skip
        self._known[key] = (name, 1, stamp)
        if len(self._known) > 4096:
            self._known.pop(next(iter(self._known)))
