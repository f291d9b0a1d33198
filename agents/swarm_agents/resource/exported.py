"""The metrics that a node's resource agent exports besides its own: of the board, the hub, the node's hardware."""

from __future__ import annotations

from typing import Final

from swarm_agents.exported import Declared, Table
from swarm_agents.resource.foresight.forecast import HORIZONS
from swarm_agents.resource.sensors import Availability
from swarm_agents.runtime.exported import PRIORITIES
from swarm_agents.shm.layout import EVENT_NAMES, PATHS, STATE_NAMES
from swarm_agents.shm.members import ROLES

__all__ = ["BOARD", "EVENTS", "FORESIGHT", "HUB", "MEMBERS", "NODE", "OPERATIONS", "RECLAIMED"]

MEMBERS: Final = tuple(map(str, ROLES))
#: What members count, by any path and priority; the rest of it is among the events.
OPERATIONS: Final = ("submitted", "claimed", "committed", "failed", "fenced", "handed_back", "answered", "parks")
RECLAIMED: Final = ("arrays", "leases", "blocks")
#: What a hub counts, so that each is 0 and not absent before the first.
EVENTS: Final = (
    "submitted",
    "repeated",
    "repeated_late",
    "forwarded",
    "forwarded_answered",
    "forwarded_late",
    "sent_again",
    "handed_back",
    "recalled",
    "given_back",
    "given_back_late",
    "given_back_leaving",
    "refused_full",
    "refused_credit",
    "refused_stranger",
    "refused_direction",
    "refused_FrameError",
    "refused_PayloadTooLarge",
    "refused_VersionMismatch",
    "stalled",
    "errors",
)

_NODE: Final = {"node": "one a resource agent: its own"}
_PRIORITY: Final = {"priority": PRIORITIES}
_PATH: Final = {"path": f"{len(PATHS)} paths: {', '.join(PATHS)}; those but local once a task has come by them"}
_PEER: Final = {"peer": "the swarm's other nodes"}
_STATES: Final = [name for name in STATE_NAMES if name != "free"]

BOARD: Final = Table(
    "The node's board",
    "Exported by the node's resource agent alone, so that no sum over pods counts a task twice.",
    Declared("swarm_queue_depth", "gauge", "Tasks that wait on the node's board", _NODE | _PRIORITY),
    Declared(
        "swarm_board_tasks",
        "gauge",
        "Tasks on the node's board by state: writing, ready (waiting), claimed, done (not yet taken)",
        _NODE | _PRIORITY | {"state": f"{len(_STATES)} states: {', '.join(_STATES)}"},
    ),
    Declared(
        "swarm_board_members",
        "gauge",
        "Members of the node's board: clients, and agents by role",
        _NODE | {"kind": f"{len(MEMBERS)} kinds: {', '.join(MEMBERS)}"},
    ),
    Declared(
        "swarm_board_operations",
        "counter",
        "What the board's members have done, by kind",
        _NODE | {"operation": f"{len(OPERATIONS)} operations: {', '.join(OPERATIONS)}"},
    ),
    Declared(
        "swarm_board_events",
        "counter",
        "Tasks that were retried, lost (begun too often), expired, dropped (their submitter was gone), cancelled, "
        "or refused because the lane was full",
        _NODE | {"event": f"{len(EVENT_NAMES)} events: {', '.join(EVENT_NAMES)}"} | _PRIORITY | _PATH,
    ),
    Declared(
        "swarm_task_queued_seconds",
        "histogram",
        "Seconds that tasks waited on the node's board until they were begun",
        _NODE | _PRIORITY,
    ),
    Declared(
        "swarm_task_run_seconds",
        "histogram",
        "Seconds from the beginning of a task to its answer",
        _NODE | _PRIORITY,
    ),
    Declared(
        "swarm_task_round_trip_seconds",
        "histogram",
        "Seconds from a task's submission to this board until its answer was taken, by the path it came by: "
        "local, tcp (a client), node (another node's hub), rest",
        _NODE | _PRIORITY | _PATH,
    ),
    Declared("swarm_arena_size_bytes", "gauge", "Bytes of the board's arena for payloads", _NODE),
    Declared("swarm_arena_used_bytes", "gauge", "Bytes of the arena in use", _NODE),
    Declared("swarm_arena_arrays", "gauge", "Shared arrays in the arena", _NODE),
    Declared("swarm_arena_array_bytes", "gauge", "Bytes of the arena that shared arrays take", _NODE),
    Declared("swarm_arena_leases", "gauge", "References to shared arrays that are held", _NODE),
    Declared("swarm_arena_leases_limit", "gauge", "References to shared arrays that can be held", _NODE),
    Declared(
        "swarm_arena_reclaimed",
        "counter",
        "What was freed because its holders had died: shared arrays, references to them, blocks of payloads",
        _NODE | {"what": f"{len(RECLAIMED)} kinds: {', '.join(RECLAIMED)}"},
    ),
)

HUB: Final = Table(
    "The node's hub",
    "Exported by the node's resource agent while its hub runs.",
    Declared(
        "swarm_hub_events",
        "counter",
        "What the hub did and refused, by kind: tasks submitted, forwarded, …",
        {"event": f"{len(EVENTS)} events: {', '.join(EVENTS)}"},
    ),
    Declared("swarm_hub_sessions", "gauge", "Sessions that the hub serves, by kind", {"kind": "3: client, hub, rest"}),
    Declared("swarm_hub_kept_bytes", "gauge", "Answers that have not been acknowledged yet, in bytes"),
    Declared("swarm_hub_peer_up", "gauge", "1 while the other node's hub can be sent tasks", _PEER),
    Declared("swarm_hub_peer_rtt_seconds", "gauge", "Round trip to the other node's hub", _PEER),
    Declared("swarm_hub_peer_tasks", "gauge", "This node's tasks that the peer computes", _PEER),
)

NODE: Final = Table(
    "The node's hardware",
    "Exported by the node's resource agent; NaN while the sensor is unavailable, which `swarm_node_sensor` says.",
    Declared(
        "swarm_node_sensor",
        "gauge",
        "1 for the availability that a sensor has",
        {
            "sensor": "the sensors of this table",
            "availability": f"{len(Availability)}: {', '.join(Availability)}",
        },
    ),
    Declared("swarm_node_cpus", "gauge", "CPUs of the node", sensor="cpu"),
    Declared("swarm_node_cpu_busy_ratio", "gauge", "Share of the node's CPU time that was not idle", sensor="cpu"),
    Declared("swarm_node_memory_bytes", "gauge", "Memory of the node", sensor="memory"),
    Declared("swarm_node_memory_available_bytes", "gauge", "Memory that can be had without swapping", sensor="memory"),
    Declared("swarm_node_load1", "gauge", "Load average of one minute", sensor="load"),
    Declared("swarm_node_load5", "gauge", "Load average of five minutes", sensor="load"),
    Declared("swarm_node_load15", "gauge", "Load average of fifteen minutes", sensor="load"),
    Declared("swarm_node_cpu_frequency_hertz", "gauge", "Mean frequency of the CPUs", sensor="frequency"),
    Declared(
        "swarm_node_shared_memory_size_bytes",
        "gauge",
        "Size of the file system that the board lies in, which is memory",
        sensor="shared_memory",
    ),
    Declared("swarm_node_shared_memory_available_bytes", "gauge", "Bytes free in it", sensor="shared_memory"),
    Declared("swarm_node_temperature_celsius", "gauge", "The hottest sensor of the node", sensor="temperature"),
    Declared(
        "swarm_node_thermal_throttles",
        "counter",
        "Times that the CPUs slowed down for heat, cores and packages together",
        sensor="throttling",
    ),
)

_AHEAD: Final = {"horizon": f"{len(HORIZONS)}, seconds: {', '.join(map(str, HORIZONS))}"}

FORESIGHT: Final = Table(
    "The node's forecasts",
    "Exported by the node's resource agent; NaN while the sensor is unavailable. `GET /v1/swarm` has the intervals.",
    Declared("swarm_node_forecast_cpu_busy_ratio", "gauge", "Share of CPU time that will be used", _AHEAD),
    Declared("swarm_node_forecast_memory_available_bytes", "gauge", "Memory that will be available", _AHEAD),
    Declared("swarm_node_forecast_temperature_celsius", "gauge", "What the hottest sensor will show", _AHEAD),
    Declared("swarm_node_forecast_load1", "gauge", "What the load average of one minute will be", _AHEAD),
    Declared(
        "swarm_node_forecast_error_ratio",
        "gauge",
        "Mean absolute error of the forecasts lately, as a share of that of the last value; 1 where that is the "
        "forecast, for nothing was better here; NaN before the first has come true",
        {"series": "4: cpu, memory, temperature, load"} | _AHEAD,
    ),
    Declared("swarm_node_foresight_seconds", "counter", "CPU seconds that forecasts and verdicts have taken"),
)
