"""The API over HTTP: paths, authentication, content negotiation, streams. What a request means is `core`'s.

One handler takes every path: Kubernetes' are regular, and resources come and go with CustomResourceDefinitions, which
a table of routes would have to follow.
"""

from __future__ import annotations

import asyncio
import hmac
import platform
import random
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web

from swarm_deploy.local.api import tables
from swarm_deploy.local.api.access import Credentials, kubeconfig, load_credentials
from swarm_deploy.local.api.core import Api, LogReader
from swarm_deploy.local.api.discovery import Discovery
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    bad_request,
    invalid,
    invalid_value,
    method_not_allowed,
    no_such_path,
    unauthorized,
    unsupported_value,
)
from swarm_deploy.local.api.lifecycle import Sweeper, set_up
from swarm_deploy.local.api.managed import manager_of
from swarm_deploy.local.api.meta import Clock
from swarm_deploy.local.api.negotiation import Answer, accepted, decode_body, duplicate_fields, patch_type
from swarm_deploy.local.api.openapi import OpenApi
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.special import ADMIN, review
from swarm_deploy.local.api.writes import Result
from swarm_deploy.local.store import Store

__all__ = ["API", "VERSION", "Server", "make_app", "serve"]

Object = dict[str, Any]
log = structlog.get_logger(__name__)

VERSION = "v1.36.2"
API: web.AppKey[Api] = web.AppKey("api", Api)
_MOST_BYTES = 3 * 1024 * 1024
_OPEN = ("/version", "/healthz", "/readyz", "/livez")
_REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
_PATCH_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class _Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


class _Handler:
    def __init__(self, api: Api, token: str, address: str) -> None:
        self.api = api
        self.token = token
        self.discovery = Discovery(api.catalog, address)
        self.openapi = OpenApi(api.catalog, VERSION)

    # -- the way in -------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        try:
            path = request.path
            if not path.startswith(_OPEN):
                self._user(request)
            if path.startswith(("/api/", "/apis/")) and path.count("/") >= (3 if path.startswith("/api/") else 4):
                return await self._resources(request)
            return self._document(request, path)
        except ApiError as e:
            return _json(e.status, e.code, e.headers)
        except web.HTTPRequestEntityTooLarge:
            text = f"Request entity too large: limit is {_MOST_BYTES}"
            return _json(ApiError(413, text).status, 413)
        except (asyncio.CancelledError, ConnectionResetError, web.HTTPException):
            raise
        except Exception:
            log.exception("request failed", method=request.method, path=request.path_qs)
            text = "An error on the server has prevented the request from succeeding; the cluster's log has the details"
            return _json(ApiError(500, text).status, 500)

    def _user(self, request: web.Request) -> str:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if hmac.compare_digest(given.strip().encode(), self.token.encode()):
                return ADMIN
            subject = self.api.tokens.subject(given.strip(), self.api.clock())
            if subject is not None:
                return subject
        raise unauthorized()

    # -- documents --------------------------------------------------------------------------------------------------

    def _document(self, request: web.Request, path: str) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        path = path.rstrip("/") or "/"
        if path == "/version":
            return _json(_version())
        if path.startswith(("/healthz", "/readyz", "/livez")):
            return web.Response(text="ok", headers={"Cache-Control": "no-cache, private"})
        if path == "/":
            return _json(
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
        return _json(found)

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
            return _json(self.discovery.core_versions() if core else self.discovery.groups())
        body, etag = self.discovery.aggregated(core)
        headers = {"Etag": etag, "Vary": "Accept", "Cache-Control": "public"}
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        version = (answer.parameters or {}).get("v", "v2")
        kind = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        return web.Response(body=body, headers={**headers, "Content-Type": kind})

    # -- resources --------------------------------------------------------------------------------------------------

    def _target(self, path: str) -> _Target:
        parts = [p for p in path.split("/") if p]
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        namespace = ""
        if (
            rest[0] == "namespaces"
            and len(rest) >= 3
            and not (len(rest) == 3 and rest[2] in ("status", "finalize") and group == "")
        ):
            namespace, rest = rest[1], rest[2:]
        resource = self.api.at(group, version, rest[0])
        name = rest[1] if len(rest) > 1 else ""
        subresource = "/".join(rest[2:])
        if bool(namespace) != resource.namespaced and (namespace or name):
            raise no_such_path()
        if subresource and resource.subresource(subresource.partition("/")[0]) is None:
            raise no_such_path()
        return _Target(resource, namespace, name, subresource)

    async def _resources(self, request: web.Request) -> web.StreamResponse:
        target = self._target(request.path)
        method = request.method
        if target.subresource:
            return await self._below(request, target)
        if not target.name:
            if method == "GET":
                if "list" not in target.resource.verbs:
                    raise method_not_allowed()
                if request.query.get("watch") in ("true", "1", "True"):
                    return await self._watch(request, target)
                return self._list(request, target)
            if method == "POST":
                return await self._create(request, target)
            if method == "DELETE":
                return await self._delete_collection(request, target)
            raise method_not_allowed()
        if method == "GET":
            if request.query.get("watch") in ("true", "1", "True"):
                return await self._watch(request, target)
            obj = self.api.read(target.resource, target.namespace, target.name)
            return self._answer(request, target.resource, Result(obj))
        if method == "DELETE":
            return await self._delete(request, target)
        return await self._change(request, target)

    async def _change(self, request: web.Request, target: _Target) -> web.Response:
        """PUT and PATCH."""
        query = request.query
        body = await request.read()
        content_type = request.headers.get("Content-Type", "")
        manager = manager_of(query.get("fieldManager", ""), request.headers.get("User-Agent", ""))
        options: Object = {
            "subresource": target.subresource,
            "dry_run": _dry_run(query.getall("dryRun", [])),
            "validation": _validation(query.get("fieldValidation", "")),
        }
        problems: tuple[str, ...] = ()
        if request.method == "PATCH":
            kind = patch_type(content_type, custom=target.resource.custom)
            force = query.get("force", "") in ("true", "1")
            if force and kind != "apply":
                cause = Cause("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force")
                raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
            if kind == "apply":
                manager = query.get("fieldManager", "")
            result = self.api.patch(
                target.resource,
                target.namespace,
                target.name,
                kind,
                decode_body(body, content_type),
                manager=manager,
                force=force,
                problems=problems,
                **options,
            )
        elif request.method == "PUT":
            if options["validation"] != "Ignore" and "json" in (content_type or "json"):
                problems = tuple(duplicate_fields(body))
            result = self.api.update(
                target.resource,
                target.namespace,
                target.name,
                decode_body(body, content_type) or {},
                manager=manager,
                problems=problems,
                **options,
            )
        else:
            raise method_not_allowed()
        return self._answer(request, target.resource, result)

    async def _create(self, request: web.Request, target: _Target) -> web.Response:
        body = await request.read()
        content_type = request.headers.get("Content-Type", "")
        obj = decode_body(body, content_type)
        if not isinstance(obj, dict):
            raise bad_request("the request has no body: an object was expected")
        resource = target.resource
        if resource.group in _REVIEWS:
            return self._answer(request, resource, review(resource, obj, self._user(request)))
        if resource.qualified == "bindings":
            name = (obj.get("metadata") or {}).get("name", "")
            pods = self.api.resource("pods")
            result = self.api.below(pods, target.namespace, name, "binding", obj)
            return self._answer(request, pods, result)
        validation = _validation(request.query.get("fieldValidation", ""))
        problems = duplicate_fields(body) if validation != "Ignore" and "json" in (content_type or "json") else []
        result = self.api.create(
            resource,
            target.namespace,
            obj,
            manager=manager_of(request.query.get("fieldManager", ""), request.headers.get("User-Agent", "")),
            dry_run=_dry_run(request.query.getall("dryRun", [])),
            validation=validation,
            problems=tuple(problems),
        )
        return self._answer(request, resource, result)

    async def _delete_options(self, request: web.Request) -> Object:
        body = decode_body(await request.read(), request.headers.get("Content-Type", ""))
        options: Object = dict(body) if isinstance(body, dict) else {}
        query = request.query
        if "gracePeriodSeconds" in query:
            options["gracePeriodSeconds"] = _integer(query, "gracePeriodSeconds")
        if "propagationPolicy" in query:
            options["propagationPolicy"] = query["propagationPolicy"]
        if "orphanDependents" in query:
            options["orphanDependents"] = query["orphanDependents"] == "true"
        if "dryRun" in query:
            options["dryRun"] = query.getall("dryRun")
        _dry_run(options.get("dryRun") or [])
        return options

    async def _delete(self, request: web.Request, target: _Target) -> web.Response:
        options = await self._delete_options(request)
        result = self.api.delete(target.resource, target.namespace, target.name, options)
        return self._answer(request, target.resource, result)

    async def _delete_collection(self, request: web.Request, target: _Target) -> web.Response:
        if "deletecollection" not in target.resource.verbs:
            raise method_not_allowed()
        options = await self._delete_options(request)
        query = request.query
        items, revision = self.api.select(
            target.resource, target.namespace or None, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        deleted = self.api.delete_collection(target.resource, items, options)
        return _json(_listed(target.resource, deleted, {"resourceVersion": str(revision)}))

    # -- lists and watches ------------------------------------------------------------------------------------------

    def _list(self, request: web.Request, target: _Target) -> web.Response:
        query, resource = request.query, target.resource
        answer = accepted(request.headers.get("Accept", ""))
        if "sendInitialEvents" in query:
            text = "Forbidden: sendInitialEvents is forbidden for list"
            cause = Cause("FieldValueForbidden", text, "sendInitialEvents")
            raise invalid("ListOptions", "meta.k8s.io", "", [cause])
        page = self.api.page(
            resource,
            target.namespace or None,
            labels=query.get("labelSelector", ""),
            fields=query.get("fieldSelector", ""),
            limit=_integer(query, "limit"),
            resume=query.get("continue", ""),
            resource_version=query.get("resourceVersion", ""),
            match=query.get("resourceVersionMatch", ""),
        )
        meta: Object = {"resourceVersion": str(page.revision)}
        if page.resume:
            meta["continue"] = page.resume
            if page.remaining is not None:
                meta["remainingItemCount"] = page.remaining
        if answer.form == "table":
            include = query.get("includeObject", "Metadata")
            shown = tables.table(resource, page.items, self.api.clock(), meta=meta, include=include)
            return _send(shown, answer)
        if answer.form == "partial":
            items = [tables.partial(o) for o in page.items]
            return _send(
                {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items},
                answer,
            )
        if resource.custom:
            meta.setdefault("continue", "")
        return _send(_listed(resource, page.items, meta), answer)

    async def _watch(self, request: web.Request, target: _Target) -> web.StreamResponse:
        query, resource = request.query, target.resource
        if "watch" not in resource.verbs:
            raise method_not_allowed()
        answer = accepted(request.headers.get("Accept", ""))
        initial = query.get("sendInitialEvents") in ("true", "1")
        match = query.get("resourceVersionMatch", "")
        if ("sendInitialEvents" in query) != bool(match) or (match and match != "NotOlderThan"):
            text = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            if "sendInitialEvents" in query:
                text = 'Forbidden: sendInitialEvents requires setting resourceVersionMatch to "NotOlderThan"'
            cause = Cause("FieldValueForbidden", text, "resourceVersionMatch")
            raise invalid("ListOptions", "meta.k8s.io", "", [cause])
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = ",".join(f for f in (fields, f"metadata.name={target.name}") if f)
        events = self.api.watch(
            resource,
            target.namespace or None,
            resource_version=query.get("resourceVersion", ""),
            label_selector=query.get("labelSelector", ""),
            field_selector=fields,
            bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
            initial=initial,
        )
        # Spread, so that clients that started together don't all come back together.
        seconds = _integer(query, "timeoutSeconds") or random.randint(1800, 3600)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        form = _WatchForm(self, resource, answer, query.get("includeObject", "Metadata"))
        try:
            async with aclosing(events), asyncio.timeout(seconds):
                # The first step finds out whether the watch can begin at all; only then is it answered with 200.
                first = asyncio.ensure_future(anext(events, None))
                await asyncio.wait({first}, timeout=0.001)
                try:
                    error = first.exception() if first.done() else None
                    if isinstance(error, ApiError) and error.code != 410:
                        raise error
                    await response.prepare(request)
                    item = await first
                    while item is not None:
                        await response.write(form.encode(*item))
                        item = await anext(events, None)
                finally:
                    first.cancel()
        except TimeoutError:
            pass
        except ConnectionResetError:
            return response  # the client has gone, and with it whoever could be told
        except ApiError as e:
            if not response.prepared:
                raise
            await response.write(msgspec.json.encode({"type": "ERROR", "object": e.status}) + b"\n")
        if response.prepared:
            await response.write_eof()
        return response

    # -- below an object --------------------------------------------------------------------------------------------

    async def _below(self, request: web.Request, target: _Target) -> web.StreamResponse:
        resource, name = target.resource, target.subresource.partition("/")[0]
        sub = resource.subresource(name)
        assert sub is not None
        if _PATCH_VERBS.get(request.method) not in sub.verbs:
            raise method_not_allowed()
        if name in ("exec", "attach", "portforward"):
            if request.headers.get("Upgrade"):
                text = f"the embedded cluster does not provide {name}: its pods are processes of this machine"
                raise ApiError(501, text, reason="NotImplemented")
            raise bad_request("Upgrade request required")
        if name == "proxy":
            text = "the embedded cluster does not proxy: connect to the pod's address, which is one of this machine's"
            raise ApiError(501, text, reason="NotImplemented")
        if name in ("ephemeralcontainers", "resize", "approval"):
            raise method_not_allowed(f"the embedded cluster does not provide {resource.plural}/{name}")
        if name == "log":
            return await self._log(request, target)
        if request.method == "GET":
            obj = self.api.read(resource, target.namespace, target.name, name)
            return self._answer(request, resource, Result(obj))
        if request.method == "POST":
            body = decode_body(await request.read(), request.headers.get("Content-Type", "")) or {}
            result = self.api.below(resource, target.namespace, target.name, name, body)
            return self._answer(request, resource, result)
        if name == "finalize":
            body = decode_body(await request.read(), request.headers.get("Content-Type", "")) or {}
            return _json(self.api.finalize_namespace(target.name, body).object)
        return await self._change(request, target)

    async def _log(self, request: web.Request, target: _Target) -> web.StreamResponse:
        pod = self.api.read(target.resource, target.namespace, target.name)
        spec = pod.get("spec", {})
        names = [c["name"] for g in ("containers", "initContainers") for c in spec.get(g) or ()]
        query = request.query
        container = query.get("container", "")
        if not container:
            if len(spec.get("containers") or ()) != 1:
                listed = " ".join(names)
                raise bad_request(
                    f"a container name must be specified for pod {target.name}, choose one of: [{listed}]"
                )
            container = names[0]
        if container not in names:
            raise bad_request(f"container {container} is not valid for pod {target.name}")
        if self.api.log_reader is None:
            raise ApiError(503, "no kubelet of the embedded cluster is running that could read the log")
        options: Object = {
            k: _integer(query, k) for k in ("tailLines", "sinceSeconds", "limitBytes") if query.get(k) is not None
        }
        options |= {k: query.get(k) in ("true", "1") for k in ("follow", "previous", "timestamps")}
        if "sinceTime" in query:
            options["sinceTime"] = query["sinceTime"]
        stream = await self.api.log_reader(target.namespace, target.name, container, options)
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        await response.prepare(request)
        async with aclosing(stream):
            async for chunk in stream:
                await response.write(chunk)
        await response.write_eof()
        return response

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, request: web.Request, resource: Resource, result: Result) -> web.Response:
        answer = accepted(request.headers.get("Accept", ""))
        headers = [("Warning", f'299 - "{_quoted(w)}"') for w in result.warnings]
        obj = result.object
        if answer.form != "object" and obj.get("kind") == resource.kind:
            if answer.form == "table":
                include = request.query.get("includeObject", "Metadata")
                meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
                obj = tables.table(resource, [obj], self.api.clock(), meta=meta, include=include)
            elif answer.form == "partial":
                obj = tables.partial(obj)
        return _send(obj, answer, result.code, headers)


class _WatchForm:
    """A watch's events in the form its client asked for."""

    def __init__(self, handler: _Handler, resource: Resource, answer: Answer, include: str) -> None:
        self._api = handler.api
        self._resource = resource
        self._form = answer.form
        self._include = include
        self._first = True

    def encode(self, kind: str, obj: Object) -> bytes:
        """One line."""
        if self._form == "table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            items = [] if kind == "BOOKMARK" else [obj]
            now = self._api.clock()
            obj = tables.table(self._resource, items, now, meta=meta, include=self._include, columns=self._first)
            self._first = False
        elif self._form == "partial":
            obj = tables.partial(obj)
        return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def _listed(resource: Resource, items: list[Object], meta: Object) -> Object:
    if resource.custom:
        return {
            "apiVersion": resource.group_version,
            "items": items,
            "kind": resource.list_kind,
            "metadata": meta,
        }
    # The items of a typed list don't repeat what the list says.
    bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
    return {"kind": resource.list_kind, "apiVersion": resource.group_version, "metadata": meta, "items": bare}


def _json(body: Object, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body),
        status=code,
        content_type="application/json",
        headers={"Cache-Control": "no-cache, private", **(headers or {})},
    )


def _send(body: Object, answer: Answer, code: int = 200, headers: list[tuple[str, str]] | None = None) -> web.Response:
    if answer.media == "application/yaml":
        import yaml

        response = web.Response(text=yaml.safe_dump(body), status=code, content_type="application/yaml")
        response.headers["Cache-Control"] = "no-cache, private"
    else:
        response = _json(body, code)
    for name, value in headers or ():
        response.headers.add(name, value)
    return response


def _integer(query: Any, name: str) -> int:
    text = query.get(name, "")
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        cause = invalid_value(name, text, f'strconv.ParseInt: parsing "{text}": invalid syntax')
        raise invalid("ListOptions", "meta.k8s.io", "", [cause]) from None


def _dry_run(values: list[str]) -> bool:
    if not values:
        return False
    if values != ["All"]:
        raise invalid("CreateOptions", "meta.k8s.io", "", [unsupported_value("dryRun", values[0], ["All"])])
    return True


def _validation(value: str) -> str:
    if value not in ("", "Strict", "Warn", "Ignore"):
        cause = unsupported_value("fieldValidation", value, ["", "Ignore", "Strict", "Warn"])
        raise invalid("CreateOptions", "meta.k8s.io", "", [cause])
    return value or "Warn"


def _version() -> Object:
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": VERSION,
        "gitCommit": "agentswarm-embedded",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": f"linux/{machine}",
    }


def make_app(
    store: Store,
    *,
    token: str,
    log_reader: LogReader | None = None,
    authority: str = "",
    address: str = "127.0.0.1:6443",
    clock: Clock = time.time,
) -> web.Application:
    """The API over a store, as an aiohttp application; `app[API]` is the API itself.

    Args:
        token: what a client has to show.
        authority: the PEM certificate by which pods know the server.
        address: where clients reach it, `host:port`.
    """
    api = Api(store, clock=clock, log_reader=log_reader)
    api.authority = authority
    handler = _Handler(api, token, address)
    app = web.Application(client_max_size=_MOST_BYTES)
    app[API] = api
    app.router.add_route("*", "/{path:.*}", handler.handle)

    async def background(app: web.Application) -> AsyncIterator[None]:
        del app
        host, _, port = address.rpartition(":")
        set_up(api, address=host, port=int(port))
        task = asyncio.create_task(Sweeper(api).run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    app.cleanup_ctx.append(background)
    return app


@dataclass(frozen=True, slots=True)
class Server:
    """A running API server."""

    api: Api
    url: str
    credentials: Credentials

    def kubeconfig(self, **names: str) -> str:
        """A kubeconfig for it; `name` and `namespace` may be given."""
        return kubeconfig(self.url, self.credentials.authority, self.credentials.token, **names)


@asynccontextmanager
async def serve(
    store: Store,
    *,
    state: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    log_reader: LogReader | None = None,
    clock: Clock = time.time,
) -> AsyncIterator[Server]:
    """Serve a store over TLS while the context lasts.

    Args:
        state: the directory in which the credentials are kept.
        port: 0 takes a free one.

    Raises:
        OSError: the port is in use.
    """
    import socket

    credentials = load_credentials(state)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        address = f"{host}:{listener.getsockname()[1]}"
        app = make_app(
            store,
            token=credentials.token,
            log_reader=log_reader,
            authority=credentials.authority,
            address=address,
            clock=clock,
        )
        # A client that goes away ends its watch at once, not with the next event.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
    except BaseException:
        listener.close()
        raise
    try:
        await web.SockSite(runner, listener, ssl_context=credentials.server_context(), backlog=512).start()
        yield Server(app[API], f"https://{address}", credentials)
    finally:
        await runner.cleanup()
        listener.close()
