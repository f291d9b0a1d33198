"""Shared memory of medium Memory: a pod is a node of its own, with a hub beside its agent and nothing of the host."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operatorkit import World, make_node, make_pod, make_report, make_snapshot, make_spec, make_swarm
from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, Checkpoints, Identity, Role
from swarm_agents.shm.layout import Geometry
from swarm_agents.shm.layout import board_bytes as exact_board_bytes
from swarm_operator.accept import INVALID, refusals
from swarm_operator.actions import Apply, CreatePod, DeletePod, DrainPod, PushSettings
from swarm_operator.api.fields import size_bytes
from swarm_operator.api.v1alpha1 import SharedMemory
from swarm_operator.names import PodName
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest
from swarm_operator.private_board import MOST_PODS, OWN_MEMORY, board_bytes, kept_bytes, size_limit
from swarm_operator.status import status_of
from swarm_operator.views import PodView, decode

MEMORY: dict[str, Any] = {"transport": {"sharedMemory": {"medium": "Memory"}}}
PORTS = (HUB_AGENT_PORT, AGENT_PORT)


def memory(**more: Any) -> dict[str, Any]:
    """A spec of medium Memory."""
    return MEMORY | more


def pod_of(spec: dict[str, Any], ordinal: int = 3, incarnation: int = 1) -> dict[str, Any]:
    return pod_manifest(make_swarm(), make_spec(**spec), PodName("risk", Role.COMPUTE, ordinal, incarnation), "rev")


def environment(container: dict[str, Any]) -> dict[str, str]:
    downward = {"POD_NAME": "risk-compute-3-1", "POD_UID": "u", "POD_IP": "10.0.0.1", "NODE_NAME": "node-a"}
    return {entry["name"]: entry.get("value", downward.get(entry["name"], "")) for entry in container["env"]}


def settled(spec: dict[str, Any], rounds: int = 24) -> World:
    world = World(spec, [make_node("node-a")])
    for _ in range(rounds):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    assert not plan(world.snapshot(), world.now).actions
    return world


# -- the pod


def test_the_pod_has_two_containers_that_share_memory_which_is_nobody_elses() -> None:
    pod = pod_of(memory(state={}))["spec"]
    assert [container["name"] for container in pod["containers"]] == ["agent", "hub"]
    (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "swarm-shm"]
    assert shm["emptyDir"]["medium"] == "Memory"
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for container in pod["containers"]:
        assert {"name": "swarm-shm", "mountPath": "/run/swarm/shm"} in container["volumeMounts"]
        names = [entry["name"] for entry in container["env"]]
        assert len(names) == len(set(names)), "server-side apply refuses a name that is there twice"
    kubernetes_validate.validate(pod_of(memory(state={})), "1.36", strict=True)


def test_agent_and_hub_have_names_and_ports_of_their_own_and_take_the_pod_for_their_node() -> None:
    agent, hub = (Identity.from_environment(environment(c)) for c in pod_of(MEMORY)["spec"]["containers"])
    assert (agent.role, hub.role) == (Role.COMPUTE, Role.RESOURCE)
    assert agent.pod == agent.node == hub.node == "risk-compute-3-1"
    assert hub.pod == "risk-hub-3-1"
    assert (agent.http_port, hub.http_port) == (None, HUB_AGENT_PORT)
    assert agent.shm_dir == hub.shm_dir
    containers = pod_of(MEMORY)["spec"]["containers"]
    ports = [port for container in containers for port in container["ports"]]
    assert len({port["name"] for port in ports}) == len({port["containerPort"] for port in ports}) == len(ports) == 4
    for container, port in zip(containers, ("http", "hub-http"), strict=True):
        probes = [container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
        assert probes == [port] * 3
        assert port in [p["name"] for p in container["ports"]]


def test_the_pod_is_guaranteed_and_the_agents_cpus_can_be_its_own() -> None:
    agent, hub = pod_of(memory(compute={"cpus": "2", "gpus": {"count": 1}}))["spec"]["containers"]
    for container in (agent, hub):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    assert agent["resources"]["limits"] == {"cpu": "2", "memory": "512Mi", "nvidia.com/gpu": "1"}
    assert hub["resources"]["limits"] == {"cpu": "100m", "memory": "512Mi"}, "it shares the CPUs that are nobody's own"


def test_what_users_add_to_the_agent_the_hub_does_not_get() -> None:
    template = {"volumes": [{"name": "a", "emptyDir": "1Mi"}], "volumeMounts": [{"name": "a", "mountPath": "/a"}]}
    spec = memory(compute={"podTemplate": template, "env": [{"name": "TOKEN", "value": "x"}]})
    agent, hub = pod_of(spec)["spec"]["containers"]
    assert "/a" in {mount["mountPath"] for mount in agent["volumeMounts"]}
    assert "/a" not in {mount["mountPath"] for mount in hub["volumeMounts"]}
    assert "TOKEN" in environment(agent)
    assert "TOKEN" not in environment(hub)


# -- how much memory


@given(
    size=st.integers(1 << 20, 1 << 40),
    slots=st.integers(64, 1 << 20),
    members=st.integers(8, 4096),
)
def test_the_operator_expects_of_a_board_no_less_than_it_takes_and_little_more(
    size: int, slots: int, members: int
) -> None:
    expected = board_bytes(SharedMemory(size=str(size), taskSlots=slots, maxMembers=members))
    exact = exact_board_bytes(Geometry(slots, size, members))
    assert exact <= expected <= 1.7 * exact + (8 << 20)


@given(own=st.integers(430, 4096), hub=st.integers(430, 4096))
def test_a_full_board_is_an_error_before_it_is_the_end_of_a_container(own: int, hub: int) -> None:
    spec = make_spec(**memory(compute={"memory": f"{own}Mi"}, resource={"memory": f"{hub}Mi"}))
    assert refusals(spec) == ()
    limit = size_bytes(size_limit(spec))
    assert limit >= board_bytes(spec.transport.shared_memory) + 2 * kept_bytes(spec), "else it can't be made"
    assert limit <= min(own, hub) * (1 << 20) - OWN_MEMORY + (1 << 20)
    assert kept_bytes(spec) <= Checkpoints().node_bytes


def test_checkpoints_take_no_more_room_than_there_is() -> None:
    settings = plan(make_snapshot(MEMORY), 0.0).settings
    assert settings is not None
    assert settings.checkpoints.node_bytes == kept_bytes(make_spec(**MEMORY)) < Checkpoints().node_bytes
    usual = plan(make_snapshot({}), 0.0).settings
    assert usual is not None
    assert usual.checkpoints.node_bytes == Checkpoints().node_bytes


# -- what is refused


@pytest.mark.parametrize(
    ("spec", "field", "advice"),
    [
        (
            {"compute": {"memory": "300Mi"}},
            "spec.compute.memory",
            "raise it or make transport.sharedMemory.size smaller",
        ),
        ({"resource": {"memory": "300Mi"}}, "spec.resource.memory", "raise it or make"),
        ({"compute": {"standby": 1}}, "spec.compute.standby", "raise compute.replicas instead"),
        ({"compute": {"replicas": MOST_PODS + 1}}, "spec.compute.replicas", "or use medium HostPath"),
        (
            {"compute": {"min": 1, "max": MOST_PODS + 1}, "autoscaling": {}},
            "spec.compute.replicas",
            "or use medium HostPath",
        ),
        ({"compute": {"min": 0, "max": 2}, "autoscaling": {}}, "spec.compute.min", "at least 1"),
        ({"resource": {"nodeSelector": {"a": "b"}}}, "spec.resource", "leave them out here"),
        ({"resource": {"podTemplate": {"labels": {"a": "b"}}}}, "spec.resource", "leave them out here"),
        (
            {"transport": {"sharedMemory": {"medium": "Memory", "path": "/dev/shm/own"}}},
            "spec.transport.sharedMemory.path",
            "leave it out",
        ),
        (
            {"transport": {"sharedMemory": {"medium": "Memory"}, "zeromq": {"port": HUB_AGENT_PORT}}},
            "spec.transport.zeromq",
            "choose another",
        ),
    ],
)
def test_what_means_nothing_without_a_nodes_board_is_refused_with_what_to_do(
    spec: dict[str, Any], field: str, advice: str
) -> None:
    (refusal,) = refusals(make_spec(**(MEMORY | spec)))
    assert (refusal.reason, refusal.field) == (INVALID, field)
    assert advice in refusal.message
    shared = {key: value for key, value in spec.items() if key != "transport"}
    if shared and "memory" not in str(spec):
        assert refusals(make_spec(**shared)) == (), "with the node's memory it is fine"


# -- the swarm


def test_a_swarm_has_no_resource_agents_and_a_hub_in_every_pod() -> None:
    world = settled(memory(compute={"replicas": 3}))
    assert sorted(world.pods) == ["risk-compute-0-0", "risk-compute-1-0", "risk-compute-2-0"]
    planned = plan(world.snapshot(), world.now)
    assert planned.settings is not None
    assert [hub.node for hub in planned.settings.hubs] == sorted(world.pods)
    assert len({pod.node for pod in world.pods.values()}) == 1, "several of them on one node are several hubs"
    found = status_of(world.snapshot(), planned, (), world.now)
    assert (found["compute"]["ready"], found["resource"]["desired"], found["resource"]["ready"]) == (3, 0, 0)
    conditions = {c["type"]: c for c in found["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "Running")


def test_a_swarm_without_agents_is_not_ready_for_nobody_would_take_a_task() -> None:
    snapshot = make_snapshot(memory(compute={"replicas": 0}))
    found = status_of(snapshot, plan(snapshot, 0.0), (), 0.0)
    ready = next(c for c in found["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoAgents")
    assert "raise compute.replicas" in ready["message"]


def test_services_lead_to_the_hubs_in_the_compute_pods() -> None:
    actions = plan(make_snapshot(MEMORY), 0.0).actions
    found = {a.name: a.manifest for a in actions if isinstance(a, Apply) and a.kind == "Service"}
    assert found["risk"]["spec"]["selector"]["agentswarm.dev/role"] == "compute"
    ports = {port["name"]: port["port"] for port in found["risk-agents"]["spec"]["ports"]}
    assert ports == {"http": AGENT_PORT, "hub-http": HUB_AGENT_PORT}


def test_an_operator_sees_by_the_pod_where_its_agents_answer() -> None:
    made = [a.manifest for a in plan(make_snapshot(MEMORY), 0.0).actions if isinstance(a, CreatePod)]
    (pod,) = [decode("Pod", msgspec.json.encode(m)) for m in made]
    assert isinstance(pod, PodView)
    assert pod.ports == PORTS, "the hub is the first to leave"
    assert make_pod().ports == (AGENT_PORT,)
    assert (pod.board, make_pod().board) == ("risk-compute-0-0", "node-a")


def test_settings_and_drains_go_to_both_agents_of_a_pod() -> None:
    world = settled(memory(compute={"replicas": 2}))
    world.edit(memory(compute={"replicas": 2}, runtime={"logLevel": "debug"}))
    pushes = [a for a in plan(world.snapshot(), world.now).actions if isinstance(a, PushSettings)]
    assert [push.ports for push in pushes] == [PORTS] * 2
    world.edit(memory(compute={"replicas": 1}))
    (drain,) = [a for a in plan(world.snapshot(), world.now).actions if isinstance(a, DrainPod)]
    assert drain.ports == PORTS


def test_the_hub_of_a_pod_that_drains_stays_known_until_it_is_empty() -> None:
    """Others wait for what it computes for them; it tells them itself that it takes nothing more."""
    pods = [make_pod(ordinal=n, ports=PORTS) for n in range(2)]
    spec = memory(compute={"replicas": 1})

    def hubs(state: str) -> tuple[set[str], bool]:
        reports = {
            pods[0].uid: make_report(running=1),
            pods[1].uid: make_report(state=state, drain_since=1000.0),
        }
        planned = plan(make_snapshot(spec, pods, agents=reports), 1001.0)
        assert planned.settings is not None
        return {hub.node for hub in planned.settings.hubs}, any(isinstance(a, DeletePod) for a in planned.actions)

    assert hubs("draining") == ({pods[0].name, pods[1].name}, False)
    assert hubs("drained") == ({pods[0].name}, True)


def test_a_pod_on_a_lost_node_is_no_hub_any_more() -> None:
    pods = [make_pod(ordinal=n, node=node, ports=PORTS) for n, node in enumerate(("node-a", "node-b"))]
    lost = make_node("node-b", ready=False, unreachable=True, unready_since=1000.0)
    planned = plan(make_snapshot(memory(compute={"replicas": 2}), pods, [make_node("node-a"), lost]), 2000.0)
    assert planned.settings is not None
    assert [hub.node for hub in planned.settings.hubs] == [pods[0].name]
