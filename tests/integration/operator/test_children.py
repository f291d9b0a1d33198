"""Everything that a Swarm needs is made, and comes back when it is deleted or edited by hand."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from support.operatorlive import Client, Operator, swarm
from swarm_operator.keys import examine

CHILDREN = [
    ("ServiceAccount", "risk"),
    ("ConfigMap", "risk-settings"),
    ("Secret", "risk-keys"),
    ("Service", "risk"),
    ("Service", "risk-agents"),
    ("PodDisruptionBudget", "risk"),
    ("NetworkPolicy", "risk"),
]
PODS = {"risk-compute-0-0", "risk-compute-1-0", "risk-compute-2-0", "risk-standby-0-0"}

#: An edit of each child, and what of it must be gone afterwards.
EDITS: list[tuple[str, str, dict[str, Any]]] = [
    ("ServiceAccount", "risk", {"automountServiceAccountToken": True}),
    ("ServiceAccount", "risk", {"metadata": {"labels": {"app.kubernetes.io/name": "other"}}}),
    ("ConfigMap", "risk-settings", {"data": {"settings.json": "{}"}}),
    ("ConfigMap", "risk-settings", {"data": {"further.json": "{}"}}),
    ("ConfigMap", "risk-settings", {"metadata": {"ownerReferences": None}}),
    ("Service", "risk", {"spec": {"selector": {"agentswarm.dev/role": "compute"}}}),
    ("Service", "risk", {"spec": {"selector": {"further": "x"}}}),
    ("Service", "risk", {"spec": {"ports": [{"name": "rest", "port": 81, "targetPort": 81, "protocol": "TCP"}]}}),
    ("Service", "risk-agents", {"spec": {"publishNotReadyAddresses": False}}),
    ("PodDisruptionBudget", "risk", {"spec": {"minAvailable": 100}}),
    ("NetworkPolicy", "risk", {"spec": {"ingress": [{}]}}),
    ("NetworkPolicy", "risk", {"spec": {"egress": None, "policyTypes": ["Ingress"]}}),
    ("Secret", "risk-keys", {"data": {"hub.public": base64.b64encode(b"nonsense").decode()}}),
    ("Secret", "risk-keys", {"data": {"further": "eA=="}}),
]


def essence(manifest: dict[str, Any]) -> dict[str, Any]:
    """An object without what the API server counts and dates."""
    meta = manifest["metadata"]
    owners = [{k: o[k] for k in ("kind", "name", "uid")} for o in meta.get("ownerReferences", ())]
    labels = {k: v for k, v in meta["labels"].items() if not k.startswith("controller")}
    rest = {k: v for k, v in manifest.items() if k not in ("metadata", "status", "secrets")}
    return {"name": meta["name"], "labels": labels, "owners": owners, **rest}


async def test_a_swarm_gets_all_its_children_and_keeps_them(client: Client, start: Callable[..., Operator]) -> None:
    operator = start()
    created = await client.create(swarm(compute={"replicas": 3, "standby": 1, "cpus": "10m"}))
    uid = created["metadata"]["uid"]

    async def all_there() -> bool:
        pods = await client.names("Pod")
        return pods >= PODS and all([await client.find(kind, name) for kind, name in CHILDREN])

    await client.until(all_there, "the children")
    nodes = await client.api.list_page("Node", "")
    resource = {name for name in await client.names("Pod") if "-resource-" in name}
    assert 1 <= len(resource) <= len(nodes.items)
    (revision,) = await client.list("ControllerRevision")
    assert revision["data"]["spec"]["image"]
    for kind in {"Pod", "ControllerRevision", *(kind for kind, _ in CHILDREN)}:
        for item in await client.list(kind):
            (owner,) = item["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("Swarm", uid)
            assert not item["metadata"].get("finalizers")
    assert "finalizers" not in (await client.get("Swarm", "risk"))["metadata"]
    assert "annotations" not in (await client.get("Swarm", "risk"))["metadata"], "kopf leaves no trace"

    await settled(client)
    await every_child_that_is_deleted_comes_back(client)
    await every_edit_is_taken_back(client)
    await pods_are_repaired(client)
    await settled(client)
    before = operator.writes()
    await quiet(client, operator)
    assert operator.writes() - before <= 3.0, (
        "an idle operator writes nothing (apart from a kubelet's late statuses, each passed on once)"
    )
    assert "Created" in {event["reason"] for event in await events(client)}
    assert operator.stop() == 0


async def events(client: Client) -> list[dict[str, Any]]:
    found = await client.list("Event", selector="")
    return [event for event in found if event["involvedObject"]["kind"] == "Swarm"]


async def settled(client: Client) -> None:
    async def check() -> bool:
        swarm_ = await client.get("Swarm", "risk")
        status = swarm_.get("status") or {}
        return bool(
            status.get("observedGeneration") == swarm_["metadata"]["generation"]
            and status.get("compute", {}).get("current") == 3
        )

    await client.until(check, "the status")


async def quiet(client: Client, operator: Operator) -> None:
    """Until a second has passed in which the operator worked on nothing."""
    last = -1.0

    async def check() -> bool:
        nonlocal last
        import asyncio

        now = operator.writes()
        still, last = now == last, now
        await asyncio.sleep(1.0)
        return still

    await client.until(check, "silence")


async def every_child_that_is_deleted_comes_back(client: Client) -> None:
    for kind, name in [*CHILDREN, ("ControllerRevision", next(iter(await client.names("ControllerRevision"))))]:
        before = await client.get(kind, name)
        await client.delete(kind, name)

        async def restored(kind: str = kind, name: str = name, uid: str = before["metadata"]["uid"]) -> Any:
            found = await client.find(kind, name)
            return found if found and found["metadata"]["uid"] != uid else None

        after = await client.until(restored, f"{kind} {name} to come back")
        if kind == "Service":
            for each in (before, after):
                for field in ("clusterIP", "clusterIPs"):
                    each["spec"].pop(field, None)
        assert essence(after) == essence(before), "also a Secret comes back as it was: running agents hold its keys"


async def every_edit_is_taken_back(client: Client) -> None:
    for kind, name, patch in EDITS:
        wanted = essence(await client.get(kind, name))
        await client.merge(kind, name, patch)

        async def taken_back(kind: str = kind, name: str = name, wanted: Any = wanted) -> bool:
            found = await client.find(kind, name)
            return found is not None and essence(found) == wanted

        await client.until(taken_back, f"{kind} {name} after {patch}")
    secret = await client.get("Secret", "risk-keys")
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert examine(data).missing == ()


async def pods_are_repaired(client: Client) -> None:
    await client.merge("Pod", "risk-compute-0-0", {"metadata": {"labels": {"agentswarm.dev/role": "x"}}})
    await client.merge("Pod", "risk-compute-1-0", {"metadata": {"labels": {"agentswarm.dev/swarm": None}}})
    await client.merge("Pod", "risk-compute-2-0", {"metadata": {"ownerReferences": None}})
    await client.delete("Pod", "risk-standby-0-0")

    async def repaired() -> bool:
        pods = {pod["metadata"]["name"]: pod for pod in await client.list("Pod") if "standby" in str(pod) or True}
        alive = {n: p for n, p in pods.items() if "deletionTimestamp" not in p["metadata"]}
        labels = {n: p["metadata"]["labels"] for n, p in alive.items()}
        return (
            labels.get("risk-compute-0-0", {}).get("agentswarm.dev/role") == "compute"
            and "risk-compute-1-0" in labels
            and bool(alive.get("risk-compute-2-0", {}).get("metadata", {}).get("ownerReferences"))
            and any("-standby-" in n for n in alive)
        )

    await client.until(repaired, "the pods to be repaired")
    compute = {n for n in await client.names("Pod") if "-compute-" in n}
    assert compute == {"risk-compute-0-0", "risk-compute-1-0", "risk-compute-2-0"}


async def test_an_object_of_somebody_else_is_not_taken_over(client: Client, start: Callable[..., Operator]) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "risk"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    await client.create(theirs)
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 0}))

    async def told() -> bool:
        degraded = await client.condition("risk", "Degraded")
        return degraded.get("status") == "True" and "does not belong to this Swarm" in degraded["message"]

    await client.until(told, "the condition")
    assert (await client.get("Service", "risk"))["spec"]["selector"] == {"app": "theirs"}
    await client.delete("Service", "risk")

    async def ours() -> bool:
        found = await client.find("Service", "risk")
        return found is not None and "agentswarm.dev/swarm" in found["metadata"].get("labels", {})

    await client.until(ours, "our Service, once the name is free")


async def test_scaling_by_its_subresource_creates_and_deletes_by_name(
    client: Client, start: Callable[..., Operator], kubectl: Any
) -> None:
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 1}, scheduling={"schedulerName": "nobody"}))

    async def count(wanted: int) -> None:
        async def check() -> bool:
            return sum("-compute-" in name for name in await client.names("Pod")) == wanted

        await client.until(check, f"{wanted} compute agents")

    await count(1)
    kubectl("scale", "swarm/risk", "--replicas=5")
    await count(5)
    kubectl("scale", "swarm/risk", "--replicas=2")
    await count(2)
    assert {n for n in await client.names("Pod") if "-compute-" in n} == {"risk-compute-0-0", "risk-compute-1-0"}
    await client.merge("Swarm", "risk", {"spec": {"suspend": True}})
    await count(0)

    async def suspended() -> bool:
        return (await client.condition("risk", "Ready")).get("reason") == "Suspended"

    await client.until(suspended)
    await client.merge("Swarm", "risk", {"spec": {"suspend": False}})
    await count(2)


async def test_a_field_that_is_not_done_yet_is_refused_by_a_condition(
    client: Client, start: Callable[..., Operator]
) -> None:
    start("--no-leader-election")
    await client.create(swarm(security={"allowPickle": True}))

    async def refused() -> Any:
        accepted = await client.condition("risk", "Accepted")
        return accepted if accepted.get("status") == "False" else None

    accepted = await client.until(refused)
    assert accepted["reason"] == "NotImplemented"
    assert "spec.security.allowPickle" in accepted["message"]
    assert not await client.list("Pod")
    await client.merge("Swarm", "risk", {"spec": {"security": {"allowPickle": False}}})

    async def accepted_now() -> bool:
        return (await client.condition("risk", "Accepted")).get("status") == "True"

    await client.until(accepted_now)


@pytest.mark.parametrize("rolled", [{"image": "agentswarm.invalid/nothing:2"}, {"runtime": {"threads": 2}}])
async def test_a_rolling_change_replaces_every_pod_and_keeps_the_old_revision(
    client: Client, start: Callable[..., Operator], rolled: dict[str, Any]
) -> None:
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 2, "standby": 1}, scheduling={"schedulerName": "nobody"}))

    async def revisions() -> set[str]:
        return {
            pod["metadata"]["labels"]["agentswarm.dev/revision"]
            for pod in await client.list("Pod")
            if "-resource-" not in pod["metadata"]["name"]
        }

    async def made() -> bool:
        return sum("-resource-" not in name for name in await client.names("Pod")) == 3

    await client.until(made)
    (before,) = await revisions()
    await client.merge("Swarm", "risk", {"spec": rolled})

    async def replaced() -> bool:
        found = await revisions()
        return await made() and len(found) == 1 and before not in found

    await client.until(replaced)
    assert len(await client.list("ControllerRevision")) == 2
