"""Create: name, place, admit and validate a new object, and what follows from some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from swarm_deploy.local.api import cel, crd, managed, structural
from swarm_deploy.local.api.decoding import Decoding, Result, copy, type_of
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    already_exists,
    bad_request,
    forbidden,
    forbidden_field,
    invalid,
    invalid_value,
    method_not_allowed,
    not_found,
)
from swarm_deploy.local.api.kinds import Strategy, strategy_of
from swarm_deploy.local.api.meta import generate_name, meta_causes, new_uid
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.scale import scale_causes
from swarm_deploy.local.store import Present

if TYPE_CHECKING:
    from swarm_deploy.local.api.core import Api

__all__ = ["SERVER_SETS", "Creates", "not_written"]

Object = dict[str, Any]

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
#: What of the metadata no client may set.
SERVER_SETS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")


def not_written(resource: Resource, subresource: str) -> tuple[tuple[str, ...], ...]:
    """The fields that a write to this endpoint leaves alone, and so can't own."""
    if resource.subresource("status") is None:
        return ()
    return (("f:spec",),) if subresource == "status" else (("f:status",),)


class Creates(Decoding):
    """New objects, and the validation that changed ones pass too."""

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
            raise ApiError(500, "resourceVersion should not be set on objects to be created", reason="")
        obj = managed.update(
            type_of(resource),
            self._empty(resource),
            obj,
            manager=manager,
            version=resource.group_version,
            now=self.now(),
            ignore=not_written(resource, ""),
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
        for name in SERVER_SETS:
            obj["metadata"].pop(name, None)
        if resource.custom and resource.subresource("status"):
            obj.pop("status", None)

    def _insert(self, resource: Resource, obj: Object, warnings: tuple[str, ...], *, dry_run: bool) -> Result:
        strategy, api = strategy_of(resource), cast("Api", self)
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
            type_of(resource),
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


def _at(obj: Any, field: str) -> Any:
    for part in field.replace("[", ".[").split("."):
        if part.startswith("[") and isinstance(obj, list) and part[1:-1].isdigit() and int(part[1:-1]) < len(obj):
            obj = obj[int(part[1:-1])]
        else:
            obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _meta_update_causes(meta: Object, old: Object) -> list[Cause]:
    causes = []
    if old.get("deletionTimestamp"):
        added = [f for f in meta.get("finalizers") or () if f not in (old.get("finalizers") or ())]
        if added:
            listed = ", ".join(f'"{f}"' for f in added)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers"
            causes.append(forbidden_field("metadata.finalizers", f"{text} []string{{{listed}}}"))
    return causes
