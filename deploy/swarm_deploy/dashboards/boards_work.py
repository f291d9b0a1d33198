"""The dashboards of work: all Swarms, one agent, the data plane."""

from __future__ import annotations

from typing import Final

from swarm_deploy.dashboards.model import Board, Row
from swarm_deploy.dashboards.parts import (
    AGENT,
    BY_AGENT,
    BY_NAMESPACE,
    BY_SWARM,
    RATE,
    SWARMS,
    agents,
    quantiles,
    series,
    stat,
)

__all__ = ["ONE_AGENT", "OVERVIEW", "PLANE"]

OVERVIEW: Final = Board(
    "agentswarm-overview",
    "Agent Swarm / Overview",
    "Swarms: their agents, their work, how long it waits and takes, and what has died.",
    (BY_NAMESPACE, BY_SWARM),
    (
        Row(
            "Now",
            (
                stat("Agents ready", "Of all roles.", "short", agents("ready", "")),
                stat("Agents wanted", "Of all roles.", "short", agents("desired", "")),
                stat(
                    "Tasks ended",
                    "Per second, by all agents.",
                    "ops",
                    f"sum(rate(swarm_tasks_total{{{SWARMS}}}{RATE}))",
                ),
                stat("Tasks waiting", "On all boards.", "short", f"sum(swarm_queue_depth{{{SWARMS}}})"),
                stat(
                    "Deaths in an hour",
                    "Agents that were declared dead.",
                    "short",
                    f"sum(increase(swarm_fences_total{{{SWARMS}}}[1h]))",
                ),
                stat(
                    "Tasks lost in an hour",
                    "Given up, because agents died over them too often.",
                    "short",
                    f'sum(increase(swarm_board_events_total{{{SWARMS},event="lost"}}[1h]))',
                ),
            ),
        ),
        Row(
            "Agents",
            (
                series(
                    "Agents by role",
                    "Ready, and wanted.",
                    "short",
                    (agents("ready", "role"), "{{role}} ready"),
                    (agents("desired", "role"), "{{role}} wanted"),
                ),
                series(
                    "Swarms that are Ready",
                    "The condition Ready: 1 True, 0 False.",
                    "bool",
                    (
                        f'max by (namespace, swarm) (swarm_operator_swarm_condition{{{SWARMS},condition="Ready"}})',
                        "{{namespace}}/{{swarm}}",
                    ),
                ),
                series(
                    "Deaths",
                    "Agents declared dead per minute, by who had noticed.",
                    "short",
                    (f"sum by (witness) (rate(swarm_fences_total{{{SWARMS}}}{RATE})) * 60", "{{witness}}"),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Work",
            (
                series(
                    "Tasks ended",
                    "By result.",
                    "ops",
                    (f"sum by (result) (rate(swarm_tasks_total{{{SWARMS}}}{RATE}))", "{{result}}"),
                    stacked=True,
                ),
                series(
                    "Tasks waiting",
                    "By priority.",
                    "short",
                    (f"sum by (priority) (swarm_queue_depth{{{SWARMS}}})", "{{priority}}"),
                    stacked=True,
                ),
                series(
                    "Wait",
                    "From submission until a task is begun, by priority.",
                    "s",
                    *quantiles("swarm_task_queued_seconds", SWARMS, "priority", 0.5, 0.99),
                ),
                series(
                    "There and back",
                    "From submission until the answer was taken.",
                    "s",
                    *quantiles("swarm_task_round_trip_seconds", SWARMS, "", 0.5, 0.95, 0.99),
                ),
                series(
                    "Run time",
                    "From a task's beginning to its answer.",
                    "s",
                    *quantiles("swarm_task_run_seconds", SWARMS, "", 0.5, 0.95, 0.99),
                ),
                series(
                    "CPUs used by agents",
                    "By role.",
                    "short",
                    (f"sum by (role) (rate(swarm_agent_cpu_seconds_total{{{SWARMS}}}{RATE}))", "{{role}}"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

ONE_AGENT: Final = Board(
    "agentswarm-agent",
    "Agent Swarm / One agent",
    "A single agent: what it does, how long that takes, its process and its cores.",
    (BY_NAMESPACE, BY_SWARM, BY_AGENT),
    (
        Row(
            "Now",
            (
                stat("Up", "1 while it is ready for work.", "short", f"swarm_agent_up{{{AGENT}}}"),
                stat("Epoch", "Grows with each death.", "short", f"swarm_agent_epoch{{{AGENT}}}"),
                stat(
                    "Restarts",
                    "Agents that its supervisor has replaced.",
                    "short",
                    f"swarm_agent_restarts_total{{{AGENT}}}",
                ),
                stat("Cores", "CPUs that it may run on.", "short", f"swarm_agent_cores{{{AGENT}}}"),
                stat("Taking part", "0 for a standby in wait.", "short", f"swarm_agent_active{{{AGENT}}}"),
                stat("Tasks in hand", "At this moment.", "short", f"swarm_tasks_running{{{AGENT}}}"),
            ),
        ),
        Row(
            "Work",
            (
                series(
                    "Tasks ended",
                    "By result.",
                    "ops",
                    (f"sum by (result) (rate(swarm_tasks_total{{{AGENT}}}{RATE}))", "{{result}}"),
                    stacked=True,
                ),
                series(
                    "Tasks ended, by priority",
                    "Of any result.",
                    "ops",
                    (f"sum by (priority) (rate(swarm_tasks_total{{{AGENT}}}{RATE}))", "{{priority}}"),
                    stacked=True,
                ),
                series(
                    "Time of a task",
                    "From its claim to its commit.",
                    "s",
                    *quantiles("swarm_task_seconds", AGENT, "", 0.5, 0.95, 0.99),
                ),
                series(
                    "Checkpoints",
                    "By what became of them.",
                    "ops",
                    (f"sum by (result) (rate(swarm_checkpoints_total{{{AGENT}}}{RATE}))", "{{result}}"),
                ),
                series(
                    "Second runs",
                    "Late tasks of others that it ran as well, by how that ended.",
                    "ops",
                    (f"sum by (result) (rate(swarm_second_runs_total{{{AGENT}}}{RATE}))", "{{result}}"),
                ),
            ),
        ),
        Row(
            "Process",
            (
                series(
                    "CPUs used",
                    "By the agent and by its supervisor.",
                    "short",
                    (f"rate(swarm_agent_cpu_seconds_total{{{AGENT}}}{RATE})", "agent"),
                    (f"rate(swarm_supervisor_process_cpu_seconds_total{{{AGENT}}}{RATE})", "supervisor"),
                ),
                series(
                    "Memory",
                    "Resident.",
                    "bytes",
                    (f"swarm_agent_resident_memory_bytes{{{AGENT}}}", "agent"),
                    (f"swarm_supervisor_process_resident_memory_bytes{{{AGENT}}}", "supervisor"),
                ),
                series(
                    "State",
                    "1 while it is so.",
                    "bool",
                    (f"swarm_agent_up{{{AGENT}}}", "up"),
                    (f"swarm_agent_draining{{{AGENT}}}", "draining"),
                    (f"swarm_agent_unfit{{{AGENT}}}", "unfit"),
                ),
                series(
                    "Silence that is suspect",
                    "Thresholds for agents of its node, after the node's own jitter.",
                    "s",
                    (f"swarm_detection_threshold_seconds{{{AGENT}}}", "{{stage}}"),
                ),
            ),
        ),
    ),
)

PLANE: Final = Board(
    "agentswarm-dataplane",
    "Agent Swarm / Data plane",
    "Boards, their arenas, and the hubs between nodes.",
    (BY_NAMESPACE, BY_SWARM),
    (
        Row(
            "Boards",
            (
                series(
                    "Tasks on the boards",
                    "By state.",
                    "short",
                    (f"sum by (state) (swarm_board_tasks{{{SWARMS}}})", "{{state}}"),
                    stacked=True,
                ),
                series(
                    "Waiting by node",
                    "Tasks that nobody has begun.",
                    "short",
                    (f"sum by (node) (swarm_queue_depth{{{SWARMS}}})", "{{node}}"),
                ),
                series(
                    "Operations",
                    "What members do, by kind.",
                    "ops",
                    (f"sum by (operation) (rate(swarm_board_operations_total{{{SWARMS}}}{RATE}))", "{{operation}}"),
                ),
                series(
                    "Events",
                    "Tasks retried, lost, expired, dropped, cancelled, or refused by a full lane.",
                    "ops",
                    (f"sum by (event) (rate(swarm_board_events_total{{{SWARMS}}}{RATE}))", "{{event}}"),
                ),
                series(
                    "Wait by node",
                    "99 of 100 tasks are begun within this.",
                    "s",
                    *quantiles("swarm_task_queued_seconds", SWARMS, "node", 0.99),
                ),
                series(
                    "There and back by path",
                    "local: on the node; tcp: a client elsewhere; node: another node's hub; rest.",
                    "s",
                    *quantiles("swarm_task_round_trip_seconds", SWARMS, "path", 0.5, 0.99),
                ),
                series(
                    "Members",
                    "Of the boards: agents by role, and clients.",
                    "short",
                    (f"sum by (kind) (swarm_board_members{{{SWARMS}}})", "{{kind}}"),
                ),
            ),
        ),
        Row(
            "Arenas",
            (
                series(
                    "Arena in use",
                    "Share of the room for payloads.",
                    "percentunit",
                    (
                        f"max by (namespace, swarm, node) (swarm_arena_used_bytes{{{SWARMS}}}) / "
                        f"max by (namespace, swarm, node) (swarm_arena_size_bytes{{{SWARMS}}})",
                        "{{node}}",
                    ),
                ),
                series(
                    "Shared arrays",
                    "How many, and how many references are held to them.",
                    "short",
                    (f"sum(swarm_arena_arrays{{{SWARMS}}})", "arrays"),
                    (f"sum(swarm_arena_leases{{{SWARMS}}})", "references"),
                ),
                series(
                    "Freed for the dead",
                    "What holders left behind that had died.",
                    "ops",
                    (f"sum by (what) (rate(swarm_arena_reclaimed_total{{{SWARMS}}}{RATE}))", "{{what}}"),
                ),
            ),
        ),
        Row(
            "Hubs",
            (
                series(
                    "What hubs do",
                    "By event.",
                    "ops",
                    (f"sum by (event) (rate(swarm_hub_events_total{{{SWARMS}}}{RATE}))", "{{event}}"),
                ),
                series(
                    "Sessions",
                    "That hubs serve, by kind.",
                    "short",
                    (f"sum by (kind) (swarm_hub_sessions{{{SWARMS}}})", "{{kind}}"),
                ),
                series(
                    "Round trip between nodes",
                    "From hub to hub.",
                    "s",
                    (f"swarm_hub_peer_rtt_seconds{{{SWARMS}}}", "{{node}} to {{peer}}"),
                ),
                series(
                    "Tasks on other nodes",
                    "That a node's peers compute for it.",
                    "short",
                    (f"swarm_hub_peer_tasks{{{SWARMS}}}", "{{node}} on {{peer}}"),
                ),
                series(
                    "Connections between nodes",
                    "1 while tasks can be sent.",
                    "bool",
                    (f"swarm_hub_peer_up{{{SWARMS}}}", "{{node}} to {{peer}}"),
                ),
                series(
                    "Answers not acknowledged",
                    "That hubs keep for clients.",
                    "bytes",
                    (f"sum by (node) (swarm_hub_kept_bytes{{{SWARMS}}})", "{{node}}"),
                    (f"sum by (node) (swarm_hub_aside_bytes{{{SWARMS}}})", "{{node}} on disk"),
                ),
            ),
        ),
    ),
)
