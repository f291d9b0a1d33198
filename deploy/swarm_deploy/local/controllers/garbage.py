"""Garbage collection: what belongs to something that is gone goes too.

By ownerReferences, as on a real cluster, with its three ways of deleting an owner: in the background (the dependents
go when the owner is gone), in the foreground (the owner, marked by a finalizer, goes when the dependents that block
it are gone) and orphaning (the references are taken off first). An owner is what has its UID: one that was deleted
and made again under the same name is another one.

It reads the store itself and not through the API: it has to see every kind there is, without a copy of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.controllers.loop import Controller
from swarm_deploy.local.events import Recorder
from swarm_deploy.local.store import Compacted

__all__ = ["GarbageCollector"]

Object = dict[str, Any]
#: Resource (the store's key), namespace, name.
Key = tuple[str, str, str]

_UNOWNED = frozenset({"events"})
_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_CATALOG_SECONDS = 0.2


class GarbageCollector:
    """Watches all kinds."""

    def __init__(self, api: Api, client: LocalClient) -> None:
        self._api = api
        self._client = client
        self._events = Recorder(client, "garbage-collector-controller")
        self._loop = Controller("garbage collection", self._collect)
        self._dependents: dict[str, set[Key]] = {}  # an owner's UID -> who refers to it
        self._owners: dict[Key, frozenset[str]] = {}
        #: Owners that are deleted in the foreground, by UID: they wait for dependents.
        self._waiting: dict[str, Key] = {}
        self._watched: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        worker = asyncio.create_task(self._loop.run(), name="garbage collector")
        catalog = asyncio.create_task(self._follow_catalog(), name="kinds with owners")
        try:
            await asyncio.gather(worker, catalog)
        finally:
            tasks = [worker, catalog, *self._watched.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_catalog(self) -> None:
        """A watch for each kind, also for those that are defined later."""
        seen = -1
        while True:
            if self._api.catalog.revision != seen:
                seen = self._api.catalog.revision
                for resource in self._api.catalog:
                    key = resource.key
                    if key not in _UNOWNED and key not in self._watched and "list" in resource.verbs:
                        self._watched[key] = asyncio.create_task(self._watch(key), name=f"owners of {key}")
            await asyncio.sleep(_CATALOG_SECONDS)

    async def _watch(self, key: str) -> None:
        store = self._api.store
        while True:
            since, listed = store.revision, store.list(key)
            present = {(key, o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in listed}
            for known in [k for k in self._owners if k[0] == key and k not in present]:
                self._forget(known)
            for obj in listed:
                self._seen(key, obj)
            try:
                async with aclosing(store.watch(key, since)) as events:
                    async for event in events:
                        if event.type == "DELETED":
                            self._forget((key, event.namespace, event.name))
                            self._gone(event.object["metadata"]["uid"])
                        else:
                            self._seen(key, event.object)
                return  # the store was closed
            except Compacted:
                continue

    def _seen(self, key: str, obj: Object) -> None:
        meta = obj["metadata"]
        own: Key = (key, meta.get("namespace", ""), meta["name"])
        owners = frozenset(ref["uid"] for ref in meta.get("ownerReferences") or ())
        before = self._owners.get(own, frozenset())
        if owners != before:
            for uid in before - owners:
                self._drop(uid, own)
            for uid in owners - before:
                self._dependents.setdefault(uid, set()).add(own)
            self._owners[own] = owners
            self._loop.add(own)
        if meta.get("deletionTimestamp"):
            finalizers = set(meta.get("finalizers") or ())
            if finalizers & {_FOREGROUND, _ORPHAN}:
                if _FOREGROUND in finalizers:
                    self._waiting[meta["uid"]] = own
                self._loop.add(own)
                for dependent in self._dependents.get(meta["uid"], ()):
                    self._loop.add(dependent)

    def _drop(self, uid: str, own: Key) -> None:
        held = self._dependents.get(uid)
        if held is not None:
            held.discard(own)
            if not held:
                del self._dependents[uid]
        if uid in self._waiting:
            self._loop.add(self._waiting[uid])

    def _forget(self, own: Key) -> None:
        for uid in self._owners.pop(own, frozenset()):
            self._drop(uid, own)

    def _gone(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        for dependent in self._dependents.get(uid, ()):
            self._loop.add(dependent)

    # -- one object -----------------------------------------------------------------------------------------------

    def _resource(self, key: str) -> Resource | None:
        return self._api.catalog.by_name(key)

    def _owner(self, dependent: Object, ref: Object) -> Object | None:
        """The owner that a reference means, if it is there."""
        group, _, _ = ref["apiVersion"].rpartition("/")
        resource = self._api.catalog.by_kind(group, ref["kind"])
        if resource is None:
            return None
        namespace = dependent["metadata"].get("namespace", "") if resource.namespaced else ""
        found = self._api.store.get(resource.key, namespace, ref["name"])
        return found if found is not None and found["metadata"]["uid"] == ref["uid"] else None

    async def _collect(self, key: Key) -> None:
        resource, obj = self._resource(key[0]), self._api.store.get(*key)
        if resource is None or obj is None:
            return
        meta = obj["metadata"]
        finalizers = meta.get("finalizers") or ()
        if meta.get("deletionTimestamp"):
            if _ORPHAN in finalizers:
                await self._orphan(resource, obj)
            elif _FOREGROUND in finalizers:
                await self._foreground(resource, obj)
            return
        refs = meta.get("ownerReferences") or ()
        if not refs:
            return
        found = {ref["uid"]: self._owner(obj, ref) for ref in refs}
        missing = [uid for uid, owner in found.items() if owner is None]
        there = [owner for owner in found.values() if owner is not None]
        waiting = [owner for owner in there if _foregrounded(owner)]
        if not missing and not waiting:
            return
        if self._meaningless(resource, [ref for ref in refs if ref["uid"] in missing]):
            text = "ownerRef of a cluster-wide object names an owner in a namespace, which can't be; it is ignored"
            about = {**obj, "kind": resource.kind, "apiVersion": resource.group_version}
            await self._events.record(about, "OwnerRefInvalidNamespace", text, warning=True)
            return
        if len(there) > len(waiting):  # another owner holds it
            gone = set(missing) | {owner["metadata"]["uid"] for owner in waiting}
            kept = [ref for ref in refs if ref["uid"] not in gone]
            await self._write(resource, obj, {"ownerReferences": kept})
            return
        policy: Any = "Background"
        if _ORPHAN in finalizers:
            policy = "Orphan"
        elif waiting and self._dependents.get(meta["uid"]):
            policy = "Foreground"
        await self._client.delete(
            resource.qualified, meta["name"], meta.get("namespace", ""), propagation=policy, uid=meta["uid"]
        )

    def _meaningless(self, resource: Resource, refs: Sequence[Object]) -> bool:
        """Whether a cluster-wide object is said to belong to one of a namespace."""
        if resource.namespaced:
            return False
        kinds = [self._api.catalog.by_kind(ref["apiVersion"].rpartition("/")[0], ref["kind"]) for ref in refs]
        return any(kind is not None and kind.namespaced for kind in kinds)

    async def _write(self, resource: Resource, obj: Object, changes: Object) -> None:
        meta = obj["metadata"]
        patch = {"metadata": {**changes, "resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}}
        await self._client.patch(resource.qualified, meta["name"], patch, meta.get("namespace", ""))

    async def _release(self, resource: Resource, obj: Object, finalizer: str) -> None:
        left = [f for f in obj["metadata"].get("finalizers") or () if f != finalizer]
        await self._write(resource, obj, {"finalizers": left})

    async def _orphan(self, resource: Resource, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for key in list(self._dependents.get(uid, ())):
            dependent, kind = self._api.store.get(*key), self._resource(key[0])
            if dependent is not None and kind is not None:
                kept = [ref for ref in dependent["metadata"].get("ownerReferences") or () if ref["uid"] != uid]
                await self._write(kind, dependent, {"ownerReferences": kept})
        await self._release(resource, obj, _ORPHAN)

    async def _foreground(self, resource: Resource, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        blocking = False
        for key in list(self._dependents.get(uid, ())):
            dependent = self._api.store.get(*key)
            if dependent is not None:
                refs = dependent["metadata"].get("ownerReferences") or ()
                blocking |= any(ref["uid"] == uid and ref.get("blockOwnerDeletion") for ref in refs)
        if not blocking:
            await self._release(resource, obj, _FOREGROUND)


def _foregrounded(owner: Object) -> bool:
    meta = owner["metadata"]
    return bool(meta.get("deletionTimestamp")) and _FOREGROUND in (meta.get("finalizers") or ())
