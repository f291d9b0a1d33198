"""Create, update, patch and delete: the steps that every kind takes on its way into the store.

A write is: decode (drop what the kind does not know, and say so as `fieldValidation` asks), fill defaults in, record
who owns what changed, admit, set what only the server sets, validate, store. A change that changes nothing is not
stored, so that it neither raises the version nor wakes a watcher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from swarm_deploy.local.api import cel, crd, managed, structural
from swarm_deploy.local.api.defaults import default_builtin, empty_object
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    invalid,
    invalid_value,
    method_not_allowed,
    not_found,
    unsupported_media_type,
)
from swarm_deploy.local.api.events import to_core
from swarm_deploy.local.api.kinds import PROTECTED, Strategy, pod_grace, strategy_of
from swarm_deploy.local.api.meta import generate_name, meta_causes, new_uid, parse_time, timestamp
from swarm_deploy.local.api.patch import json_patch, merge_patch, strategic_merge_patch
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.scale import scale_causes, scale_of, scale_path, with_replicas
from swarm_deploy.local.api.types import Type, builtin_type, custom_type
from swarm_deploy.local.store import Present, Store

if TYPE_CHECKING:
    import asyncio

    from swarm_deploy.local.api.core import Api
    from swarm_deploy.local.api.meta import Clock
    from swarm_deploy.local.api.resources import Catalog

__all__ = ["PatchType", "Result", "Writes"]

Object = dict[str, Any]
PatchType = Literal["merge", "json", "strategic", "apply"]

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete"
    " validation"
)
# An object with one of these wrong is not worth asking its rules about.
_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
_BOOKKEEPING = frozenset({"resourceVersion", "managedFields"})
_SERVER_SETS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")


@dataclass(frozen=True, slots=True)
class Result:
    """What a write answers: the object (or a Status), the HTTP code, and warnings for the person behind the client."""

    object: Object
    code: int = 200
    warnings: tuple[str, ...] = ()


def copy(value: Any) -> Any:
    """A deep copy; by way of JSON it is several times faster than `copy.deepcopy`."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _type(resource: Resource) -> Type:
    if resource.definition is not None:
        key = id(resource.definition)
        held = _TYPES.get(key)
        if held is None or held[0] is not resource.definition:
            if len(_TYPES) > 256:
                _TYPES.clear()
            held = _TYPES[key] = (resource.definition, custom_type(crd.schema_of(resource.definition)))
        return held[1]
    return builtin_type(resource.group, resource.version, resource.kind)


_TYPES: dict[int, tuple[Object, Type]] = {}


class Writes:
    """The writing half of `Api`; it relies on the other half's attributes."""

    store: Store
    clock: Clock
    catalog: Catalog
    sweeper: asyncio.Event | None

    if TYPE_CHECKING:
        # From the reading half.
        def now(self) -> str: ...
        def view(self, resource: Resource, stored: Object) -> Object: ...
        def serve_definition(self, definition: Object) -> None: ...
        def resource(self, name: str) -> Resource: ...

    # -- decoding ---------------------------------------------------------------------------------------------------

    def _decode(self, resource: Resource, obj: Any) -> tuple[Object, list[str]]:
        """The object as its kind, without what the kind does not know, and the paths of that."""
        if not isinstance(obj, dict):
            raise bad_request(f"couldn't get version/kind; json parse error: cannot unmarshal {type(obj).__name__}")
        kind, version = obj.get("kind") or resource.kind, obj.get("apiVersion") or resource.group_version
        if version != resource.group_version:
            raise bad_request(
                f"the API version in the data ({version}) does not match the expected API version"
                f" ({resource.group_version})"
            )
        if kind != resource.kind:
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: converting'
                f" {version}.{kind} to {resource.group_version}.{resource.kind}: unknown conversion"
            )
        obj = {**obj, "kind": kind, "apiVersion": version}
        meta = obj.get("metadata")
        if meta is None:
            obj["metadata"] = {}
        elif not isinstance(meta, dict):
            raise bad_request(self._cannot(resource, "metadata should be an object"))
        if resource.definition is not None:
            wrong = structural.mismatch(_meta_type(), obj["metadata"], "metadata", "ObjectMeta")
            if wrong:
                raise bad_request(self._cannot(resource, wrong))
            pruned, unknown = structural.prune(crd.schema_of(resource.definition), obj)
            # A null in the metadata is as good as nothing.
            pruned["metadata"] = {k: v for k, v in pruned["metadata"].items() if v is not None}
            return pruned, unknown
        wrong = structural.type_mismatch(resource.group, resource.version, resource.kind, obj)
        if wrong:
            raise bad_request(self._cannot(resource, wrong))
        unknown = []
        return structural.prune_typed(_type(resource), obj, "", unknown), unknown

    @staticmethod
    def _cannot(resource: Resource, why: str) -> str:
        return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'

    def _unknown(self, resource: Resource, unknown: list[str], mode: str) -> tuple[str, ...]:
        """What becomes of unknown fields: an error, warnings, or nothing."""
        if not unknown or mode == "Ignore":
            return ()
        texts = [t if t.startswith("duplicate ") else f'unknown field "{t}"' for t in unknown]
        if mode == "Strict":
            raise bad_request(self._cannot(resource, "strict decoding error: " + ", ".join(texts)))
        return tuple(texts)

    def _defaulted(self, resource: Resource, obj: Object) -> Object:
        if resource.definition is not None:
            return _as_object(structural.default(crd.schema_of(resource.definition), obj))
        return default_builtin(resource.group, resource.version, resource.kind, obj)

    def _empty(self, resource: Resource) -> Object:
        if resource.custom:
            return {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": {}}
        return copy(empty_object(resource.kind, resource.group_version))  # type: ignore[no-any-return]

    # -- create -----------------------------------------------------------------------------------------------------

    def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Object,
        *,
        manager: str,
        dry_run: bool = False,
        validation: str = "Warn",
        problems: tuple[str, ...] = (),
    ) -> Result:
        """Store a new object.

        Args:
            obj: the caller's own; it may be changed.
            validation: Strict, Warn or Ignore what the kind does not know.
            problems: what the decoder already found (duplicate fields), treated like unknown fields.

        Raises:
            ApiError: in every way that a create can be refused.
        """
        if "create" not in resource.verbs:
            raise method_not_allowed()
        if resource.refusal:
            name = (obj.get("metadata") or {}).get("name", "")
            raise forbidden(resource.plural, resource.group, name, resource.refusal)
        obj, unknown = self._decode(resource, obj)
        warnings = self._unknown(resource, [*unknown, *problems], validation)
        self._place(resource, namespace, obj)
        self._strip(resource, obj)
        obj = self._defaulted(resource, obj)
        if obj["metadata"].get("resourceVersion"):
            raise ApiError(500, "resourceVersion should not be set on objects to be created", reason=" ")
        obj = managed.update(
            _type(resource),
            self._empty(resource),
            obj,
            manager=manager,
            version=resource.group_version,
            now=self.now(),
            ignore=_not_written(resource, ""),
        )
        return self._insert(resource, obj, warnings, dry_run=dry_run)

    def _place(self, resource: Resource, namespace: str, obj: Object) -> None:
        """Settle the namespace: the path's, which the object may only repeat."""
        meta = obj["metadata"]
        if not resource.namespaced:
            meta.pop("namespace", None)
            return
        if not namespace:
            raise bad_request("an empty namespace may not be set during creation")
        if meta.get("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        meta["namespace"] = namespace

    @staticmethod
    def _strip(resource: Resource, obj: Object) -> None:
        """Take off what a client may not create an object with."""
        for name in _SERVER_SETS:
            obj["metadata"].pop(name, None)
        if resource.custom and resource.subresource("status"):
            obj.pop("status", None)

    def _insert(self, resource: Resource, obj: Object, warnings: tuple[str, ...], *, dry_run: bool) -> Result:
        strategy, api = strategy_of(resource), _api(self)
        meta = obj["metadata"]
        generated = not meta.get("name") and meta.get("generateName")
        for attempt in range(8):
            if generated:
                meta["name"] = generate_name(meta["generateName"])
            self._namespace_open(resource, meta)
            more = strategy.admit(api, obj) if strategy.admit and not attempt else []
            if resource.caveat:
                more = [*more, resource.caveat]
            meta["uid"] = new_uid()
            meta["creationTimestamp"] = self.now()
            if strategy.counts:
                meta["generation"] = 1
            if strategy.status is not None:
                obj["status"] = copy(strategy.status)
            if strategy.prepare and not attempt:
                strategy.prepare(api, obj)
            self._validate(resource, strategy, obj, None)
            if dry_run:
                if self.store.get(resource.key, meta.get("namespace", ""), meta["name"]) is None:
                    return Result(obj, 201, (*warnings, *more))
                raise already_exists(resource.plural, resource.group, meta["name"])
            try:
                stored = self.store.create(
                    resource.key, meta.get("namespace", ""), meta["name"], self._stored(resource, obj)
                )
            except Present:
                if generated:
                    continue
                raise already_exists(resource.plural, resource.group, meta["name"]) from None
            self._created(resource, stored)
            return Result(self.view(resource, stored), 201, (*warnings, *more))
        raise already_exists(resource.plural, resource.group, meta["name"])

    @staticmethod
    def _stored(resource: Resource, obj: Object) -> Object:
        return to_core(obj) if resource.group == "events.k8s.io" else obj

    def _namespace_open(self, resource: Resource, meta: Object) -> None:
        if not resource.namespaced:
            return
        name = meta["namespace"]
        namespace = self.store.get("namespaces", "", name)
        if namespace is None:
            raise not_found("namespaces", "", name)
        if namespace.get("status", {}).get("phase") == "Terminating":
            error = forbidden(
                resource.plural,
                resource.group,
                meta.get("name", ""),
                f"unable to create new content in namespace {name} because it is being terminated",
            )
            error.status["details"]["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {name} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise error

    def _created(self, resource: Resource, stored: Object) -> None:
        """What follows from a new object."""
        if resource.qualified == "namespaces":
            self.furnish(stored["metadata"]["name"])
        elif resource.kind == "CustomResourceDefinition":
            self._settle(stored)

    def furnish(self, namespace: str) -> None:
        """Give a namespace what pods expect in it: a service account, and the cluster's certificate."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        bundle = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "kube-root-ca.crt",
                "annotations": {
                    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver"
                    " when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other"
                    " usage is guaranteed across distributions of Kubernetes clusters."
                },
            },
            "data": {"ca.crt": self.authority},
        }
        for plural, obj in (("serviceaccounts", account), ("configmaps", bundle)):
            if self.store.get(plural, namespace, obj["metadata"]["name"]) is None:  # type: ignore[index]
                self.create(self.resource(plural), namespace, obj, manager="kube-controller-manager")

    #: The certificate by which clients know this server (PEM); the application sets it.
    authority: str = ""

    def _settle(self, definition: Object) -> None:
        """Accept a definition's names, or not, and serve what it defines."""
        others = self.store.list("customresourcedefinitions.apiextensions.k8s.io")
        status = crd.accepted_status(definition, others, self.now())
        if status != definition.get("status"):
            resource = self.resource("customresourcedefinitions.apiextensions.k8s.io")
            definition = self.write_status(resource, definition, status, manager="kube-apiserver")
        self.serve_definition(definition)

    def write_status(self, resource: Resource, obj: Object, status: Object, *, manager: str) -> Object:
        """Set the status of an object that the server itself looks after, under the name of who does so elsewhere."""
        changed = managed.update(
            _type(resource),
            obj,
            {**obj, "status": status},
            manager=manager,
            version=resource.group_version,
            now=self.now(),
            subresource="status",
        )
        meta = obj["metadata"]
        return self.store.update(resource.key, meta.get("namespace", ""), meta["name"], changed)

    # -- validation -------------------------------------------------------------------------------------------------

    def _validate(self, resource: Resource, strategy: Strategy, obj: Object, old: Object | None) -> None:
        meta = obj["metadata"]
        causes = meta_causes(resource.qualified, meta)
        if old is not None:
            causes += _meta_update_causes(meta, old["metadata"])
        if resource.definition is not None:
            causes += self._custom_causes(resource, obj, old)
        elif strategy.causes is not None:
            causes += strategy.causes(obj)
            if old is not None and strategy.update_causes is not None:
                causes += strategy.update_causes(obj, old)
        if causes:
            name = meta.get("name") or meta.get("generateName", "")
            raise invalid(resource.kind, resource.group, name, causes)

    def _custom_causes(self, resource: Resource, obj: Object, old: Object | None) -> list[Cause]:
        assert resource.definition is not None
        schema = crd.schema_of(resource.definition)
        causes = structural.validate(schema, obj)
        if old is not None and causes:
            # What was wrong before and did not change is not blamed on this write.
            before = set(structural.validate(schema, old))
            causes = [c for c in causes if c not in before or _at(obj, c.field) != _at(old, c.field)]
        if resource.subresource("scale"):
            causes += scale_causes(resource, obj)
        causes += structural.list_causes(schema, obj)
        if any(c.reason in _BLOCKING for c in causes):
            causes.append(invalid_value("<nil>", None, _UNCHECKED))
        else:
            causes += cel.rule_causes(schema, obj, old)
        return causes

    # -- update -----------------------------------------------------------------------------------------------------

    def _live(self, resource: Resource, namespace: str, name: str) -> Object:
        stored = self.store.get(resource.key, namespace, name)
        if stored is None:
            raise not_found(resource.plural, resource.group, name)
        return self.view(resource, stored)

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
        if subresource == "scale":
            live = self._live(resource, namespace, name)
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
        strategy, api = strategy_of(resource), _api(self)
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
                _type(resource),
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
        if _finished(resource, stored):
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
            changed = strategic_merge_patch(_type(resource), base, patch)
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
            _type(resource),
            live,
            config,
            manager=manager,
            version=resource.group_version,
            now=self.now(),
            force=force,
            subresource=subresource,
            ignore=_not_written(resource, subresource),
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

    # -- delete -----------------------------------------------------------------------------------------------------

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
        if _finished(resource, stored):
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


def _api(writes: Writes) -> Api:
    return writes  # type: ignore[return-value]  # the two halves are one object


def _as_object(value: Any) -> Object:
    assert isinstance(value, dict)
    return value


def _meta_type() -> Type:
    return Type({"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"})


def _not_written(resource: Resource, subresource: str) -> tuple[tuple[str, ...], ...]:
    """The fields that a write to this endpoint leaves alone, and so can't own."""
    if resource.subresource("status") is None:
        return ()
    return (("f:spec",),) if subresource == "status" else (("f:status",),)


def _at(obj: Any, field: str) -> Any:
    for part in field.replace("[", ".[").split("."):
        if part.startswith("[") and isinstance(obj, list) and part[1:-1].isdigit() and int(part[1:-1]) < len(obj):
            obj = obj[int(part[1:-1])]
        else:
            obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _kept(resource: Resource, live: Object, obj: Object, subresource: str) -> Object:
    """The new object with what this endpoint may not change put back."""
    old = live["metadata"]
    meta = dict(obj["metadata"])
    for name in _SERVER_SETS:
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


def _same(obj: Object, live: Object) -> bool:
    """Whether nothing changed but the times at which managers wrote."""

    def bare(value: Object) -> Object:
        meta = {k: v for k, v in value["metadata"].items() if k not in _BOOKKEEPING}
        entries = [{k: v for k, v in e.items() if k != "time"} for e in value["metadata"].get("managedFields") or ()]
        entries.sort(key=lambda e: (e["operation"], e["manager"], e.get("subresource", ""), e.get("apiVersion", "")))
        return {**value, "metadata": {**meta, "managedFields": entries}}

    return bare(obj) == bare(live)


def _finished(resource: Resource, obj: Object) -> bool:
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


def _meta_update_causes(meta: Object, old: Object) -> list[Cause]:
    causes = []
    if old.get("deletionTimestamp"):
        added = [f for f in meta.get("finalizers") or () if f not in (old.get("finalizers") or ())]
        if added:
            listed = ", ".join(f'"{f}"' for f in added)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers"
            causes.append(forbidden_field("metadata.finalizers", f"{text} []string{{{listed}}}"))
    return causes
