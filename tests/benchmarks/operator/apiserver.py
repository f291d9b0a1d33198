"""The embedded API server, with a kubelet that starts nothing and the garbage collector beside it.

    python apiserver.py STATE NODES ADDRESSES      (node names and loopback addresses, separated by commas)

keeps its objects in the directory STATE, writes STATE/kubeconfig when it serves, and ends with SIGTERM. What a real
cluster does in other processes on other machines (endpoints, disruption budgets, nodes) is left out, so that the two
cores of a small machine measure the operator and the API server that it speaks to.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from pathlib import Path

from kubelet import Kubelet, Local

from swarm_deploy.local.api.app import serve
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.controllers.garbage import GarbageCollector
from swarm_deploy.local.store import Store
from swarm_operator.api.crd import crd

__all__ = ["run"]

_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


async def run(state: Path, nodes: list[str], addresses: list[str]) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    store = Store(state / "cluster.db")
    async with serve(store, state=state) as server:
        definition = crd()
        client = LocalClient(server.api, "bench")
        await client.patch(_DEFINITIONS, definition["metadata"]["name"], definition, type="apply", force=True)
        manager = LocalClient(server.api, "kube-controller-manager")
        hands = Local(server.api)
        kubelet = Kubelet(hands, nodes, addresses)
        parts = GarbageCollector(server.api, manager).run(), kubelet.run(), hands.watch(kubelet)
        tasks = [asyncio.ensure_future(part) for part in parts]
        written = state / "kubeconfig.new"
        written.write_text(server.kubeconfig())
        written.chmod(0o600)
        written.rename(state / "kubeconfig")
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)  # thousands of objects that stay need not be walked through again and again
        await asyncio.wait([asyncio.ensure_future(stop.wait()), *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    store.close()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")))
