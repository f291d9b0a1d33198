"""A Swarm's keys stand in its Secret and nowhere else, whatever the operator says at level debug."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from support.clusters import TestCluster
from support.operatorlive import Client, Operator, swarm

#: No secrets: the public halves, and how far the renewal of the keys is.
_PUBLIC = {"hub.public", "client.public", "rotation"}


async def test_no_log_event_status_or_description_holds_a_key(
    client: Client, start: Callable[..., Operator], cluster: TestCluster, namespace: str
) -> None:
    operator = start("--no-leader-election", "--log-level", "debug")
    kubectl = cluster.kubectl.within(namespace)
    await client.create(swarm(compute={"replicas": 1}))
    secret = await client.until(lambda: client.find("Secret", "risk-keys"), "the keys")
    hidden = {
        form
        for name, value in secret["data"].items()
        if name not in _PUBLIC
        for form in (value, base64.b64decode(value).decode(), base64.b64decode(value).hex())
    }
    assert len(hidden) == 9, "three secrets in three forms"
    await client.merge("Secret", "risk-keys", {"data": {"further": "eA=="}})
    await client.merge("Swarm", "risk", {"spec": {"runtime": {"threads": 1}}})

    async def rolled() -> bool:
        again = (await client.get("Secret", "risk-keys"))["data"]
        return "further" not in again and len(await client.list("ControllerRevision")) == 2

    await client.until(rolled, "the change")
    said: dict[str, Any] = {
        "described": kubectl("describe", "swarms,pods,secrets,configmaps,events,controllerrevisions").out,
        "stored": [await client.list(kind, selector="") for kind in ("Swarm", "Pod", "ConfigMap", "Event")],
        "metrics": operator.http("/metrics"),
    }
    await client.delete("Swarm", "risk")

    async def gone() -> bool:
        return await client.find("Secret", "risk-keys") is None

    await client.until(gone, "the deletion")
    assert operator.stop() == 0
    said["logged"] = operator.log.read_text()
    if cluster.embedded:
        state = cluster.kubeconfig.parent
        said["audited"] = (state / "audit.log").read_text() + (state / "log" / "cluster.log").read_text()
        assert "risk-keys" in said["audited"]
    assert "risk-keys" in said["described"]
    assert '"level": "debug"' in said["logged"] or '"debug"' in said["logged"]
    for where, text in said.items():
        whole = text if isinstance(text, str) else json.dumps(text)
        assert not [form for form in hidden if form in whole], f"a key is {where}"
