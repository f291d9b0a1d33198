"""Binds pods to nodes: filters as Kubernetes' default scheduler names them, then the emptiest node."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal
from typing import Any

from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.quantity import parse_quantity
from swarm_deploy.local.node.events import Recorder

__all__ = ["Scheduler", "choose"]

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_RESOURCES = ("cpu", "memory")


def requests(pod: Object) -> dict[str, Decimal]:
    """What a pod asks for: its containers' sum, or its largest init container where that is more."""
    total: dict[str, Decimal] = {}
    for container in pod["spec"]["containers"]:
        for name, amount in _amounts(container).items():
            total[name] = total.get(name, Decimal(0)) + amount
    for container in pod["spec"].get("initContainers", ()):
        for name, amount in _amounts(container).items():
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def _amounts(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    wanted = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {name: parse_quantity(str(amount)) for name, amount in wanted.items()}


def choose(pod: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> tuple[str | None, str]:
    """The node for a pod, or None and the message of a FailedScheduling event. Pure.

    `pods` are those that are bound already and have not ended.
    """
    problems: Counter[str] = Counter()
    fitting: list[tuple[float, int, str]] = []
    for node in nodes:
        there = [p for p in pods if p["spec"].get("nodeName") == node["metadata"]["name"]]
        found = _problems(pod, node, there, nodes, pods)
        if found:
            problems.update(found)
            continue
        fitting.append((_fullness(pod, node, there), len(there), node["metadata"]["name"]))
    if fitting:
        return min(fitting)[2], ""
    reasons = ", ".join(f"{count} {text}" for text, count in sorted(problems.items()))
    return None, f"0/{len(nodes)} nodes are available: {reasons or 'there are none'}."


def _problems(
    pod: Object, node: Object, there: Sequence[Object], nodes: Sequence[Object], pods: Sequence[Object]
) -> list[str]:
    spec = pod["spec"]
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    ready = next((c for c in node.get("status", {}).get("conditions", ()) if c["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return ["node(s) were not ready"]
    for taint in node["spec"].get("taints", ()):
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerated(taint, spec.get("tolerations", ())):
            return [f"node(s) had untolerated taint(s) {{{taint['key']}: {taint.get('value', '')}}}"]
    if not _selected(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    wanted, free = requests(pod), _free(node, there)
    short = [f"Insufficient {name}" for name in sorted(wanted) if wanted[name] > free.get(name, Decimal(0))]
    if len(there) >= int(node["status"]["allocatable"].get("pods", 110)):
        short.append("Too many pods")
    if short:
        return short
    if not _affinity(pod, node, nodes, pods):
        return ["node(s) didn't match pod (anti-)affinity rules"]
    if not _spread(pod, node, nodes, pods):
        return ["node(s) didn't match pod topology spread constraints"]
    return []


def _tolerated(taint: Object, tolerations: Sequence[Object]) -> bool:
    for toleration in tolerations:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("operator") == "Exists":
            if toleration.get("key") in (None, "", taint["key"]):
                return True
        elif toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def _selected(spec: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(_matches(e, labels) for e in term.get("matchExpressions", ()))
        and all(_matches(e, fields) for e in term.get("matchFields", ()))
        for term in required["nodeSelectorTerms"]
        if term.get("matchExpressions") or term.get("matchFields")
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False


def _free(node: Object, there: Sequence[Object]) -> dict[str, Decimal]:
    free = {name: parse_quantity(str(amount)) for name, amount in node["status"]["allocatable"].items()}
    for pod in there:
        for name, amount in requests(pod).items():
            free[name] = free.get(name, Decimal(0)) - amount
    return free


def _fullness(pod: Object, node: Object, there: Sequence[Object]) -> float:
    free, wanted = _free(node, there), requests(pod)
    shares = []
    for name in _RESOURCES:
        whole = parse_quantity(str(node["status"]["allocatable"].get(name, "0")))
        if whole:
            shares.append(float(1 - (free[name] - wanted.get(name, Decimal(0))) / whole))
    return sum(shares) / max(len(shares), 1)


def _selects(selector: Object | None, pod: Object) -> bool:
    if selector is None:
        return False
    labels = pod["metadata"].get("labels", {})
    return all(labels.get(k) == v for k, v in (selector.get("matchLabels") or {}).items()) and all(
        _matches(e, labels) for e in selector.get("matchExpressions", ())
    )


def _domain(node_name: str | None, key: str, nodes: Sequence[Object]) -> str | None:
    node = next((n for n in nodes if n["metadata"]["name"] == node_name), None)
    return node["metadata"].get("labels", {}).get(key) if node else None


def _affinity(pod: Object, node: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> bool:
    affinity, here = pod["spec"].get("affinity") or {}, node["metadata"]["name"]
    for kind, wanted in (("podAffinity", True), ("podAntiAffinity", False)):
        for term in (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution", ()):
            domain = _domain(here, term["topologyKey"], nodes)
            spaces = term.get("namespaces") or [pod["metadata"]["namespace"]]
            peers = [p for p in pods if p["metadata"]["namespace"] in spaces and _selects(term.get("labelSelector"), p)]
            close = any(_domain(p["spec"].get("nodeName"), term["topologyKey"], nodes) == domain for p in peers)
            first = wanted and not peers and _selects(term.get("labelSelector"), pod)
            if domain is None or (close != wanted and not first):
                return False
    return True


def _spread(pod: Object, node: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> bool:
    for constraint in pod["spec"].get("topologySpreadConstraints", ()):
        if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        key = constraint["topologyKey"]
        counts: Counter[str] = Counter()
        for other in nodes:
            if (domain := other["metadata"].get("labels", {}).get(key)) is not None and _selected(pod["spec"], other):
                counts[domain] += 0
        for peer in pods:
            if peer["metadata"]["namespace"] == pod["metadata"]["namespace"] and _selects(
                constraint.get("labelSelector"), peer
            ):
                domain = _domain(peer["spec"].get("nodeName"), key, nodes)
                if domain is not None and domain in counts:
                    counts[domain] += 1
        mine = node["metadata"].get("labels", {}).get(key)
        if mine is None or mine not in counts or counts[mine] + 1 - min(counts.values()) > constraint["maxSkew"]:
            return False
    return True


class Scheduler:
    """Watches for pods without a node."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client
        self._events = Recorder(client, "default-scheduler")
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(job()) for job in (self._watch_pods, self._watch_nodes, self._schedule)]
        self._said: dict[str, str] = {}

    async def stop(self) -> None:
        """Stops binding."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._events.close()

    async def _watch_pods(self) -> None:
        await self._watch("pods")

    async def _watch_nodes(self) -> None:
        await self._watch("nodes")

    async def _watch(self, resource: str) -> None:
        while True:
            try:
                stream = self._client.watch(resource)
                async with aclosing(stream):
                    async for _ in stream:
                        self._wake.set()
            except ApiError as error:
                _log.info("watch of %s: %s", resource, error)
            await asyncio.sleep(0.1)

    async def _schedule(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except ApiError as error:
                _log.warning("scheduling: %s", error)
            await asyncio.sleep(0.01)

    async def _round(self) -> None:
        nodes = (await self._client.list("nodes")).items
        pods = (await self._client.list("pods")).items
        bound = [p for p in pods if p["spec"].get("nodeName") and p.get("status", {}).get("phase") not in _OVER]
        waiting = [p for p in pods if not p["spec"].get("nodeName") and not p["metadata"].get("deletionTimestamp")]
        waiting.sort(key=lambda p: (-int(p["spec"].get("priority", 0)), p["metadata"]["creationTimestamp"]))
        self._said = {p["metadata"]["uid"]: self._said.get(p["metadata"]["uid"], "") for p in waiting}
        for pod in waiting:
            if pod["spec"].get("schedulingGates") or pod["spec"].get("schedulerName", _NAME) != _NAME:
                continue
            node, message = choose(pod, nodes, bound)
            if node is None:
                await self._fail(pod, message)
                continue
            if await self._bind(pod, node):
                pod["spec"]["nodeName"] = node
                bound.append(pod)

    async def _bind(self, pod: Object, node: str) -> bool:
        meta = pod["metadata"]
        where = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        binding = {"metadata": where, "target": {"apiVersion": "v1", "kind": "Node", "name": node}}
        try:
            from swarm_deploy.local.api.special import bind

            bind(self._client.api, meta["namespace"], meta["name"], binding)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return False
        name = f"{meta['namespace']}/{meta['name']}"
        self._events.record(pod, "Normal", "Scheduled", f"Successfully assigned {name} to {node}")
        return True

    async def _fail(self, pod: Object, message: str) -> None:
        meta = pod["metadata"]
        if self._said.get(meta["uid"]) == message:
            return
        self._said[meta["uid"]] = message
        self._events.record(pod, "Warning", "FailedScheduling", message)
        from swarm_deploy.local.node.container import now

        condition = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": None, "lastTransitionTime": now(),
        }  # fmt: skip
        try:
            status = {"phase": "Pending", "conditions": [condition]}
            await self._client.patch_status("pods", meta["name"], status, meta["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise


_OVER = ("Succeeded", "Failed")
_NAME = "default-scheduler"
