"""The paths of objects: which resource a request names, and which verb of the API it means.

One handler takes every path: Kubernetes' are regular, and resources come and go with CustomResourceDefinitions, which a
table of routes would have to follow.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiohttp import web

from swarm_deploy.local.api import tables
from swarm_deploy.local.api.answers import dry_run, integer, json_answer, listed, send, validation, warning
from swarm_deploy.local.api.audit import AuditLog
from swarm_deploy.local.api.authorization import ADMIN, Authorizer, Request
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.decoding import Result
from swarm_deploy.local.api.documents import Documents
from swarm_deploy.local.api.errors import (
    ApiError,
    Cause,
    bad_request,
    forbidden,
    invalid,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from swarm_deploy.local.api.managed import manager_of
from swarm_deploy.local.api.negotiation import accepted, decode_body, duplicate_fields, patch_type
from swarm_deploy.local.api.resources import Resource
from swarm_deploy.local.api.streams import stream_log, stream_watch

__all__ = ["MOST_BYTES", "Handler"]

Object = dict[str, Any]
log = structlog.get_logger(__name__)

#: The largest body of a request.
MOST_BYTES = 3 * 1024 * 1024
_OPEN = ("/version", "/healthz", "/readyz", "/livez")
_REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class _Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


class Handler:
    """All requests to one API."""

    def __init__(self, api: Api, token: str, address: str, audit: AuditLog | None = None) -> None:
        """`address` is where clients reach the server, `host:port`."""
        self.api = api
        self.token = token
        self.audit = audit
        self.authorizer = Authorizer(api)
        self.documents = Documents(api, address)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        answer = await self._handle(request)
        if self.audit and "user" in request and not request.get("told"):
            target = request.get("target")
            version = target.resource.version if target else ""
            self.audit.record(
                request, request["user"], request.get("wanted"), version, answer.status, "ResponseComplete"
            )
        return answer

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            path = request.path
            if not path.startswith(_OPEN):
                request["user"] = self._user(request)
            if path.startswith(("/api/", "/apis/")) and path.count("/") >= (3 if path.startswith("/api/") else 4):
                return await self._resources(request)
            return self.documents.answer(request, path)
        except ApiError as e:
            return json_answer(e.status, e.code, e.headers)
        except web.HTTPRequestEntityTooLarge:
            text = f"Request entity too large: limit is {MOST_BYTES}"
            return json_answer(ApiError(413, text).status, 413)
        except (asyncio.CancelledError, ConnectionResetError, web.HTTPException):
            raise
        except Exception:
            log.exception("request failed", method=request.method, path=request.path_qs)
            text = "An error on the server has prevented the request from succeeding; the cluster's log has the details"
            return json_answer(ApiError(500, text).status, 500)

    def _user(self, request: web.Request) -> str:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if hmac.compare_digest(given.strip().encode(), self.token.encode()):
                return ADMIN
            subject = self.api.tokens.subject(given.strip(), self.api.clock())
            if subject is not None:
                return subject
        raise unauthorized()

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
        self._authorize(request, target)
        if target.subresource:
            return await self._below(request, target)
        if not target.name:
            if method == "GET":
                if "list" not in target.resource.verbs:
                    raise method_not_allowed()
                if request.query.get("watch") in ("true", "1", "True"):
                    return await stream_watch(self.api, request, target.resource, target.namespace, target.name)
                return self._list(request, target)
            if method == "POST":
                return await self._create(request, target)
            if method == "DELETE":
                return await self._delete_collection(request, target)
            raise method_not_allowed()
        if method == "GET":
            if request.query.get("watch") in ("true", "1", "True"):
                return await stream_watch(self.api, request, target.resource, target.namespace, target.name)
            obj = self.api.read(target.resource, target.namespace, target.name)
            return self._answer(request, target.resource, Result(obj))
        if method == "DELETE":
            return await self._delete(request, target)
        return await self._change(request, target)

    def _authorize(self, request: web.Request, target: _Target) -> None:
        """Raises ApiError 403 unless the user may do what the request means."""
        resource, user = target.resource, request["user"]
        verb = _VERBS.get(request.method, request.method.lower())
        watch = request.method == "GET" and request.query.get("watch") in ("true", "1", "True")
        if watch:
            verb = "watch"
        elif not target.name and verb in ("get", "delete"):
            verb = {"get": "list", "delete": "deletecollection"}[verb]
        wanted = Request(verb, resource.group, resource.plural, target.subresource, target.namespace, target.name)
        request["target"], request["wanted"], request["allowed"] = target, wanted, False
        self.authorizer.check(user, wanted)
        applied = request.method == "PATCH" and "apply" in request.headers.get("Content-Type", "")
        if applied and self.api.store.get(resource.key, target.namespace, target.name) is None:
            self.authorizer.check(user, replace(wanted, verb="create"))  # it makes the object
        request["allowed"] = True
        if watch and self.audit:
            self.audit.record(request, user, wanted, resource.version, 200, "ResponseStarted")
            request["told"] = True

    async def _change(self, request: web.Request, target: _Target) -> web.Response:
        """PUT and PATCH."""
        query = request.query
        body = await request.read()
        content_type = request.headers.get("Content-Type", "")
        manager = manager_of(query.get("fieldManager", ""), request.headers.get("User-Agent", ""))
        options: Object = {
            "subresource": target.subresource,
            "dry_run": dry_run(query.getall("dryRun", [])),
            "validation": validation(query.get("fieldValidation", "")),
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
        if target.resource.refusal:
            # In whatever form it came: that it can't be read here is not what the client has to know.
            raise forbidden(target.resource.plural, target.resource.group, "", target.resource.refusal)
        obj = decode_body(body, content_type)
        if not isinstance(obj, dict):
            raise bad_request("the request has no body: an object was expected")
        resource = target.resource
        if resource.group in _REVIEWS:
            status = self.authorizer.review(resource.kind, obj, request["user"])
            about: Object = {"kind": resource.kind, "apiVersion": resource.group_version}
            about |= {"metadata": obj.get("metadata") or {}, "spec": obj.get("spec") or {}, "status": status}
            return self._answer(request, resource, Result(about, 201))
        if resource.qualified == "bindings":
            name = (obj.get("metadata") or {}).get("name", "")
            pods = self.api.resource("pods")
            result = self.api.below(pods, target.namespace, name, "binding", obj)
            return self._answer(request, pods, result)
        mode = validation(request.query.get("fieldValidation", ""))
        problems = duplicate_fields(body) if mode != "Ignore" and "json" in (content_type or "json") else []
        result = self.api.create(
            resource,
            target.namespace,
            obj,
            manager=manager_of(request.query.get("fieldManager", ""), request.headers.get("User-Agent", "")),
            dry_run=dry_run(request.query.getall("dryRun", [])),
            validation=mode,
            problems=tuple(problems),
        )
        return self._answer(request, resource, result)

    async def _delete_options(self, request: web.Request) -> Object:
        body = decode_body(await request.read(), request.headers.get("Content-Type", ""))
        options: Object = dict(body) if isinstance(body, dict) else {}
        query = request.query
        if "gracePeriodSeconds" in query:
            options["gracePeriodSeconds"] = integer(query, "gracePeriodSeconds")
        if "propagationPolicy" in query:
            options["propagationPolicy"] = query["propagationPolicy"]
        if "orphanDependents" in query:
            options["orphanDependents"] = query["orphanDependents"] == "true"
        if "dryRun" in query:
            options["dryRun"] = query.getall("dryRun")
        dry_run(options.get("dryRun") or [])
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
        return json_answer(listed(target.resource, deleted, {"resourceVersion": str(revision)}))

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
            limit=integer(query, "limit"),
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
            return send(shown, answer)
        if answer.form == "partial":
            items = [tables.partial(o) for o in page.items]
            return send(
                {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items},
                answer,
            )
        if resource.custom:
            meta.setdefault("continue", "")
        return send(listed(resource, page.items, meta), answer)

    async def _below(self, request: web.Request, target: _Target) -> web.StreamResponse:
        resource, name = target.resource, target.subresource.partition("/")[0]
        sub = resource.subresource(name)
        assert sub is not None
        if _VERBS.get(request.method) not in sub.verbs:
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
            return await stream_log(self.api, request, resource, target.namespace, target.name)
        if request.method == "GET":
            obj = self.api.read(resource, target.namespace, target.name, name)
            return self._answer(request, resource, Result(obj))
        if request.method == "POST":
            body = decode_body(await request.read(), request.headers.get("Content-Type", "")) or {}
            result = self.api.below(resource, target.namespace, target.name, name, body)
            return self._answer(request, resource, result)
        if name == "finalize":
            body = decode_body(await request.read(), request.headers.get("Content-Type", "")) or {}
            return json_answer(self.api.finalize_namespace(target.name, body).object)
        return await self._change(request, target)

    def _answer(self, request: web.Request, resource: Resource, result: Result) -> web.Response:
        answer = accepted(request.headers.get("Accept", ""))
        headers = [("Warning", warning(w)) for w in result.warnings]
        obj = result.object
        if answer.form != "object" and obj.get("kind") == resource.kind:
            if answer.form == "table":
                include = request.query.get("includeObject", "Metadata")
                meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
                obj = tables.table(resource, [obj], self.api.clock(), meta=meta, include=include)
            elif answer.form == "partial":
                obj = tables.partial(obj)
        return send(obj, answer, result.code, headers)
