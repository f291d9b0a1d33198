"""How many tasks are lost when a busy swarm is scaled in, again and again: with real agents on the embedded cluster.

Two programs keep the swarm busy without a pause, one by its node's board, one by the hubs; every task is numbered, and
in the end each must have been answered with a value, once. Meanwhile `replicas` goes down by one, and as soon as that
agent has been drained and deleted, by one again; when one agent is left all are brought back at once.

    python tests/benchmarks/operator/scale_in.py        # 100 scale-ins
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from support.clusters import CRD  # noqa: E402
from support.load import Load  # noqa: E402
from support.operatorlive import Client, Operator  # noqa: E402
from swarm_agents.client import Connection  # noqa: E402
from swarm_operator.kube import ApiError, connect  # noqa: E402

__all__ = ["measure"]

NAME = "busy"
_SPEC: dict[str, Any] = {
    "image": "agentswarm/agent:0.1.0",
    "transport": {"sharedMemory": {"size": "32Mi", "taskSlots": 1024, "maxMembers": 32}},
    "resource": {"cpus": "50m"},
}


def measure(scale_ins: int = 100, agents: int = 5, seconds: float = 390.0) -> dict[str, float]:
    """`lost` tasks (sent and not answered with a value) and `doubled` ones in so many `scale_ins`, one agent each.

    Args:
        agents: compute agents before each series of scale-ins, which ends with one.
        seconds: in which it must be done.

    Raises:
        RuntimeError: the scale-ins were not done in time.
    """
    with tempfile.TemporaryDirectory(prefix="bench-scale-in-") as scratch, _cluster(Path(scratch) / "state") as path:
        return asyncio.run(_measure(path, Path(scratch), scale_ins, agents, time.monotonic() + seconds))


@contextmanager
def _cluster(state: Path) -> Iterator[Path]:
    from swarm_deploy.local.manager import Cluster

    cluster = Cluster(state)
    cluster.start(nodes=2, operator=False)
    try:
        yield state / "kubeconfig"
    finally:
        cluster.stop()


async def _measure(kubeconfig: Path, scratch: Path, scale_ins: int, agents: int, end: float) -> dict[str, float]:
    import yaml

    api = await connect(str(kubeconfig))
    client = Client(api, "default")
    operator = Operator(kubeconfig, scratch, ["default"], "--no-leader-election")
    loads: list[Load] = []
    try:
        body = yaml.safe_load(CRD.read_text())
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}"
        kind = "application/apply-patch+yaml"
        await api.request("PATCH", path, query={"fieldManager": "bench"}, body=body, content_type=kind)
        operator.start()
        compute = {"replicas": agents, "cpus": "100m"}
        meta = {"name": NAME}
        spec = {**_SPEC, "compute": compute}
        await client.create({"apiVersion": "agentswarm.dev/v1alpha1", "kind": "Swarm", "metadata": meta, "spec": spec})
        await client.until(lambda: _settled(client, agents), f"{agents} agents", end - time.monotonic())
        loads += await asyncio.to_thread(_begin, kubeconfig)
        begun = time.monotonic()
        longest, done, count = 0.0, 0, agents
        while done < scale_ins:
            if count == 1:
                count = agents
                await _scale(client, count, end)
            since = time.monotonic()
            count -= 1
            await _scale(client, count, end)
            longest, done = max(longest, time.monotonic() - since), done + 1
        took = time.monotonic() - begun
        for load in loads:
            await asyncio.to_thread(load.stop)
        return {
            "lost": sum(load.lost() for load in loads),
            "doubled": sum(load.doubled() for load in loads),
            "scale_ins": done,
            "tasks": sum(load.sent for load in loads),
            "tasks_per_s": sum(load.sent for load in loads) / took,
            "longest_s": longest,
            "took_s": took,
        }
    finally:
        for load in loads:
            await asyncio.to_thread(load.stop, 5.0)
        await client.delete("Swarm", NAME)
        if operator.process and operator.process.poll() is None:
            operator.stop()
        await api.close()


def _begin(kubeconfig: Path) -> list[Load]:
    from swarm_deploy.connect import resolve

    os.environ["KUBECONFIG"] = str(kubeconfig)

    def find() -> Connection:
        found = resolve(f"default/{NAME}")
        assert found is not None
        return found

    return [Load(find, board=board, seconds=0.02) for board in (True, False)]


async def _scale(client: Client, count: int, end: float) -> None:
    await client.merge("Swarm", NAME, {"spec": {"compute": {"replicas": count}}})
    if time.monotonic() > end:
        raise RuntimeError("the scale-ins are not done in time")
    await client.until(lambda: _settled(client, count), f"{count} agents", max(end - time.monotonic(), 1.0))


async def _settled(client: Client, count: int) -> bool:
    """Whether so many agents take tasks, and the others have been drained and deleted (their processes may yet end)."""
    try:
        found = await client.get("Swarm", NAME)
        pods = await client.list("Pod", f"agentswarm.dev/swarm={NAME},agentswarm.dev/role=compute")
    except ApiError as error:
        if error.status:
            raise
        return False  # a machine that is busy answers late: that loses no task
    stay = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    ready = [
        pod
        for pod in stay
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))
    ]
    hubs = (found.get("status") or {}).get("resource", {}).get("ready", 0)
    return len(ready) == len(stay) == count and hubs == 2


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
