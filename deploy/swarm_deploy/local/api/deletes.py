"""Delete: at once, or by marking an object as going where a grace period or a finalizer stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarm_deploy.local.api import crd
from swarm_deploy.local.api.creates import Creates
from swarm_deploy.local.api.decoding import Result
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    conflict,
    forbidden,
    invalid,
    invalid_value,
    method_not_allowed,
)
from swarm_deploy.local.api.kinds import PROTECTED, pod_grace, strategy_of
from swarm_deploy.local.api.meta import parse_time, timestamp
from swarm_deploy.local.api.resources import Resource

__all__ = ["Deletes", "finished"]

Object = dict[str, Any]


class Deletes(Creates):
    """Objects on their way out."""

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Object | None = None,
        *,
        manager: str = "",
        dry_run: bool = False,
    ) -> Result:
        """Remove an object, or mark it as going where a grace period or a finalizer stands in the way.

        Raises:
            ApiError: 404, 409 when a precondition does not hold, 403 for what must stay.
        """
        del manager
        if "delete" not in resource.verbs:
            raise method_not_allowed()
        options = options or {}
        live = self._live(resource, namespace, name)
        meta = live["metadata"]
        wanted = options.get("preconditions") or {}
        for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(key) is not None and wanted[key] != meta.get(key):
                text = f"Precondition failed: {label} in precondition: {wanted[key]},"
                text += f" {label} in object meta: {meta.get(key)}"
                raise conflict(resource.plural, resource.group, name, text)
        dry_run = dry_run or options.get("dryRun") == ["All"]
        if resource.qualified == "namespaces":
            return self._delete_namespace(resource, live, dry_run=dry_run)
        if resource.kind == "CustomResourceDefinition":
            return self._delete_definition(resource, live, dry_run=dry_run)

        finalizers = _with_propagation(list(meta.get("finalizers") or ()), _propagation(options))
        grace = pod_grace(live, options.get("gracePeriodSeconds")) if resource.kind == "Pod" else 0
        if not finalizers and not grace:
            gone = {**live, "metadata": {**meta}}
            if resource.kind == "Pod" and meta.get("deletionGracePeriodSeconds"):
                # Watchers of a pod that was given time see that its time is over, and then that it is gone.
                gone["metadata"] |= {"deletionTimestamp": self.now(), "deletionGracePeriodSeconds": 0}
                if not dry_run:
                    gone = self.store.update(resource.key, namespace, name, gone)
            if not dry_run:
                self._remove(resource, gone)
            if strategy_of(resource).returns_deleted:
                return Result(gone)
            return Result(_success(resource, name, meta["uid"]))

        changed = {**meta}
        if finalizers != (meta.get("finalizers") or []):
            changed["finalizers"] = finalizers
        begun = meta.get("deletionTimestamp")
        if begun is None:
            changed["deletionTimestamp"] = timestamp(self.clock() + grace)
            changed["deletionGracePeriodSeconds"] = grace
            if meta.get("generation"):
                changed["generation"] = meta["generation"] + 1
        elif grace < meta.get("deletionGracePeriodSeconds", 0):
            # A later request may only hurry.
            start = parse_time(begun) - meta.get("deletionGracePeriodSeconds", 0)
            changed["deletionTimestamp"] = timestamp(start + grace)
            changed["deletionGracePeriodSeconds"] = grace
        obj = {**live, "metadata": changed}
        if changed == meta or dry_run:
            return Result(obj)
        stored = self.store.update(resource.key, namespace, name, self._stored(resource, obj))
        if finished(resource, stored):
            self._remove(resource, stored)
        return Result(self.view(resource, stored))

    def _delete_namespace(self, resource: Resource, live: Object, *, dry_run: bool) -> Result:
        name = live["metadata"]["name"]
        if name in PROTECTED:
            raise forbidden("namespaces", "", name, "this namespace may not be deleted")
        if live["metadata"].get("deletionTimestamp"):
            return Result(live)
        meta = {**live["metadata"], "deletionTimestamp": self.now()}
        obj = {**live, "metadata": meta, "status": {**live.get("status", {}), "phase": "Terminating"}}
        if dry_run:
            return Result(obj)
        stored = self.store.update(resource.key, "", name, obj)
        self._sweep()
        return Result(stored)

    def _delete_definition(self, resource: Resource, live: Object, *, dry_run: bool) -> Result:
        name = live["metadata"]["name"]
        if live["metadata"].get("deletionTimestamp"):
            return Result(live)
        finalizers = list(live["metadata"].get("finalizers") or ())
        if crd.FINALIZER not in finalizers:
            finalizers.append(crd.FINALIZER)
        meta = {**live["metadata"], "deletionTimestamp": self.now(), "finalizers": finalizers}
        text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        status = crd.terminating(live, "InstanceDeletionPending", text, self.now())
        obj = {**live, "metadata": meta, "status": status}
        if dry_run:
            return Result(obj)
        stored = self.store.update(resource.key, "", name, obj)
        self._sweep()
        return Result(stored)

    def finalize_namespace(self, name: str, body: Object) -> Result:
        """Set a namespace's finalizers; one that is being deleted and has none left goes."""
        live = self._live(self.resource("namespaces"), "", name)
        finalizers = (body.get("spec") or {}).get("finalizers") or []
        obj = {**live, "spec": {**live["spec"], "finalizers": finalizers}}
        stored = self.store.update("namespaces", "", name, obj)
        if stored["metadata"].get("deletionTimestamp") and not finalizers and not stored["metadata"].get("finalizers"):
            self._remove(self.resource("namespaces"), stored)
        return Result(stored)

    def _sweep(self) -> None:
        if self.sweeper is not None:
            self.sweeper.set()

    def _remove(self, resource: Resource, last: Object) -> None:
        """Take an object out of the store; `last` is what its watchers see."""
        meta = last["metadata"]
        self.store.delete(resource.key, meta.get("namespace", ""), meta["name"], last=self._stored(resource, last))
        if resource.kind == "CustomResourceDefinition":
            self.catalog.set_custom(meta["name"], ())
        elif resource.qualified in ("serviceaccounts", "configmaps") and meta["name"] in (
            "default",
            "kube-root-ca.crt",
        ):
            namespace = self.store.get("namespaces", "", meta["namespace"])
            if namespace is not None and not namespace["metadata"].get("deletionTimestamp"):
                self.furnish(meta["namespace"])

    def delete_collection(
        self,
        resource: Resource,
        items: list[Object],
        options: Object | None = None,
        *,
        manager: str = "",
        dry_run: bool = False,
        done: Callable[[Object], None] | None = None,
    ) -> list[Object]:
        """Delete each of `items`; one that is gone already is passed over. Returns what was deleted."""
        out = []
        for item in items:
            meta = item["metadata"]
            try:
                self.delete(
                    resource, meta.get("namespace", ""), meta["name"], options, manager=manager, dry_run=dry_run
                )
            except ApiError as e:
                if e.code != 404:
                    raise
                continue
            out.append(item)
            if done:
                done(item)
        return out


def finished(resource: Resource, obj: Object) -> bool:
    """Whether an object that is being deleted may go now."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if resource.qualified == "namespaces":
        return not obj["spec"].get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")


def _propagation(options: Object) -> str:
    if options.get("orphanDependents") is not None and options.get("propagationPolicy") is not None:
        cause = invalid_value(
            "propagationPolicy",
            options["propagationPolicy"],
            "orphanDependents and deletionPropagation cannot be both set",
        )
        raise invalid("DeleteOptions", "", "", [cause])
    if options.get("orphanDependents"):
        return "Orphan"
    policy = options.get("propagationPolicy") or "Background"
    if policy not in ("Background", "Foreground", "Orphan"):
        cause = Cause(
            "FieldValueNotSupported",
            f'Unsupported value: "{policy}": supported values: "Background", "Foreground", "Orphan", "nil"',
            "propagationPolicy",
        )
        raise invalid("DeleteOptions", "", "", [cause])
    return str(policy)


def _with_propagation(finalizers: list[str], policy: str) -> list[str]:
    """The finalizers by which the garbage collector learns what to do with the dependents."""
    kept = [f for f in finalizers if f not in ("orphan", "foregroundDeletion")]
    if policy == "Orphan":
        return [*kept, "orphan"]
    if policy == "Foreground":
        return [*kept, "foregroundDeletion"]
    return kept


def _success(resource: Resource, name: str, uid: str) -> Object:
    details: Object = {"name": name, "group": resource.group, "kind": resource.plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {k: v for k, v in details.items() if v},
    }
