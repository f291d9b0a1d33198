"""What the API server does on its own: set the cluster up, and empty what is being deleted.

A namespace that is deleted, and a definition that is deleted, stay until all they hold is gone; this is the part that
deletes it and waits. It looks again whenever something was deleted or changed, rather than by the clock.
"""

from __future__ import annotations

import asyncio
from typing import Any

from swarm_deploy.local.api import crd
from swarm_deploy.local.api.core import DEFINITIONS, Api
from swarm_deploy.local.api.kinds import PROTECTED
from swarm_deploy.local.api.meta import timestamp
from swarm_deploy.local.api.resources import Resource

__all__ = ["Sweeper", "set_up"]

Object = dict[str, Any]

_LOOK_SECONDS = 0.05
_EXPIRY_LOOK_SECONDS = 60.0
_EVENT_SECONDS = 3600.0
_MOST_EVENTS = 5000
_CONDITIONS = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
)


def set_up(api: Api, *, address: str = "", port: int = 0) -> None:
    """Make what every cluster has: its namespaces, and the Service and Endpoints of the API itself."""
    namespaces = api.resource("namespaces")
    for name in PROTECTED:
        if api.store.get("namespaces", "", name) is None:
            obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            api.create(namespaces, "", obj, manager="kube-apiserver")
        else:
            bundle = api.store.get("configmaps", name, "kube-root-ca.crt")
            if bundle is not None and bundle["data"].get("ca.crt") != api.authority:
                api.store.update("configmaps", name, "kube-root-ca.crt", {**bundle, "data": {"ca.crt": api.authority}})
    services = api.resource("services")
    if api.store.get("services", "default", "kubernetes") is None:
        obj = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": "10.96.0.1",
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port or 6443}],
            },
        }
        api.create(services, "default", obj, manager="kube-apiserver")
    if address:
        _own_endpoints(api, address, port)


def _own_endpoints(api: Api, address: str, port: int) -> None:
    """Say where the API itself listens; the port may be another one than last time."""
    subsets = [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]
    held = api.store.get("endpoints", "default", "kubernetes")
    if held is None:
        obj = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes"}, "subsets": subsets}
        api.create(api.resource("endpoints"), "default", obj, manager="kube-apiserver")
    elif held.get("subsets") != subsets:
        api.store.update("endpoints", "default", "kubernetes", {**held, "subsets": subsets})


def _latest(event: Object) -> str:
    """When an event last happened."""
    seen = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or ""
    return max(str(event["metadata"]["creationTimestamp"]), str(seen))


class Sweeper:
    """Empties namespaces and definitions that are being deleted; one task, which sleeps while there are none."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._wake = api.sweeper = asyncio.Event()
        self._seen = -1

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            self._seen = self._api.store.revision
            waiting = self.sweep()
            if not waiting:
                try:
                    async with asyncio.timeout(_EXPIRY_LOOK_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    self.expire()
                continue
            # Something is in the way (a finalizer, a pod that ends): look again once the store has moved on.
            while self._api.store.revision == self._seen and not self._wake.is_set():  # noqa: ASYNC110 - any kind's write
                await asyncio.sleep(_LOOK_SECONDS)

    def sweep(self) -> bool:
        """One round; whether something is left to wait for."""
        waiting = False
        for namespace in self._api.store.list("namespaces"):
            if namespace["metadata"].get("deletionTimestamp"):
                waiting |= self._namespace(namespace)
        for definition in self._api.store.list(DEFINITIONS):
            if definition["metadata"].get("deletionTimestamp"):
                waiting |= self._definition(definition)
        return waiting

    def expire(self) -> None:
        """Drop events that are an hour old, as a real server does, or too many: nothing else would ever remove them."""
        before = timestamp(self._api.clock() - _EVENT_SECONDS)
        events = self._api.store.list("events")
        events.sort(key=_latest)
        for number, event in enumerate(events):
            if _latest(event) >= before and len(events) - number <= _MOST_EVENTS:
                break
            meta = event["metadata"]
            self._api.store.delete("events", meta["namespace"], meta["name"])

    def _kinds(self) -> list[Resource]:
        seen: dict[str, Resource] = {}
        for resource in self._api.catalog:
            if resource.namespaced and "delete" in resource.verbs:
                seen.setdefault(resource.key, resource)
        return list(seen.values())

    def _namespace(self, namespace: Object) -> bool:
        api, name = self._api, namespace["metadata"]["name"]
        for resource in self._kinds():
            items = api.store.list(resource.key, name)
            # What is on its way already is not asked again.
            items = [i for i in items if not i["metadata"].get("deletionTimestamp")]
            api.delete_collection(resource, items, {"propagationPolicy": "Background"})
        left = [(r, len(api.store.list(r.key, name))) for r in self._kinds()]
        left = [(r, n) for r, n in left if n]
        now = api.now()
        if left:
            listed = ", ".join(f"{r.qualified} has {n} resource instances" for r, n in left)
            remaining = (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                f"Some resources are remaining: {listed}",
            )
        else:
            remaining = ("NamespaceContentRemaining", "False", "ContentRemoved", "All content successfully removed")
        finalizers = sorted(
            {f for r, _ in left for i in api.store.list(r.key, name) for f in i["metadata"].get("finalizers") or ()}
        )
        if finalizers:
            text = f"Some content in the namespace has finalizers remaining: {', '.join(finalizers)}"
            held = ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", text)
        else:
            text = "All content-preserving finalizers finished"
            held = ("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers", text)
        wanted = [*((t, "False", r, m) for t, r, m in _CONDITIONS), remaining, held]
        before = {c["type"]: c for c in namespace.get("status", {}).get("conditions") or ()}
        conditions = []
        for kind, status, reason, message in wanted:
            was = before.get(kind)
            since = was["lastTransitionTime"] if was and was["status"] == status else now
            conditions.append(
                {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
            )
        if conditions != namespace.get("status", {}).get("conditions"):
            status_now = {**namespace["status"], "conditions": conditions}
            kind_of = api.resource("namespaces")
            namespace = api.write_status(kind_of, namespace, status_now, manager="kube-controller-manager")
        if left or namespace["metadata"].get("finalizers"):
            return True
        api.store.delete("namespaces", "", name)
        return False

    def _definition(self, definition: Object) -> bool:
        api, name = self._api, definition["metadata"]["name"]
        served = crd.resources_of(definition)
        key = f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"
        text = "CustomResource deletion is in progress"
        status = crd.terminating(definition, "InstanceDeletionInProgress", text, api.now())
        if status != definition["status"]:
            api.write_status(api.resource(DEFINITIONS), definition, status, manager="kube-apiserver")
            return True
        items = api.store.list(key)
        if items and served:
            going = [i for i in items if not i["metadata"].get("deletionTimestamp")]
            api.delete_collection(served[0], going, {"propagationPolicy": "Background"})
        if api.store.list(key):
            return True
        left = [f for f in definition["metadata"].get("finalizers") or () if f != crd.FINALIZER]
        if left:
            if crd.FINALIZER in definition["metadata"]["finalizers"]:
                meta = {**definition["metadata"], "finalizers": left}
                api.store.update(DEFINITIONS, "", name, {**definition, "metadata": meta})
            return True
        api.store.delete(DEFINITIONS, "", name)
        api.catalog.set_custom(name, ())
        return False
