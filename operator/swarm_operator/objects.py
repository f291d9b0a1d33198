"""The children that are not pods, as manifests. Pure.

Every field that could be edited by hand is written out, also where it equals the API server's default: what is not
written can't be compared, and so would not be repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, SETTINGS_FILE, Role, Settings, encode_settings
from swarm_operator.api.v1alpha1 import API_VERSION, KIND, SwarmSpec
from swarm_operator.names import (
    agents_service,
    api_service,
    config_map,
    controller_revision,
    disruption_budget,
    object_labels,
    pod_selector,
    secret,
    service_account,
)
from swarm_operator.private_board import in_pod
from swarm_operator.views import SwarmView

__all__ = [
    "EXACT",
    "WHOLE",
    "agents_service_manifest",
    "api_service_manifest",
    "budget_manifest",
    "config_map_manifest",
    "metadata",
    "owner_reference",
    "revision_manifest",
    "secret_manifest",
    "service_account_manifest",
]

#: Kind -> paths whose content is ours alone: what others add there is removed. Elsewhere additions are left alone.
EXACT: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "Service": (("spec", "ports"), ("spec", "selector")),
    "ConfigMap": (("data",), ("binaryData",)),
    "Secret": (("data",),),
    "ServiceAccount": (),
    "PodDisruptionBudget": (("spec", "selector"),),
    "ControllerRevision": (),
    "NetworkPolicy": (),
}

#: Kinds that are ours to the last item of each list. The API server takes those lists whole from an apply, so that
#: nothing need be removed by name.
WHOLE: Final = frozenset({"NetworkPolicy"})


def owner_reference(swarm: SwarmView) -> dict[str, Any]:
    """What makes the garbage collector delete a child with its Swarm.

    Without `blockOwnerDeletion`: it would need the right to set finalizers on Swarms, for nothing.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": swarm.name,
        "uid": swarm.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def metadata(swarm: SwarmView, name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A child's metadata."""
    return {
        "name": name,
        "namespace": swarm.namespace,
        "labels": labels or object_labels(swarm.name),
        "ownerReferences": [owner_reference(swarm)],
    }


def _service(swarm: SwarmView, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(swarm, name), "spec": spec}


def _port(name: str, number: int, target: str) -> dict[str, Any]:
    return {"name": name, "port": number, "protocol": "TCP", "targetPort": target}


def agents_service_manifest(swarm: SwarmView, spec: SwarmSpec) -> dict[str, Any]:
    """The headless Service: a DNS name for every agent, and what Prometheus scrapes, ready or not."""
    hubs = [_port("hub-http", HUB_AGENT_PORT, "hub-http")] if in_pod(spec) else []
    return _service(
        swarm,
        agents_service(swarm.name),
        {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": pod_selector(swarm.name),
            "ports": [_port("http", AGENT_PORT, "http"), *hubs],
        },
    )


def api_service_manifest(swarm: SwarmView, spec: SwarmSpec) -> dict[str, Any]:
    """The Service that clients in the cluster use: any hub's REST interface and ROUTER."""
    zeromq = spec.transport.zeromq
    return _service(
        swarm,
        api_service(swarm.name),
        {
            "type": "ClusterIP",
            "publishNotReadyAddresses": False,
            "selector": pod_selector(swarm.name, Role.COMPUTE if in_pod(spec) else Role.RESOURCE),
            "ports": [_port("rest", zeromq.rest_port, "rest"), _port("hub", zeromq.port, "hub")],
        },
    )


def config_map_manifest(swarm: SwarmView, settings: Settings) -> dict[str, Any]:
    """The settings that a pod starts with."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(swarm, config_map(swarm.name)),
        "data": {SETTINGS_FILE: encode_settings(settings).decode()},
    }


def secret_manifest(swarm: SwarmView, data: dict[str, str]) -> dict[str, Any]:
    """The keys; `data` is base64 already."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(swarm, secret(swarm.name)),
        "type": "Opaque",
        "data": data,
    }


def service_account_manifest(swarm: SwarmView) -> dict[str, Any]:
    """The agents' identity: none that the API server would know."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(swarm, service_account(swarm.name)),
        "automountServiceAccountToken": False,
    }


def budget_manifest(swarm: SwarmView, min_available: int) -> dict[str, Any]:
    """How many compute agents an eviction must leave.

    `minAvailable` as a number, since `maxUnavailable` makes the disruption controller ask the Swarm's scale
    subresource, for which it has no right unless the cluster's owner grants it.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(swarm, disruption_budget(swarm.name)),
        "spec": {
            "minAvailable": min_available,
            "selector": {"matchLabels": pod_selector(swarm.name, Role.COMPUTE)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def revision_manifest(
    swarm: SwarmView, revision: str, number: int, part: dict[str, Any], marks: Mapping[str, str]
) -> dict[str, Any]:
    """The rolling part of one spec, and what became of it (annotations)."""
    meta = metadata(swarm, controller_revision(swarm.name, revision))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {**meta, "annotations": dict(marks)} if marks else meta,
        "revision": number,
        "data": {"spec": part},
    }
