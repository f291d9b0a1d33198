"""The agents as Prometheus' HTTP service discovery wants them: `GET /targets` of the operator.

For a Prometheus without the Prometheus operator, and without rights in the cluster: it asks any replica, since every
replica knows the pods, and gets each agent's address with the labels that say whose it is. Whose it is comes from the
pod as the API server has it, never from the agent, in which users' kernels run. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarm_agents.config import HUB_AGENT_PORT, Role
from swarm_operator.names import LABEL_ROLE, LABEL_SWARM
from swarm_operator.views import PodView

__all__ = ["targets"]


def targets(pods: Iterable[PodView]) -> list[dict[str, Any]]:
    """A group for each port of each agent's pod that runs. A hub inside a compute agent's pod is a resource agent."""
    return [
        {
            "targets": [f"[{pod.ip}]:{port}" if ":" in pod.ip else f"{pod.ip}:{port}"],
            "labels": {
                "namespace": pod.namespace,
                "pod": pod.name,
                "node": pod.node,
                "swarm": pod.labels[LABEL_SWARM],
                "role": str(Role.RESOURCE) if port == HUB_AGENT_PORT else pod.labels.get(LABEL_ROLE, ""),
            },
        }
        for pod in pods
        if pod.phase == "Running" and pod.ip and LABEL_SWARM in pod.labels
        for port in pod.ports
    ]
