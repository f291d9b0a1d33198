"""Where the operator is measured: an API server, fake nodes whose pods need no processes, and `swarm-operator` itself.

    async with scene() as here:
        here.start_operator()
        await here.client.create(here.swarm("one", replicas=100))
        await here.pods.until(lambda: here.pods.ready >= 100, "100 agents", 60)

The API server is the embedded one, in a process and a directory of its own, or the one of SWARM_TEST_KUBECONFIG. The
nodes are objects with a taint and a label of their own, a namespace holds everything, and all of it is removed in the
end. What makes pods ready is in `kubelet`, what answers for their agents in `fakes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from fakes import Agents, Pods  # noqa: E402
from kubelet import Kubelet, Remote  # noqa: E402

from support.operatorlive import Client, Operator  # noqa: E402
from swarm_operator.kube import Api, ApiError, connect  # noqa: E402
from swarm_operator.rollback import PROVEN  # noqa: E402

__all__ = ["Scene", "cpu_seconds", "resident_mib", "scene"]

_VARIABLE = "SWARM_TEST_KUBECONFIG"
_LABEL = "agentswarm.dev/bench"
_NODES, _NAMESPACES, _LEASES = "/api/v1/nodes", "/api/v1/namespaces", "/apis/coordination.k8s.io/v1/namespaces"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
#: A real cluster holds a node for lost when it says nothing for 40 s.
_HEARTBEAT = 10.0


@dataclass
class Scene:
    """One API server with fake nodes, and what runs against it."""

    kubeconfig: Path
    scratch: Path
    api: Api
    client: Client
    pods: Pods
    agents: Agents
    nodes: list[str]
    run: str
    #: The process of the embedded API server; None: a real one.
    server: int | None
    operators: list[Operator] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.client.namespace

    def start_operator(self, *options: str) -> Operator:
        """One replica; without options it takes part in the election."""
        operator = Operator(self.kubeconfig, self.scratch, [self.namespace], *options).start()
        self.operators.append(operator)
        return operator

    async def started(self, operator: Operator, message: str = "synced", deadline: float = 90.0) -> None:
        """Waits until an operator has logged a message."""
        end = time.monotonic() + deadline
        while not operator.said(message):
            if operator.process and operator.process.poll() is not None:
                raise RuntimeError(f"the operator ended:\n{operator.log.read_text()[-2000:]}")
            if time.monotonic() > end:
                raise TimeoutError(f"no {message!r} in {deadline:g} s:\n{operator.log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)

    def swarm(self, name: str, replicas: int, **spec: Any) -> dict[str, Any]:
        """A Swarm of so many compute agents on the fake nodes; each node has a resource agent beside them."""
        compute = {"replicas": replicas, **spec.pop("compute", {})}
        scheduling = {
            "nodeSelector": {_LABEL: self.run},
            "tolerations": [{"key": _LABEL, "operator": "Exists"}],
            **spec.pop("scheduling", {}),
        }
        return {
            "apiVersion": "agentswarm.dev/v1alpha1",
            "kind": "Swarm",
            "metadata": {"name": name},
            "spec": {"image": "agentswarm.invalid/bench:1", "compute": compute, "scheduling": scheduling, **spec},
        }

    async def quiet(self, operator: Operator, seconds: float = PROVEN + 2.0, deadline: float = 120.0) -> None:
        """Waits until an operator has written nothing for some seconds: revisions that work are on record by then."""
        end, last, since = time.monotonic() + deadline, -1.0, time.monotonic()
        while time.monotonic() - since < seconds:
            if time.monotonic() > end:
                raise TimeoutError(f"the operator still writes after {deadline:g} s")
            if (writes := operator.writes()) != last:
                last, since = writes, time.monotonic()
            await asyncio.sleep(0.25)


@asynccontextmanager
async def scene(nodes: int = 1) -> AsyncIterator[Scene]:
    """An API server with so many fake nodes. Everything that was started or made is gone afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-operator-")))
        given = _given()
        run = uuid.uuid4().hex[:8]
        names = [f"bench-{run}-{number}" for number in range(nodes)]
        agents = await stack.enter_async_context(Agents())
        words = [",".join(names), ",".join(agents.addresses)]
        server = None if given else stack.enter_context(_embedded(scratch / "state", words))
        kubeconfig = _given() or scratch / "state" / "kubeconfig"
        api = await connect(str(kubeconfig))
        stack.push_async_callback(api.close)
        if given:
            await stack.enter_async_context(_definition(api))
        await stack.enter_async_context(_nodes(api, names, run, beat=bool(given)))
        namespace = f"bench-{run}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await api.request("POST", _NAMESPACES, body=body)
        pods = await stack.enter_async_context(Pods(api, namespace))
        if given:
            await stack.enter_async_context(_kubelet(api, namespace, names, agents))
        here = Scene(
            kubeconfig=kubeconfig,
            scratch=scratch,
            api=api,
            client=Client(api, namespace),
            pods=pods,
            agents=agents,
            nodes=names,
            run=run,
            server=server,
        )
        if given:
            stack.push_async_callback(_remove_namespace, api, namespace)
        stack.callback(_end, here.operators)
        yield here


def _given() -> Path | None:
    path = os.environ.get(_VARIABLE)
    return Path(path).expanduser() if path else None


def _end(operators: list[Operator]) -> None:
    for operator in operators:
        if operator.process and operator.process.poll() is None:
            operator.kill()


@contextlib.contextmanager
def _embedded(state: Path, words: list[str]) -> Any:
    state.mkdir(parents=True)
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "apiserver.py"), str(state), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 60
        while not (state / "kubeconfig").exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the API server does not come up:\n{(state / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)  # with ten thousand pods its tasks are many
        finally:
            process.kill()
            process.wait()


@asynccontextmanager
async def _kubelet(api: Api, namespace: str, nodes: list[str], agents: Agents) -> AsyncIterator[None]:
    hands = Remote(api, namespace)
    kubelet = Kubelet(hands, nodes, agents.addresses)
    tasks = [asyncio.ensure_future(part) for part in (kubelet.run(), hands.watch(kubelet))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _definition(api: Api) -> AsyncIterator[None]:
    """The Swarm's CRD in a real cluster: brought up to date, and removed if there was none."""
    from swarm_operator.api.crd import crd

    body = crd()
    path = f"{_DEFINITIONS}/{body['metadata']['name']}"
    try:
        await api.request("GET", path)
        found = True
    except ApiError as error:
        if error.status != 404:
            raise
        found = False
    kind = "application/apply-patch+yaml"
    await api.request("PATCH", path, query={"fieldManager": "bench", "force": "true"}, body=body, content_type=kind)
    await asyncio.sleep(1.0)  # until it is served
    try:
        yield
    finally:
        if not found:
            await api.request("DELETE", path)


@asynccontextmanager
async def _nodes(api: Api, names: list[str], run: str, *, beat: bool) -> AsyncIterator[None]:
    for name in names:
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {_LABEL: run, "kubernetes.io/hostname": name}},
            "spec": {"taints": [{"key": _LABEL, "value": run, "effect": "NoSchedule"}]},
        }
        await api.request("POST", _NODES, body=body)
        await _say_ready(api, name)
    task = asyncio.create_task(_beat(api, names)) if beat else None
    try:
        yield
    finally:
        if task:
            task.cancel()
        for name in names:
            with contextlib.suppress(ApiError):
                await api.request("DELETE", f"{_NODES}/{name}")


async def _say_ready(api: Api, name: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "Bench", "lastHeartbeatTime": now, "lastTransitionTime": now}
    room = {"cpu": "100000", "memory": "100Ti", "pods": "100000", "ephemeral-storage": "100Ti"}
    body = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    kind = "application/strategic-merge-patch+json"
    await api.request("PATCH", f"{_NODES}/{name}/status", body=body, content_type=kind)


async def _beat(api: Api, names: list[str]) -> None:
    """Keeps a real cluster's node controller from holding the nodes for lost."""
    while True:
        for name in names:
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": stamp},
            }
            path, query = f"{_LEASES}/kube-node-lease/leases/{name}", {"fieldManager": "bench", "force": "true"}
            with contextlib.suppress(ApiError):
                kind = "application/apply-patch+yaml"
                await api.request("PATCH", path, query=query, body=lease, content_type=kind)
        await asyncio.sleep(_HEARTBEAT)


async def _remove_namespace(api: Api, namespace: str) -> None:
    """While the kubelet still runs: it is what ends the pods."""
    await api.request("DELETE", f"{_NAMESPACES}/{namespace}")
    for _ in range(600):
        try:
            await api.request("GET", f"{_NAMESPACES}/{namespace}")
        except ApiError as error:
            if error.status == 404:
                return
        await asyncio.sleep(0.5)


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int, what: str = "VmRSS") -> float:
    """The memory that a process has in RAM (`VmHWM`: had at most), MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no {what}")
