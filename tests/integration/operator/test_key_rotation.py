"""Keys are renewed while a swarm works: nothing is lost, nobody is refused but who has the old ones, and an operator
that is killed between any two stages goes on from there."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.clusters import TestCluster
from support.kubectl import Kubectl
from support.load import Load
from support.operatorlive import Client, Operator, swarm
from swarm_agents.client import Connection
from swarm_agents.client.session import Session
from swarm_agents.errors import Unreachable, WrongKey
from swarm_deploy.connect import resolve

pytestmark = [pytest.mark.slow, pytest.mark.embedded, pytest.mark.timeout(600)]

PATIENCE = 240.0
ROTATIONS = 2


async def _keys(client: Client) -> dict[str, Any]:
    return dict((await client.get("Swarm", "risk")).get("status", {}).get("keys") or {})


async def _secret(client: Client) -> dict[str, str]:
    data = (await client.get("Secret", "risk-keys"))["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


async def test_keys_are_renewed_twice_under_load_and_by_an_operator_that_is_killed_at_each_stage(
    client: Client,
    cluster: TestCluster,
    start: Callable[..., Operator],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    operator = start("--no-leader-election")
    made = swarm(
        image="agentswarm/agent:1",
        compute={"replicas": 2, "cpus": "100m"},
        transport={"sharedMemory": {"size": "16Mi", "taskSlots": 256, "maxMembers": 32}},
        security={"keyOverlap": "0s"},
        runtime={"logLevel": "debug"},  # what is told there must hold no secret, either
    )
    made["spec"]["imagePullPolicy"] = "IfNotPresent"
    await client.create(made)

    async def running() -> bool:
        said = [await client.condition("risk", kind) for kind in ("Ready", "Progressing")]
        return [each.get("status") for each in said] == ["True", "False"]

    await client.until(running, "the agents", PATIENCE)
    pods = {pod["metadata"]["uid"] for pod in await client.list("Pod")}

    def find() -> Connection:
        found = resolve(f"{client.namespace}/risk")
        assert found is not None
        return found

    first = await asyncio.to_thread(find)
    revoked, secrets = [first], [await _secret(client)]
    load = await asyncio.to_thread(
        Load, find, board=False, window=8, task=lambda number: ("core.echo", (number,), number)
    )
    seen: set[str] = set()
    killed: set[str] = set()
    try:
        for number in range(1, ROTATIONS + 1):
            answered = len(load.answers)
            await client.merge(
                "Swarm", "risk", {"metadata": {"annotations": {"agentswarm.dev/rotate-keys": f"request {number}"}}}
            )

            async def turned(number: int = number) -> bool:
                nonlocal operator
                stage = json.loads((await _secret(client))["rotation"])
                seen.add(stage["stage"])
                if number == 2 and stage["stage"] not in ("Steady", *killed):
                    killed.add(stage["stage"])
                    operator.kill()
                    operator = start("--no-leader-election")
                return bool(stage["count"] == number and (await _keys(client)).get("renewals") == number)

            await client.until(turned, f"rotation {number}", PATIENCE)
            secrets.append(await _secret(client))
            revoked.append(await asyncio.to_thread(find))
            await client.until(lambda answered=answered: _more(load, answered), "answers", PATIENCE)
        assert seen == {"Steady", "Offered", "Overlapping", "Ending", "Returning"}
        assert killed >= {"Offered", "Overlapping", "Ending", "Returning"}
    finally:
        await asyncio.to_thread(load.stop)
    print(f"\nsent={load.sent} answered={len(load.answers)} errors={load.errors[:2]}")
    assert (load.lost(), load.doubled(), load.errors) == (0, 0, [])
    assert load.sent > 100, "else nothing was going on"
    assert {pod["metadata"]["uid"] for pod in await client.list("Pod")} == pods, "no pod was replaced"

    # the keys are others each time, and who has one of the earlier sets is not let in by any hub, at any port
    now = revoked.pop()
    assert len({each.public_key for each in (*revoked, now)}) == ROTATIONS + 1
    for old in revoked:
        for server in (old.server_key, now.server_key):
            hubs = tuple(msgspec.structs.replace(hub, public_key=server) for hub in now.hubs)
            stale = msgspec.structs.replace(old, board=None, hubs=hubs, server_key=server)
            with pytest.raises((WrongKey, Unreachable)):
                await asyncio.to_thread(Session, stale, timeout=1.5, retry_window=0)
    entry = await asyncio.to_thread(
        lambda: Session(msgspec.structs.replace(now, board=None), timeout=10, retry_window=0)
    )
    entry.close()

    # no secret is anywhere but in the Secret, which holds none but those that hold
    told = await asyncio.to_thread(_told, cluster.kubectl.within(client.namespace), tmp_path)
    private = {data[name] for data in secrets for name in data if name.endswith(".secret")}
    assert len(private) >= 2 * (ROTATIONS + 1)
    assert not [key for key in private if key in told]
    assert set(secrets[-1]) == {"hub.public", "hub.secret", "client.public", "client.secret", "token", "rotation"}
    status = await _keys(client)
    assert status["fingerprint"] in told
    assert (await client.condition("risk", "KeysRenewing"))["reason"] == "KeysHold"
    await client.delete("Swarm", "risk")


async def _more(load: Load, answered: int) -> bool:
    return len(load.answers) > answered or bool(load.errors)


def _told(kubectl: Kubectl, logs: Path) -> str:
    """All that anybody may read of it: objects, events, and logs."""
    found = [path.read_text() for path in logs.glob("operator-*.log")]
    found.append(kubectl("get", "swarms,configmaps,pods,events,controllerrevisions", "-o", "json").out)
    for pod in kubectl("get", "pods", "-o", "name").out.split():
        found.append(kubectl("logs", pod, "--all-containers").out)
    return "\n".join(found)
