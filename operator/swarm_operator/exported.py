"""The metrics that the operator exports (see `swarm_agents.exported`)."""

from __future__ import annotations

from typing import Final

from swarm_agents.exported import Declared, Table, process

__all__ = ["ACTIONS", "CONDITIONS", "OPERATOR", "RECONCILED", "ROLES", "STATES"]

#: How a round for a Swarm ends.
RECONCILED: Final = ("ok", "failed", "error", "crash", "gone", "not-leader")
ACTIONS: Final = (
    "Apply",
    "AskAgent",
    "CreatePod",
    "Delete",
    "DeletePod",
    "DrainPod",
    "EnsureKeys",
    "EnsurePodGroup",
    "FailGang",
    "LiftGate",
    "MarkRevision",
    "PushSettings",
    "RepairPod",
    "ResumePod",
    "StartGang",
    "TurnKeys",
)
ROLES: Final = ("compute", "standby", "resource")
STATES: Final = ("desired", "ready")
CONDITIONS: Final = (
    "Accepted",
    "Ready",
    "Progressing",
    "Degraded",
    "Suspended",
    "RolledBack",
    "FailurePredicted",
    "Autoscaling",
    "PodSecurity",
    "KeysRenewing",
    "Placed",
    "Pinned",
    "NumaAligned",
    "TopologyRejected",
)

_FAST: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_METHOD: Final = {"method": "5 methods of HTTP: GET, POST, PUT, PATCH, DELETE"}
_SWARM: Final = {"namespace": "those of the Swarms", "swarm": "one a Swarm"}
_SCALED: Final = {"namespace": "those of the Swarms", "swarm": "one a Swarm that is autoscaled"}

OPERATOR: Final = Table(
    "The operator",
    "Each replica exports these at its port 9403. What is said of Swarms every replica says alike: take `max by`.",
    Declared("swarm_operator_build", "info", "The operator's release; always 1", {"version": "one a replica"}),
    Declared("swarm_operator_leading", "gauge", "1 while this replica writes"),
    Declared("swarm_operator_swarms", "gauge", "Swarms in the cache"),
    Declared("swarm_operator_pods", "gauge", "Pods in the cache"),
    Declared(
        "swarm_operator_agents",
        "gauge",
        "A Swarm's agents, as its status says",
        _SWARM
        | {
            "role": f"{len(ROLES)} roles: {', '.join(ROLES)}",
            "state": f"{len(STATES)} states: {', '.join(STATES)}",
        },
    ),
    Declared(
        "swarm_operator_swarm_condition",
        "gauge",
        "A condition of a Swarm: 1 True, 0 False, NaN Unknown",
        _SWARM | {"condition": f"{len(CONDITIONS)} conditions: {', '.join(CONDITIONS)}"},
    ),
    Declared("swarm_operator_queue_depth", "gauge", "Swarms that wait to be worked on"),
    Declared(
        "swarm_operator_queue_seconds", "histogram", "Seconds that Swarms waited in the work queue", buckets=_FAST
    ),
    Declared(
        "swarm_operator_reconciles",
        "counter",
        "Rounds for a Swarm: ok, failed (the API server refused an action), error (the status could not be written), "
        "crash (a defect), gone (it is deleted), not-leader",
        {"result": f"{len(RECONCILED)} results: {', '.join(RECONCILED)}"},
    ),
    Declared("swarm_operator_reconcile_seconds", "histogram", "Seconds that a round for a Swarm took", buckets=_FAST),
    Declared(
        "swarm_operator_actions",
        "counter",
        "Actions carried out",
        {"action": f"{len(ACTIONS)} kinds of action", "result": "2: done, failed"},
    ),
    Declared("swarm_operator_status_writes", "counter", "Statuses written"),
    Declared(
        "swarm_operator_api_requests",
        "counter",
        "Requests to the API server; code 0 without an answer",
        _METHOD | {"kind": "the 12 kinds that the operator uses, and their subresources", "code": "HTTP's"},
    ),
    Declared(
        "swarm_operator_api_request_seconds",
        "histogram",
        "Seconds that requests to the API server took, watches left out",
        _METHOD,
        buckets=_FAST,
    ),
    Declared(
        "swarm_operator_watch_age_seconds",
        "gauge",
        "Seconds since the API server was heard of on the watch where that is longest",
    ),
    Declared("swarm_operator_events_dropped", "counter", "Kubernetes Events that were not written"),
    Declared("swarm_operator_audit_entries", "counter", "Audit entries that this replica has written"),
    Declared(
        "swarm_operator_autoscales",
        "counter",
        "Counts that the autoscaler wrote, by direction (out, in), and rounds that failed",
        {"result": "3: out, in, failed"},
    ),
    Declared("swarm_operator_autoscale_unread_nodes", "gauge", "Nodes that did not tell their load last"),
    Declared("swarm_operator_autoscale_desired", "gauge", "Compute agents that the autoscaler wants", _SCALED),
    Declared(
        "swarm_operator_autoscale_queue_seconds",
        "gauge",
        "Seconds that 19 of 20 tasks waited no longer than, of late",
        _SCALED,
    ),
    Declared("swarm_operator_autoscale_arrivals_per_second", "gauge", "Tasks that come, per second", _SCALED),
    Declared("swarm_operator_autoscale_completions_per_second", "gauge", "Tasks that are done, per second", _SCALED),
    Declared("swarm_operator_autoscale_task_seconds", "gauge", "Seconds that a task takes on average", _SCALED),
    Declared("swarm_operator_autoscale_waiting_tasks", "gauge", "Tasks that wait", _SCALED),
    Declared("swarm_operator_autoscale_busy_agents", "gauge", "Compute agents that have a task in hand", _SCALED),
    *process("", "the operator"),
)
