"""Which node a pod goes to, and the words in which it is said that there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.scheduler import Placement, Unplaceable, place, pod_requests

Object = dict[str, Any]


def make_node(name: str, cpu: str = "4", labels: dict[str, str] | None = None, **spec: Any) -> Object:
    allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    labels = {"kubernetes.io/hostname": name, **(labels or {})}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}}


def make_pod(name: str = "p", cpu: str | None = None, node: str = "", app: str = "a", **spec: Any) -> Object:
    container: Object = {"name": "c"}
    if cpu:
        container["resources"] = {"requests": {"cpu": cpu}}
    containers = spec.pop("containers", [container])
    meta = {"name": name, "namespace": "n", "uid": name, "labels": {"app": app}}
    return {"metadata": meta, "spec": {"containers": containers, **({"nodeName": node} if node else {}), **spec}}


TWO = [make_node("one"), make_node("two")]


def where(pod: Object, nodes: list[Object] = TWO, pods: list[Object] | None = None) -> str:
    found = place(pod, nodes, pods or [])
    return found.node if isinstance(found, Placement) else found.message


def test_requests_are_the_sum_or_what_one_init_container_needs() -> None:
    def asks(cpu: str, **more: Any) -> Object:
        return {"name": "x", "resources": {"requests": {"cpu": cpu}}, **more}

    pod = make_pod(containers=[asks("1"), asks("500m")], initContainers=[asks("4"), asks("1", restartPolicy="Always")])
    assert pod_requests(pod)["cpu"] == 4
    pod["spec"]["initContainers"][0] = asks("1")
    assert float(pod_requests(pod)["cpu"]) == 2.5


def test_a_pod_goes_where_there_is_most_room() -> None:
    assert where(make_pod(cpu="1"), pods=[make_pod("x", "2", "one")]) == "two"
    assert where(make_pod(cpu="1"), pods=[make_pod("x", "2", "two")]) == "one"


def test_what_has_ended_takes_no_room() -> None:
    ended = make_pod("x", "4", "one") | {"status": {"phase": "Succeeded"}}
    assert where(make_pod(cpu="4"), [TWO[0]], [ended]) == "one"


def test_the_reasons_are_counted_and_worded_as_the_real_scheduler_s() -> None:
    nodes = [
        make_node("full"),
        make_node("small", cpu="1"),
        make_node("closed", unschedulable=True),
        make_node("tainted", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
    ]
    assert where(make_pod(cpu="2"), nodes, [make_pod("x", "3", "full")]) == (
        "0/4 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable,"
        " 2 Insufficient cpu."
    )
    assert where(make_pod(), []) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_taints_and_tolerations(toleration: Object, fits: bool) -> None:
    node = make_node("one", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    assert (where(make_pod(tolerations=[toleration]), [node]) == "one") is fits


def affinity(**term: Any) -> Object:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": {"disk": "fast"}}, "two"),
        ({"affinity": affinity(matchFields=[{"key": "metadata.name", "operator": "In", "values": ["two"]}])}, "two"),
        ({"affinity": affinity(matchExpressions=[{"key": "disk", "operator": "NotIn", "values": ["fast"]}])}, "one"),
        ({"affinity": affinity(matchExpressions=[{"key": "size", "operator": "Gt", "values": ["5"]}])}, "two"),
        ({"affinity": affinity(matchExpressions=[{"key": "disk", "operator": "DoesNotExist"}])}, "one"),
    ],
)
def test_node_selectors_and_affinity(spec: Object, expected: str) -> None:
    nodes = [make_node("one"), make_node("two", labels={"disk": "fast", "size": "7"})]
    assert where(make_pod(**spec), nodes) == expected


def test_a_term_that_says_nothing_selects_nothing() -> None:
    assert "didn't match Pod's node affinity/selector" in where(make_pod(affinity=affinity()))


def near(kind: str, app: str) -> Object:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_pods_that_want_each_other_and_pods_that_do_not() -> None:
    there = [make_pod("x", node="two", app="db")]
    assert where(make_pod(affinity=near("podAffinity", "db")), pods=there) == "two"
    assert where(make_pod(affinity=near("podAntiAffinity", "db")), pods=there) == "one"
    assert "didn't match pod affinity rules" in where(make_pod(affinity=near("podAffinity", "none")), pods=there)
    shy = [make_pod("x", node="one", affinity=near("podAntiAffinity", "a")), make_pod("y", node="two", app="a")]
    assert where(make_pod(), pods=shy) == "two"
    shy.append(make_pod("z", node="two", affinity=near("podAntiAffinity", "a")))
    assert "existing pods anti-affinity rules" in where(make_pod(), pods=shy)


def test_the_first_of_a_group_that_wants_to_be_together_is_placed() -> None:
    assert where(make_pod(app="g", affinity=near("podAffinity", "g"))) in ("one", "two")


def spread(when: str, skew: int = 1) -> list[Object]:
    selector = {"matchLabels": {"app": "a"}}
    key = "kubernetes.io/hostname"
    return [{"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector}]


def test_topology_spread_holds_where_it_must_and_is_preferred_where_it_may() -> None:
    there = [make_pod("x", node="two", cpu="100m")]
    busy = [*there, make_pod("y", "3900m", "one", app="other")]
    assert where(make_pod(topologySpreadConstraints=spread("DoNotSchedule")), pods=there) == "one"
    text = where(make_pod(cpu="1", topologySpreadConstraints=spread("DoNotSchedule")), pods=busy)
    assert text == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints."
    )
    assert where(make_pod(cpu="1", topologySpreadConstraints=spread("ScheduleAnyway")), pods=busy) == "two"


def test_host_ports_can_be_had_once_on_a_node() -> None:
    ports = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    there = [make_pod("x", node="one", containers=ports)]
    assert where(make_pod(containers=ports), pods=there) == "two"
    there.append(make_pod("y", node="two", containers=ports))
    assert "didn't have free ports" in where(make_pod(containers=ports), pods=there)


@given(st.lists(st.integers(1, 4000), max_size=20), st.integers(1, 3))
def test_no_node_is_ever_overcommitted(requests: list[int], count: int) -> None:
    nodes = [make_node(f"n{i}") for i in range(count)]
    placed: list[Object] = []
    for number, millis in enumerate(requests):
        pod = make_pod(f"p{number}", f"{millis}m")
        found = place(pod, nodes, placed)
        used = {n["metadata"]["name"]: 0 for n in nodes}
        for other in placed:
            used[other["spec"]["nodeName"]] += int(pod_requests(other)["cpu"] * 1000)
        if isinstance(found, Unplaceable):
            assert all(amount + millis > 4000 for amount in used.values())
        else:
            assert used[found.node] + millis <= 4000
            placed.append({**pod, "spec": {**pod["spec"], "nodeName": found.node}})
