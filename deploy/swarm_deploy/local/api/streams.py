"""Answers that go on: watches and logs."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from swarm_deploy.local.api import tables
from swarm_deploy.local.api.answers import integer
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.errors import ApiError, Cause, bad_request, invalid, method_not_allowed
from swarm_deploy.local.api.negotiation import Answer, accepted
from swarm_deploy.local.api.resources import Resource

__all__ = ["stream_log", "stream_watch"]

Object = dict[str, Any]


async def stream_watch(
    api: Api, request: web.Request, resource: Resource, namespace: str, name: str
) -> web.StreamResponse:
    """A watch of a kind, of one namespace (or all, when empty), or of one object."""
    query = request.query
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
    if name:
        fields = ",".join(f for f in (fields, f"metadata.name={name}") if f)
    events = api.watch(
        resource,
        namespace or None,
        resource_version=query.get("resourceVersion", ""),
        label_selector=query.get("labelSelector", ""),
        field_selector=fields,
        bookmarks=query.get("allowWatchBookmarks") in ("true", "1"),
        initial=initial,
    )
    # Spread, so that clients that started together don't all come back together.
    seconds = integer(query, "timeoutSeconds") or random.randint(1800, 3600)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    form = _WatchForm(api, resource, answer, query.get("includeObject", "Metadata"))
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


class _WatchForm:
    """A watch's events in the form its client asked for."""

    def __init__(self, api: Api, resource: Resource, answer: Answer, include: str) -> None:
        self._api = api
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


async def stream_log(
    api: Api, request: web.Request, resource: Resource, namespace: str, name: str
) -> web.StreamResponse:
    """The log of one of a pod's containers."""
    pod = api.read(resource, namespace, name)
    spec = pod.get("spec", {})
    names = [c["name"] for g in ("containers", "initContainers") for c in spec.get(g) or ()]
    query = request.query
    container = query.get("container", "")
    if not container:
        if len(spec.get("containers") or ()) != 1:
            listed = " ".join(names)
            raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")
        container = names[0]
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {name}")
    if api.log_reader is None:
        raise ApiError(503, "no kubelet of the embedded cluster is running that could read the log")
    options: Object = {
        k: integer(query, k) for k in ("tailLines", "sinceSeconds", "limitBytes") if query.get(k) is not None
    }
    options |= {k: query.get(k) in ("true", "1") for k in ("follow", "previous", "timestamps")}
    if "sinceTime" in query:
        options["sinceTime"] = query["sinceTime"]
    stream = await api.log_reader(namespace, name, container, options)
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
    await response.prepare(request)
    async with aclosing(stream):
        async for chunk in stream:
            await response.write(chunk)
    await response.write_eof()
    return response
