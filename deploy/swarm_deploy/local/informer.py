"""A copy of all objects of one kind, kept up to date, and a call for each change.

What every part of the cluster that reacts to objects stands on: list once, watch from there, and list again when the
history does not reach back any more. The objects belong to the informer; whoever wants to change one copies it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient

__all__ = ["Informer", "key_of"]

Object = dict[str, Any]
Key = tuple[str, str]


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Informer:
    """`changed(old, new)` is called for each change: old is None for a new object, new is None for one that is gone."""

    def __init__(
        self,
        client: LocalClient,
        resource: str,
        changed: Callable[[Object | None, Object | None], None] | None = None,
        *,
        field_selector: str = "",
    ) -> None:
        self._client = client
        self._resource = resource
        self._fields = field_selector
        self._listeners = [changed] if changed else []
        self._held: dict[Key, Object] = {}
        self.synced = asyncio.Event()

    def listen(self, changed: Callable[[Object | None, Object | None], None]) -> None:
        """Add a listener."""
        self._listeners.append(changed)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def get(self, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        return self._held.get((namespace, name))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._follow()
            except ApiError as error:
                if error.code != 410:
                    await asyncio.sleep(0.2)

    async def _follow(self) -> None:
        listed = await self._client.list(self._resource, field_selector=self._fields)
        fresh = {key_of(obj): obj for obj in listed.items}
        for key in list(self._held):
            if key not in fresh:
                self._put(key, None)
        for key, obj in fresh.items():
            held = self._held.get(key)
            if held is None or held["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._put(key, obj)
        self.synced.set()
        stream = self._client.watch(self._resource, listed.resource_version, field_selector=self._fields)
        async with aclosing(stream):
            async for event in stream:
                if event.type != "BOOKMARK":
                    self._put(key_of(event.object), None if event.type == "DELETED" else event.object)

    def _put(self, key: Key, obj: Object | None) -> None:
        old = self._held.pop(key, None)
        if obj is not None:
            self._held[key] = obj
        if old is None and obj is None:
            return
        if old is not None and obj is not None and old["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._tell(old, None)  # deleted and made again between two looks
            old = None
        self._tell(old, obj)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for listener in self._listeners:
            listener(old, new)
