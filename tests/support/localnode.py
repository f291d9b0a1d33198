"""A local cluster inside the test's own process: everything but HTTP and the daemon around it, and builders for it.

Its pods are real processes. It starts in a tenth of a second, so each test has one of its own.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.core import Api
from swarm_deploy.local.api.lifecycle import Sweeper, set_up
from swarm_deploy.local.daemon import Assembly, Options
from swarm_deploy.local.kubelet.runtime import Runtime
from swarm_deploy.local.kubelet.services import Timing
from swarm_deploy.local.record import shared_memory
from swarm_deploy.local.store import Store

__all__ = ["FAST", "InProcess", "in_process", "make_config_map", "make_pod", "make_secret"]

Object = dict[str, Any]

FAST = Timing(crash_backoff=0.05, retry=0.1, heartbeat=0.2, node_grace=1.0)


class InProcess:
    """What a test does to the cluster, and asks of it."""

    def __init__(self, api: Api, assembly: Assembly, runtime: Runtime, shm: Path) -> None:
        self.api = api
        self.assembly = assembly
        self.runtime = runtime
        self.shm = shm
        self.client = LocalClient(api, "test")

    async def create(self, obj: Object) -> Object:
        return await self.client.create(_plural(obj), obj, namespace=obj["metadata"].get("namespace", "default"))

    def get(self, resource: str, name: str, namespace: str = "default") -> Object | None:
        return self.api.store.get(resource, namespace, name)

    def status(self, name: str) -> Object:
        pod = self.get("pods", name)
        return pod.get("status", {}) if pod else {}

    def container(self, name: str, index: int = 0) -> Object:
        """One of a pod's container statuses; empty when there is none yet."""
        statuses = self.status(name).get("containerStatuses") or []
        return statuses[index] if index < len(statuses) else {}

    def ready(self, name: str) -> bool:
        return any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(name).get("conditions") or ())

    def events(self, name: str) -> list[Object]:
        return [e for e in self.api.store.list("events") if e["involvedObject"]["name"] == name]

    def said(self, name: str, reason: str, text: str = "") -> bool:
        return any(e["reason"] == reason and text in e["message"] for e in self.events(name))

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0, about: str = "") -> Any:
        """Polls until the condition holds; a failure tells what became of the pods."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not (found := condition()):
            assert loop.time() < end, f"not within {seconds} s {about}\n{self.describe()}"
            await asyncio.sleep(0.01)
        return found

    def describe(self) -> str:
        lines = [f"{p['metadata']['name']}: {p.get('status')}" for p in self.api.store.list("pods")]
        lines += [f"{e['involvedObject']['name']} {e['reason']}: {e['message']}" for e in self.api.store.list("events")]
        return "\n".join(lines)

    async def gone(self, resource: str, name: str, namespace: str = "default") -> None:
        await self.until(lambda: self.get(resource, name, namespace) is None, about=f"{resource} {name} is still there")

    async def delete(self, resource: str, name: str, namespace: str = "default", **options: Any) -> None:
        await self.client.delete(resource, name, namespace, **options)

    async def said_in_log(self, name: str, lines: int = 1) -> str:
        """A container's log, once it has so many lines."""
        stream = await self.assembly.read_log("default", name, "main", {"follow": True})
        said = b""
        async with asyncio.timeout(20):
            async for chunk in stream:
                said += chunk
                if said.count(b"\n") >= lines:
                    break
        await stream.aclose()
        return said.decode()

    async def log(self, name: str, container: str = "main", **options: Any) -> str:
        stream = await self.assembly.read_log("default", name, container, options)
        return b"".join([chunk async for chunk in stream]).decode()


def _plural(obj: Object) -> str:
    groups = {
        "PodDisruptionBudget": "poddisruptionbudgets.policy",
        "NetworkPolicy": "networkpolicies.networking.k8s.io",
    }
    return groups.get(obj["kind"], obj["kind"].lower() + "s")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@asynccontextmanager
async def in_process(
    state: Path, nodes: int = 1, cpus: int = 4, timing: Timing = FAST, store: Store | None = None
) -> AsyncIterator[InProcess]:
    async with AsyncExitStack() as stack:
        store = store or Store(None)
        stack.callback(store.close)
        api = Api(store)
        set_up(api)
        sweeper = asyncio.create_task(Sweeper(api).run())
        stack.push_async_callback(_end, sweeper)
        assembly = Assembly(Options(_made(state), nodes, cpus, operator=False, timing=timing), stack)
        assembly.cluster = uuid.uuid4().hex[:8]
        shm = shared_memory(assembly.cluster)
        stack.callback(shutil.rmtree, shm, ignore_errors=True)
        runtime = Runtime(assembly.cluster)
        stack.push_async_callback(runtime.close)
        server: Any = SimpleNamespace(api=api, url="https://127.0.0.1:1")
        await assembly.start_nodes(server, runtime, shm)
        assembly.start_controllers(server)
        yield InProcess(api, assembly, runtime, shm)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def make_pod(name: str, script: str = "exec sleep 600", **more: Any) -> Object:
    """A pod of one container `main` with a shell script; `container` and everything else are merged in."""
    container = {
        "name": "main",
        "image": "localhost/host",
        "command": ["sh", "-c", script],
        **more.pop("container", {}),
    }
    meta = {"name": name, "labels": {"app": name}, **more.pop("metadata", {})}
    spec = {
        "containers": [container, *more.pop("others", [])],
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": False,
        **more,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def make_config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def make_secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
