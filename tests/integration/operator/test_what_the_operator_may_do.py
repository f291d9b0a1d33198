"""The rights that are shipped for the operator are those that it uses: no fewer, and no more.

Every test beside this one runs the operator by an account with these rights (`support.rights`), so a right that lacks
fails there. Here the embedded API server's audit log of the whole session is read: what was refused, and what nothing
asked for. The file is named to come last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.clusters import ROOT, TestCluster
from support.operatorlive import Client, Operator, swarm
from swarm_operator import rbac
from swarm_operator.history import HISTORY

_HERE = Path(__file__)
#: What somebody may make immutable.
FIXED = (("ConfigMap", "risk-settings"), ("Secret", "risk-keys"))
#: (group, resource with subresource, verb)
Right = tuple[str, str, str]


def granted(rules: Any) -> set[Right]:
    return {(rule.group, resource, verb) for rule in rules for resource in rule.resources for verb in rule.verbs}


def entries(cluster: TestCluster) -> Iterator[dict[str, Any]]:
    """What has been asked for in this session, from the audit log."""
    log = cluster.kubeconfig.parent / "audit.log"
    for path in (log.with_name("audit.log.1"), log):
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                if "objectRef" in entry:
                    yield entry


def requests(cluster: TestCluster) -> Iterator[dict[str, Any]]:
    """What the operators have asked for."""
    return (entry for entry in entries(cluster) if entry["user"]["username"].endswith(f":{rbac.ACCOUNT}"))


def deleted_namespaces(cluster: TestCluster) -> dict[str | None, str]:
    """When each namespace was to be deleted."""
    found: dict[str | None, str] = {}
    for entry in entries(cluster):
        about = entry["objectRef"]
        if entry["verb"] == "delete" and (about["resource"], about.get("subresource")) == ("namespaces", None):
            found.setdefault(about["name"], entry["stageTimestamp"])
    return found


def deleted_swarms(cluster: TestCluster) -> dict[tuple[str, str], str]:
    """When each Swarm was deleted for the first time, by namespace and name."""
    found: dict[tuple[str, str], str] = {}
    for entry in entries(cluster):
        about = entry["objectRef"]
        if entry["verb"] == "delete" and about["resource"] == "swarms" and "subresource" not in about:
            found.setdefault((about["namespace"], about["name"]), entry["stageTimestamp"])
    return found


def right(entry: dict[str, Any]) -> Right:
    about = entry["objectRef"]
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    return about.get("apiGroup", ""), resource, entry["verb"]


@pytest.mark.embedded
def test_nothing_was_refused_that_the_operator_asked_for(cluster: TestCluster) -> None:
    """But the lists of the whole cluster's pods, which a gang asks for, and goes without in namespaced mode, and of the
    nodes, which is taken away in the test of that mode. A namespace that is deleted loses its Roles first. And who
    applies the status of a Swarm that was deleted a moment ago would have to be allowed to make one."""
    foregone = {(("", "pods", "list"), None), (("", "nodes", "list"), None)}
    ended, gone = deleted_namespaces(cluster), deleted_swarms(cluster)
    refused = []
    for entry in requests(cluster):
        where = entry["objectRef"].get("namespace")
        # by the authorizer: quotas, Pod Security and namespaces that are being deleted answer 403 as well
        if entry["annotations"]["authorization.k8s.io/decision"] != "forbid" or (right(entry), where) in foregone:
            continue
        about = entry["objectRef"]
        end = ended.get(where, "9999")
        if right(entry) == ("agentswarm.dev", "swarms/status", "patch"):
            end = min(end, gone.get((about["namespace"], about["name"]), "9999"))
        if entry["stageTimestamp"] < end:
            refused.append((right(entry), where))
    assert not refused


async def test_what_is_seldom_needed_is_granted(client: Client, start: Callable[..., Operator]) -> None:
    """Objects that were made immutable are made anew; what is not asked for or run by any more is deleted."""
    start("--no-leader-election")
    await client.create(swarm(compute={"replicas": 0}))

    async def uids() -> dict[str, str] | None:
        found = {kind: await client.find(kind, name) for kind, name in FIXED}
        return {kind: one["metadata"]["uid"] for kind, one in found.items() if one} if all(found.values()) else None

    before = await client.until(uids, "what can be made immutable")
    for kind, name in FIXED:
        await client.merge(kind, name, {"immutable": True, "data": {"further": "eA=="}})

    async def made_anew() -> bool:
        now = await uids()
        return now is not None and all(now[kind] != before[kind] for kind, _ in FIXED)

    await client.until(made_anew, "them to be made anew")
    assert await client.find("NetworkPolicy", "risk")
    await client.merge("Swarm", "risk", {"spec": {"security": {"networkPolicy": False}}})

    async def open_to_all() -> bool:
        return await client.find("NetworkPolicy", "risk") is None

    await client.until(open_to_all, "the policy to be deleted")
    for number in range(HISTORY + 2):
        await client.merge("Swarm", "risk", {"spec": {"runtime": {"threads": number + 1}}})
        revision = number + 2

        async def rolled(revision: int = revision) -> bool:
            return any(one["revision"] == revision for one in await client.list("ControllerRevision"))

        await client.until(rolled, f"revision {revision}")

    async def few() -> bool:
        # those of the running resource agents are kept beside the last ones
        return min(one["revision"] for one in await client.list("ControllerRevision")) > 1

    await client.until(few, "the oldest to be deleted")


@pytest.mark.embedded
def test_nothing_is_granted_that_the_operator_never_asks_for(
    cluster: TestCluster, request: pytest.FixtureRequest
) -> None:
    ran = {item.path for item in request.session.items}
    missing = sorted(path.name for path in _HERE.parent.glob("test_*.py") if path not in ran)
    if missing:
        pytest.skip(f"only a part of the operator's tests runs; without {', '.join(missing)} that can't be said")
    used = set()
    for entry in requests(cluster):
        code = entry["responseStatus"]["code"]
        used |= {right(entry)} if code != 403 else set()
        if code == 201 and entry["verb"] == "patch":  # an apply that made the object, which is a creation as well
            used.add((*right(entry)[:2], "create"))
    unused = granted((*rbac.SERVED, *rbac.CLUSTER, *rbac.LEADER)) - used
    assert not unused


def test_the_manifests_are_those_of_the_table() -> None:
    for name, objects in (("cluster", rbac.cluster_wide()), ("namespaced", rbac.namespaced())):
        assert list(yaml.safe_load_all((ROOT / "deploy" / "rbac" / f"{name}.yaml").read_text())) == objects


def test_no_rule_is_wider_than_what_it_names() -> None:
    for rule in (*rbac.SERVED, *rbac.CLUSTER, *rbac.LEADER, *rbac.USERS.values()):
        assert "*" not in (rule.group, *rule.resources, *rule.verbs)
        assert not {"escalate", "bind", "impersonate"} & set(rule.verbs)
        assert rule.why
