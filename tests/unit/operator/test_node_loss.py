"""A node is lost: its agents are replaced elsewhere, by name and once, and what comes back with it is not counted."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_pod, make_snapshot, make_spec
from swarm_agents.config import Role
from swarm_operator.actions import CreatePod, DeletePod
from swarm_operator.events import notes_of
from swarm_operator.names import PodName
from swarm_operator.nodes import losses
from swarm_operator.plan import agents_of, plan
from swarm_operator.pods import LOST_NODE_SECONDS, pod_manifest
from swarm_operator.revision import revision_of
from swarm_operator.views import NodeView, node_view

SINCE = 1000.0
LATER = SINCE + LOST_NODE_SECONDS


def away(name: str, **fields: object) -> NodeView:
    return make_node(name, **({"ready": False, "unready_since": SINCE, "unreachable": True} | fields))


def test_a_node_is_lost_after_a_stated_time_and_not_before() -> None:
    nodes = [make_node("a"), away("b")]
    before = losses(make_spec(), nodes, {}, LATER - 1.5)
    assert (before.lost, before.again_in) == (frozenset(), 1.5)
    assert losses(make_spec(), nodes, {}, LATER).lost == {"b"}


def test_a_node_that_was_removed_is_lost_and_one_that_is_merely_unknown_is_not() -> None:
    assert losses(make_spec(), [make_node("a")], {"b": SINCE}, LATER).lost == {"b"}
    assert losses(make_spec(), [make_node("a"), make_node("b")], {"b": SINCE}, LATER).lost == set()
    pods = [make_pod(ordinal=0, node="never-seen", revision=revision_of(make_spec()))]
    assert not [a for a in plan(make_snapshot({}, pods), LATER).actions if isinstance(a, DeletePod)]


def test_when_no_node_is_ready_none_is_held_for_lost() -> None:
    assert losses(make_spec(), [away("a"), away("b")], {"c": SINCE}, LATER + 1e6).lost == set()


@pytest.mark.parametrize(
    ("seconds", "lost_after"), [(60, 60.0), (0, 0.0), (None, None)], ids=["a minute", "at once", "for ever"]
)
def test_who_tolerates_a_lost_node_for_longer_is_left_there_for_longer(
    seconds: int | None, lost_after: float | None
) -> None:
    toleration = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    given = toleration | ({} if seconds is None else {"tolerationSeconds": seconds})
    spec = make_spec(scheduling={"tolerations": [given]})
    nodes = [make_node("a"), away("b")]
    found = losses(spec, nodes, {}, SINCE + (1e9 if lost_after is None else lost_after))
    assert found.lost == (set() if lost_after is None else {"b"})
    if lost_after:
        assert not losses(spec, nodes, {}, SINCE + lost_after - 0.1).lost
    # what the owner says of the one taint leaves the other as it was
    assert losses(spec, [make_node("a"), away("b", unreachable=False)], {}, LATER).lost == {"b"}
    manifest = pod_manifest(World({}).swarm, spec, PodName("risk", Role.COMPUTE, 0, 0), "r")
    said = [t for t in manifest["spec"]["tolerations"] if t["key"] == toleration["key"]]
    assert [t.get("tolerationSeconds") for t in said] == [seconds]


def test_the_time_of_a_node_s_loss_is_the_node_controller_s() -> None:
    condition = {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    raw = {"metadata": {"name": "a"}, "status": {"conditions": [condition]}}
    view = node_view(msgspec.json.encode(raw))
    assert (view.ready, view.unreachable, view.unready_since) == (False, True, 1767323045.0)


def lost_pair() -> tuple[dict[str, object], list[NodeView], list[object]]:
    spec: dict[str, object] = {"compute": {"replicas": 2}}
    revision = revision_of(make_spec(**spec))
    pods = [make_pod(ordinal=n, node=node, revision=revision) for n, node in enumerate("ab")]
    pods += [make_pod(Role.RESOURCE, n, node=node, target_node=node, revision=revision) for n, node in enumerate("ab")]
    return spec, [make_node("a"), away("b")], pods


def test_its_compute_agents_are_replaced_at_once_under_new_names_and_the_old_ones_deleted_by_uid() -> None:
    spec, nodes, pods = lost_pair()
    planned = plan(make_snapshot(spec, pods, nodes), LATER)
    assert [a.name for a in planned.actions if isinstance(a, CreatePod)] == ["risk-compute-1-1"]
    (deleted,) = [a for a in planned.actions if isinstance(a, DeletePod)]
    assert (deleted.name, deleted.uid) == ("risk-compute-1-0", "uid-risk-compute-1-0")
    assert deleted.why == "lost with node b"
    (note,) = [n for n in notes_of([deleted], []) if n.reason == "NodeLost"]
    assert note.type == "Warning"
    early = plan(make_snapshot(spec, pods, nodes), LATER - 2)
    assert not [a for a in early.actions if isinstance(a, CreatePod | DeletePod)]
    assert early.requeue_after is not None
    assert early.requeue_after <= 2


def test_its_hub_is_taken_out_of_the_settings_and_its_resource_agent_left_in_place() -> None:
    spec, nodes, pods = lost_pair()
    planned = plan(make_snapshot(spec, pods, nodes), LATER)
    assert planned.settings is not None
    assert [hub.node for hub in planned.settings.hubs] == ["a"]
    assert {(type(a).__name__, a.name) for a in planned.actions if "-resource-" in a.name} == {
        ("PushSettings", "risk-resource-0-0")
    }


class Failing(World):
    """Nodes go and come back; what runs on one that is away is as it was, and terminating pods stay."""

    def __init__(self, spec: dict[str, object]) -> None:
        super().__init__(spec, [make_node(name) for name in ("node-a", "node-b", "node-c")])

    def switch(self, name: str, on: bool) -> None:
        node = make_node(name) if on else away(name, unready_since=self.now)
        self.nodes = [node if old.name == name else old for old in self.nodes]
        for pod in list(self.pods.values()):
            if pod.node == name and not on:
                self.pods[pod.name] = msgspec.structs.replace(pod, ready=False)

    def tick(self, seconds: float = 1.0) -> None:
        off = {node.name for node in self.nodes if not node.ready}
        held = {name: pod for name, pod in self.pods.items() if pod.node in off}
        reports = dict(self.reports)
        all_nodes, self.nodes = self.nodes, [node for node in self.nodes if node.ready] or self.nodes
        super().tick(seconds)
        self.nodes = all_nodes
        self.pods |= held
        self.reports |= {pod.uid: reports[pod.uid] for pod in held.values() if pod.uid in reports}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 6),
    standby=st.integers(0, 2),
    moves=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["node-a", "node-b", "node-c"]), st.booleans()), max_size=8
    ),
)
def test_whatever_goes_and_comes_back_each_place_has_one_agent_and_no_name_is_given_twice(
    replicas: int, standby: int, moves: list[tuple[int, str, bool]]
) -> None:
    world = Failing({"compute": {"replicas": replicas, "standby": standby}})
    uids: dict[str, str] = {}

    def run(rounds: int) -> None:
        for _ in range(rounds):
            planned = plan(world.snapshot(), world.now)
            for action in planned.actions:
                world.perform(action, planned)
            for pod in world.pods.values():
                assert uids.setdefault(pod.name, pod.uid) == pod.uid, "a name was given twice"
            lost = losses(make_spec(**world.swarm.spec), world.nodes, {}, world.now).lost
            alive = [a for a in agents_of(world.snapshot(), lost) if a.alive and a.name.role is Role.COMPUTE]
            assert len(alive) <= replicas
            world.tick()

    run(4)
    for rounds, node, on in moves:
        world.switch(node, on)
        run(rounds)
    for node in ("node-a", "node-b", "node-c"):
        world.switch(node, True)
    run(60)
    alive = [a for a in agents_of(world.snapshot()) if a.alive]
    for role, count in ((Role.COMPUTE, replicas), (Role.STANDBY, standby), (Role.RESOURCE, 3)):
        found = [a for a in alive if a.name.role is role]
        assert len(found) == count
        assert len({a.name.ordinal for a in found}) == count
    assert plan(world.snapshot(), world.now).actions == ()


@settings(max_examples=15, deadline=None)
@given(replicas=st.integers(1, 6), gone=st.sampled_from(["node-a", "node-b", "node-c"]))
def test_a_lost_node_costs_nothing_once_it_is_replaced(replicas: int, gone: str) -> None:
    world = Failing({"compute": {"replicas": replicas}})

    def run(rounds: int) -> None:
        for _ in range(rounds):
            planned = plan(world.snapshot(), world.now)
            for action in planned.actions:
                world.perform(action, planned)
            world.tick()

    run(8)
    world.switch(gone, False)
    run(LOST_NODE_SECONDS + 6)
    ready = [p for p in world.pods.values() if "-compute-" in p.name and p.ready and not p.deleting]
    assert len(ready) == replicas
    assert gone not in {p.node for p in ready}
    assert {p.node for p in world.pods.values() if p.deleting} <= {gone}
