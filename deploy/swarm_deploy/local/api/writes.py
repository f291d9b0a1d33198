"""Update and patch, and with them all the ways in which objects are written.

A write is: decode (drop what the kind does not know, and say so as `fieldValidation` asks), fill defaults in, record
who owns what changed, admit, set what only the server sets, validate, store. A change that changes nothing is not
stored, so that it neither raises the version nor wakes a watcher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from swarm_deploy.local.api import managed
from swarm_deploy.local.api.creates import SERVER_SETS, not_written
from swarm_deploy.local.api.decoding import Result, copy, type_of
from swarm_deploy.local.api.deletes import Deletes, finished
from swarm_deploy.local.api.errors import (
    bad_request,
    conflict,
    forbidden,
    invalid,
    invalid_value,
    method_not_allowed,
    not_found,
    unsupported_media_type,
)
from swarm_deploy.local.api.kinds import strategy_of
from swarm_deploy.local.api.patch import json_patch, merge_patch, strategic_merge_patch
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.scale import scale_of, scale_path, with_replicas

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["PatchType", "Writes"]

Object = dict[str, Any]
PatchType = Literal["merge", "json", "strategic", "apply"]

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_BOOKKEEPING = frozenset({"resourceVersion", "managedFields"})


class Writes(Deletes):
    """The writing half of `Api`."""

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Object,
        *,
        subresource: str = "",
        manager: str,
        dry_run: bool = False,
        validation: str = "Warn",
        problems: tuple[str, ...] = (),
    ) -> Result:
        """Replace an object, or its status or scale.

        Raises:
            ApiError: 409 when the object has moved on since the resourceVersion given, and in every other way.
        """
        if "update" not in resource.verbs and not subresource:
            raise method_not_allowed()
        self._check_subresource(resource, subresource)
        if subresource == "scale":
            live = self._live(resource, namespace, name)
            _same_uid(resource, live, obj)
            return self._scale(resource, live, obj, manager=manager, dry_run=dry_run)
        obj, unknown = self._decode(resource, obj)
        warnings = self._unknown(resource, [*unknown, *problems], validation)
        meta = obj["metadata"]
        if meta.get("name", name) != name:
            text = f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            raise bad_request(text)
        if resource.namespaced and meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        live = self._live(resource, namespace, name)
        meta["name"] = name
        if resource.namespaced:
            meta["namespace"] = namespace
        if not meta.get("resourceVersion") and not strategy_of(resource).unconditional:
            cause = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise invalid(resource.kind, resource.group, name, [cause])
        obj = self._defaulted(resource, obj)
        return self._replace(resource, live, obj, warnings, subresource=subresource, manager=manager, dry_run=dry_run)

    def _replace(
        self,
        resource: Resource,
        live: Object,
        obj: Object,
        warnings: tuple[str, ...],
        *,
        subresource: str,
        manager: str | None,
        dry_run: bool,
        code: int = 200,
    ) -> Result:
        """Store a changed object. `manager` None: who owns what has been settled already (an apply)."""
        strategy, api = strategy_of(resource), cast("Api", self)
        name, old = live["metadata"]["name"], live["metadata"]
        meta = obj["metadata"]
        if meta.get("resourceVersion") and meta["resourceVersion"] != old["resourceVersion"]:
            raise conflict(resource.plural, resource.group, name, _MODIFIED)
        if meta.get("uid") and meta["uid"] != old["uid"]:
            text = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['uid']}"
            raise conflict(resource.plural, resource.group, name, text)
        obj = _kept(resource, live, obj, subresource)
        if strategy.prepare_update and not subresource:
            strategy.prepare_update(api, obj, live)
        if manager is not None:
            obj = managed.update(
                type_of(resource),
                live,
                obj,
                manager=manager,
                version=resource.group_version,
                now=self.now(),
                subresource=subresource,
            )
        meta = obj["metadata"]
        if strategy.counts and _counted(resource, obj, live):
            meta["generation"] = old.get("generation", 0) + 1
        if resource.kind == "Pod" and subresource == "" and meta.get("generation") is None:
            meta["generation"] = 1
        self._validate(resource, strategy, obj, live)
        if _same(obj, live):
            return Result(live, code, warnings)
        meta["resourceVersion"] = old["resourceVersion"]
        if dry_run:
            return Result(obj, code, warnings)
        namespace = old.get("namespace", "")
        stored = self.store.update(resource.key, namespace, name, self._stored(resource, obj))
        if resource.kind == "CustomResourceDefinition" and not meta.get("deletionTimestamp"):
            self._settle(stored)
            stored = self.store.get(resource.key, namespace, name) or stored
        if finished(resource, stored):
            self._remove(resource, stored)
        return Result(self.view(resource, stored), code, warnings)

    def _scale(self, resource: Resource, live: Object, scale: Any, *, manager: str, dry_run: bool) -> Result:
        if not resource.custom:
            raise method_not_allowed()
        version = ((scale or {}).get("metadata") or {}).get("resourceVersion")
        if version and version != live["metadata"]["resourceVersion"]:
            raise conflict(resource.plural, resource.group, live["metadata"]["name"], _MODIFIED)
        replicas = ((scale or {}).get("spec") or {}).get("replicas", 0)
        if isinstance(replicas, bool) or not isinstance(replicas, int):
            raise bad_request("json: cannot unmarshal value into Go struct field ScaleSpec.spec.replicas of type int32")
        if replicas < 0:
            cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid("Scale", "autoscaling", live["metadata"]["name"], [cause])
        obj = with_replicas(resource, live, replicas)
        obj = managed.release_to_scale(obj, manager=manager, version=resource.group_version, path=scale_path(resource))
        result = self._replace(resource, live, copy(obj), (), subresource="scale", manager=None, dry_run=dry_run)
        return Result(scale_of(resource, result.object), 200, result.warnings)

    # -- patch ------------------------------------------------------------------------------------------------------

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        kind: PatchType,
        patch: Any,
        *,
        subresource: str = "",
        manager: str,
        force: bool = False,
        dry_run: bool = False,
        validation: str = "Warn",
        problems: tuple[str, ...] = (),
    ) -> Result:
        """Change an object by a patch; `apply` creates it where it is absent.

        Raises:
            ApiError: 409 for an apply that conflicts, 415 for a strategic merge patch of a custom resource, and others.
        """
        if "patch" not in resource.verbs and not subresource:
            raise method_not_allowed()
        self._check_subresource(resource, subresource)
        if kind == "strategic" and resource.custom:
            raise unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include:"
                " application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
        if kind == "apply":
            return self._apply(
                resource,
                namespace,
                name,
                patch,
                subresource=subresource,
                manager=manager,
                force=force,
                dry_run=dry_run,
                validation=validation,
            )
        live = self._live(resource, namespace, name)
        base = scale_of(resource, live) if subresource == "scale" and resource.custom else live
        changed: Any
        if kind == "json":
            changed = json_patch(copy(base), patch)
        elif not isinstance(patch, dict):
            raise bad_request(
                "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}"
            )
        elif kind == "merge":
            changed = merge_patch(base, patch)
        else:
            changed = strategic_merge_patch(type_of(resource), base, patch)
        if subresource == "scale":
            return self._scale(resource, live, copy(changed), manager=manager, dry_run=dry_run)
        obj, unknown = self._decode(resource, copy(changed))
        problem_texts = [t if t.startswith("duplicate ") else f'unknown field "{t}"' for t in (*unknown, *problems)]
        if problem_texts and validation == "Strict":
            text = "strict decoding error: " + ", ".join(problem_texts)
            cause = invalid_value("patch", msgspec.json.encode(patch).decode(), text)
            raise invalid(resource.kind, resource.group, name, [cause])
        warnings = tuple(problem_texts) if validation == "Warn" else ()
        if obj["metadata"].get("name") != name:
            cause = invalid_value("metadata.name", obj["metadata"].get("name", ""), "field is immutable")
            raise invalid(resource.kind, resource.group, name, [cause])
        obj = self._defaulted(resource, obj)
        return self._replace(resource, live, obj, warnings, subresource=subresource, manager=manager, dry_run=dry_run)

    def _apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        config: Any,
        *,
        subresource: str,
        manager: str,
        force: bool,
        dry_run: bool,
        validation: str,
    ) -> Result:
        if not isinstance(config, dict):
            raise bad_request(
                "error decoding YAML: json: cannot unmarshal into Go value of type map[string]interface {}"
            )
        if subresource == "scale":
            live = self._live(resource, namespace, name)
            return self._scale(resource, live, config, manager=manager, dry_run=dry_run)
        if config.get("apiVersion") != resource.group_version or config.get("kind") != resource.kind:
            raise bad_request(
                f"apply patch must have apiVersion {resource.group_version} and kind {resource.kind}, not"
                f" {config.get('apiVersion')} and {config.get('kind')}"
            )
        meta = config.get("metadata") or {}
        if meta.get("name", name) != name or (resource.namespaced and meta.get("namespace", namespace) != namespace):
            raise bad_request(f"name in object ({meta.get('name')}) must match name in URL ({name})")
        stored = self.store.get(resource.key, namespace, name)
        live = self.view(resource, stored) if stored is not None else self._empty(resource)
        merged = managed.apply(
            type_of(resource),
            live,
            config,
            manager=manager,
            version=resource.group_version,
            now=self.now(),
            force=force,
            subresource=subresource,
            ignore=not_written(resource, subresource),
        )
        merged = copy(merged)
        if stored is None:
            if subresource:
                raise not_found(resource.plural, resource.group, name)
            if meta.get("uid") or meta.get("resourceVersion"):
                text = f"uid mismatch: the provided object specified uid {meta.get('uid', '')},"
                text += " and no existing object was found"
                raise conflict(resource.plural, resource.group, name, text)
            if resource.refusal:
                raise forbidden(resource.plural, resource.group, name, resource.refusal)
            merged["metadata"]["name"] = name
            merged, unknown = self._decode(resource, merged)
            warnings = self._unknown(resource, unknown, validation)
            self._place(resource, namespace, merged)
            self._strip(resource, merged)
            return self._insert(resource, self._defaulted(resource, merged), warnings, dry_run=dry_run)
        if meta.get("resourceVersion"):
            merged["metadata"]["resourceVersion"] = meta["resourceVersion"]
        merged, unknown = self._decode(resource, merged)
        warnings = self._unknown(resource, unknown, validation)
        return self._replace(
            resource,
            live,
            self._defaulted(resource, merged),
            warnings,
            subresource=subresource,
            manager=None,
            dry_run=dry_run,
        )


def _kept(resource: Resource, live: Object, obj: Object, subresource: str) -> Object:
    """The new object with what this endpoint may not change put back."""
    old = live["metadata"]
    meta = dict(obj["metadata"])
    for name in SERVER_SETS:
        if name in old:
            meta[name] = old[name]
        else:
            meta.pop(name, None)
    if "generateName" in old:
        meta["generateName"] = old["generateName"]
    if subresource == "status":
        if resource.custom:
            # Of the metadata only the bookkeeping may change through a status.
            managed_fields = obj["metadata"].get("managedFields")
            meta = {**old}
            if managed_fields is not None:
                meta["managedFields"] = managed_fields
        out = {k: v for k, v in live.items() if k not in ("metadata", "status")}
        out["metadata"] = meta
        if "status" in obj:
            out["status"] = obj["status"]
        return copy(out)  # type: ignore[no-any-return]
    out = {**obj, "metadata": meta}
    if resource.subresource("status") and subresource != "scale":
        out.pop("status", None)
        if "status" in live:
            out["status"] = live["status"]
    if resource.kind == "Namespace" and "status" in live:
        out["status"] = live["status"]
    return copy(out)  # type: ignore[no-any-return]


def _counted(resource: Resource, obj: Object, live: Object) -> bool:
    """Whether the change is one of those that `metadata.generation` counts."""
    if resource.custom:
        ignored = {"metadata", "apiVersion"} | ({"status"} if resource.subresource("status") else set())
        return {k: v for k, v in obj.items() if k not in ignored} != {k: v for k, v in live.items() if k not in ignored}
    ignored = {"metadata", "status", "apiVersion", "kind"}
    return {k: v for k, v in obj.items() if k not in ignored} != {k: v for k, v in live.items() if k not in ignored}


def _same_uid(resource: Resource, live: Object, scale: Any) -> None:
    """What a Scale that is put names has to be the object; of one that is patched a real server does not look at it."""
    uid = ((scale or {}).get("metadata") or {}).get("uid")
    if uid and uid != live["metadata"]["uid"]:
        text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {live['metadata']['uid']}"
        raise conflict(f"{resource.plural}/scale", resource.group, live["metadata"]["name"], text)


def _same(obj: Object, live: Object) -> bool:
    """Whether nothing changed but the times at which managers wrote."""

    def bare(value: Object) -> Object:
        meta = {k: v for k, v in value["metadata"].items() if k not in _BOOKKEEPING}
        entries = [{k: v for k, v in e.items() if k != "time"} for e in value["metadata"].get("managedFields") or ()]
        entries.sort(key=lambda e: (e["operation"], e["manager"], e.get("subresource", ""), e.get("apiVersion", "")))
        return {**value, "metadata": {**meta, "managedFields": entries}}

    return bare(obj) == bare(live)
