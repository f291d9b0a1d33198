"""OpenAPI: the schemas by which kubectl validates, explains, diffs and merges; one document a group and version (v3),
and one for all (v2, as JSON and in the protobuf form that kubectl asks for).

Documents are made when they are first asked for and kept until a CustomResourceDefinition changes. A document's hash
is in its URL, so clients keep it for ever; the index of hashes is what they ask for each time.
"""

from __future__ import annotations

from typing import Any

import msgspec

from swarm_deploy.local.api.crd import schema_of
from swarm_deploy.local.api.discovery import etag
from swarm_deploy.local.api.openapi_protobuf import encode_v2
from swarm_deploy.local.api.resources import Catalog, Resource
from swarm_deploy.local.api.types import OBJECT_META, definition_name, definitions

__all__ = ["OpenApi"]

Object = dict[str, Any]

_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_VERSION_TEXT = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized"
    " schemas to the latest internal value, and may reject unrecognized values."
)
_KIND_TEXT = "Kind is a string value representing the REST resource this object represents."
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def _references(value: Any, found: set[str]) -> None:
    if isinstance(value, list):
        for inner in value:
            _references(inner, found)
    elif isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            found.add(ref.rpartition("/")[2])
        for inner in value.values():
            _references(inner, found)


def _closure(names: set[str], own: Object) -> Object:
    out: Object = {}
    todo = set(names)
    while todo:
        name = todo.pop()
        if name in out:
            continue
        schema = own.get(name) or definitions()[name]
        out[name] = schema
        found: set[str] = set()
        _references(schema, found)
        todo |= found - out.keys()
    return dict(sorted(out.items()))


def _pointing(value: Any, where: str) -> Any:
    """The schema with its references pointing to where this kind of document keeps them."""
    if isinstance(value, list):
        return [_pointing(v, where) for v in value]
    if not isinstance(value, dict):
        return value
    out = {k: _pointing(v, where) for k, v in value.items()}
    if isinstance(out.get("$ref"), str):
        out["$ref"] = where + out["$ref"].rpartition("/")[2]
    return out


def custom_name(resource: Resource) -> str:
    """The name of a custom kind's schema: its group backwards."""
    return ".".join([*reversed(resource.group.split(".")), resource.version, resource.kind])


def _gvk(resource: Resource, kind: str = "") -> Object:
    return {"group": resource.group, "version": resource.version, "kind": kind or resource.kind}


def _custom_schemas(resource: Resource) -> Object:
    assert resource.definition is not None
    schema = dict(schema_of(resource.definition))
    properties = {
        "apiVersion": {"type": "string", "description": _VERSION_TEXT},
        "kind": {"type": "string", "description": _KIND_TEXT},
        "metadata": {"$ref": f"#/definitions/{OBJECT_META}", "description": "Standard object's metadata."},
        **{k: v for k, v in (schema.get("properties") or {}).items() if k not in ("apiVersion", "kind", "metadata")},
    }
    name = custom_name(resource)
    item = {**schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [_gvk(resource)]}
    listed = {
        "type": "object",
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": _VERSION_TEXT},
            "kind": {"type": "string", "description": _KIND_TEXT},
            "metadata": {"$ref": f"#/definitions/{_LIST_META}", "description": "Standard list metadata."},
            "items": {
                "type": "array",
                "description": f"List of {resource.plural}.",
                "items": {"$ref": f"#/definitions/{name}"},
            },
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, resource.list_kind)],
    }
    return {name: item, f"{name.rpartition('.')[0]}.{resource.list_kind}": listed}


def _schema_name(resource: Resource) -> str | None:
    return (
        custom_name(resource) if resource.custom else definition_name(resource.group, resource.version, resource.kind)
    )


# -- paths -----------------------------------------

_WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
_LIST_PARAMETERS = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_TYPES = {
    "limit": "integer",
    "timeoutSeconds": "integer",
    "watch": "boolean",
    "force": "boolean",
    "allowWatchBookmarks": "boolean",
    "sendInitialEvents": "boolean",
}


def _parameter(name: str, where: str, v3: bool) -> Object:
    kind = {"type": _TYPES.get(name, "string"), "uniqueItems": True}
    out: Object = {"name": name, "in": where, **({"schema": kind} if v3 else kind)}
    if where == "path":
        out["required"] = True
    return out


def _paths(resource: Resource, v3: bool) -> Object:
    name = _schema_name(resource)
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    shared = [_parameter("pretty", "query", v3)]
    if resource.namespaced:
        shared.append(_parameter("namespace", "path", v3))
    where = "#/components/schemas/" if v3 else "#/definitions/"
    schema: Object = {"$ref": where + name} if name else {"type": "object"}

    def operation(verb: str, action: str, query: tuple[str, ...], body: tuple[str, ...] = ()) -> Object:
        parameters = [_parameter(q, "query", v3) for q in query]
        out: Object = {
            "operationId": f"{verb}{resource.group.title().replace('.', '')}{resource.version.title()}{resource.kind}",
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(resource),
        }
        answer: Object = {"description": "OK"}
        if v3:
            answer["content"] = {"application/json": {"schema": schema}}
            if body:
                out["requestBody"] = {"content": {b: {"schema": schema} for b in body}, "required": True}
        else:
            answer["schema"] = schema
            out["produces"] = ["application/json"]
            if body:
                out["consumes"] = list(body)
                parameters.append({"name": "body", "in": "body", "required": True, "schema": schema})
        if parameters:
            out["parameters"] = parameters
        return {**out, "responses": {"200": answer}}

    verbs = resource.verbs
    collection: Object = {"parameters": shared}
    if "list" in verbs:
        collection["get"] = operation("list", "list", _LIST_PARAMETERS)
    if "create" in verbs:
        collection["post"] = operation("create", "post", _WRITE_PARAMETERS, ("application/json",))
    if "deletecollection" in verbs:
        collection["delete"] = operation("deleteCollection", "deletecollection", _LIST_PARAMETERS)
    out = {f"{base}{scope}/{resource.plural}": collection}
    item: Object = {"parameters": [*shared, _parameter("name", "path", v3)]}
    # A custom resource takes no strategic merge patch, and kubectl reads that from here.
    patches = tuple(p for p in _PATCHES if not (resource.custom and "strategic" in p))
    if "get" in verbs:
        item["get"] = operation("read", "get", ())
    if "update" in verbs:
        item["put"] = operation("replace", "put", _WRITE_PARAMETERS, ("application/json",))
    if "patch" in verbs:
        item["patch"] = operation("patch", "patch", (*_WRITE_PARAMETERS, "force"), patches)
    if "delete" in verbs:
        item["delete"] = operation("delete", "delete", ("dryRun", "gracePeriodSeconds", "propagationPolicy"))
    if len(item) > 1:
        out[f"{base}{scope}/{resource.plural}/{{name}}"] = item
    for sub in resource.subresources:
        if "patch" in sub.verbs and sub.name in ("status", "scale"):
            below = {
                "parameters": item["parameters"],
                "get": operation("read", "get", ()),
                "put": operation("replace", "put", _WRITE_PARAMETERS, ("application/json",)),
                "patch": operation("patch", "patch", (*_WRITE_PARAMETERS, "force"), patches),
            }
            out[f"{base}{scope}/{resource.plural}/{{name}}/{sub.name}"] = below
    if resource.namespaced and "list" in verbs:
        everywhere = {"parameters": shared[:1], "get": operation("list", "list", _LIST_PARAMETERS)}
        out[f"{base}/{resource.plural}"] = everywhere
    return out


class OpenApi:
    """The documents of a catalog."""

    def __init__(self, catalog: Catalog, version: str) -> None:
        """`version` is the server's, for example `v1.36.2`."""
        self._catalog = catalog
        self._info = {"title": "Kubernetes", "version": version}
        self._revision = -1
        self._made: dict[str, tuple[bytes, str]] = {}

    def _fresh(self) -> dict[str, tuple[bytes, str]]:
        if self._revision != self._catalog.revision:
            # Built-in kinds never change: their documents are kept.
            changed = {p for p in self._made if not self._built_in(p)}
            for path in changed:
                del self._made[path]
            self._revision = self._catalog.revision
        return self._made

    def _built_in(self, path: str) -> bool:
        group = path.split("/")[1] if path.startswith("apis/") and path.count("/") == 2 else ""
        return path not in ("index", "v2", "v2.pb") and not any(r.custom and r.group == group for r in self._catalog)

    def _paths_there(self) -> list[str]:
        out = {"api", "apis", "version", "api/v1"}
        for resource in self._catalog:
            if resource.group:
                out.add(f"apis/{resource.group}/{resource.version}")
                if not resource.custom:
                    out.add(f"apis/{resource.group}")
        return sorted(out)

    def index(self) -> bytes:
        """`/openapi/v3`."""
        made = self._fresh()
        if "index" not in made:
            paths = {}
            for path in self._paths_there():
                found = self.document(path)
                assert found is not None
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={found[1].strip(chr(34))}"}
            made["index"] = (msgspec.json.encode({"paths": paths}), "")
        return made["index"][0]

    def document(self, path: str) -> tuple[bytes, str] | None:
        """`/openapi/v3/PATH` and its ETag, or None where there is nothing."""
        made = self._fresh()
        if path not in made:
            if path not in self._paths_there():
                return None
            body = msgspec.json.encode(self._document(path))
            made[path] = (body, etag(body))
        return made[path]

    def _document(self, path: str) -> Object:
        parts = path.split("/")
        out: Object = {"openapi": "3.0.0", "info": self._info}
        if path == "api/v1":
            served = self._catalog.of("", "v1")
        elif len(parts) == 3:
            served = self._catalog.of(parts[1], parts[2])
        else:
            answer = {"200": {"description": "OK", "content": {"application/json": {}}}}
            return {**out, "paths": {f"/{path}/": {"get": {"responses": answer}}}}
        own, names = self._own(served)
        schemas = _pointing(_closure(names, own), "#/components/schemas/")
        _three(schemas)
        paths = {p: o for r in served for p, o in _paths(r, v3=True).items()}
        return {**out, "paths": paths, "components": {"schemas": schemas}}

    def _own(self, served: list[Resource]) -> tuple[Object, set[str]]:
        own: Object = {}
        names = {_DELETE_OPTIONS, _STATUS}
        for resource in served:
            if resource.custom:
                own |= _custom_schemas(resource)
            else:
                for kind in (resource.kind, resource.list_kind, *(s.kind for s in resource.subresources)):
                    if name := definition_name(resource.group, resource.version, kind):
                        names.add(name)
            for sub in resource.subresources:
                if sub.group and (name := definition_name(sub.group, sub.version, sub.kind)):
                    names.add(name)
        return own, names | own.keys()

    def v2(self, protobuf: bool) -> tuple[bytes, str]:
        """`/openapi/v2` and its ETag."""
        made = self._fresh()
        key = "v2.pb" if protobuf else "v2"
        if key not in made:
            served = list(self._catalog)
            own, names = self._own(served)
            document: Object = {"swagger": "2.0", "info": self._info}
            document["paths"] = {} if protobuf else {p: o for r in served for p, o in _paths(r, v3=False).items()}
            document["definitions"] = _two(_pointing(_closure(names, own), "#/definitions/"))
            body = encode_v2(document) if protobuf else msgspec.json.encode(document)
            made[key] = (body, etag(body))
        return made[key]


def _three(schemas: Object) -> None:
    """The two kinds of value that v3 can describe and v2 can't."""
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    either = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    if quantity in schemas:
        schemas[quantity] = {"oneOf": [{"type": "string"}, {"type": "number"}]}
    if either in schemas:
        schemas[either] = {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}


def _two(value: Any) -> Any:
    """A schema without what v2 has no word for."""
    if isinstance(value, list):
        return [_two(v) for v in value]
    if not isinstance(value, dict):
        return value
    dropped = ("oneOf", "anyOf", "allOf", "not", "nullable", "x-kubernetes-validations")
    if "properties" in value or "type" in value or "items" in value:
        out = {k: v for k, v in value.items() if k not in dropped}
        if value.get("x-kubernetes-int-or-string"):
            out |= {"type": "string", "format": "int-or-string"}
        for part in ("items", "additionalProperties"):
            if isinstance(out.get(part), dict):
                out[part] = _two(out[part])
        if isinstance(out.get("properties"), dict):
            out["properties"] = {k: _two(v) for k, v in out["properties"].items()}
        return out
    return {k: _two(v) if isinstance(v, dict) else v for k, v in value.items()}
