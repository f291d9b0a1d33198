"""Namespaces that enforce a Pod Security level: what they admit, and what a Swarm says where they refuse its pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.operatorlive import Client, Operator, swarm
from swarm_operator.kube import ApiError

LABEL = "pod-security.kubernetes.io/enforce"


async def test_a_swarm_that_a_restricted_namespace_refuses_says_so_and_what_to_do_and_one_with_boards_in_pods_runs(
    client: Client, kubectl: Kubectl, start: Callable[..., Operator]
) -> None:
    kubectl("label", "namespace", client.namespace, f"{LABEL}=restricted")
    plain: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}}
    plain["spec"] = {"containers": [{"name": "a", "image": "agentswarm.invalid/nothing:1"}]}
    with pytest.raises(ApiError, match=r'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'):
        await client.create(plain)

    operator = start("--no-leader-election")

    async def synced() -> bool:
        return operator.said("synced")

    await client.until(synced, "the operator")
    await client.create(swarm("host"))
    await client.create(swarm("own", compute={"replicas": 2}, transport={"sharedMemory": {"medium": "Memory"}}))

    async def refused() -> str:
        degraded = await client.condition("host", "Degraded")
        return str(degraded.get("message", "")) if degraded.get("reason") == "PodSecurityRefused" else ""

    message = await client.until(refused, "the refusal to be said", 10.0)
    assert f"kubectl label --overwrite namespace {client.namespace} {LABEL}=privileged" in message
    assert "transport.sharedMemory.medium Memory" in message
    assert 'violates PodSecurity "restricted:latest"' in message
    assert 'volume "swarm-shm" uses restricted volume type "hostPath"' in message

    async def made() -> bool:
        return await client.names("Pod") == {"own-compute-0-0", "own-compute-1-0"}

    await client.until(made, "the pods that are admitted, and no other")
    levels = {name: await client.condition(name, "PodSecurity") for name in ("host", "own")}
    assert [(levels[name]["status"], levels[name]["reason"]) for name in ("host", "own")] == [
        ("False", "HostPathSharedMemory"),
        ("True", "RestrictedLevel"),
    ]
    assert "HostPathSharedMemory" in kubectl("describe", "swarm", "host").out

    # what the condition advises helps
    kubectl("label", "--overwrite", "namespace", client.namespace, f"{LABEL}=privileged")

    async def admitted() -> bool:
        return {"host-compute-0-0", "host-resource-0-0"} <= await client.names("Pod")

    await client.until(admitted, "the pods of the other Swarm", 60.0)
    for name in ("host", "own"):
        await client.delete("Swarm", name)
