"""Discovery: what clients ask first, in the aggregated form that kubectl prefers and the plain one that kopf reads."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from swarm_deploy.local.api.resources import Catalog, Resource, Subresource

__all__ = ["Discovery"]

Object = dict[str, Any]


def _kind(resource: Resource, sub: Subresource | None = None) -> Object:
    # A real server fills group and version in for custom kinds and foreign subresources only.
    if sub is not None:
        return {"group": sub.group, "version": sub.version, "kind": sub.kind}
    if resource.custom:
        return {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {"group": "", "version": "", "kind": resource.kind}


def _aggregated(resource: Resource) -> Object:
    out: Object = {
        "resource": resource.plural,
        "responseKind": _kind(resource),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    if resource.subresources:
        out["subresources"] = [
            {"subresource": s.name, "responseKind": _kind(resource, s), "verbs": list(s.verbs)}
            for s in resource.subresources
        ]
    return out


def _plain(resource: Resource) -> list[Object]:
    out: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        out["shortNames"] = list(resource.short_names)
    if resource.categories:
        out["categories"] = list(resource.categories)
    if "watch" in resource.verbs:
        out["storageVersionHash"] = resource.storage_hash
    listed = [out]
    for sub in resource.subresources:
        below: Object = {"name": f"{resource.plural}/{sub.name}", "singularName": "", "namespaced": resource.namespaced}
        if sub.group and sub.kind != resource.kind:
            below |= {"group": sub.group, "version": sub.version}
        listed.append({**below, "kind": sub.kind, "verbs": list(sub.verbs)})
    return listed


class Discovery:
    """The documents, made again when the catalog changes."""

    def __init__(self, catalog: Catalog, address: str) -> None:
        """`address` is where clients reach the server, `host:port`."""
        self._catalog = catalog
        self._address = address
        self._made: dict[str, tuple[int, bytes, str]] = {}

    def aggregated(self, core: bool) -> tuple[bytes, str]:
        """Everything below `/api` (core) or `/apis`, and its ETag."""
        key = "api" if core else "apis"
        held = self._made.get(key)
        if held is None or held[0] != self._catalog.revision:
            groups = [""] if core else self._catalog.groups()
            items = []
            for group in groups:
                versions = [
                    {
                        "version": version,
                        "resources": [_aggregated(r) for r in self._catalog.of(group, version)],
                        "freshness": "Current",
                    }
                    for version in self._catalog.versions(group)
                ]
                items.append({"metadata": {"name": group} if group else {}, "versions": versions})
            body = msgspec.json.encode(
                {
                    "kind": "APIGroupDiscoveryList",
                    "apiVersion": "apidiscovery.k8s.io/v2",
                    "metadata": {},
                    "items": items,
                }
            )
            held = (self._catalog.revision, body, etag(body))
            self._made[key] = held
        return held[1], held[2]

    def core_versions(self) -> Object:
        """`/api` in its plain form."""
        where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}

    def groups(self) -> Object:
        """`/apis` in its plain form."""
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(g) for g in self._catalog.groups()]}

    def _group(self, group: str) -> Object:
        versions = [{"groupVersion": f"{group}/{v}", "version": v} for v in self._catalog.versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def group(self, group: str) -> Object | None:
        """`/apis/GROUP`."""
        if group not in self._catalog.groups():
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}

    def resources(self, group: str, version: str) -> Object | None:
        """`/api/v1` or `/apis/GROUP/VERSION`."""
        served = self._catalog.of(group, version)
        if not served:
            return None
        out: Object = {"kind": "APIResourceList"}
        if group:
            out["apiVersion"] = "v1"
        out["groupVersion"] = f"{group}/{version}" if group else version
        return {**out, "resources": [r for resource in served for r in _plain(resource)]}


def etag(body: bytes) -> str:
    """A body's ETag, as long and as loud as a real server's."""
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'
