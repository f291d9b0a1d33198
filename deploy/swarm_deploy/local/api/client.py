"""How the cluster's own parts (kubelets, scheduler, controllers) reach the API: in process, with the semantics of
HTTP.

A call goes through the same defaulting, validation, admission and versioning as a request from outside, and fails
with the same `ApiError`; only the encoding and the socket are left out. What it returns is the caller's own copy.

A resource is named `plural` or `plural.group` (`pods`, `leases.coordination.k8s.io`), as kubectl names it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from swarm_deploy.local.api.errors import ApiError

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["ApiError", "LocalClient", "ObjectList", "WatchEvent"]

Object = dict[str, Any]
PatchType = Literal["merge", "json", "strategic", "apply"]


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list, and the revision from which a watch sees whatever happens after it."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK (of which only the resourceVersion means something)."""

    type: str
    object: Object


def _copy(value: Any) -> Any:
    """A deep copy; by way of msgpack it is ten times faster than `copy.deepcopy`."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


class LocalClient:
    """One part of the cluster, speaking to the API under its own name."""

    def __init__(self, api: Api, manager: str) -> None:
        """`manager` is the field manager its writes are recorded under, for example `kubelet` or `scheduler`."""
        self._api = api
        self._manager = manager

    @property
    def api(self) -> Api:
        """The API itself, for what is not a plain object: bindings, and looks into the store."""
        return self._api

    async def get(self, resource: str, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        """One object. Raises ApiError (404, reason NotFound) when there is none."""
        result: Object = _copy(self._api.read(self._api.resource(resource), namespace, name, subresource))
        return result

    async def list(
        self, resource: str, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> ObjectList:
        """All objects of a resource; `namespace` None (or empty) means of every namespace."""
        kind = self._api.resource(resource)
        items, revision = self._api.select(kind, namespace or None, label_selector, field_selector)
        return ObjectList(_copy(items), str(revision))

    async def create(self, resource: str, obj: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        """Create; the namespace may also stand in the object. Raises ApiError 409 AlreadyExists, 422 Invalid, 403..."""
        namespace = namespace or obj.get("metadata", {}).get("namespace", "")
        result: Object = _copy(
            self._api.create(
                self._api.resource(resource), namespace, _copy(obj), manager=self._manager, dry_run=dry_run
            ).object
        )
        return result

    async def update(self, resource: str, obj: Object, *, subresource: str = "", dry_run: bool = False) -> Object:
        """Replace; a resourceVersion in the object makes it conditional (ApiError 409 Conflict)."""
        meta = obj["metadata"]
        result: Object = _copy(
            self._api.update(
                self._api.resource(resource),
                meta.get("namespace", ""),
                meta["name"],
                _copy(obj),
                subresource=subresource,
                manager=self._manager,
                dry_run=dry_run,
            ).object
        )
        return result

    async def update_status(self, resource: str, obj: Object) -> Object:
        """Replace the status alone."""
        return await self.update(resource, obj, subresource="status")

    async def patch(
        self,
        resource: str,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        type: PatchType = "merge",  # noqa: A002 - what every client calls it
        subresource: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Change what the patch names; `apply` creates the object when it is absent."""
        result: Object = _copy(
            self._api.patch(
                self._api.resource(resource),
                namespace,
                name,
                type,
                _copy(patch),
                subresource=subresource,
                manager=self._manager,
                force=force,
                dry_run=dry_run,
            ).object
        )
        return result

    async def patch_status(self, resource: str, name: str, status: Object, namespace: str = "") -> Object:
        """Merge into the status alone. `status` is the content of `.status`; None removes a key, lists are replaced."""
        return await self.patch(resource, name, {"status": status}, namespace, type="merge", subresource="status")

    async def subresource(
        self, resource: str, name: str, subresource: str, body: Object, namespace: str = ""
    ) -> Object:
        """POST below an object: `binding` and `eviction` of a pod, `token` of a service account."""
        result: Object = _copy(
            self._api.below(self._api.resource(resource), namespace, name, subresource, _copy(body)).object
        )
        return result

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        grace_period: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """Delete, or mark as going where finalizers or a pod's grace say so; 0 seconds removes a pod at once."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        if propagation is not None:
            options["propagationPolicy"] = propagation
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v is not None}
        if preconditions:
            options["preconditions"] = preconditions
        result: Object = _copy(
            self._api.delete(self._api.resource(resource), namespace, name, options, manager=self._manager).object
        )
        return result

    async def watch(
        self,
        resource: str,
        resource_version: str | None = None,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events as they happen; without a resourceVersion it begins with an ADDED for every object there is.

        Close the iterator (`aclosing`) when done with it.

        Raises:
            ApiError: 410 Expired when the history no longer reaches back to `resource_version`: list again.
        """
        stream = self._api.watch(
            self._api.resource(resource),
            namespace or None,
            resource_version=resource_version or "",
            label_selector=label_selector,
            field_selector=field_selector,
        )
        async for kind, obj in stream:
            yield WatchEvent(kind, _copy(obj))
