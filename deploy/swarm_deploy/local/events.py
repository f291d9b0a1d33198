"""Events: what the cluster's parts tell people about an object.

Repetitions of one are counted in it, as real recorders do.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.meta import timestamp

__all__ = ["Recorder"]

Object = dict[str, Any]

_REMEMBERED = 4096
#: Beyond this many different events about one object within the memory above, the rest is dropped: a part that goes
#: wild must not fill the store.
_MOST_FOR_ONE = 200


class Recorder:
    """Writes the events of one part of the cluster."""

    def __init__(
        self, client: LocalClient, component: str, host: str = "", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._seen: OrderedDict[tuple[str, ...], tuple[str, str, int]] = OrderedDict()
        self._count: dict[str, int] = {}
        self._serial = 0

    async def record(self, about: Object, reason: str, message: str, *, warning: bool = False, field: str = "") -> None:
        """Tell something about an object. Never raises: an event that can't be written is lost."""
        meta = about["metadata"]
        kind = "Warning" if warning else "Normal"
        message = message[:1024]
        key = (meta.get("uid", ""), kind, reason, message, field)
        now = timestamp(self._clock())
        try:
            if key in self._seen:
                namespace, name, count = self._seen[key]
                self._seen[key] = (namespace, name, count + 1)
                self._seen.move_to_end(key)
                patch = {"count": count + 1, "lastTimestamp": now}
                await self._client.patch("events", name, patch, namespace)
                return
        except ApiError:
            pass  # it has been removed by age: a new one
        try:
            await self._create(about, reason, message, kind, field, key, now)
        except ApiError:
            pass  # for example, its namespace is being deleted

    async def _create(
        self, about: Object, reason: str, message: str, kind: str, field: str, key: tuple[str, ...], now: str
    ) -> None:
        meta = about["metadata"]
        uid = meta.get("uid", "")
        if self._count.get(uid, 0) >= _MOST_FOR_ONE:
            return
        self._serial += 1
        namespace = meta.get("namespace") or "default"
        name = f"{meta['name'][:200]}.{int(self._clock() * 1e6) * 1000 + self._serial % 1000:016x}"
        involved: Object = {
            "kind": about.get("kind", "Pod"),
            "apiVersion": about.get("apiVersion", "v1"),
            "name": meta["name"],
            "uid": uid,
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        if meta.get("namespace"):
            involved["namespace"] = meta["namespace"]
        if field:
            involved["fieldPath"] = field
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        event: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": source,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "count": 1,
        }
        await self._client.create("events", event, namespace=namespace)
        self._count[uid] = self._count.get(uid, 0) + 1
        self._seen[key] = (namespace, name, 1)
        while len(self._seen) > _REMEMBERED:
            old, _ = self._seen.popitem(last=False)
            left = self._count.get(old[0], 1) - 1
            if left > 0:
                self._count[old[0]] = left
            else:
                self._count.pop(old[0], None)
