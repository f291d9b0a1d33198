"""Each field of the API, changed on a swarm that runs: a live one reaches the agents that there are, a rolling one
replaces them all. The fields are read from the schema: one without an entry in `support.fieldtable` fails here."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest

from support.fieldtable import LIVE, ROLLING, Entry, declared, merged
from support.operatorkit import World, make_node, make_spec
from swarm_operator.accept import NOT_IMPLEMENTED, refusals
from swarm_operator.api.fields import Change
from swarm_operator.plan import agents_of, plan
from swarm_operator.status import status_of

BASE: dict[str, Any] = {
    "compute": {"replicas": 2, "standby": 1, "cpus": "100m"},
    "rollout": {"maxSurge": 1, "maxUnavailable": 1},
}


@pytest.mark.parametrize(("change", "table"), [(Change.LIVE, LIVE), (Change.ROLLING, ROLLING)], ids=str)
def test_each_field_of_the_schema_has_an_entry(change: Change, table: dict[str, Entry]) -> None:
    assert sorted(declared(change)) == sorted(table)


def run(world: World, seconds: int) -> None:
    """Plans for so long, or until nothing is left to do."""
    for _ in range(seconds):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        if not planned.actions and all(pod.ready and not pod.deleting for pod in world.pods.values()):
            return
        world.tick()


@cache
def _settled(base: str) -> World:
    nodes = [make_node(name, labels={"kubernetes.io/hostname": name, "pool": "fast"}) for name in ("node-a", "node-b")]
    world = World(merged(BASE, json.loads(base)), nodes)
    run(world, 15)
    assert status(world)["observedSettings"]
    return world


def settled(entry: Entry) -> World:
    """A swarm that has come to its spec, without the field's change."""
    return copy.deepcopy(_settled(json.dumps(entry.base)))


def status(world: World) -> dict[str, Any]:
    snapshot = world.snapshot()
    return status_of(snapshot, plan(snapshot, world.now), (), world.now)


def alive(world: World) -> dict[str, str]:
    """UIDs by name."""
    return {a.pod.name: a.pod.uid for a in agents_of(world.snapshot()) if a.alive}


def change(world: World, entry: Entry) -> bool:
    """Edits the spec; False where this version refuses the field by name."""
    spec = merged(merged(BASE, entry.base), entry.patch)
    assert make_spec(**spec) != make_spec(**world.swarm.spec), "the entry changes the field"
    world.edit(spec)
    found = refusals(make_spec(**spec))
    assert all(refusal.reason == NOT_IMPLEMENTED for refusal in found), found
    return not found


@pytest.mark.parametrize("path", LIVE)
def test_a_live_field_reaches_the_agents_and_replaces_none(path: str) -> None:
    entry = LIVE[path]
    world = settled(entry)
    before, said = alive(world), status(world)
    accepted = change(world, entry)
    run(world, 30)
    after, now = alive(world), status(world)
    if not accepted:
        assert after == before
        return
    common = before.keys() & after.keys()
    assert all(before[name] == after[name] for name in common)
    assert entry.count or common == before.keys() == after.keys()
    assert not entry.count or before != after
    assert now["revision"] == said["revision"]
    assert (now["settings"] != said["settings"]) == entry.agents
    if after:
        assert now["observedSettings"] == now["settings"]
        acknowledged = {world.settings[uid] for uid in after.values()}
        assert acknowledged == {now["settings"]}, "by the agents, each for itself"


@pytest.mark.parametrize("path", ROLLING)
def test_a_rolling_field_replaces_every_agent(path: str) -> None:
    entry = ROLLING[path]
    world = settled(entry)
    before, said = alive(world), status(world)
    if not change(world, entry):
        run(world, 5)
        assert alive(world) == before
        return
    run(world, 50)
    after, now = alive(world), status(world)
    assert not set(before.values()) & set(after.values())
    assert len(after) == len(before)
    assert now["revision"] != said["revision"]
    assert {pod.revision for pod in world.pods.values()} == {now["revision"]}
    assert now["observedSettings"] == now["settings"]
