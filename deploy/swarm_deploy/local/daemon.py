"""The embedded cluster in one process: API server, controllers, scheduler, kubelets, and the operator as its child."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from swarm_deploy.local.api.app import serve
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.api.errors import not_found
from swarm_deploy.local.node.addresses import Addresses
from swarm_deploy.local.node.garbage import GarbageCollector
from swarm_deploy.local.node.kubelet import Kubelet, node_name
from swarm_deploy.local.node.scheduler import Scheduler
from swarm_deploy.local.node.volumes import NodePaths
from swarm_deploy.local.record import Record, shared_memory, start_time
from swarm_deploy.local.store import Store
from swarm_operator.api.crd import crd

__all__ = ["Options", "run"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How the cluster is made."""

    state: Path
    nodes: int = 2
    cpus_per_node: int = 4
    port: int = 0
    operator: bool = True
    back_off: float = 10.0


async def run(options: Options) -> int:
    """Runs the cluster until SIGTERM or SIGINT."""
    state = options.state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print(f"another cluster runs in {state}: `swarm down` ends it", file=sys.stderr)
        return 3
    identity = state / "cluster-id"
    if not identity.exists():
        identity.write_text(uuid.uuid4().hex[:8])
    cluster = identity.read_text().strip()
    shm = shared_memory(cluster)
    shutil.rmtree(shm, ignore_errors=True)  # what a cluster that was killed left; the lock says it is gone
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, stop.set)
    addresses = Addresses()
    store = Store(state / "cluster.db")
    kubelets: list[Kubelet] = []

    async def log_reader(namespace: str, pod: str, container: str, given: dict[str, Any]) -> Any:
        for kubelet in kubelets:
            if (found := kubelet.find(namespace, pod)) is not None:
                return found.read_log(container, given)
        raise not_found("pods", "", pod)

    operator: asyncio.Task[None] | None = None
    try:
        try:
            server_context = serve(store, state=state, port=options.port, log_reader=log_reader)
            server = await server_context.__aenter__()
        except OSError as error:
            print(
                f"port {options.port} of 127.0.0.1 can't be used ({error.strerror}): name another one by --port, "
                "or leave it out and a free one is taken",
                file=sys.stderr,
            )
            return 4
        config = state / "kubeconfig"
        _write_private(config, server.kubeconfig())
        client = LocalClient(server.api, "kubelet")
        await _install_definitions(LocalClient(server.api, "swarm-up"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // options.nodes
        for number in range(1, options.nodes + 1):
            name = node_name(number)
            paths = NodePaths(state / "nodes" / name, shm / name)
            kubelet = Kubelet(
                client, number=number, nodes=options.nodes, cpus=options.cpus_per_node, memory=memory, paths=paths,
                addresses=addresses, back_off=options.back_off,
            )  # fmt: skip
            await kubelet.start()
            kubelets.append(kubelet)
        scheduler = Scheduler(LocalClient(server.api, "kube-scheduler"))
        collector = GarbageCollector(server.api, LocalClient(server.api, "garbage-collector"))
        record = Record(
            pid=os.getpid(), start_time=start_time(os.getpid()), cluster=cluster, url=server.url, nodes=options.nodes,
            cpus_per_node=options.cpus_per_node, operator=options.operator, ready=True,
        )  # fmt: skip
        if options.operator:
            operator = asyncio.create_task(_operator(state, config))
        _write_private(state / "cluster.json", msgspec.json.encode(record).decode())
        await stop.wait()
        if operator is not None:
            operator.cancel()
            await asyncio.gather(operator, return_exceptions=True)
        await scheduler.stop()
        await collector.stop()
        await asyncio.gather(*(kubelet.stop(8.0) for kubelet in kubelets))
        await server_context.__aexit__(None, None, None)
    finally:
        store.close()
        addresses.close()
        shutil.rmtree(shm, ignore_errors=True)
        (state / "cluster.json").unlink(missing_ok=True)
    return 0


async def _install_definitions(client: LocalClient) -> None:
    """The Swarm's CRD, in the form that belongs to this release: what `kubectl apply --server-side` would do."""
    definition = crd()
    await client.patch(
        "customresourcedefinitions.apiextensions.k8s.io",
        definition["metadata"]["name"],
        definition,
        type="apply",
        force=True,
    )


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


async def _operator(state: Path, config: Path) -> None:
    """Keeps the operator running: what a Deployment would do."""
    log = state / "log"
    log.mkdir(exist_ok=True)
    program = Path(sys.executable).with_name("swarm-operator")
    launcher = Path(__file__).parent / "node" / "launch.py"
    pause = 0.5
    process: asyncio.subprocess.Process | None = None
    try:
        while True:
            with (log / "operator.log").open("ab") as file:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", str(launcher), str(os.getpid()), "", "--", str(program),
                    "--kubeconfig", str(config), "--http-bind", "127.0.0.1:0", "--no-leader-election",
                    stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                )  # fmt: skip
            code = await process.wait()
            _log.warning("the operator ended with %s; starting it again in %.1f s", code, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)
    finally:
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()
