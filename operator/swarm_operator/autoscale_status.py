"""What people see of the autoscaler: the condition Autoscaling, and the status block beside it. Pure.

The numbers are those that the decision was made by, and are renewed with the next decision or when they have moved far:
a status that followed every reading would be written every second. An operator that has just begun has decided nothing;
until it has, what the last one said stands.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from swarm_operator.autoscale import NO_DATA, Decision, duration_text, policy_of
from swarm_operator.snapshot import Snapshot

__all__ = ["AUTOSCALING", "autoscaling_block", "autoscaling_condition"]

AUTOSCALING: Final = "Autoscaling"
_SUSPENDED: Final = "Suspended"


def autoscaling_condition(snapshot: Snapshot, refused: tuple[str, str] | None) -> list[tuple[str, str, str, str]]:
    """The condition as (type, status, reason, message); none for a Swarm whose replicas are others' to decide."""
    if snapshot.spec is None or policy_of(snapshot.spec) is None:
        return []
    if refused:
        return [(AUTOSCALING, "False", refused[0], "The spec is not accepted; see the condition Accepted.")]
    if snapshot.spec.suspend:
        return [(AUTOSCALING, "False", _SUSPENDED, "spec.suspend is true: nothing is scaled.")]
    decision = snapshot.autoscaling
    if decision is None:
        said = (c for c in snapshot.swarm.status.get("conditions") or () if c.get("type") == AUTOSCALING)
        last = next((c for c in said if c.get("reason") != _SUSPENDED), None)
        if last:
            return [(AUTOSCALING, str(last["status"]), str(last["reason"]), str(last.get("message", "")))]
        return [(AUTOSCALING, "False", NO_DATA, "No agent has told its load yet.")]
    return [(AUTOSCALING, "False" if decision.reason == NO_DATA else "True", decision.reason, decision.message[:1000])]


def autoscaling_block(snapshot: Snapshot) -> dict[str, Any]:
    """`status.autoscaling`, in an object to be merged into the status; empty where nothing is autoscaled."""
    if snapshot.spec is None or policy_of(snapshot.spec) is None:
        return {}
    before = snapshot.swarm.status.get("autoscaling")
    if snapshot.autoscaling is None:
        return {"autoscaling": before} if before else {}
    return {"autoscaling": _block(snapshot.autoscaling, before or {})}


def _block(decision: Decision, before: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "desired": decision.desired,
        "min": decision.low,
        "max": decision.high,
        "queueTime": duration_text(decision.queue_time),
        "serviceTime": duration_text(decision.service),
        "arrivalsPerSecond": f"{decision.arrivals:.3g}",
        "completionsPerSecond": f"{decision.completions:.3g}",
        "waiting": decision.waiting,
        "busy": decision.busy,
        "reason": decision.reason,
        "message": decision.message[:1000],
    }
    when = before.get("lastScaleTime")
    if decision.scaled_at is not None:
        when = datetime.fromtimestamp(decision.scaled_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found | ({"lastScaleTime": when} if when else {})
