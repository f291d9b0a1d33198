"""The embedded cluster in one process: API server, controllers, scheduler, kubelets, the operator as a child.

Order of start: the lock, then what a crashed predecessor left is ended and removed, then the API server, and last
whoever uses it. Only then does `cluster.json` appear, which is what others wait for. The order of stopping is the
reverse; the operator ends first, so that it sees no pod go and makes none anew.

Whatever this process starts carries the cluster's id in its environment and ends with it, also when it is killed: see
`kubelet.shim`.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from swarm_deploy.local.addresses import AddressPool, NoAddressError, claim_block
from swarm_deploy.local.api.access import write_private
from swarm_deploy.local.api.app import Server, serve
from swarm_deploy.local.api.client import ApiError, LocalClient
from swarm_deploy.local.api.errors import not_found
from swarm_deploy.local.binding import Scheduler
from swarm_deploy.local.controllers.disruption import DisruptionController
from swarm_deploy.local.controllers.endpoints import EndpointsController
from swarm_deploy.local.controllers.garbage import GarbageCollector
from swarm_deploy.local.controllers.nodes import NodeController
from swarm_deploy.local.events import Recorder
from swarm_deploy.local.informer import Informer
from swarm_deploy.local.kubelet.cpus import CpuManager
from swarm_deploy.local.kubelet.kubelet import Kubelet
from swarm_deploy.local.kubelet.runtime import Program, Runtime, StartError
from swarm_deploy.local.kubelet.services import NodeServices, Timing
from swarm_deploy.local.kubelet.volumes import NodePaths
from swarm_deploy.local.processes import end, marked
from swarm_deploy.local.record import CLUSTER_MARK, Record, shared_memory, start_time
from swarm_deploy.local.store import Store, StoreUnusable
from swarm_operator.api.crd import crd

__all__ = ["Assembly", "Options", "node_name", "run"]

Object = dict[str, Any]

_log = logging.getLogger(__name__)
#: Pods may take so long to end when the cluster is stopped; a Swarm's agents hand back what they have in hand.
_STOP_SECONDS = 8.0
_OPERATOR_SECONDS = 8.0
_OPERATOR_PORT = 9403
_PODS = 110
_RESOURCES = ("pods", "nodes", "namespaces", "services", "configmaps", "secrets")


@dataclass(frozen=True)
class Options:
    """How the cluster is made."""

    state: Path
    nodes: int = 2
    cpus_per_node: int = 4
    port: int = 0
    operator: bool = True
    timing: Timing = field(default_factory=Timing)
    #: Whether the API server notes requests in its audit log.
    audit: bool = True


def node_name(number: int) -> str:
    """The name of the node of this number, from 1."""
    return f"node-{number}"


class _RefusedError(Exception):
    """The cluster can't be started; the message is for the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


async def run(options: Options) -> int:
    """Runs the cluster until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with AsyncExitStack() as stack:
            await Assembly(options, stack).run(stop)
    except _RefusedError as problem:
        print(problem, file=sys.stderr)
        return problem.code
    return 0


class Assembly:
    """The parts of one cluster, put together and taken apart in order; `stack` holds what is undone at the end."""

    def __init__(self, options: Options, stack: AsyncExitStack) -> None:
        self.options = options
        self.state = options.state
        self.stack = stack
        self.kubelets: list[Kubelet] = []
        self.informers: dict[str, Informer] = {}
        self.cluster = ""

    async def run(self, stop: asyncio.Event) -> None:
        """All of it, until `stop`."""
        state, options = self.state, self.options
        self._claim()
        shm = shared_memory(self.cluster)
        if not os.access(shm.parent, os.W_OK):
            raise _RefusedError(8, f"{shm.parent} can't be written: nodes have their shared memory there")
        self.stack.callback(shutil.rmtree, shm, ignore_errors=True)
        self.stack.callback((state / "cluster.json").unlink, missing_ok=True)
        try:
            store = Store(state / "cluster.db")
        except StoreUnusable as error:
            raise _RefusedError(5, str(error)) from error
        self.stack.callback(store.close)
        server = await self._serve(store)
        write_private(state / "kubeconfig", server.kubeconfig())
        await _install_definition(LocalClient(server.api, "swarm-up"))
        runtime = Runtime(self.cluster, remove=[shm])
        self.stack.push_async_callback(runtime.close)
        try:
            await self.start_nodes(server, runtime, shm)
        except NoAddressError as error:
            raise _RefusedError(6, str(error)) from error
        self.start_controllers(server)
        url = ""
        if options.operator:
            url = self._start_operator(runtime)
        record = Record(
            pid=os.getpid(),
            start_time=start_time(os.getpid()),
            cluster=self.cluster,
            url=server.url,
            nodes=options.nodes,
            cpus_per_node=options.cpus_per_node,
            operator=options.operator,
            operator_url=url,
            ready=True,
        )
        write_private(state / "cluster.json", msgspec.json.encode(record))
        _log.info("ready: %s", server.url)
        await stop.wait()
        _log.info("stopping")

    # -- before anything runs -------------------------------------------------------------------------------------

    def _claim(self) -> None:
        """Take the directory, and clear away what a predecessor left that did not end properly."""
        state = self.state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = self.stack.enter_context((state / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _RefusedError(
                3, f"another cluster runs in {state}: `swarm status` shows it, `swarm down` ends it"
            ) from None
        identity = state / "cluster-id"
        if not identity.exists():
            write_private(identity, uuid.uuid4().hex[:8])
        self.cluster = identity.read_text().strip()
        os.environ[CLUSTER_MARK] = self.cluster
        (state / "cluster.json").unlink(missing_ok=True)
        # The lock says that no daemon of this cluster lives: whoever carries its mark was left by one that was killed.
        left = [process for process in marked(CLUSTER_MARK, self.cluster) if process.pid != os.getppid()]
        if left:
            _log.warning("ending %d processes that a cluster which was killed has left", len(left))
            if stubborn := end(left, 2.0):
                pids = ", ".join(str(process.pid) for process in stubborn)
                raise _RefusedError(
                    7, f"processes {pids} of an earlier run of this cluster can't be ended: end them first"
                )
        shutil.rmtree(shared_memory(self.cluster), ignore_errors=True)

    async def _serve(self, store: Store) -> Server:
        """The API server; without a port given, on the one that it had last time, so that kubeconfigs stay good."""
        wanted = self.options.port
        last = self.state / "port"
        ports = [wanted]
        if not wanted:
            with suppress(OSError, ValueError):
                ports.insert(0, int(last.read_text()))
        for port in ports:
            context = serve(store, state=self.state, port=port, log_reader=self.read_log, audited=self.options.audit)
            try:
                server = await context.__aenter__()
            except OSError as error:
                if port != ports[-1]:
                    continue
                raise _RefusedError(
                    4,
                    f"port {port} of 127.0.0.1 can't be used ({error.strerror}): `ss -ltnp 'sport = :{port}'` shows who"
                    " has it; name another one by --port, or leave it out and a free one is taken",
                ) from error
            self.stack.push_async_exit(context)
            write_private(last, server.url.rpartition(":")[2])
            return server
        raise AssertionError("unreachable")

    # -- the parts ------------------------------------------------------------------------------------------------

    def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part until the cluster stops; one that fails is begun again, and the log has why."""

        async def forever() -> None:
            while True:
                try:
                    await part()
                    return
                except Exception:
                    _log.exception("%s failed; it is begun again", name)
                    await asyncio.sleep(1)

        task = asyncio.create_task(forever(), name=name)

        async def end_task() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(end_task)

    async def start_nodes(self, server: Server, runtime: Runtime, shm: Path) -> None:
        """The kubelets, and what they share."""
        import aiohttp

        options, api = self.options, server.api
        # One session for all probes: no proxies, no cookies, no connection kept.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self.stack.push_async_callback(session.close)
        shared = LocalClient(api, "kube-controller-manager")
        self.informers = {resource: Informer(shared, resource) for resource in _RESOURCES}
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        memory = page * pages // options.nodes
        disk = shutil.disk_usage(self.state).total
        await self._remove_nodes(LocalClient(api, "node-controller"))
        for index in range(options.nodes):
            name = node_name(index + 1)
            client = LocalClient(api, "kubelet")
            block, holder = claim_block(self.cluster, index, self._last_block(api, name))
            self.stack.callback(holder.close)
            services = NodeServices(
                name=name,
                client=client,
                events=Recorder(client, "kubelet", name),
                runtime=runtime,
                sources=_Sources(self.informers),
                paths=NodePaths(
                    root=self.state / "nodes" / name / "root",
                    pods=self.state / "nodes" / name / "pods",
                    logs=self.state / "nodes" / name / "logs",
                    shm=shm / name,
                    memory=shm / ".memory" / name,
                ),
                addresses=AddressPool(block),
                cpus=CpuManager(index, options.cpus_per_node, options.nodes),
                allocatable={
                    "cpu": str(options.cpus_per_node),
                    "ephemeral-storage": f"{disk >> 10}Ki",
                    "memory": f"{memory >> 10}Ki",
                    "pods": str(_PODS),
                },
                timing=options.timing,
                token=lambda namespace, account, seconds: _token(server, namespace, account, seconds),
                http=session,
                server=server.url,
            )
            self.kubelets.append(Kubelet(services, self.informers["pods"], self.informers["nodes"]))
        for kind in ("configmaps", "secrets"):
            self.informers[kind].listen(self._source_changed)
        for resource, informer in self.informers.items():
            self._keep(f"informer of {resource}", informer.run)
            await informer.synced.wait()
        for kubelet in self.kubelets:
            await kubelet.start()
        self.stack.push_async_callback(self._stop_nodes)

    async def _stop_nodes(self) -> None:
        await asyncio.gather(*(kubelet.stop(_STOP_SECONDS) for kubelet in self.kubelets))

    async def _remove_nodes(self, client: LocalClient) -> None:
        """Nodes that an earlier start had and this one has not; their pods follow."""
        wanted = {node_name(index + 1) for index in range(self.options.nodes)}
        for node in (await client.list("nodes")).items:
            name = node["metadata"]["name"]
            if name not in wanted and node.get("status", {}).get("nodeInfo", {}).get("machineID") == f"embedded-{name}":
                await client.delete("nodes", name)
                shutil.rmtree(self.state / "nodes" / name, ignore_errors=True)

    @staticmethod
    def _last_block(api: Any, name: str) -> str:
        held = api.store.get("nodes", "", name) or {}
        return str(held.get("spec", {}).get("podCIDR", "")).removesuffix(".0/24")

    def _source_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        kind = "configMap" if obj.get("kind") == "ConfigMap" else "secret"
        for kubelet in self.kubelets:
            kubelet.source_changed(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])

    async def read_log(self, namespace: str, name: str, container: str, options: Object) -> AsyncGenerator[bytes, None]:
        pod = self.informers["pods"].get(namespace, name) if self.informers else None
        if pod is None:
            raise not_found("pods", "", name)
        where = pod["spec"].get("nodeName", "")
        for kubelet in self.kubelets:
            if kubelet.name == where:
                return kubelet.read_log(pod, container, options)
        raise ApiError(400, f'pod "{name}" is on no node of this cluster yet', reason="BadRequest")

    def start_controllers(self, server: Server) -> None:
        """The scheduler and the controllers."""
        api = server.api
        manager = LocalClient(api, "kube-controller-manager")
        pods, nodes = self.informers["pods"], self.informers["nodes"]
        scheduler = Scheduler(api, LocalClient(api, "kube-scheduler"), pods, nodes, self.informers["namespaces"])
        grace = self.options.timing.node_grace
        self._keep("scheduler", scheduler.run)
        self._keep("garbage collector", GarbageCollector(api, manager).run)
        self._keep("endpoints controller", EndpointsController(manager, pods, self.informers["services"]).run)
        self._keep("disruption controller", DisruptionController(api, manager, pods).run)
        self._keep("node controller", NodeController(manager, pods, nodes, grace=grace).run)

    # -- the operator ---------------------------------------------------------------------------------------------

    def _start_operator(self, runtime: Runtime) -> str:
        """Keep the operator running, as a Deployment would; where its metrics are."""
        block, holder = claim_block(self.cluster, self.options.nodes)
        self.stack.callback(holder.close)
        address = f"{block}.1:{_OPERATOR_PORT}"
        config = self.state / "kubeconfig"
        directory = self.state / "log"
        directory.mkdir(exist_ok=True)
        program = Program(
            argv=[
                str(Path(sys.executable).with_name("swarm-operator")),
                "--kubeconfig",
                str(config),
                "--http-bind",
                address,
                "--no-leader-election",
            ],
            env={**os.environ, "KUBECONFIG": str(config), "PYTHONUNBUFFERED": "1"},
            cwd=directory,
        )
        stop = asyncio.Event()
        most = min(30.0, self.options.timing.crash_backoff_most)
        task = asyncio.create_task(_operate(runtime, program, directory / "operator.log", stop, most), name="operator")

        async def end_task() -> None:
            stop.set()
            await task

        self.stack.push_async_callback(end_task)
        return f"http://{address}"


async def _install_definition(client: LocalClient) -> None:
    """The Swarm's CRD, in the form that belongs to this release: what `kubectl apply --server-side` would do."""
    definition = crd()
    kind, name = "customresourcedefinitions.apiextensions.k8s.io", definition["metadata"]["name"]
    await client.patch(kind, name, definition, type="apply", force=True)


async def _operate(runtime: Runtime, program: Program, log: Path, stop: asyncio.Event, most: float) -> None:
    """One run of the operator after another, with a pause between them that grows up to `most` seconds."""
    pause = 0.5
    stopped = asyncio.create_task(stop.wait())
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        begun = loop.time()
        try:
            with log.open("ab") as file:
                running = await runtime.start(program, file.fileno(), file.fileno())
        except StartError as error:
            _log.error("the operator can't be started: %s", error)
        else:
            either: set[asyncio.Future[Any]] = {running.ended, stopped}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await running.stop(_OPERATOR_SECONDS)
                return
            _log.warning("the operator ended with %d; see %s", running.ended.result().code, log)
        if loop.time() - begun > 60:
            pause = 0.5
        await asyncio.wait({stopped}, timeout=pause)
        pause = min(pause * 2, most)


class _Sources:
    """ConfigMaps and Secrets, for the kubelets."""

    def __init__(self, informers: dict[str, Informer]) -> None:
        self._informers = informers

    def config_map(self, namespace: str, name: str) -> Object | None:
        return self._informers["configmaps"].get(namespace, name)

    def secret(self, namespace: str, name: str) -> Object | None:
        return self._informers["secrets"].get(namespace, name)


def _token(server: Server, namespace: str, account: str, seconds: int) -> str:
    now = int(server.api.clock())
    return server.api.tokens.issue(namespace, account, now + seconds, now)
