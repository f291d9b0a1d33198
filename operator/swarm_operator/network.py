"""The NetworkPolicy of a Swarm's pods: who may reach them, and whom they may reach. Pure.

In: the hubs' ports (tasks and REST) from the swarm's own pods, the operator, pods of the namespace that are labelled
`agentswarm.dev/client: <swarm>`, and whomever `spec.security.clients` names; the agents' HTTP port from anywhere, since
Prometheus may be anywhere and all that it does beside telling of metrics and health needs the swarm's token. Ports go
by their names, which each pod resolves for itself: while a change of a port is rolled out, old and new pods have
different ones. Out: the swarm's own pods, DNS, and what `spec.security.egress` names; an agent asks nobody else for
anything (it has no account at the API server), so that code that was smuggled into one can't carry data away.

It is the second line: CURVE and the token keep strangers out where no network plug-in carries policies out.

The operator is known by the chart's labels, in the namespace that it runs in; one that runs as no pod of the cluster
has no labels, and no peer stands for it. DNS is any pod of the cluster, or a link-local address (NodeLocal DNSCache,
clouds' resolvers), on port 53 or 5353, to which OpenShift's Service leads: where a cluster's DNS runs is not written
in it anywhere.

Policies add up: nobody can take with another one what this one gives. So an edit of it is repaired as a whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from swarm_agents.config import Transport, second_port
from swarm_operator.actions import Delete
from swarm_operator.api.network import Egress, Peer
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.names import LABEL_CLIENT, network_policy, pod_selector
from swarm_operator.objects import metadata
from swarm_operator.private_board import in_pod
from swarm_operator.views import ObjectView, SwarmView

__all__ = ["KIND", "OPERATOR_LABELS", "network_policy_manifest", "problems", "superfluous", "wanted"]

KIND: Final = "NetworkPolicy"
#: By which the chart labels the operator's pods, whatever the release is called.
OPERATOR_LABELS: Final = {"app.kubernetes.io/part-of": "agentswarm", "app.kubernetes.io/component": "operator"}

_NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
_DNS_PORTS: Final = (53, 5353)
_LINK_LOCAL: Final = "169.254.0.0/16"


def wanted(swarm: SwarmView, spec: SwarmSpec, home: str) -> list[dict[str, Any]]:
    """The manifest, if one is asked for. `home` is the operator's namespace; empty: it is no pod."""
    return [network_policy_manifest(swarm, spec, home)] if spec.security.network_policy else []


def superfluous(swarm: SwarmView, spec: SwarmSpec, observed: Mapping[tuple[str, str], ObjectView]) -> list[Delete]:
    """The deletion of a policy that is not asked for any more, if there is one."""
    there = observed.get((KIND, network_policy(swarm.name)))
    if spec.security.network_policy or there is None or there.deleting or swarm.uid not in there.owners:
        return []
    return [Delete(KIND, there.name, there.uid)]


def problems(spec: SwarmSpec) -> Iterator[tuple[str, str]]:
    """Ranges of addresses that are none: what a pattern in the schema can't tell."""
    given = {
        "clients": spec.security.clients,
        "egress": [rule.to for rule in spec.security.egress],
    }
    for field, peers in given.items():
        for index, peer in enumerate(peers):
            try:
                ipaddress.ip_network(peer.cidr or _LINK_LOCAL)
            except ValueError as error:
                where = f"spec.security.{field}[{index}]{'.to' if field == 'egress' else ''}.cidr"
                yield where, f"{error}; write a network's first address and its length, such as 10.0.0.0/8"


def network_policy_manifest(swarm: SwarmView, spec: SwarmSpec, home: str) -> dict[str, Any]:
    """The policy of all of a swarm's pods, of whichever role."""
    own = _pods(pod_selector(swarm.name))
    operator = [{**_pods(OPERATOR_LABELS), **_namespaces({_NAMESPACE_NAME: home})}] if home else []
    clients = [_pods({LABEL_CLIENT: swarm.name}), *(_peer(peer) for peer in spec.security.clients)]
    zeromq = spec.transport.zeromq
    # where the hubs listen as well while the keys are renewed; it has no name, as pods come to it while they run
    renewed = second_port(Transport(hub_port=zeromq.port, rest_port=zeromq.rest_port))
    hubs: list[str | int] = ["hub", "rest", *([renewed] if zeromq.encryption == "Curve" else [])]
    http = ["http", "hub-http"] if in_pod(spec) else ["http"]
    dns = [{"port": port, "protocol": protocol} for port in _DNS_PORTS for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": KIND,
        "metadata": metadata(swarm, network_policy(swarm.name)),
        "spec": {
            "podSelector": {"matchLabels": pod_selector(swarm.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [own, *operator, *clients], "ports": _ports(hubs)},
                {"ports": _ports(http)},
            ],
            "egress": [
                {"to": [own]},
                {"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": _LINK_LOCAL}}], "ports": dns},
                *(_egress(rule) for rule in spec.security.egress),
            ],
        },
    }


def _ports(names: Iterable[str | int]) -> list[dict[str, Any]]:
    return [{"port": name, "protocol": "TCP"} for name in names]


def _pods(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": dict(labels)} if labels else {}}


def _namespaces(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": dict(labels)} if labels else {}}


def _peer(peer: Peer) -> dict[str, Any]:
    if peer.cidr is not None:
        return {"ipBlock": {"cidr": peer.cidr}}
    out: dict[str, Any] = {} if peer.pods is None else _pods(peer.pods)
    return out if peer.namespaces is None else out | _namespaces(peer.namespaces)


def _egress(rule: Egress) -> dict[str, Any]:
    out: dict[str, Any] = {"to": [_peer(rule.to)]}
    if rule.ports:
        out["ports"] = [{"port": port, "protocol": rule.protocol} for port in rule.ports]
    return out
