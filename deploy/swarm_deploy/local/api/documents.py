"""The documents that describe the API: version, health, discovery, OpenAPI."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from swarm_deploy.local.api.answers import VERSION, json_answer, version
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.discovery import Discovery
from swarm_deploy.local.api.errors import method_not_allowed, no_such_path
from swarm_deploy.local.api.negotiation import accepted
from swarm_deploy.local.api.openapi import OpenApi

__all__ = ["Documents"]

Object = dict[str, Any]


class Documents:
    """Everything that is no object."""

    def __init__(self, api: Api, address: str) -> None:
        self.discovery = Discovery(api.catalog, address)
        self.openapi = OpenApi(api.catalog, VERSION)

    def answer(self, request: web.Request, path: str) -> web.Response:
        """The document at a path. Raises ApiError 404, 405."""
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        path = path.rstrip("/") or "/"
        if path == "/version":
            return json_answer(version())
        if path.startswith(("/healthz", "/readyz", "/livez")):
            return web.Response(text="ok", headers={"Cache-Control": "no-cache, private"})
        if path == "/":
            return json_answer(
                {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}
            )
        if path == "/openapi/v3":
            return web.Response(
                body=self.openapi.index(),
                content_type="text/plain",
                charset="utf-8",
                headers={"Cache-Control": "no-cache, private"},
            )
        if path.startswith("/openapi/v3/"):
            return self._schemas(request, path.removeprefix("/openapi/v3/"))
        if path == "/openapi/v2":
            return self._swagger(request)
        if path in ("/api", "/apis"):
            return self._groups(request, core=path == "/api")
        parts = path.strip("/").split("/")
        found: Object | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = self.discovery.resources("", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = self.discovery.group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = self.discovery.resources(parts[1], parts[2])
        if found is None:
            raise no_such_path()
        return json_answer(found)

    def _schemas(self, request: web.Request, path: str) -> web.Response:
        found = self.openapi.document(path)
        if found is None:
            raise no_such_path()
        body, etag = found
        headers = {"Etag": etag, "Vary": "Accept"}
        wanted = request.query.get("hash")
        if wanted and wanted != etag.strip('"'):
            # The client's index is old; what it wants is under another hash by now.
            where = f"/openapi/v3/{path}?hash={etag.strip(chr(34))}"
            return web.Response(status=301, headers={"Location": where, "Vary": "Accept"})
        headers["Cache-Control"] = "public, immutable" if wanted else "no-cache, private"
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)

    def _swagger(self, request: web.Request) -> web.Response:
        protobuf = "protobuf" in request.headers.get("Accept", "")
        body, etag = self.openapi.v2(protobuf)
        headers = {"Etag": etag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" if protobuf else "application/json"
        return web.Response(body=body, headers={**headers, "Content-Type": kind})

    def _groups(self, request: web.Request, *, core: bool) -> web.Response:
        answer = accepted(request.headers.get("Accept", ""))
        if answer.form != "discovery":
            return json_answer(self.discovery.core_versions() if core else self.discovery.groups())
        body, etag = self.discovery.aggregated(core)
        headers = {"Etag": etag, "Vary": "Accept", "Cache-Control": "public"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        return web.Response(body=body, headers={**headers, "Content-Type": kind})
