"""Every rule of the CRD refuses what it is for, with its message, on the API server; `swarm plan` refuses the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.operatorlive import Client, swarm
from swarm_operator.api.crd import crd
from swarm_operator.api.read import read_spec
from swarm_operator.kube import ApiError


def rules(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and message of each CEL rule."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from rules(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from rules(schema["items"], f"{path}[]")


RULES = dict.fromkeys(rules(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))

ONE_VOLUME = {"name": "a", "configMap": {"name": "c"}}
LONG_KEY = {"k" * 318: "v"}
BAD_TEMPLATES: dict[str, dict[str, Any]] = {
    "": {"volumeMounts": [{"name": "missing", "mountPath": "/data"}]},
    ".labels": {"labels": LONG_KEY},
    ".annotations": {"annotations": LONG_KEY},
    ".volumes[]": {"volumes": [{**ONE_VOLUME, "secret": {"name": "s"}}]},
    ".volumes[].name": {"volumes": [{**ONE_VOLUME, "name": "swarm-keys"}]},
    ".volumeMounts[].mountPath": {"volumes": [ONE_VOLUME], "volumeMounts": [{"name": "a", "mountPath": "/tmp/x"}]},
}
BAD_PEERS: dict[str, dict[str, Any]] = {
    "": {"pods": {}, "cidr": "10.0.0.0/8"},
    ".pods": {"pods": LONG_KEY},
    ".namespaces": {"namespaces": LONG_KEY},
}
BOUNDED: dict[str, Any] = {"compute": {"min": 1, "max": 3}}
#: Path of the rule -> a spec that it refuses.
BAD: dict[str, dict[str, Any]] = {
    "spec.compute.env[]": {
        "compute": {"env": [{"name": "A", "value": "x", "secretKeyRef": {"name": "s", "key": "k"}}]}
    },
    "spec.compute.env[].name": {"compute": {"env": [{"name": "POD_IP", "value": "x"}]}},
    "spec.resource.nodeSelector": {"resource": {"nodeSelector": LONG_KEY}},
    "spec.scheduling.nodeSelector": {"scheduling": {"nodeSelector": LONG_KEY}},
    "spec.resource.interval": {"resource": {"interval": "1ms"}},
    "spec.transport.zeromq": {"transport": {"zeromq": {"port": 7480}}},
    "spec": {"autoscaling": {}},
    "spec.autoscaling.targetQueueTime": {**BOUNDED, "autoscaling": {"targetQueueTime": "2h"}},
    "spec.autoscaling.scaleInWindow": {**BOUNDED, "autoscaling": {"scaleInWindow": "1ms"}},
    "spec.autoscaling.schedule[].duration": {
        **BOUNDED,
        "autoscaling": {"schedule": [{"cron": "0 8 * * *", "duration": "10s", "min": 2}]},
    },
    "spec.failover": {"failover": {"suspectAfter": "2s"}},
    "spec.failover.heartbeatInterval": {
        "failover": {"heartbeatInterval": "11s", "suspectAfter": "30s", "deadAfter": "1m"}
    },
    "spec.failover.suspectAfter": {"failover": {"suspectAfter": "2m", "deadAfter": "3m"}},
    "spec.failover.deadAfter": {"failover": {"deadAfter": "6m"}},
    "spec.failover.stragglers.minRuntime": {"failover": {"stragglers": {"minRuntime": "25h"}}},
    "spec.runtime.spin": {"runtime": {"spin": "1s"}},
    "spec.runtime.drainTimeout": {"runtime": {"drainTimeout": "2h"}},
    "spec.state": {"state": {"claimName": "c"}},
    "spec.state.checkpointInterval": {"state": {"checkpointInterval": "9ms"}},
    "spec.rollout": {"rollout": {"maxSurge": "0%", "maxUnavailable": 0}},
    "spec.rollout.progressDeadline": {"rollout": {"progressDeadline": "1s"}},
    "spec.security.keyRotation": {"security": {"keyRotation": "5m"}},
    "spec.security.keyOverlap": {"security": {"keyOverlap": "200h"}},
    **{f"spec.security.clients[]{path}": {"security": {"clients": [peer]}} for path, peer in BAD_PEERS.items()},
    **{
        f"spec.security.egress[].to{path}": {"security": {"egress": [{"to": peer}]}} for path, peer in BAD_PEERS.items()
    },
    **{
        f"spec.{part}.podTemplate{path}": {part: {"podTemplate": template}}
        for part in ("compute", "resource")
        for path, template in BAD_TEMPLATES.items()
    },
}
PAIRS = {
    "min and max go together: give both, or neither and replicas": {"compute": {"max": 3}},
    "min may not exceed max": {"compute": {"min": 4, "max": 3}},
}
TRANSITION = "spec.transport.sharedMemory"
NAME = ""


def cases() -> Iterator[Any]:
    for path, message in RULES:
        if path not in (TRANSITION, NAME):
            yield pytest.param(path, message, id=f"{path}: {message[:30]}")


@pytest.mark.parametrize(("path", "message"), list(cases()))
async def test_a_rule_refuses_with_its_field_and_message(client: Client, path: str, message: str) -> None:
    spec = PAIRS[message] if message in PAIRS else BAD[path]
    with pytest.raises(ApiError) as refused:
        await client.create(swarm(**spec), dryRun="All")
    assert refused.value.status == 422
    assert message in refused.value.message
    steps = path.split("[]")
    assert steps[0] in refused.value.message
    parsed, wrong = read_spec(spec)
    assert parsed is None, "`swarm plan` has to refuse what the API server refuses"
    assert wrong.startswith(path.split("[]")[0].rsplit(".", 1)[0])


async def test_the_shared_memory_can_not_be_changed(client: Client) -> None:
    await client.create(swarm())
    with pytest.raises(ApiError) as refused:
        await client.merge("Swarm", "risk", {"spec": {"transport": {"sharedMemory": {"taskSlots": 128}}}})
    message = next(text for path, text in RULES if path == TRANSITION)
    assert message in refused.value.message
    await client.merge("Swarm", "risk", {"spec": {"transport": {"zeromq": {"port": 7401}}}})


@pytest.mark.parametrize("name", ["a" * 41, "1a", "a.b"])
async def test_a_name_that_can_not_begin_the_names_of_pods_is_refused(client: Client, name: str) -> None:
    with pytest.raises(ApiError) as refused:
        await client.create(swarm(name), dryRun="All")
    assert "metadata.name must be a DNS label of at most 40 characters" in refused.value.message


async def test_every_default_is_filled_in_by_the_api_server(client: Client) -> None:
    """What `kubectl get -o yaml` shows is what the operator reads: its own defaults and the schema's are the same."""
    made = await client.create({**swarm(), "spec": {}}, dryRun="All")
    spec, wrong = read_spec(made["spec"])
    assert not wrong
    plain, _ = read_spec({})
    assert spec == plain
    assert made["spec"]["failover"]["deadAfter"] == "800ms"
    assert made["spec"]["compute"]["podTemplate"]["terminationGracePeriodSeconds"] == 30
