"""Who reaches whom by the NetworkPolicy of a Swarm, judged as a network plug-in would judge it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.operatorkit import World, make_pod, make_snapshot, make_spec, make_swarm
from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, Role, Transport, second_port
from swarm_operator.accept import INVALID, refusals
from swarm_operator.actions import Apply, Delete
from swarm_operator.names import PodName
from swarm_operator.network import OPERATOR_LABELS, network_policy_manifest
from swarm_operator.plan import plan
from swarm_operator.pods import pod_manifest


@dataclass(frozen=True)
class Pod:
    labels: dict[str, str]
    namespace: str = "default"
    namespace_labels: dict[str, str] = field(default_factory=dict)
    ip: str = "10.9.9.9"


OWN = make_pod().labels
OPERATOR = Pod(OPERATOR_LABELS, "operators")
STRANGER = Pod({"app": "x"})
PORTS = {"http": AGENT_PORT, "hub-http": HUB_AGENT_PORT, "hub": 7400, "rest": 7480}
HUBS = (7400, 7480)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def stands_for(peer: dict[str, Any], other: Pod) -> bool:
    if "ipBlock" in peer:
        return ipaddress.ip_address(other.ip) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != "default":
        return False
    return selects(peer.get("podSelector", {}), other.labels)


def passes(
    spec: dict[str, Any], way: str, other: Pod, port: int, protocol: str = "TCP", home: str = "operators"
) -> bool:
    """Whether an agent is reached by the other one (`ingress`) or reaches it (`egress`)."""
    return judged(network_policy_manifest(make_swarm(), make_spec(**spec), home)["spec"], way, other, port, protocol)


def judged(policy: dict[str, Any], way: str, other: Pod, port: int, protocol: str = "TCP") -> bool:
    assert selects(policy["podSelector"], OWN)
    assert way.capitalize() in policy["policyTypes"]
    for rule in policy[way]:
        peers, ports = rule.get("from" if way == "ingress" else "to"), rule.get("ports")
        if (peers is None or any(stands_for(peer, other) for peer in peers)) and (
            ports is None or any((PORTS.get(p["port"], p["port"]), p["protocol"]) == (port, protocol) for p in ports)
        ):
            return True
    return False


@pytest.mark.parametrize("port", HUBS)
def test_hubs_are_reached_by_the_swarm_itself_its_clients_and_the_operator_and_nobody_else(port: int) -> None:
    for allowed in (Pod(OWN), Pod({"agentswarm.dev/client": "risk"}), OPERATOR):
        assert passes({}, "ingress", allowed, port), allowed
    for refused in (
        STRANGER,
        Pod(OWN, "elsewhere"),
        Pod({"agentswarm.dev/client": "risk"}, "elsewhere"),
        Pod({"agentswarm.dev/client": "other"}),
        Pod({**OWN, "agentswarm.dev/swarm": "other"}),
        Pod(OPERATOR_LABELS),
    ):
        assert not passes({}, "ingress", refused, port), refused


def test_an_operator_outside_the_cluster_opens_nothing() -> None:
    assert not any(passes({}, "ingress", Pod(OPERATOR_LABELS, space), 7400, home="") for space in ("", "operators"))


def test_metrics_are_reached_from_anywhere_and_nothing_but_metrics_and_health() -> None:
    anybody = Pod({}, "monitoring", ip="192.0.2.1")
    memory = {"transport": {"sharedMemory": {"medium": "Memory"}}}
    for given, ports in (({}, [AGENT_PORT]), (memory, sorted((AGENT_PORT, HUB_AGENT_PORT)))):
        policy = network_policy_manifest(make_swarm(), make_spec(**given), "operators")["spec"]
        assert [port for port in range(1, 65536) if judged(policy, "ingress", anybody, port)] == ports


def test_ports_go_by_names_that_every_pod_resolves_so_that_they_can_be_changed() -> None:
    """While a port is changed, pods of the old and of the new revision have different ones."""
    for medium in ("HostPath", "Memory"):
        spec = make_spec(
            compute={"memory": "1Gi"},
            resource={"memory": "1Gi"},
            transport={"sharedMemory": {"medium": medium}, "zeromq": {"port": 7999}},
        )
        policy = network_policy_manifest(make_swarm(), spec, "")["spec"]
        role = Role.COMPUTE if medium == "Memory" else Role.RESOURCE
        pod = pod_manifest(make_swarm(), spec, PodName("risk", role, 0, 0), "r")
        have = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        named = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
        assert named == have | {8000}, "and where hubs listen while keys are renewed, on pods that run already"


def test_the_port_of_renewed_keys_is_open_to_those_who_may_reach_hubs_and_only_with_keys() -> None:
    port = second_port(Transport())
    assert passes({}, "ingress", Pod(OWN), port)
    assert not passes({}, "ingress", STRANGER, port)
    assert not passes({"transport": {"zeromq": {"encryption": "None"}}}, "ingress", Pod(OWN), port)


def test_agents_reach_themselves_and_dns_and_nothing_else() -> None:
    for port in (7400, AGENT_PORT, 31999):
        assert passes({}, "egress", Pod(OWN), port)
    for protocol in ("UDP", "TCP"):
        assert passes({}, "egress", Pod({"k8s-app": "kube-dns"}, "kube-system"), 53, protocol)
        assert passes({}, "egress", Pod({}, "", ip="169.254.20.10"), 53, protocol)
    for other in (STRANGER, OPERATOR, Pod(OWN, "elsewhere")):
        assert not any(passes({}, "egress", other, port) for port in (80, 443, 6443, 7400))
    # neither the API server, nor a cloud's metadata
    for address in ("192.0.2.1", "169.254.169.254"):
        outside = Pod({}, "", ip=address)
        assert not any(passes({}, "egress", outside, port) for port in (80, 443, 6443, 10250))


def test_a_swarm_names_further_clients_and_further_places_to_reach() -> None:
    security = {
        "clients": [
            {"namespaces": {"team": "risk"}},
            {"pods": {"app": "ui"}, "namespaces": {}},
            {"pods": {}},
            {"cidr": "192.0.2.0/24"},
        ],
        "egress": [
            {"to": {"cidr": "198.51.100.0/24"}, "ports": [443]},
            {"to": {"pods": {"app": "db"}}, "protocol": "UDP", "ports": [5432]},
            {"to": {"namespaces": {"name": "store"}}},
        ],
    }
    spec = {"security": security}
    for allowed in (
        Pod({}, "a", {"team": "risk"}),
        Pod({"app": "ui"}, "b"),
        STRANGER,
        Pod({}, "", ip="192.0.2.77"),
    ):
        assert passes(spec, "ingress", allowed, 7480), allowed
    for refused in (Pod({}, "b"), Pod({}, "", ip="192.0.3.1")):
        assert not passes(spec, "ingress", refused, 7480), refused
    assert passes(spec, "egress", Pod({}, "", ip="198.51.100.1"), 443)
    assert not passes(spec, "egress", Pod({}, "", ip="198.51.100.1"), 80)
    assert passes(spec, "egress", Pod({"app": "db"}), 5432, "UDP")
    assert not passes(spec, "egress", Pod({"app": "db"}), 5432)
    assert not passes(spec, "egress", Pod({"app": "db"}, "b"), 5432, "UDP")
    assert passes(spec, "egress", Pod({}, "c", {"name": "store"}), 9000)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "300.0.0.0/8", "10.0.0.0/33", "::/129"])
def test_a_range_of_addresses_that_is_none_is_refused_with_its_place(cidr: str) -> None:
    spec = make_spec(security={"clients": [{"pods": {}}, {"cidr": cidr}], "egress": [{"to": {"cidr": cidr}}]})
    found = refusals(spec)
    assert {(r.reason, r.field) for r in found} == {
        (INVALID, "spec.security.clients[1].cidr"),
        (INVALID, "spec.security.egress[0].to.cidr"),
    }
    assert all("write a network's first address" in r.message for r in found)


def test_a_policy_that_is_not_asked_for_any_more_is_deleted_and_only_the_swarms_own() -> None:
    world = World({})
    for _ in range(3):
        planned = plan(world.snapshot(), world.now)
        for action in planned.actions:
            world.perform(action, planned)
        world.tick()
    made = world.objects["NetworkPolicy", "risk"]
    world.edit({"security": {"networkPolicy": False}})
    found = [a for a in plan(world.snapshot(), world.now).actions if a.kind == "NetworkPolicy"]
    assert found == [Delete("NetworkPolicy", "risk", made.uid)]
    world.objects["NetworkPolicy", "risk"] = type(made)(
        made.kind, made.namespace, made.name, made.uid, made.resource_version, ("another",), False, made.body
    )
    assert not [a for a in plan(world.snapshot(), world.now).actions if a.kind == "NetworkPolicy"]


def test_a_swarm_without_a_policy_has_none_made() -> None:
    off = plan(make_snapshot({"security": {"networkPolicy": False}}), 0.0).actions
    on = plan(make_snapshot({}), 0.0).actions
    assert not [a for a in off if a.kind == "NetworkPolicy"]
    assert [type(a) for a in on if a.kind == "NetworkPolicy"] == [Apply]
