"""Deletes what has lost its owner, as Kubernetes' garbage collector does.

Level-triggered: after any deletion, and now and then, every object with ownerReferences is looked at. A reference holds
while an object of that UID exists. Foreground deletion and orphaning work through the finalizers that the API server
sets.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.core import Api

__all__ = ["GarbageCollector"]

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_EVERY = 0.25


class GarbageCollector:
    """Runs until stopped."""

    def __init__(self, api: Api, client: LocalClient) -> None:
        self._api = api
        self._client = client
        self._seen = -1
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops deleting."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            if self._api.store.revision != self._seen:
                self._seen = self._api.store.revision
                try:
                    await self._round()
                except Exception:
                    _log.exception("garbage collection")
            await asyncio.sleep(_EVERY)

    async def _round(self) -> None:
        store = self._api.store
        objects = [(key, obj) for key in store.resources() for obj in store.list(key)]
        living = {obj["metadata"]["uid"] for _, obj in objects}
        for key, obj in objects:
            meta = obj["metadata"]
            finalizers = meta.get("finalizers") or []
            if meta.get("deletionTimestamp") and "orphan" in finalizers:
                await self._orphan(key, obj, objects)
            elif meta.get("deletionTimestamp") and "foregroundDeletion" in finalizers:
                await self._foreground(key, obj, objects)
            owners = meta.get("ownerReferences") or []
            if owners and not meta.get("deletionTimestamp") and not any(o["uid"] in living for o in owners):
                await self._delete(key, obj)

    async def _orphan(self, key: str, owner: Object, objects: list[tuple[str, Object]]) -> None:
        uid = owner["metadata"]["uid"]
        for other_key, obj in objects:
            kept = [o for o in obj["metadata"].get("ownerReferences") or [] if o["uid"] != uid]
            if len(kept) != len(obj["metadata"].get("ownerReferences") or []):
                await self._patch(other_key, obj, {"ownerReferences": kept})
        await self._unfinalize(key, owner, "orphan")

    async def _foreground(self, key: str, owner: Object, objects: list[tuple[str, Object]]) -> None:
        uid = owner["metadata"]["uid"]
        blocking = False
        for other_key, obj in objects:
            for reference in obj["metadata"].get("ownerReferences") or []:
                if reference["uid"] == uid:
                    blocking = blocking or bool(reference.get("blockOwnerDeletion"))
                    if not obj["metadata"].get("deletionTimestamp"):
                        await self._delete(other_key, obj)
        if not blocking:
            await self._unfinalize(key, owner, "foregroundDeletion")

    async def _unfinalize(self, key: str, obj: Object, finalizer: str) -> None:
        kept = [f for f in obj["metadata"]["finalizers"] if f != finalizer]
        await self._patch(key, obj, {"finalizers": kept})

    async def _patch(self, key: str, obj: Object, meta: Object) -> None:
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
        try:
            await self._client.patch(key, name, {"metadata": meta}, namespace)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _delete(self, key: str, obj: Object) -> None:
        meta = obj["metadata"]
        try:
            await self._client.delete(
                key, meta["name"], meta.get("namespace", ""), propagation="Background", uid=meta["uid"]
            )
        except ApiError as error:
            if error.code not in (404, 409):
                _log.warning("%s %s: %s", key, meta["name"], error)
