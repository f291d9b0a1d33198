"""What hurts users of the peers does not hurt here: one test for each pain of the design's table, named after it.

Where a pain needs agents that compute, or hours, its test is elsewhere, by a simulation or in the slow suite; `HELD`
names it, and a test sees to it that it is there.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.clusters import CRD, ROOT
from support.operatorlive import Client, Operator, swarm

#: Pain -> tests elsewhere that would fail with it.
HELD = {
    "a watch stalls silently and health is still green": [
        "tests/unit/operator/test_pains_offline.py::test_a_watch_that_stalls_silently_turns_health_red",
    ],
    "busy workers are killed on scale-in": [
        "tests/unit/operator/test_planner_properties.py::test_a_busy_agent_that_answers_is_never_deleted",
        "tests/integration/operator/test_private_boards.py::test_a_busy_swarm_is_scaled_out_and_in_and_loses_nothing",
    ],
    "the autoscaler flaps": [
        "tests/unit/operator/test_autoscale.py::test_a_constant_but_noisy_load_does_not_make_the_count_flap",
        "tests/unit/operator/test_autoscale.py::"
        "test_agents_that_are_on_their_way_are_not_asked_for_again_while_the_queue_grows",
    ],
    "the head node is lost and the state with it": [
        "tests/integration/operator/test_private_boards.py::test_nothing_is_lost_when_an_agent_a_hub_and_pods_die",
    ],
    "pinned pods are rejected in a loop": [
        "tests/unit/operator/test_rejections.py::test_a_cluster_that_refuses_everywhere_is_tried_less_and_less",
        "tests/unit/operator/test_rejections.py::test_a_condition_names_node_reason_and_until_when",
    ],
    "edits to the spec are ignored": [
        "tests/unit/operator/test_pains_offline.py::test_no_edit_of_the_spec_is_ignored",
    ],
}


@pytest.mark.parametrize("pain", HELD)
def test_a_pain_that_is_held_elsewhere_has_its_test(pain: str) -> None:
    for where in HELD[pain]:
        file, name = where.split("::")
        found = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
        assert name in found, where


async def made(client: Client, *names: str, deadline: float = 60.0) -> None:
    async def there() -> bool:
        return set(names) <= await client.names("Pod")

    await client.until(there, f"the pods {names}", deadline)


async def test_phase_as_a_state_machine_loses_steps(client: Client, start: Callable[..., Operator]) -> None:
    """A status that lies, as one written halfway does, decides nothing: the plan is made from what is there."""
    await client.create(swarm(compute={"replicas": 2}))
    path = f"/apis/agentswarm.dev/v1alpha1/namespaces/{client.namespace}/swarms/risk/status"
    counts = {"desired": 2, "current": 2, "ready": 2, "updated": 2, "draining": 0}
    lie = {"observedGeneration": 1, "replicas": 2, "compute": counts, "revision": "none", "conditions": []}
    current = await client.get("Swarm", "risk")
    await client.api.request("PUT", path, body={**current, "status": lie})
    start("--no-leader-election")
    await made(client, "risk-compute-0-0", "risk-compute-1-0")

    async def corrected() -> bool:
        return bool((await client.get("Swarm", "risk"))["status"]["compute"]["ready"] == 0)

    await client.until(corrected, "the status to say what is")


async def test_edits_to_the_spec_are_ignored(client: Client, start: Callable[..., Operator]) -> None:
    """A live field takes effect without touching a pod, a rolling one by new pods."""
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 1}))
    await made(client, "risk-compute-0-0")
    first = (await client.get("Pod", "risk-compute-0-0"))["metadata"]["uid"]
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 2}}})
    await made(client, "risk-compute-0-0", "risk-compute-1-0")
    assert (await client.get("Pod", "risk-compute-0-0"))["metadata"]["uid"] == first
    await client.merge("Swarm", "risk", {"spec": {"compute": {"env": [{"name": "EDITED", "value": "yes"}]}}})

    async def rolled() -> bool:
        pods = [p for p in await client.list("Pod") if "-compute-" in p["metadata"]["name"]]
        named = [{e["name"] for e in c["env"]} for p in pods for c in p["spec"]["containers"] if c["name"] == "agent"]
        return len(pods) >= 2 and all("EDITED" in names for names in named)

    await client.until(rolled, "every pod to have the edit", 90.0)


async def test_an_operator_restart_rolls_every_pod(client: Client, start: Callable[..., Operator]) -> None:
    operator = start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 3}))
    await made(client, *(f"risk-compute-{n}-0" for n in range(3)))
    before = {p["metadata"]["uid"] for p in await client.list("Pod") if "-compute-" in p["metadata"]["name"]}
    operator.kill()
    again = start("--no-leader-election")
    # that it is at work again is known by what it does next
    await client.until(lambda: _said(again), "the operator to start", 60.0)
    await client.merge("Swarm", "risk", {"spec": {"compute": {"replicas": 4}}})
    await made(client, "risk-compute-3-0")
    after = {p["metadata"]["uid"] for p in await client.list("Pod") if "-compute-" in p["metadata"]["name"]}
    assert before < after


async def _said(operator: Operator) -> bool:
    return operator.said("started")


async def test_a_finalizer_is_stuck(client: Client, start: Callable[..., Operator]) -> None:
    """Nothing of ours holds a Swarm: it goes with all that it owns while the operator is dead."""
    operator = start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 2}))
    await made(client, "risk-compute-0-0", "risk-compute-1-0")
    for kind in ("Swarm", "Pod", "Service", "ConfigMap", "Secret"):
        for item in await client.list(kind, "" if kind == "Swarm" else "agentswarm.dev/swarm"):
            assert not item["metadata"].get("finalizers"), item["metadata"]["name"]
    operator.kill()
    await client.delete("Swarm", "risk")

    async def gone() -> bool:
        pods = await client.names("Pod")
        return await client.find("Swarm", "risk") is None and not pods

    await client.until(gone, "the Swarm and its pods to go without the operator", 60.0)


async def test_one_large_scale_up_starves_others(client: Client, start: Callable[..., Operator]) -> None:
    start("--no-leader-election")
    version = (await client.api.list_page("Pod", client.namespace)).metadata.resource_version
    await client.create(swarm("large", compute={"replicas": 300}))
    await client.create(swarm("small", compute={"replicas": 1}))
    made: list[str] = []  # in the order of their creation, which the API server's own record has
    events = client.api.watch(
        "Pod", client.namespace, selector="agentswarm.dev/role=compute", version=version, server_timeout=120, silence=60
    )
    async for line in events:
        event = msgspec.json.decode(line)
        if event["type"] == "ADDED":
            made.append(event["object"]["metadata"]["name"])
        if len(made) == 301:
            break
    assert made.index("small-compute-0-0") < 200, "the small one waited for the large one"


def test_giant_crds() -> None:
    """RayJob's is 1.39 MB: too much for `kubectl apply`, which keeps a copy of it in an annotation of 256 KiB."""
    assert CRD.stat().st_size < 100_000
    text = Path(ROOT / "docs" / "api-versions.md").read_text()
    assert "Helm does not upgrade CRDs" in text, "what to do about it is documented"


async def test_the_cache_directory_is_not_writable_in_a_container(
    client: Client, start: Callable[..., Operator]
) -> None:
    """The root is read-only, and where compiled kernels go is a volume of the pod's own."""
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 1}))
    await made(client, "risk-compute-0-0")
    pod = await client.get("Pod", "risk-compute-0-0")
    agent: dict[str, Any] = next(c for c in pod["spec"]["containers"] if c["name"] == "agent")
    assert agent["securityContext"]["readOnlyRootFilesystem"] is True
    cache = next(e["value"] for e in agent["env"] if e["name"] == "SWARM_CACHE_DIR")
    mount = next(m for m in agent["volumeMounts"] if m["mountPath"] == cache)
    assert not mount.get("readOnly")
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == mount["name"])
    assert "emptyDir" in volume
