"""One simulated node: its Node object, its heartbeat, and the pods that are bound to it.

A node can be switched off, as one pulls a plug: an annotation on the Node (`local.agentswarm.dev/power: off`) kills
every process of its pods at once and ends its heartbeat, and nothing is written that a dead machine could not write.
What follows (NotReady, taints, eviction) is the controllers' work, as on a real cluster. With the annotation gone the
node starts as after a crash.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from swarm_deploy import __version__
from swarm_deploy.local.api.client import ApiError
from swarm_deploy.local.api.errors import bad_request
from swarm_deploy.local.api.meta import timestamp
from swarm_deploy.local.informer import Informer
from swarm_deploy.local.kubelet.logs import LogOptions, exact, read_log, stamp
from swarm_deploy.local.kubelet.pod import Pod
from swarm_deploy.local.kubelet.services import NodeServices

__all__ = ["NUMA", "POWER", "Kubelet"]

Object = dict[str, Any]

#: Annotation of a Node: `off` switches the simulated machine off.
POWER = "local.agentswarm.dev/power"
#: Annotation of a Node: it has so many NUMA nodes, and its Topology Manager the policy `single-numa-node`.
NUMA = "local.agentswarm.dev/numa-nodes"
_LEASES = "kube-node-lease"
_REPORT = 300.0


class Kubelet:
    """One node."""

    def __init__(self, services: NodeServices, pods: Informer, nodes: Informer) -> None:
        self.services = services
        self.name = services.name
        self._nodes = nodes
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._on = False
        self._closing = False
        self._heart: asyncio.Task[None] | None = None
        self._all = pods
        services.repin = self._repin
        pods.listen(self._pod_changed)
        nodes.listen(self._node_changed)

    @property
    def pods(self) -> list[Pod]:
        """Those that it runs."""
        return list(self._pods.values())

    # -- the node -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register the node, and take up its pods."""
        self.services.paths.make()
        await self._register()
        held = await self.services.client.get("nodes", self.name)
        self._read_node(held)
        if not _is_off(held):
            await self._switch_on()

    async def _switch_on(self) -> None:
        self._on = True
        # What is left of pods that are gone was left by a crash.
        uids = {p["metadata"]["uid"] for p in self._all}
        for directory in (self.services.paths.pods, self.services.paths.memory):
            for entry in directory.iterdir():
                if entry.name not in uids:
                    shutil.rmtree(entry, ignore_errors=True)
        await self._report()
        self._heart = asyncio.create_task(self._beat(), name=f"heartbeat of {self.name}")
        for pod in self._all:
            self._take(pod)

    async def stop(self, grace: float) -> None:
        """End the processes of all pods and leave the objects as they are."""
        self._closing = True
        await self._power_off(grace)

    async def _power_off(self, grace: float) -> None:
        self._on = False
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
            self._heart = None
        for pod in self._pods.values():
            pod.shut_down(grace)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._pods.clear()
        self._tasks.clear()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or new["metadata"]["name"] != self.name or self._closing:
            return
        self._read_node(new)
        if _is_off(new) and self._on:
            asyncio.get_running_loop().create_task(self._power_off(0))
        elif not _is_off(new) and not self._on and old is not None and _is_off(old):
            asyncio.get_running_loop().create_task(self._switch_on())

    def _read_node(self, node: Object) -> None:
        numa = (node["metadata"].get("annotations") or {}).get(NUMA, "")
        self.services.cpus.numa = int(numa) if numa.isdecimal() else 0
        self.services.devices = frozenset(_devices(node))

    async def _register(self) -> None:
        services = self.services
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
            "node.kubernetes.io/instance-type": "embedded",
        }
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"podCIDR": f"{services.addresses.block}.0/24", "podCIDRs": [f"{services.addresses.block}.0/24"]},
        }
        try:
            await services.client.create("nodes", node)
            await services.events.record(
                await services.client.get("nodes", self.name), "Starting", f"Starting kubelet of {self.name}."
            )
        except ApiError as error:
            if error.code != 409:
                raise
            patch = {"metadata": {"labels": labels}, "spec": node["spec"]}
            await services.client.patch("nodes", self.name, patch)

    async def _report(self) -> None:
        """Write the node's status."""
        services = self.services
        held = await services.client.get("nodes", self.name)
        now = timestamp(services.clock())
        before = {c["type"]: c for c in held.get("status", {}).get("conditions") or ()}
        conditions = []
        for kind, status, reason, message in _CONDITIONS:
            old = before.get(kind)
            moved = old is None or old["status"] != status
            conditions.append(
                {
                    "type": kind,
                    "status": status,
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now if moved else old["lastTransitionTime"],  # type: ignore[index]
                    "reason": reason,
                    "message": message,
                }
            )
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        held["status"] = {
            "addresses": [
                {"type": "InternalIP", "address": services.addresses.node},
                {"type": "Hostname", "address": self.name},
            ],
            "allocatable": {**_devices(held), **services.allocatable},
            "capacity": {**_devices(held), **services.allocatable},
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "architecture": machine,
                "bootID": _read("/proc/sys/kernel/random/boot_id"),
                "containerRuntimeVersion": f"embedded://{__version__}",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": f"v{__version__}-embedded",
                "machineID": f"embedded-{self.name}",
                "operatingSystem": "linux",
                "osImage": _os_name(),
                "systemUUID": "",
            },
        }
        await services.client.update_status("nodes", held)

    async def _beat(self) -> None:
        """Say again and again that the node lives: by its Lease often, by its status seldom."""
        loop = asyncio.get_running_loop()
        reported = loop.time()
        while True:
            try:
                await self._renew()
                if loop.time() - reported > _REPORT or self._unwell():
                    reported = loop.time()
                    await self._report()
            except ApiError:
                pass  # the next beat tries again
            await asyncio.sleep(self.services.timing.heartbeat)

    def _unwell(self) -> bool:
        """Whether somebody (the node controller) has taken it for dead meanwhile."""
        held = self._nodes.get("", self.name) or {}
        conditions = held.get("status", {}).get("conditions") or ()
        return any(c["type"] == "Ready" and c["status"] != "True" for c in conditions)

    async def _renew(self) -> None:
        client = self.services.client
        moment = datetime.fromtimestamp(self.services.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": max(1, int(self.services.timing.node_grace)),
            "renewTime": moment,
        }
        try:
            await client.patch("leases.coordination.k8s.io", self.name, {"spec": spec}, _LEASES)
        except ApiError as error:
            if error.code != 404:
                raise
            node = await client.get("nodes", self.name)
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": node["metadata"]["uid"]}
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.name, "namespace": _LEASES, "ownerReferences": [owner]},
                "spec": spec,
            }
            await client.create("leases.coordination.k8s.io", lease, namespace=_LEASES)

    # -- its pods -------------------------------------------------------------------------------------------------

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if not self._on:
            return
        if new is None:
            assert old is not None
            held = self._pods.get(old["metadata"]["uid"])
            if held is not None:
                held.removed()
        elif new["spec"].get("nodeName") == self.name:
            self._take(new)

    def _take(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("nodeName") != self.name:
            return
        held = self._pods.get(uid)
        if held is not None:
            held.update(pod)
            return
        new = self._pods[uid] = Pod(self.services, pod)
        task = asyncio.create_task(new.run(), name=f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
        self._tasks[uid] = task
        task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._pods.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{task.get_name()} failed", "exception": error, "task": task}
            )

    def _repin(self) -> None:
        for pod in self._pods.values():
            pod.repin()

    def source_changed(self, kind: str, namespace: str, name: str) -> None:
        """A ConfigMap or Secret (`configMap`, `secret`) was made, changed or removed."""
        for pod in self._pods.values():
            if pod.object["metadata"]["namespace"] == namespace:
                if pod.volumes.uses(kind, name):
                    pod.volumes.refresh()
                pod.nudge()

    # -- logs -----------------------------------------------------------------------------------------------------

    def read_log(self, pod: Object, container: str, options: Object) -> AsyncGenerator[bytes, None]:
        """The log of one of its containers, as `kubectl logs` wants it.

        Raises:
            ApiError: 400, there is none yet, or no previous one.
        """
        meta = pod["metadata"]
        status = next(
            (
                c
                for group in ("containerStatuses", "initContainerStatuses")
                for c in pod.get("status", {}).get(group) or ()
                if c["name"] == container
            ),
            None,
        )
        held = self._pods.get(meta["uid"])
        directory = self.services.paths.logs / f"{meta['namespace']}_{meta['name']}_{meta['uid']}" / container
        runs = sorted((p for p in directory.glob("*.log")), key=lambda p: int(p.stem)) if directory.is_dir() else []
        current = next((c for c in held.containers if c.name == container), None) if held else None
        previous = bool(options.get("previous"))
        if previous:
            live = current.log if current else None
            waiting = "waiting" in ((status or {}).get("state") or {})
            if live is not None or not waiting:
                runs = runs[:-1]
            if not runs or not (status or {}).get("restartCount"):
                raise bad_request(f'previous terminated container "{container}" in pod "{meta["name"]}" not found')
        elif not runs:
            reason = ((status or {}).get("state") or {}).get("waiting", {}).get("reason") or "ContainerCreating"
            raise bad_request(f'container "{container}" in pod "{meta["name"]}" is waiting to start: {reason}')
        since = None
        if options.get("sinceSeconds") is not None:
            since = stamp(int((self.services.clock() - int(options["sinceSeconds"])) * 1e9))
        elif options.get("sinceTime"):
            try:
                since = exact(str(options["sinceTime"]))
            except ValueError:
                raise bad_request(f"sinceTime: {options['sinceTime']!r} is no time in RFC 3339") from None
        wanted = LogOptions(
            follow=bool(options.get("follow")) and not previous,
            timestamps=bool(options.get("timestamps")),
            tail=options.get("tailLines"),
            since=since,
            limit_bytes=options.get("limitBytes"),
        )
        live = current.log if current is not None and not previous else None
        if live is not None and live.path != runs[-1]:
            live = None
        return read_log(runs[-1], wanted, live)


# Type, status, reason, message: what a healthy node says.
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def _devices(node: Object) -> dict[str, str]:
    """Extended resources in a node's status, which a kubelet leaves as they were written there."""
    offered = (node.get("status") or {}).get("capacity") or {}
    return {name: amount for name, amount in offered.items() if "/" in name}


def _is_off(node: Object) -> bool:
    return (node["metadata"].get("annotations") or {}).get(POWER) == "off"


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return os.uname().sysname
