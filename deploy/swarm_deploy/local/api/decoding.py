"""From a request's body to an object of its kind: what the kind does not know is dropped, defaults are filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from swarm_deploy.local.api import crd, structural
from swarm_deploy.local.api.defaults import default_builtin, empty_object, tidy
from swarm_deploy.local.api.errors import bad_request, no_such_path, not_found
from swarm_deploy.local.api.events import to_core
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.types import Type, builtin_type, custom_type
from swarm_deploy.local.store import Store

if TYPE_CHECKING:
    import asyncio

    from swarm_deploy.local.api.meta import Clock
    from swarm_deploy.local.api.resources import Catalog

__all__ = ["Decoding", "Result", "copy", "type_of"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What a write answers: the object (or a Status), the HTTP code, and warnings for the person behind the client."""

    object: Object
    code: int = 200
    warnings: tuple[str, ...] = ()


def copy(value: Any) -> Any:
    """A deep copy; by way of msgpack it is ten times faster than `copy.deepcopy`."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


_TYPES: dict[int, tuple[Object, Type]] = {}


def type_of(resource: Resource) -> Type:
    """The type of a kind; a custom one's is kept for as long as its definition stays."""
    if resource.definition is not None:
        key = id(resource.definition)
        held = _TYPES.get(key)
        if held is None or held[0] is not resource.definition:
            if len(_TYPES) > 256:
                _TYPES.clear()
            held = _TYPES[key] = (resource.definition, custom_type(crd.schema_of(resource.definition)))
        return held[1]
    return builtin_type(resource.group, resource.version, resource.kind)


def _meta_type() -> Type:
    return Type({"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"})


def _as_object(value: Any) -> Object:
    assert isinstance(value, dict)
    return value


class Decoding:
    """What all writes begin with. It relies on the attributes of the other half of `Api`."""

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

    @staticmethod
    def _check_subresource(resource: Resource, subresource: str) -> None:
        if subresource and resource.subresource(subresource) is None:
            raise no_such_path()

    def _live(self, resource: Resource, namespace: str, name: str) -> Object:
        stored = self.store.get(resource.key, namespace, name)
        if stored is None:
            raise not_found(resource.plural, resource.group, name)
        return self.view(resource, stored)

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
            pruned["metadata"] = tidy(_meta_type(), pruned["metadata"])
            return pruned, unknown
        wrong = structural.type_mismatch(resource.group, resource.version, resource.kind, obj)
        if wrong:
            raise bad_request(self._cannot(resource, wrong))
        unknown = []
        return structural.prune_typed(type_of(resource), obj, "", unknown), unknown

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

    @staticmethod
    def _stored(resource: Resource, obj: Object) -> Object:
        return to_core(obj) if resource.group == "events.k8s.io" else obj
