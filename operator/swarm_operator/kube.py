"""The Kubernetes API, over the asyncio client. Nothing else in the operator imports that client.

Of the client it uses what is hard to get right (kubeconfig in all its forms, token refresh, TLS, proxies) and the HTTP
session; objects travel as JSON, not as the client's models, which cost 40 times the memory and time.

Errors are one type, `ApiError`, with what the caller decides by: the status, the reason, and `retry_after`.

Writes are fenced: whether this replica still leads is asked once more in the moment in which a request goes onto its
connection. A process that was stopped (SIGSTOP, a frozen VM) and goes on after another has taken over sends nothing
that it had only made ready. What is on the wire already can't be called back: it was sent while this replica led.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import incluster_config, kube_config
from kubernetes.aio.config.config_exception import ConfigException

from swarm_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from swarm_operator.names import FIELD_MANAGER

__all__ = [
    "RESOURCES",
    "Api",
    "ApiError",
    "NotLeader",
    "Page",
    "Resource",
    "connect",
    "pod_namespace",
]

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)


class ApiError(Exception):
    """The API server refused, or could not be reached (`status` 0)."""

    def __init__(
        self, status: int, reason: str, message: str, *, causes: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})" if self.status else self.message

    @property
    def immutable(self) -> bool:
        """Whether a field can't be changed, so that the object has to be made anew."""
        return self.status == 422 and "immutable" in f"{self.message} {self.causes}"


class NotLeader(ApiError):  # noqa: N818 - a state of affairs, not an error
    """Another replica leads, or may: nothing was sent."""

    def __init__(self) -> None:
        super().__init__(0, "NotLeader", "this replica does not lead")


#: For the request that is being made: says whether it may be sent. None: it may.
_MAY_SEND: ContextVar[Callable[[], bool] | None] = ContextVar("may_send", default=None)


class _FencedRequest(aiohttp.ClientRequest):
    """Asks again when it has its connection, for which it may have waited."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        may = _MAY_SEND.get()
        if may is not None and not may():
            raise NotLeader
        return await super().send(conn)


@dataclass(frozen=True)
class Resource:
    """Where objects of a kind are found."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL's path of a collection, an object, or its subresource."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


RESOURCES: Final[dict[str, Resource]] = {
    r.kind: r
    for r in (
        Resource("Swarm", f"{GROUP}/{VERSION}", PLURAL),
        Resource("Pod", "v1", "pods"),
        Resource("Node", "v1", "nodes", namespaced=False),
        Resource("Service", "v1", "services"),
        Resource("ConfigMap", "v1", "configmaps"),
        Resource("Secret", "v1", "secrets"),
        Resource("ServiceAccount", "v1", "serviceaccounts"),
        Resource("Event", "v1", "events"),
        Resource("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Resource("ControllerRevision", "apps/v1", "controllerrevisions"),
        Resource("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
        Resource("Lease", "coordination.k8s.io/v1", "leases"),
    )
}


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """One page of a list, its items not decoded yet."""

    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] = []


#: Told of every request: method, kind of object, status (0: no answer), seconds.
Observer = Callable[[str, str, int, float], None]


class Api:
    """One connection pool to one API server."""

    def __init__(self, client: ApiClient, namespace: str, observer: Observer | None = None) -> None:
        self._client = client
        #: The namespace of the kubeconfig's context, or of the pod that this runs in.
        self.namespace = namespace
        self.observer: Observer = observer or (lambda method, kind, status, seconds: None)
        #: Whether this replica may write. The Lease, by which that is decided, is not asked about.
        self.may_write: Callable[[], bool] = lambda: True

    @property
    def configuration(self) -> Any:
        """The client's configuration: server, credentials, TLS."""
        return self._client.configuration

    async def authorization(self) -> str | None:
        """The `Authorization` header, refreshed when it is due."""
        headers: dict[str, str] = {}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        return headers.get("authorization")

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        kind: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        limits: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "", None)
        url = self._client.configuration.host + path + ("?" + urlencode(query) if query else "")
        begun, status = time.perf_counter(), 0
        fenced = method != "GET" and kind != "Lease"
        _MAY_SEND.set(self.may_write if fenced else None)
        try:
            wrapped = await self._client.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=limits
            )
            response: aiohttp.ClientResponse = wrapped.response
            status = response.status
            try:
                if status >= 400:
                    raise _error(response, await response.read())
                yield response
            finally:
                response.release()
        except TimeoutError as error:
            raise ApiError(0, "Timeout", f"{method} {path}: no answer in time") from error
        except aiohttp.ClientError as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            self.observer(method, kind, status, time.perf_counter() - begun)

    async def request(
        self,
        method: str,
        path: str,
        kind: str = "",
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One request, whole.

        Raises:
            ApiError: any answer from 400 on, or none.
        """
        async with self._response(method, path, kind, query, body, content_type) as response:
            data = await response.read()
        if not data.rstrip().endswith(b"}"):
            # a proxy's page, or an answer that was cut off: nobody knows what became of the request
            raise ApiError(0, "BadAnswer", f"{method} {path}: the answer is no JSON object")
        return data

    async def get(self, kind: str, namespace: str, name: str) -> bytes:
        """An object as JSON."""
        return await self.request("GET", RESOURCES[kind].path(namespace, name), kind)

    async def create(self, manifest: Mapping[str, Any]) -> bytes:
        """Creates an object; 409 when one of the name exists."""
        resource = RESOURCES[manifest["kind"]]
        return await self.request(
            "POST",
            resource.path(manifest["metadata"].get("namespace", "")),
            resource.kind,
            query={"fieldManager": FIELD_MANAGER},
            body=manifest,
        )

    async def apply(self, manifest: Mapping[str, Any], *, subresource: str = "") -> bytes:
        """Server-side apply, taking back what others changed."""
        resource, meta = RESOURCES[manifest["kind"]], manifest["metadata"]
        return await self.request(
            "PATCH",
            resource.path(meta.get("namespace", ""), meta["name"], subresource),
            resource.kind,
            query={"fieldManager": FIELD_MANAGER, "force": "true"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def merge(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> bytes:
        """A JSON merge patch."""
        return await self.request(
            "PATCH",
            RESOURCES[kind].path(namespace, name),
            kind,
            query={"fieldManager": FIELD_MANAGER},
            body=patch,
            content_type="application/merge-patch+json",
        )

    async def scale(self, kind: str, namespace: str, name: str, uid: str, replicas: int, manager: str) -> bytes:
        """Sets the count by the scale subresource; 409 when another object has the name now. Answers a Scale.

        Put, not patched: of a patch of this subresource the API server does not look at the UID.
        """
        return await self.request(
            "PUT",
            RESOURCES[kind].path(namespace, name, "scale"),
            f"{kind}/scale",
            query={"fieldManager": manager},
            body={
                "apiVersion": "autoscaling/v1",
                "kind": "Scale",
                "metadata": {"namespace": namespace, "name": name, "uid": uid},
                "spec": {"replicas": replicas},
            },
        )

    async def replace(self, manifest: Mapping[str, Any]) -> bytes:
        """Replaces an object; 409 when its resourceVersion is not the latest."""
        resource, meta = RESOURCES[manifest["kind"]], manifest["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"])
        return await self.request("PUT", path, resource.kind, query={"fieldManager": FIELD_MANAGER}, body=manifest)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> bytes:
        """Deletes the object of this UID; 409 when another one has the name now."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self.request("DELETE", RESOURCES[kind].path(namespace, name), kind, body=body)

    async def list_page(
        self, kind: str, namespace: str, *, selector: str = "", limit: int = 500, token: str = ""
    ) -> Page:
        """One page of a list; `token` continues an earlier one."""
        query: dict[str, Any] = {"limit": limit}
        if selector:
            query["labelSelector"] = selector
        if token:
            query["continue"] = token
        data = await self.request("GET", RESOURCES[kind].path(namespace), kind, query=query)
        try:
            return msgspec.json.decode(data, type=Page)
        except msgspec.DecodeError as error:
            raise ApiError(0, "BadAnswer", f"the list of {kind}s can't be read: {error}") from error

    async def watch(
        self, kind: str, namespace: str, *, selector: str, version: str, server_timeout: int, silence: float
    ) -> AsyncIterator[bytes]:
        """Lines of a watch, until the server ends it. `silence`: seconds without a line after which it is given up.

        Raises:
            ApiError: the watch was refused, broke, or fell silent.
        """
        query: dict[str, Any] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": server_timeout,
        }
        if selector:
            query["labelSelector"] = selector
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=silence)
        path = RESOURCES[kind].path(namespace)
        async with self._response("GET", path, f"{kind}/watch", query, limits=limits) as response:
            # chunks, not `readline`: a line may be longer than the stream's buffer
            rest = b""
            async for chunk in response.content.iter_any():
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line:
                        yield line


def _error(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = json.loads(body)
        message, reason = str(status["message"]), str(status.get("reason") or response.reason)
        details = status.get("details") or {}
        causes = "; ".join(f"{c.get('field', '')}: {c.get('message', '')}" for c in details.get("causes") or ())
    except (ValueError, KeyError, TypeError, AttributeError):
        message, reason, causes = body[:300].decode(errors="replace").strip(), str(response.reason), ""
    retry_after = _seconds(response.headers.get("Retry-After", ""), response.headers.get("Date", ""))
    return ApiError(response.status, reason, message, causes=causes, retry_after=retry_after)


#: What is waited at most because a server asks for it: a wrong clock must not stop a Swarm for a day.
_PATIENCE: Final = 300.0


def _seconds(wish: str, date: str) -> float | None:
    """What `Retry-After` asks for: seconds, or a date, compared with the server's own clock where that is known."""
    if wish.strip().isdecimal():
        return min(float(wish), _PATIENCE)
    try:
        when = parsedate_to_datetime(wish)
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return min(max((when - now).total_seconds(), 0.0), _PATIENCE)
    except (TypeError, ValueError):
        return None


def pod_namespace() -> str:
    """The namespace of the pod that this process runs in; empty when it is no pod, or one without an account."""
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return ""


async def connect(kubeconfig: str | None = None, context: str | None = None) -> Api:
    """Connects by a kubeconfig (argument, else KUBECONFIG, else ~/.kube/config), or as the pod that this runs in.

    Raises:
        ApiError: no configuration was found, or it can't be used.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = 100
    path = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if not path and "KUBERNETES_SERVICE_HOST" in os.environ:
            incluster_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
            namespace = pod_namespace() or "default"
        else:
            path = path or f"{os.environ.get('HOME', '')}/.kube/config"
            loader = await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, context=context, client_configuration=configuration, persist_config=False
            )
            namespace = (loader.current_context.get("context") or {}).get("namespace") or "default"
    except (ConfigException, OSError, KeyError, TypeError) as error:
        raise ApiError(
            0,
            "NoConfiguration",
            f"no way to the API server: {error}. Give --kubeconfig, set KUBECONFIG, or run in a pod",
        ) from error
    configuration.retries = None
    # Without a proxy the environment has nothing to say; aiohttp would look for a ~/.netrc with every request.
    host = urlsplit(configuration.host).hostname or ""
    proxied = bool(getproxies().keys() - {"no"}) and not proxy_bypass(host)
    configuration.client_session_kwargs = {"request_class": _FencedRequest, "trust_env": proxied}
    return Api(ApiClient(configuration), namespace)
