"""The audit trail on a real API: who changed what, whole after a restart, and what was done to it is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from support.clusters import TestCluster
from support.operatorlive import Client, Operator, swarm


def command(cluster: TestCluster, namespace: str, *words: str, name: str = "audit") -> subprocess.CompletedProcess[str]:
    program = "import sys; from swarm_deploy.cli import main; sys.exit(main())"
    environ = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    line = [sys.executable, "-c", program, name, f"{namespace}/risk", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, env=environ)


async def test_the_trail_of_a_swarm_s_life(
    client: Client, start: Callable[..., Operator], cluster: TestCluster, namespace: str
) -> None:
    operator = start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 1}), fieldManager="alice")

    async def entries(count: int) -> bool:
        said = (await client.get("Swarm", "risk")).get("status", {}).get("audit", {})
        return bool(said.get("entries") == count)

    await client.until(lambda: entries(1), "the first entry")
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 3}}})
    await client.until(lambda: entries(2), "the second entry")
    operator.stop()
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 4}}})
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 5}}})
    start("--no-leader-election")
    await client.until(lambda: entries(3), "the third entry")

    done = command(cluster, namespace, "-o", "json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    made, scaled, missed = said["entries"]
    assert [by["manager"] for by in made["by"]] == ["alice"]
    assert scaled["changes"] == [{"path": "spec.compute.replicas", "from": 1, "to": 3}]
    assert missed["changes"] == [{"path": "spec.compute.replicas", "from": 3, "to": 5}]
    assert [finding["broken"] for finding in said["findings"]] == [False], "one generation was not seen"
    assert "unbroken" in command(cluster, namespace, "--verify").stdout

    held = await client.get("ConfigMap", "risk-audit-0")
    assert not held["metadata"].get("ownerReferences"), "it is to outlive its Swarm"
    forged = held["data"]["entries"].replace('"alice"', '"mallory"')
    await client.merge("ConfigMap", "risk-audit-0", {"data": {"entries": forged}})
    done = command(cluster, namespace, "--verify")
    assert done.returncode == 1
    assert "entry 0: it was edited" in done.stderr
    cut = "\n".join(held["data"]["entries"].splitlines()[:2]) + "\n"
    await client.merge("ConfigMap", "risk-audit-0", {"data": {"entries": cut}})
    done = command(cluster, namespace, "--verify")
    assert done.returncode == 1
    assert "the end was cut off" in done.stderr

    happened = command(cluster, namespace, "-o", "json", name="events")
    assert happened.returncode == 0, happened.stderr
    assert "Created" in {row["event"] for row in json.loads(happened.stdout)}
    assert "Created" in command(cluster, namespace, name="events").stdout

    await client.delete("Swarm", "risk")

    async def mourned() -> bool:
        text = (await client.get("ConfigMap", "risk-audit-0"))["data"]["entries"]
        return '"event":"Deleted"' in text

    await client.until(mourned, "the last entry")
