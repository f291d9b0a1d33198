"""The dashboards of what is under the work: hardware, failover, the operator."""

from __future__ import annotations

from typing import Final

from swarm_deploy.dashboards.model import Board, Row
from swarm_deploy.dashboards.parts import (
    BY_NAMESPACE,
    BY_OPERATOR,
    BY_SWARM,
    OPERATORS,
    RATE,
    SWARMS,
    quantiles,
    series,
    stat,
)

__all__ = ["FAILOVER", "HARDWARE", "OPERATOR"]

HARDWARE: Final = Board(
    "agentswarm-hardware",
    "Agent Swarm / Hardware",
    "The nodes as their resource agents sense them; what a node can't tell is unknown, and never zero.",
    (BY_NAMESPACE, BY_SWARM),
    (
        Row(
            "Processors",
            (
                series(
                    "CPU in use",
                    "Share of the node.",
                    "percentunit",
                    (f"swarm_node_cpu_busy_ratio{{{SWARMS}}}", "{{node}}"),
                ),
                series("Load", "Of one minute.", "short", (f"swarm_node_load1{{{SWARMS}}}", "{{node}}")),
                series(
                    "Frequency",
                    "Mean of the CPUs.",
                    "hertz",
                    (f"swarm_node_cpu_frequency_hertz{{{SWARMS}}}", "{{node}}"),
                ),
                series(
                    "Exclusive cores",
                    "Agents' CPUs that are known to be theirs alone, and all that they may run on.",
                    "short",
                    (f"sum by (node) (swarm_agent_cores{{{SWARMS}}})", "{{node}} all"),
                    (
                        f"sum by (node) (swarm_agent_cores{{{SWARMS}}} "
                        f"* (swarm_agent_cores_exclusive{{{SWARMS}}} == bool 1))",
                        "{{node}} exclusive",
                    ),
                    (f"sum by (node) (swarm_agent_cores_avoided{{{SWARMS}}})", "{{node}} avoided"),
                    (
                        f"sum by (node) (rate(swarm_agent_core_moves_total{{{SWARMS}}}{RATE}))",
                        "{{node}} moves a second",
                    ),
                ),
            ),
        ),
        Row(
            "Memory",
            (
                series(
                    "Memory in use",
                    "Share of the node.",
                    "percentunit",
                    (
                        f"1 - swarm_node_memory_available_bytes{{{SWARMS}}} / swarm_node_memory_bytes{{{SWARMS}}}",
                        "{{node}}",
                    ),
                ),
                series(
                    "Shared memory in use",
                    "Share of the file system that the board lies in.",
                    "percentunit",
                    (
                        f"1 - swarm_node_shared_memory_available_bytes{{{SWARMS}}} "
                        f"/ swarm_node_shared_memory_size_bytes{{{SWARMS}}}",
                        "{{node}}",
                    ),
                ),
                series(
                    "Memory of agents",
                    "Resident, supervisors included.",
                    "bytes",
                    (
                        f"sum by (node) (swarm_agent_resident_memory_bytes{{{SWARMS}}} "
                        f"+ swarm_supervisor_process_resident_memory_bytes{{{SWARMS}}})",
                        "{{node}}",
                    ),
                ),
            ),
        ),
        Row(
            "Disks of agents",
            (
                series(
                    "Requests to the disk",
                    "Copies of checkpoints and answers that are put aside: allowed at once, under way, waiting.",
                    "short",
                    (f"sum by (node) (swarm_io_depth{{{SWARMS}}})", "{{node}} allowed"),
                    (f"sum by (node) (swarm_io_in_flight{{{SWARMS}}})", "{{node}} under way"),
                    (f"sum by (node) (swarm_io_waiting{{{SWARMS}}})", "{{node}} waiting"),
                ),
                series(
                    "Seconds a request",
                    "The slowest agent of the node.",
                    "s",
                    (f"max by (node) (swarm_io_latency_seconds{{{SWARMS}}})", "{{node}}"),
                ),
            ),
        ),
        Row(
            "Heat and sensors",
            (
                series(
                    "Temperature",
                    "The hottest place.",
                    "celsius",
                    (f"swarm_node_temperature_celsius{{{SWARMS}}}", "{{node}}"),
                ),
                series(
                    "Throttling",
                    "Times per minute that CPUs slowed down for heat.",
                    "short",
                    (f"rate(swarm_node_thermal_throttles_total{{{SWARMS}}}{RATE}) * 60", "{{node}}"),
                ),
                series(
                    "Sensors",
                    "How many are available, estimated, unavailable.",
                    "short",
                    (f"sum by (availability) (swarm_node_sensor{{{SWARMS}}})", "{{availability}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

FAILOVER: Final = Board(
    "agentswarm-failover",
    "Agent Swarm / Failover",
    "Who died, how soon that was known, and how soon work went on.",
    (BY_NAMESPACE, BY_SWARM),
    (
        Row(
            "Deaths",
            (
                series(
                    "Declared dead",
                    "Per minute, by who had noticed.",
                    "short",
                    (f"sum by (witness) (rate(swarm_fences_total{{{SWARMS}}}{RATE})) * 60", "{{witness}}"),
                    stacked=True,
                ),
                series(
                    "Suspected",
                    "Per minute; withdrawn: was heard again.",
                    "short",
                    (f"sum(rate(swarm_suspicions_total{{{SWARMS}}}{RATE})) * 60", "suspected"),
                    (f"sum(rate(swarm_suspicions_withdrawn_total{{{SWARMS}}}{RATE})) * 60", "withdrawn"),
                ),
                series(
                    "Restarts",
                    "Of agents by their supervisors, and agents that rejoined, per minute.",
                    "short",
                    (f"sum by (role) (rate(swarm_agent_restarts_total{{{SWARMS}}}{RATE})) * 60", "{{role}} restarted"),
                    (f"sum by (role) (rate(swarm_agent_rejoins_total{{{SWARMS}}}{RATE})) * 60", "{{role}} rejoined"),
                ),
                series("Epochs", "Of each agent.", "short", (f"swarm_agent_epoch{{{SWARMS}}}", "{{pod}}")),
            ),
        ),
        Row(
            "How fast",
            (
                series(
                    "Stages of failovers, median",
                    "detect: since the last heartbeat; claim: until its tasks are free; resume: until one runs again.",
                    "s",
                    *quantiles("swarm_failover_seconds", SWARMS, "stage", 0.5),
                ),
                series(
                    "Stages of failovers, p99",
                    "The same of the slowest.",
                    "s",
                    *quantiles("swarm_failover_seconds", SWARMS, "stage", 0.99),
                ),
                series(
                    "A new agent after a death",
                    "fork: there is a process; ready: it takes work.",
                    "s",
                    *quantiles("swarm_agent_replaced_seconds", SWARMS, "stage", 0.5, 0.99),
                ),
                series(
                    "Silence that is suspect",
                    "Thresholds, the greatest of all agents.",
                    "s",
                    (f"max by (stage) (swarm_detection_threshold_seconds{{{SWARMS}}})", "{{stage}}"),
                ),
            ),
        ),
        Row(
            "Work",
            (
                series(
                    "Tasks begun again, and given up",
                    "Per second.",
                    "ops",
                    (
                        f'sum by (event) (rate(swarm_board_events_total{{{SWARMS},event=~"retried|lost"}}{RATE}))',
                        "{{event}}",
                    ),
                ),
                series(
                    "Tasks set aside",
                    "Given up of late.",
                    "short",
                    (f"sum(max by (namespace, swarm, node) (swarm_tasks_set_aside{{{SWARMS}}}))", "set aside"),
                ),
                series(
                    "Second runs",
                    "Late tasks that were run twice, by how that ended.",
                    "ops",
                    (f"sum by (result) (rate(swarm_second_runs_total{{{SWARMS}}}{RATE}))", "{{result}}"),
                ),
                series(
                    "Checkpoints",
                    "Kept and skipped, and tasks that went on from one.",
                    "ops",
                    (f"sum by (result) (rate(swarm_checkpoints_total{{{SWARMS}}}{RATE}))", "{{result}}"),
                    (f"sum(rate(swarm_checkpoints_resumed_total{{{SWARMS}}}{RATE}))", "resumed"),
                ),
                series(
                    "Standbys at work",
                    "That took a dead sibling's part.",
                    "short",
                    (f'sum(swarm_agent_active{{{SWARMS},role="standby"}})', "active"),
                ),
            ),
        ),
    ),
)

_SCALER: Final = "swarm_operator_autoscale"
OPERATOR: Final = Board(
    "agentswarm-operator",
    "Agent Swarm / Operator",
    "The operator: its leadership, its rounds, and the API server as it finds it.",
    (BY_OPERATOR,),
    (
        Row(
            "Now",
            (
                stat("Leaders", "Must be 1 an installation.", "short", f"sum(swarm_operator_leading{{{OPERATORS}}})"),
                stat("Swarms", "That are served.", "short", "max(swarm_operator_swarms)"),
                stat("Pods", "Of Swarms, in the cache.", "short", "max(swarm_operator_pods)"),
                stat(
                    "Oldest watch",
                    "Since the API server was heard of on it.",
                    "s",
                    f"max(swarm_operator_watch_age_seconds{{{OPERATORS}}})",
                ),
            ),
        ),
        Row(
            "Rounds",
            (
                series(
                    "Rounds",
                    "By result.",
                    "ops",
                    (f"sum by (result) (rate(swarm_operator_reconciles_total{{{OPERATORS}}}{RATE}))", "{{result}}"),
                    stacked=True,
                ),
                series(
                    "Time of a round",
                    "From taking a Swarm to being done with it.",
                    "s",
                    *quantiles("swarm_operator_reconcile_seconds", OPERATORS, "", 0.5, 0.99),
                ),
                series(
                    "Wait in the queue",
                    "Until a Swarm is looked at.",
                    "s",
                    *quantiles("swarm_operator_queue_seconds", OPERATORS, "", 0.5, 0.99),
                ),
                series(
                    "Swarms waiting",
                    "In the queue.",
                    "short",
                    (f"swarm_operator_queue_depth{{{OPERATORS}}}", "{{pod}}"),
                ),
                series(
                    "Actions",
                    "Done and failed.",
                    "ops",
                    (
                        f"sum by (action, result) (rate(swarm_operator_actions_total{{{OPERATORS}}}{RATE}))",
                        "{{action}} {{result}}",
                    ),
                ),
                series(
                    "Written for people",
                    "Statuses and audit entries; Events that were dropped.",
                    "ops",
                    (f"sum(rate(swarm_operator_status_writes_total{{{OPERATORS}}}{RATE}))", "statuses"),
                    (f"sum(rate(swarm_operator_audit_entries_total{{{OPERATORS}}}{RATE}))", "audit entries"),
                    (f"sum(rate(swarm_operator_events_dropped_total{{{OPERATORS}}}{RATE}))", "Events dropped"),
                ),
            ),
        ),
        Row(
            "API server",
            (
                series(
                    "Requests",
                    "By answer.",
                    "reqps",
                    (
                        f"sum by (method, code) (rate(swarm_operator_api_requests_total{{{OPERATORS}}}{RATE}))",
                        "{{method}} {{code}}",
                    ),
                ),
                series(
                    "Time of a request",
                    "Watches left out.",
                    "s",
                    *quantiles("swarm_operator_api_request_seconds", OPERATORS, "method", 0.99),
                ),
                series(
                    "Age of the oldest watch",
                    "By replica.",
                    "s",
                    (f"swarm_operator_watch_age_seconds{{{OPERATORS}}}", "{{pod}}"),
                ),
            ),
        ),
        Row(
            "Autoscaler and process",
            (
                series(
                    "Agents that the autoscaler wants",
                    "By Swarm.",
                    "short",
                    (f"max by (namespace, swarm) ({_SCALER}_desired)", "{{namespace}}/{{swarm}}"),
                ),
                series(
                    "Wait that the autoscaler sees",
                    "19 of 20 tasks waited no longer.",
                    "s",
                    (f"max by (namespace, swarm) ({_SCALER}_queue_seconds)", "{{namespace}}/{{swarm}}"),
                ),
                series(
                    "CPU and memory",
                    "CPUs that each replica uses.",
                    "short",
                    (
                        f"rate(process_cpu_seconds_total{{{OPERATORS}}}{RATE}) and on (pod) swarm_operator_leading",
                        "{{pod}}",
                    ),
                ),
                series(
                    "Memory",
                    "Resident, by replica.",
                    "bytes",
                    (f"process_resident_memory_bytes{{{OPERATORS}}} and on (pod) swarm_operator_leading", "{{pod}}"),
                ),
            ),
        ),
    ),
)
