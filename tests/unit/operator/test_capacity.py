"""Room for a group is found exactly where the scheduler would place every one of its pods."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.operatorkit import make_node, make_spec
from swarm_operator.capacity import Claim, Demand, Usage, biggest_lack, candidates, room_for
from swarm_operator.quantities import amount, amounts

GPU = "nvidia.com/mig-1g.10gb"


@pytest.mark.parametrize(
    ("resource", "text", "expected"),
    [
        ("cpu", "2", 2000),
        ("cpu", "500m", 500),
        ("cpu", "0.1", 100),
        ("cpu", 3, 3000),
        ("memory", "1Gi", 1 << 30),
        ("memory", "1G", 10**9),
        ("memory", "1.5Ki", 1536),
        ("memory", "2e3", 2000),
        ("memory", "1E", 10**18),
        ("memory", "1Ei", 1 << 60),
        ("memory", "128974848000m", 128974848),
        (GPU, "4", 4),
        ("memory", "many", 0),
        ("memory", "", 0),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(resource: str, text: str | int, expected: int) -> None:
    assert amount(resource, text) == expected


def test_what_is_asked_is_rounded_up_and_what_is_offered_down() -> None:
    assert (amount("cpu", "1.0005"), amount("cpu", "1.0005", up=False)) == (1001, 1000)
    assert amounts({"memory": "1500m"}, up=False) == {"memory": 1}


def node(name: str, cpu: int, pods: int = 110, zone: str = "", **more: int):
    labels = {"kubernetes.io/hostname": name} | ({"zone": zone} if zone else {})
    return make_node(name, labels=labels, allocatable={"cpu": cpu, "pods": pods, **more})


def test_what_runs_and_what_waits_takes_room() -> None:
    nodes = [node("a", 4000), node("b", 4000)]
    usage = Usage()
    one = Demand(10, {"cpu": 1000, "pods": 1})
    assert room_for(one, nodes, usage) == 8
    usage.add("a", {"cpu": 1500, "pods": 1})
    assert room_for(one, nodes, usage) == 6
    usage.waiting.append(Claim({"cpu": 3000}))  # goes to b: a has no room for it
    assert room_for(one, nodes, usage) == 3
    usage.waiting.append(Claim({"cpu": 9000}))  # fits nowhere, and takes nothing
    assert room_for(one, nodes, usage) == 3
    usage.waiting.append(Claim({"cpu": 500}, node="b"))
    assert room_for(one, nodes, usage) == 2


def test_the_number_of_pods_of_a_node_is_a_bound_too() -> None:
    assert room_for(Demand(9, {"cpu": 1, "pods": 1}), [node("a", 4000, pods=3)], Usage()) == 3


def test_devices_are_counted_by_their_resource_name() -> None:
    nodes = [node("a", 8000, **{GPU: 3}), node("b", 8000)]
    assert room_for(Demand(4, {"cpu": 1000, GPU: 1}), nodes, Usage()) == 3


def test_a_required_packing_has_the_room_of_one_domain() -> None:
    nodes = [node("a", 2000, zone="x"), node("b", 3000, zone="x"), node("c", 4000, zone="y"), node("d", 9000)]
    assert room_for(Demand(9, {"cpu": 1000}, key="zone"), nodes, Usage()) == 5


@settings(max_examples=200, deadline=None)
@given(rooms=st.lists(st.integers(0, 3), min_size=1, max_size=4), skew=st.integers(1, 3), count=st.integers(1, 9))
def test_a_required_spread_has_room_for_what_some_order_of_placing_reaches(
    rooms: list[int], skew: int, count: int
) -> None:
    """Against a search over all placements that never break the skew on the way."""
    nodes = [node(f"n{i}", room * 1000, zone=f"z{i}") for i, room in enumerate(rooms)]
    reached = {tuple([0] * len(rooms))}
    best, step = 0, reached
    while step:
        best = max(best, *(sum(state) for state in step))
        step = {
            tuple(n + (i == at) for i, n in enumerate(state))
            for state, at in itertools.product(step, range(len(rooms)))
            if state[at] < rooms[at] and state[at] + 1 - min(state) <= skew
        }
    demand = Demand(count, {"cpu": 1000}, key="zone", spread=skew)
    assert room_for(demand, nodes, Usage()) == min(count, best)


@settings(max_examples=200, deadline=None)
@given(
    cpus=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    each=st.integers(1, 4),
    waiting=st.lists(st.integers(1, 4), max_size=3),
)
def test_room_is_never_promised_twice(cpus: list[int], each: int, waiting: list[int]) -> None:
    nodes = [node(f"n{i}", cpu * 1000) for i, cpu in enumerate(cpus)]
    usage = Usage(waiting=[Claim({"cpu": w * 1000}) for w in waiting])
    room = room_for(Demand(99, {"cpu": each * 1000}), nodes, usage)
    placed = 0
    left = list(cpus)
    for size in waiting:
        for i, free in enumerate(left):
            if free >= size:
                left[i] -= size
                break
    for free in left:
        placed += free // each
    assert room == placed


def test_only_nodes_where_an_agent_may_go_are_looked_at() -> None:
    nodes = [
        make_node("good", labels={"pool": "x"}),
        make_node("elsewhere"),
        make_node("down", labels={"pool": "x"}, ready=False),
        make_node("cordoned", labels={"pool": "x"}, unschedulable=True),
        make_node("tainted", labels={"pool": "x"}, taints=[("gpu", "yes", "NoSchedule")]),
        make_node("soft", labels={"pool": "x"}, taints=[("gpu", "", "PreferNoSchedule")]),
        make_node("refused", labels={"pool": "x"}),
    ]
    tolerations = make_spec(scheduling={"tolerations": [{"key": "gpu", "value": "no"}]}).scheduling.tolerations
    found = candidates(nodes, {"pool": "x"}, tolerations, ["refused"])
    assert [n.name for n in found] == ["good", "soft"]
    tolerations = make_spec(scheduling={"tolerations": [{"key": "gpu", "operator": "Exists"}]}).scheduling.tolerations
    assert [n.name for n in candidates(nodes, {"pool": "x"}, tolerations, ["refused"])] == ["good", "soft", "tainted"]


def test_what_no_node_has_enough_of_is_named_with_the_most_that_one_has() -> None:
    nodes = [node("a", 2000), node("b", 4000, **{GPU: 1})]
    assert biggest_lack(nodes, {"cpu": 8000, GPU: 1}) == {"cpu": 4000}
    assert biggest_lack(nodes, {"amd.com/gpu": 1}) == {"amd.com/gpu": 0}
    assert biggest_lack(nodes, {"cpu": 4000, GPU: 1}) == {}
