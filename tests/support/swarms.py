"""Builders of Swarm manifests."""

from __future__ import annotations

from typing import Any

__all__ = ["READY", "condition", "swarm"]


def swarm(name: str = "risk", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A valid Swarm of two compute agents; keywords are the fields of its spec."""
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "agentswarm.dev/v1alpha1",
        "kind": "Swarm",
        "metadata": metadata,
        "spec": {"compute": {"replicas": 2}, **spec},
    }


def condition(type_: str, status: str, reason: str, message: str = "", observed_generation: int = 1) -> dict[str, Any]:
    """A condition as an operator writes it; by default about an object whose spec was never changed."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "observedGeneration": observed_generation,
    }


#: What an operator writes when all is well.
READY = condition("Ready", "True", "AllAgentsReady", "2 of 2")
