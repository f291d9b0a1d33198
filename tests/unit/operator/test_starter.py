"""What gangs ask of the API server: one list for the room, gates by name, PodGroups that may not be possible."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from support.operatorkit import api_at, make_node, make_snapshot, make_spec, make_swarm
from swarm_operator.actions import EnsurePodGroup, FailGang, LiftGate, StartGang
from swarm_operator.agents import Agents
from swarm_operator.cache import Cache
from swarm_operator.capacity import Demand, Usage
from swarm_operator.gang import digest_of, pod_group
from swarm_operator.keys import KeyMemory
from swarm_operator.kube import ApiError
from swarm_operator.starter import Starter, take

GANG = "risk-1234/2/0"
SPEC = {"compute": {"replicas": 2}, "scheduling": {"gang": "Operator"}}


def pod(**spec: Any) -> dict[str, Any]:
    requests = spec.pop("requests", {"cpu": "1"})
    return {"metadata": {}, "spec": {"containers": [{"resources": {"requests": requests}}], **spec}}


def usage_of(*pods: dict[str, Any]) -> Usage:
    usage = Usage()
    for each in pods:
        take(usage, msgspec.json.encode(each))
    return usage


def test_a_pod_takes_the_sum_of_its_containers_or_its_largest_init_container_and_its_overhead() -> None:
    found = usage_of(
        {
            "metadata": {},
            "spec": {
                "nodeName": "a",
                "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}, {"resources": {}}, {}],
                "initContainers": [
                    {"resources": {"requests": {"cpu": "3"}}},
                    {"resources": {"requests": {"cpu": "500m"}}, "restartPolicy": "Always"},
                ],
                "overhead": {"cpu": "250m"},
            },
        }
    )
    assert found.bound == {"a": {"cpu": 3250, "memory": 1 << 30, "pods": 1}}


def test_pods_that_wait_count_unless_they_are_gated_or_going() -> None:
    gated = pod(schedulingGates=[{"name": "x"}])
    going = {**pod(), "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
    fields = [{"key": "metadata.name", "operator": "In", "values": ["b"]}]
    terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
    daemon = pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    found = usage_of(pod(), gated, going, daemon, pod(nodeName="a"))
    assert [claim.node for claim in found.waiting] == ["", "b"]
    assert found.bound["a"]["cpu"] == 1000


class Server:
    """An API server with pods on pages of two, which answers as it is told."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.refuse: dict[tuple[str, str], tuple[int, Any]] = {}
        self.seen: list[tuple[str, str, Any]] = []
        self.groups: dict[str, Any] = {}

    async def handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text()) if request.can_read_body else None
        self.seen.append((request.method, request.path, body))
        for (method, part), (status, answer) in self.refuse.items():
            if method == request.method and part in request.path:
                if isinstance(answer, str):
                    return web.Response(status=status, text=answer)
                return web.json_response(answer, status=status)
        if request.path == "/api/v1/pods":
            assert request.query["fieldSelector"] == "status.phase!=Succeeded,status.phase!=Failed"
            at = int(request.query.get("continue", "0"))
            meta = {"resourceVersion": "9"} | ({"continue": str(at + 2)} if at + 2 < len(self.pods) else {})
            return web.json_response({"metadata": meta, "items": self.pods[at : at + 2]})
        if "podgroups" in request.path:
            if request.method == "PATCH":
                self.groups[request.path] = body
            held = self.groups.get(request.path)
            if held is None:
                message = 'podgroups.scheduling.volcano.sh "risk" not found'
                return web.json_response({"message": message, "reason": "NotFound"}, status=404)
            return web.json_response(held)
        name = request.path.rsplit("/", 1)[1]
        return web.json_response({"metadata": {"name": name, "namespace": "default", "resourceVersion": "5"}})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    running = TestServer(app)
    await running.start_server()
    made.url = str(running.make_url("/"))  # type: ignore[attr-defined]
    yield made
    await running.close()


@pytest.fixture
async def starter(server: Server) -> AsyncIterator[Starter]:
    api = api_at(server.url)  # type: ignore[attr-defined]
    cache = Cache(api, [], Agents(lambda: 0.0), KeyMemory(), lambda: 0.0)
    cache.store("Node", "").put(make_node("a", allocatable={"cpu": 4000, "pods": 110}))
    cache.store("Node", "").put(make_node("b", allocatable={"cpu": 4000, "pods": 110}))
    yield Starter(api, cache, lambda key: None, lambda: 77.0)
    await api.close()


def start(count: int = 2, cpu: int = 2000) -> StartGang:
    pods = tuple((f"risk-compute-{i}-0", f"uid-{i}") for i in range(count))
    return StartGang("Gang", "risk-1234", GANG, pods, Demand(count, {"cpu": cpu, "pods": 1}))


def lifted(server: Server) -> list[str]:
    return sorted(path.rsplit("/", 1)[1] for method, path, _ in server.seen if method == "PATCH")


async def test_all_gates_are_lifted_when_there_is_room_for_all(server: Server, starter: Starter) -> None:
    server.pods = [pod(nodeName="a"), pod(nodeName="b"), pod(nodeName="b")]
    await starter.do(start(), make_snapshot(SPEC))
    assert lifted(server) == ["risk-compute-0-0", "risk-compute-1-0"]
    (_, _, patch) = next(seen for seen in server.seen if seen[0] == "PATCH")
    assert patch["spec"] == {"schedulingGates": [{"$patch": "delete", "name": "agentswarm.dev/gang"}]}
    assert patch["metadata"]["uid"].startswith("uid-")


async def test_no_gate_is_lifted_when_one_has_no_room_and_how_many_have_is_kept(
    server: Server, starter: Starter
) -> None:
    server.pods = [pod(nodeName="a"), pod(nodeName="b"), pod(nodeName="b"), pod(requests={"cpu": "2"})]
    await starter.do(start(), make_snapshot(SPEC))
    assert lifted(server) == []
    survey = starter.view(make_swarm().uid).survey
    assert survey is not None
    assert (survey.group, survey.at, survey.room, survey.error) == (GANG, 77.0, 1, "")


async def test_without_the_right_to_list_pods_a_start_is_tried(server: Server, starter: Starter) -> None:
    server.refuse["GET", "/api/v1/pods"] = (403, {"message": "pods is forbidden", "reason": "Forbidden"})
    await starter.do(start(), make_snapshot(SPEC))
    assert lifted(server) == ["risk-compute-0-0", "risk-compute-1-0"]


async def test_an_api_server_that_fails_starts_nothing_and_the_reason_is_kept(server: Server, starter: Starter) -> None:
    server.refuse["GET", "/api/v1/pods"] = (500, {"message": "etcd is slow", "reason": "InternalError"})
    await starter.do(start(), make_snapshot(SPEC))
    assert lifted(server) == []
    survey = starter.view(make_swarm().uid).survey
    assert survey is not None
    assert "etcd is slow" in survey.error


async def test_a_gate_that_can_not_be_lifted_is_a_failure_of_the_plan(server: Server, starter: Starter) -> None:
    server.refuse["PATCH", "risk-compute-1-0"] = (422, {"message": "no", "reason": "Invalid"})
    with pytest.raises(ApiError):
        await starter.do(start(), make_snapshot(SPEC))
    assert "risk-compute-0-0" in lifted(server)


@pytest.mark.parametrize("status", [404, 409])
async def test_a_pod_that_is_gone_is_none_of_our_business(server: Server, starter: Starter, status: int) -> None:
    server.refuse["PATCH", "/pods/"] = (status, {"message": "gone", "reason": "NotFound"})
    await starter.do(LiftGate("Pod", "risk-compute-0-0", "uid-0"), make_snapshot(SPEC))
    await starter.do(FailGang("Pod", "risk-compute-0-0", "uid-0"), make_snapshot(SPEC))


def ensure(kind: str = "Volcano", members: int = 4) -> EnsurePodGroup:
    spec = make_spec(compute={"replicas": 4}, scheduling={"gang": kind})
    manifest = pod_group(make_swarm(), spec, members)
    return EnsurePodGroup("PodGroup", "risk", manifest, digest_of(manifest))


async def test_a_pod_group_is_made_and_then_left_alone(server: Server, starter: Starter) -> None:
    await starter.do(ensure(), make_snapshot(SPEC))
    group = starter.view(make_swarm().uid).group
    assert group is not None
    assert (group.digest, group.error) == (ensure().digest, "")
    writes = len(lifted(server))
    await starter.do(ensure(), make_snapshot(SPEC))
    assert len(lifted(server)) == writes == 1
    # one that is smaller loses what the larger one asked for
    await starter.do(ensure(members=1), make_snapshot(SPEC))
    assert len(lifted(server)) == 2


@pytest.mark.parametrize(
    ("kind", "path", "answer", "text"),
    [
        ("Volcano", "podgroups", (404, "404 page not found"), "no PodGroup of scheduling.volcano.sh/v1beta1"),
        ("Coscheduling", "podgroups", (404, "404 page not found"), "no PodGroup of scheduling.x-k8s.io/v1alpha1"),
        (
            "Volcano",
            "podgroups",
            (403, {"message": "forbidden", "reason": "Forbidden"}),
            "podgroups.scheduling.volcano",
        ),
        (
            "Volcano",
            "podgroups",
            (403, {"message": 'admission webhook "x" denied the request: queue q is closed', "reason": "Forbidden"}),
            "queue q is closed",
        ),
        ("Volcano", "podgroups", (503, {"message": "a webhook is down", "reason": "x"}), "a webhook is down"),
    ],
)
async def test_what_stands_in_the_way_of_a_pod_group_is_kept_and_no_failure(
    server: Server, starter: Starter, kind: str, path: str, answer: tuple[int, Any], text: str
) -> None:
    for method in ("GET", "PATCH"):
        server.refuse[method, path] = answer
    await starter.do(ensure(kind), make_snapshot(SPEC))
    group = starter.view(make_swarm().uid).group
    assert group is not None
    assert text in group.error


async def test_a_pod_group_of_somebody_else_is_not_taken_over(server: Server, starter: Starter) -> None:
    path = "/apis/scheduling.volcano.sh/v1beta1/namespaces/default/podgroups/risk"
    server.groups[path] = {"metadata": {"name": "risk", "ownerReferences": [{"uid": "other"}]}, "spec": {}}
    await starter.do(ensure(), make_snapshot(SPEC))
    group = starter.view(make_swarm().uid).group
    assert group is not None
    assert "belongs to somebody else" in group.error
    assert lifted(server) == []
