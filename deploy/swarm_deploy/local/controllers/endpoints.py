"""Endpoints and EndpointSlices: the addresses behind each Service that selects pods.

The controller writes what should be there and repairs what was edited or deleted. What the lists hold is worked out
by pure functions from the Service and its pods.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.selectors import matches_labels
from swarm_deploy.local.controllers.loop import Controller
from swarm_deploy.local.informer import Informer

__all__ = ["EndpointsController", "endpoint_slice", "endpoint_subsets"]

Object = dict[str, Any]

_SLICES = "endpointslices.discovery.k8s.io"
_MANAGED = "endpointslice.kubernetes.io/managed-by"
_MANAGER = "endpointslice-controller.k8s.io"
_SERVICE = "kubernetes.io/service-name"
_HEADLESS = "service.kubernetes.io/headless"
#: What the API server says about itself is its own.
_OWN = ("default", "kubernetes")


class EndpointsController:
    """Both kinds, for all Services."""

    def __init__(self, client: LocalClient, pods: Informer, services: Informer) -> None:
        self._client = client
        self._pods, self._services = pods, services
        self._loop = Controller("endpoints", self._sync)
        self._endpoints = Informer(client, "endpoints", self._output_changed)
        self._slices = Informer(client, _SLICES, self._output_changed)
        pods.listen(self._pod_changed)
        services.listen(self._service_changed)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._endpoints.run())
            group.create_task(self._slices.run())
            await self._endpoints.synced.wait()
            await self._slices.synced.wait()
            group.create_task(self._loop.run())

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        self._loop.add((obj["metadata"]["namespace"], obj["metadata"]["name"]))

    def _output_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        meta = obj["metadata"]
        name = (meta.get("labels") or {}).get(_SERVICE) if obj.get("kind") == "EndpointSlice" else meta["name"]
        if name and self._services.get(meta["namespace"], name) is not None:
            self._loop.add((meta["namespace"], name))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return
        for pod in (old, new):
            if pod is None:
                continue
            namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
            for service in self._services:
                if service["metadata"]["namespace"] == namespace and _selects(service, labels):
                    self._loop.add((namespace, service["metadata"]["name"]))

    async def _sync(self, key: tuple[str, str]) -> None:
        namespace, name = key
        if key == _OWN:
            return
        service = self._services.get(namespace, name)
        if service is None:
            # Slices go with their Service by ownerReference; Endpoints have none, as on a real cluster.
            if self._endpoints.get(namespace, name) is not None:
                await self._client.delete("endpoints", name, namespace)
            return
        if not service["spec"].get("selector") or service["metadata"].get("deletionTimestamp"):
            return
        pods = [
            pod
            for pod in self._pods
            if pod["metadata"]["namespace"] == namespace
            and _selects(service, pod["metadata"].get("labels") or {})
            and pod.get("status", {}).get("podIP")
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]
        pods.sort(key=lambda pod: str(pod["metadata"]["name"]))
        await self._put_endpoints(service, pods)
        await self._put_slice(service, pods)

    async def _put_endpoints(self, service: Object, pods: list[Object]) -> None:
        meta = service["metadata"]
        labels = {**(meta.get("labels") or {}), "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        labels |= _headless(service)
        wanted: Object = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
        }
        if subsets := endpoint_subsets(service, pods):
            wanted["subsets"] = subsets
        held = self._endpoints.get(meta["namespace"], meta["name"])
        if held is None:
            await self._create("endpoints", wanted)
        elif held.get("subsets") != wanted.get("subsets") or held["metadata"].get("labels") != labels:
            wanted["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
            await self._client.update("endpoints", wanted)

    async def _put_slice(self, service: Object, pods: list[Object]) -> None:
        wanted = endpoint_slice(service, pods)
        meta = wanted["metadata"]
        current = None
        for held in self._slices:
            labels = held["metadata"].get("labels") or {}
            same_place = held["metadata"]["namespace"] == meta["namespace"]
            if (
                not same_place
                or labels.get(_SERVICE) != service["metadata"]["name"]
                or labels.get(_MANAGED) != _MANAGER
            ):
                continue
            if held["metadata"]["name"] == meta["name"]:
                current = held
            else:
                await self._client.delete(_SLICES, held["metadata"]["name"], meta["namespace"])
        if current is None:
            await self._create(_SLICES, wanted)
            return
        same = all((current.get(part) or []) == wanted[part] for part in ("endpoints", "ports"))
        if not same or current["metadata"].get("labels") != meta["labels"]:
            meta["resourceVersion"] = current["metadata"]["resourceVersion"]
            await self._client.update(_SLICES, wanted)

    async def _create(self, resource: str, obj: Object) -> None:
        try:
            await self._client.create(resource, obj, namespace=obj["metadata"]["namespace"])
        except ApiError as error:
            if error.code != 403:  # the namespace is being deleted
                raise


def _facts(pod: Object) -> Any:
    status = pod.get("status", {})
    meta = pod["metadata"]
    return meta.get("labels"), meta.get("deletionTimestamp"), status.get("podIP"), status.get("phase"), _ready(pod)


def _selects(service: Object, labels: dict[str, str]) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and matches_labels({"matchLabels": selector}, labels)


def _headless(service: Object) -> dict[str, str]:
    return {_HEADLESS: ""} if service["spec"].get("clusterIP") == "None" else {}


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _target(port: Object, pod: Object) -> int | None:
    """The number of a Service's port on a pod; None when the pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for own in container.get("ports") or ():
            if own.get("name") == target and own.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(own["containerPort"])
    return None


def _ports(service: Object, pod: Object) -> list[Object]:
    out = []
    for port in service["spec"].get("ports") or ():
        number = _target(port, pod)
        if number is not None:
            entry: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            if "appProtocol" in port:
                entry["appProtocol"] = port["appProtocol"]
            out.append(entry)
    return out


def _reference(pod: Object) -> Object:
    meta = pod["metadata"]
    return {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}


def _hostname(service: Object, pod: Object) -> Object:
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return {"hostname": spec["hostname"]}
    return {}


def endpoint_slice(service: Object, pods: list[Object]) -> Object:
    """The slice of a Service. One is enough: nothing here has more than a few hundred pods."""
    meta = service["metadata"]
    owner = {
        "apiVersion": "v1",
        "kind": "Service",
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = {**(meta.get("labels") or {}), _SERVICE: meta["name"], _MANAGED: _MANAGER} | _headless(service)
    digest = hashlib.sha256(meta["uid"].encode()).hexdigest()[:5]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name'][:57]}-{digest}",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(service, pod) for pod in pods],
        "ports": _ports(service, pods[0]) if pods else [],
    }


def _endpoint(service: Object, pod: Object) -> Object:
    ending, ready = bool(pod["metadata"].get("deletionTimestamp")), _ready(pod)
    public = bool(service["spec"].get("publishNotReadyAddresses"))
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": public or (ready and not ending), "serving": ready, "terminating": ending},
        **_hostname(service, pod),
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": _reference(pod),
    }


def endpoint_subsets(service: Object, pods: list[Object]) -> list[Object]:
    """Pods with the same ports together; those that are not ready apart. The ones that end are not listed."""
    public = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: dict[str, Object] = {}
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp") and not public:
            continue
        ports = [{k: v for k, v in port.items() if v != ""} for port in _ports(service, pod)]
        subset = groups.setdefault(repr(ports), {"ports": ports})
        address = {
            "ip": pod["status"]["podIP"],
            **_hostname(service, pod),
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": _reference(pod),
        }
        where = "addresses" if public or _ready(pod) else "notReadyAddresses"
        subset.setdefault(where, []).append(address)
    order = ("addresses", "notReadyAddresses", "ports")
    return [{part: subset[part] for part in order if subset.get(part)} for subset in groups.values()]
