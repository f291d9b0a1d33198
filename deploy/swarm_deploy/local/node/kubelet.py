"""The kubelet of one simulated node: registers it, keeps its lease, and runs the pods that are bound to it."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from swarm_deploy import __version__
from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.node.addresses import Addresses
from swarm_deploy.local.node.container import now
from swarm_deploy.local.node.cpus import CpuManager
from swarm_deploy.local.node.events import Recorder
from swarm_deploy.local.node.pod import PodWorker
from swarm_deploy.local.node.volumes import NodePaths

__all__ = ["Kubelet", "node_name"]

Object = dict[str, Any]
_log = logging.getLogger(__name__)
_LEASE_SECONDS = 10.0
#: How soon a changed ConfigMap or Secret is in the volumes (seconds).
_REFRESH = 1.0


def node_name(number: int) -> str:
    """The name of the node of this number, from 1."""
    return f"node-{number}"


class Kubelet:
    """One node."""

    def __init__(
        self, client: LocalClient, *, number: int, nodes: int, cpus: int, memory: int, paths: NodePaths,
        addresses: Addresses, back_off: float,
    ) -> None:  # fmt: skip
        """`memory` in bytes; `back_off` in seconds, before the second start of a container that crashes."""
        self.client = client
        self.api = client.api
        self.number = number
        self.name = node_name(number)
        self.address = addresses.node(number)
        self.addresses = addresses
        self.paths = paths
        self.back_off = back_off
        self.cpus = CpuManager(number - 1, nodes, cpus)
        self.allocatable: Mapping[str, str] = {"cpu": str(cpus), "memory": f"{memory >> 10}Ki", "pods": "110"}
        self._pods: dict[str, PodWorker] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.events: Recorder

    async def start(self) -> None:
        """Registers the node and begins."""
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.paths.shm.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.events = Recorder(self.client, "kubelet", self.name)
        await self._register()
        self._tasks = [asyncio.create_task(job()) for job in (self._watch, self._heartbeat, self._keep_fresh)]

    async def stop(self, grace: float) -> None:
        """Stops all pods' processes; the pods stay in the API, and run again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.end(grace, remove=False) for pod in list(self._pods.values())))
        await self.events.close()
        shutil.rmtree(self.paths.shm, ignore_errors=True)

    def gone(self, pod: PodWorker) -> None:
        """A pod has ended for good."""
        if self._pods.get(pod.uid) is pod:
            del self._pods[pod.uid]

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The pod of this name, if it runs here."""
        return next((p for p in self._pods.values() if (p.namespace, p.name) == (namespace, name)), None)

    def lookup(self, namespace: str) -> Callable[[str, str], Object | None]:
        """Gives objects of a namespace, or None."""

        def find(resource: str, name: str) -> Object | None:
            return self.api.store.get(resource, namespace, name)

        return find

    def issuer(self, namespace: str) -> Callable[[str, int], str]:
        """Issues tokens for the service accounts of a namespace."""

        def issue(account: str, seconds: int) -> str:
            now = int(self.api.clock())
            return self.api.tokens.issue(namespace, account, now + seconds, now)

        return issue

    def decoded(self, namespace: str) -> Callable[[str, str], Mapping[str, str] | None]:
        """Gives the data of a ConfigMap or Secret as text."""
        lookup = self.lookup(namespace)

        def find(resource: str, name: str) -> Mapping[str, str] | None:
            found = lookup(resource, name)
            if found is None:
                return None
            data: dict[str, str] = found.get("data") or {}
            if resource == "secrets":
                return {k: base64.b64decode(v).decode(errors="replace") for k, v in data.items()}
            return data

        return find

    async def _register(self) -> None:
        stamp = now()
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {
                    "kubernetes.io/hostname": self.name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                        platform.machine(), platform.machine()
                    ),
                },
            },
            "spec": {},
        }
        capacity = dict(self.allocatable) | {"ephemeral-storage": f"{shutil.disk_usage(self.paths.root).total >> 10}Ki"}
        conditions = [
            {"type": kind, "status": value, "reason": reason, "message": text, "lastHeartbeatTime": stamp,
             "lastTransitionTime": stamp}
            for kind, value, reason, text in (
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            )
        ]  # fmt: skip
        system = platform.uname()
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": self.name}],
            "nodeInfo": {
                "architecture": node["metadata"]["labels"]["kubernetes.io/arch"], "operatingSystem": "linux",
                "kernelVersion": system.release, "osImage": "a simulated node", "kubeletVersion": "v1.36.2",
                "kubeProxyVersion": "", "containerRuntimeVersion": f"process://{__version__}",
                "machineID": self.name, "systemUUID": self.name, "bootID": str(os.getpid()),
            },
        }  # fmt: skip
        try:
            await self.client.create("nodes", node)
        except ApiError as error:
            if error.code != 409:
                raise
        await self.client.patch_status("nodes", self.name, status)
        self.events.record(node, "Normal", "Starting", "Starting kubelet.")

    async def _heartbeat(self) -> None:
        name, namespace = self.name, "kube-node-lease"
        while True:
            stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": stamp}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
            resource = "leases.coordination.k8s.io"
            try:
                await self.client.patch(resource, name, {"spec": spec}, namespace)
            except ApiError as error:
                if error.code == 404:
                    try:
                        await self.client.create(resource, lease, namespace=namespace)
                    except ApiError as problem:
                        _log.warning("lease of %s: %s", name, problem)
            await asyncio.sleep(_LEASE_SECONDS)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH)
            for pod in list(self._pods.values()):
                pod.refresh()

    async def _watch(self) -> None:
        while True:
            try:
                stream = self.client.watch("pods", field_selector=f"spec.nodeName={self.name}")
                async with aclosing(stream):
                    async for event in stream:
                        self._take(event.type, event.object)
            except ApiError as error:  # compacted: begin anew
                _log.info("watch of pods on %s: %s", self.name, error)
            await asyncio.sleep(0.1)

    def _take(self, kind: str, pod: Object) -> None:
        if kind == "BOOKMARK":
            return
        known = self._pods.get(pod["metadata"]["uid"])
        if kind == "DELETED":
            if known is not None:
                known.end(0.0, remove=False)
        elif known is not None:
            known.changed(pod)
        else:
            worker = self._pods[pod["metadata"]["uid"]] = PodWorker(self, pod)
            if pod["metadata"].get("deletionTimestamp"):
                worker.changed(pod)
