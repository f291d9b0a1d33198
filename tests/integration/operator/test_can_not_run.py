"""A Swarm that is valid and can't run says so within ten seconds, with what to do; and it hurts nobody meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from support.kubectl import Kubectl
from support.operatorlive import Client, Operator, swarm

#: What the issue allows, from the moment that the Swarm is there.
WITHIN = 10.0


async def ready(operator: Operator, client: Client) -> None:
    async def started() -> bool:
        return operator.said("started")

    await client.until(started, "the operator to start", 60.0)


async def says(client: Client, name: str, kind: str, reason: str) -> str:
    async def said() -> str:
        found = await client.condition(name, kind)
        return str(found["message"]) if found.get("reason") == reason else ""

    try:
        return str(await client.until(said, f"{kind}/{reason}", WITHIN))
    except AssertionError:
        raise AssertionError((await client.get("Swarm", name)).get("status")) from None


#: A kubelet waits for the volumes that a container mounts, and for no other.
TEMPLATE = {
    "volumes": [{"name": "v", "configMap": {"name": "rates"}}],
    "volumeMounts": [{"name": "v", "mountPath": "/rates"}],
}
CLAIM = {"medium": "PersistentVolumeClaim", "claimName": "kept"}
TROUBLES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no-such-node": ({"scheduling": {"nodeSelector": {"no": "such"}}}, "Ready", "NoNodes", "kubectl label node"),
    "no-gpu": (
        {"compute": {"gpus": {"count": 1, "resource": "example.com/gpu"}}},
        "Degraded",
        "Unschedulable",
        "No node has 1 example.com/gpu to give",
    ),
    "no-cpus": ({"compute": {"cpus": 4000}}, "Degraded", "Unschedulable", "lower compute.replicas, compute.cpus"),
    "no-priority": (
        {"scheduling": {"priorityClassName": "nobodys"}},
        "Degraded",
        "PriorityClassMissing",
        "no PriorityClass nobodys",
    ),
    "no-scheduler": (
        {"scheduling": {"schedulerName": "nobodys"}},
        "Degraded",
        "NoScheduler",
        "is one called nobodys running",
    ),
    "no-claim": ({"state": CLAIM}, "Degraded", "ObjectMissing", "persistentvolumeclaim kept does not exist"),
    "no-image": ({}, "Degraded", "ImageMissing", "correct spec.image"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_swarm_that_can_not_run_says_why_and_what_to_do(
    client: Client, start: Callable[..., Operator], trouble: str
) -> None:
    spec, kind, reason, advice = TROUBLES[trouble]
    await ready(start("--no-leader-election"), client)
    await client.create(swarm(trouble, imagePullPolicy="IfNotPresent", **spec))
    assert advice in await says(client, trouble, kind, reason)
    assert (await client.condition(trouble, "Ready"))["status"] == "False"


async def test_a_missing_object_of_a_volume_is_named(client: Client, start: Callable[..., Operator]) -> None:
    await ready(start("--no-leader-election"), client)
    # little of a core: a small node is to get as far as the volume
    await client.create(swarm("volume", compute={"cpus": "50m", "podTemplate": TEMPLATE}))

    async def named() -> bool:
        message = (await client.condition("volume", "Degraded")).get("message", "")
        return bool(re.search("configmap rates", message, re.IGNORECASE))

    await client.until(named, "the ConfigMap to be named", WITHIN)


async def test_a_quota_that_is_used_up_is_named_and_what_is_admitted_runs_when_it_is_raised(
    client: Client, kubectl: Kubectl, start: Callable[..., Operator]
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    kubectl("create", "-f", "-", stdin=json.dumps({**quota, "spec": {"hard": {"pods": "1"}}}))
    await ready(start("--no-leader-election"), client)
    await client.create(swarm("risk", compute={"replicas": 3}))
    message = await says(client, "risk", "Degraded", "QuotaExceeded")
    assert "kubectl describe resourcequota" in message
    assert "exceeded quota: small" in message
    assert len(await client.names("Pod")) == 1
    kubectl("delete", "resourcequota", "small")

    async def made() -> bool:
        return len(await client.names("Pod")) >= 4

    await client.until(made, "the pods once there is no quota", 90.0)


async def test_a_swarm_in_a_namespace_that_is_deleted_says_so(
    client: Client, kubectl: Kubectl, start: Callable[..., Operator]
) -> None:
    await ready(start("--no-leader-election", everywhere=True), client)
    made = swarm("risk")
    made["metadata"]["finalizers"] = ["test.agentswarm.dev/held"]
    await client.create(made)
    try:
        kubectl("delete", "namespace", client.namespace, "--wait=false")
        message = await says(client, "risk", "Ready", "Deleting")
        assert f"with its namespace {client.namespace}" in message
    finally:
        await client.merge("Swarm", "risk", {"metadata": {"finalizers": None}})


async def test_swarms_that_can_not_run_do_not_make_the_operator_spin_nor_keep_others_waiting(
    client: Client, start: Callable[..., Operator]
) -> None:
    operator = start("--no-leader-election")
    await ready(operator, client)
    for name, (spec, *_) in TROUBLES.items():
        await client.create(swarm(name, imagePullPolicy="IfNotPresent", **spec))
    await says(client, "no-priority", "Degraded", "PriorityClassMissing")
    await client.create(swarm("well", compute={"replicas": 2}))

    async def made() -> bool:
        return {"well-compute-0-0", "well-compute-1-0"} <= await client.names("Pod")

    await client.until(made, "a Swarm beside those that can't run", WITHIN)
    await asyncio.sleep(5)
    before = operator.writes()
    await asyncio.sleep(10)
    rate = (operator.writes() - before) / 10
    assert rate < 1 + len(TROUBLES), f"{rate:g} writes a second for {len(TROUBLES)} Swarms that can't run"
