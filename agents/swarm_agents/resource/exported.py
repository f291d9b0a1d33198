"""The metrics that a node's resource agent exports besides its own: of the board, the hub, the node's hardware."""

from __future__ import annotations

from typing import Final

from swarm_agents.exported import Declared, Table
from swarm_agents.resource.foresight.forecast import HORIZONS
from swarm_agents.resource.sensing import Availability
from swarm_agents.resource.sensing.cpu import MOST_CORES
from swarm_agents.resource.sensing.io import MOST_DEVICES
from swarm_agents.runtime.exported import PRIORITIES
from swarm_agents.shm.layout import EVENT_NAMES, PATHS, STATE_NAMES
from swarm_agents.shm.members import ROLES

__all__ = ["ACTION", "BOARD", "EVENTS", "FORESIGHT", "HUB", "MEMBERS", "NODE", "OPERATIONS", "RECLAIMED"]

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
    "put_aside",
    "put_aside_failed",
    "brought_back",
    "aside_lost",
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
        "refused because the lane was full, or refused (shed) because the node is overloaded",
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
    Declared("swarm_hub_aside_bytes", "gauge", "Such answers that lie on a disk meanwhile, in bytes"),
    Declared("swarm_hub_peer_up", "gauge", "1 while the other node's hub can be sent tasks", _PEER),
    Declared("swarm_hub_peer_rtt_seconds", "gauge", "Round trip to the other node's hub", _PEER),
    Declared("swarm_hub_peer_tasks", "gauge", "This node's tasks that the peer computes", _PEER),
)

_CORE: Final = {"core": f"the node's cores, {MOST_CORES} at most"}
_NUMA: Final = {"numa": "the node's NUMA nodes, 64 at most"}
_WAITED: Final = {"resource": "3: cpu, memory, io"}
_DISK: Final = {"disk": f"{MOST_DEVICES} disks at most"}
_INTERFACE: Final = {"interface": f"{MOST_DEVICES} interfaces at most"}
_GPU: Final = {"gpu": "16 GPUs at most"}

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
    Declared("swarm_node_cpu_user_ratio", "gauge", "Share of the node's CPU time of programs", sensor="cpu"),
    Declared("swarm_node_cpu_system_ratio", "gauge", "Share of the node's CPU time of the kernel", sensor="cpu"),
    Declared(
        "swarm_node_cpu_iowait_ratio",
        "gauge",
        "Share of the node's CPU time idle while a disk was waited for",
        sensor="cpu",
    ),
    Declared(
        "swarm_node_cpu_steal_ratio",
        "gauge",
        "Share of the node's CPU time that a hypervisor gave to others",
        sensor="cpu",
    ),
    Declared("swarm_node_core_busy_ratio", "gauge", "The same of each core: busy", _CORE, sensor="cpu"),
    Declared("swarm_node_core_user_ratio", "gauge", "The same of each core: user", _CORE, sensor="cpu"),
    Declared("swarm_node_core_system_ratio", "gauge", "The same of each core: system", _CORE, sensor="cpu"),
    Declared("swarm_node_core_iowait_ratio", "gauge", "The same of each core: iowait", _CORE, sensor="cpu"),
    Declared("swarm_node_core_steal_ratio", "gauge", "The same of each core: steal", _CORE, sensor="cpu"),
    Declared("swarm_node_tasks_running", "gauge", "Tasks that run or want to", sensor="cpu"),
    Declared("swarm_node_tasks_blocked", "gauge", "Tasks that wait for a disk", sensor="cpu"),
    Declared("swarm_node_context_switches", "counter", "Context switches", sensor="cpu"),
    Declared("swarm_node_context_switches_per_second", "gauge", "Context switches lately", sensor="cpu"),
    Declared("swarm_node_core_frequency_hertz", "gauge", "Frequency of each core", _CORE, sensor="frequency"),
    Declared(
        "swarm_node_cpu_idle_state_ratio",
        "gauge",
        "Share of the cores' time in each idle state",
        {"state": "16 at most: what the kernel names"},
        sensor="idle",
    ),
    Declared("swarm_node_memory_used_bytes", "gauge", "Memory that is not available", sensor="memory"),
    Declared("swarm_node_swap_used_bytes", "gauge", "Swap in use", sensor="memory"),
    Declared("swarm_node_page_faults", "counter", "Page faults", sensor="faults"),
    Declared("swarm_node_page_faults_major", "counter", "Page faults that needed a disk", sensor="faults"),
    Declared("swarm_node_oom_kills", "counter", "Processes that the kernel killed for memory", sensor="faults"),
    Declared("swarm_node_numa_memory_bytes", "gauge", "Memory of each NUMA node", _NUMA, sensor="numa"),
    Declared("swarm_node_numa_memory_free_bytes", "gauge", "Free memory of each NUMA node", _NUMA, sensor="numa"),
    Declared(
        "swarm_node_memory_traffic_bytes_per_second",
        "gauge",
        "Traffic to memory, where resctrl counts it",
        sensor="bandwidth",
    ),
    Declared(
        "swarm_node_memory_copy_bytes_per_second",
        "gauge",
        "What one thread could still copy at the last probe, read and written",
        sensor="bandwidth",
    ),
    Declared(
        "swarm_node_pressure_some_ratio",
        "gauge",
        "Share of the last 10 s in which some task waited",
        _WAITED,
        sensor="pressure",
    ),
    Declared(
        "swarm_node_pressure_full_ratio",
        "gauge",
        "Share of the last 10 s in which all tasks waited",
        _WAITED,
        sensor="pressure",
    ),
    Declared(
        "swarm_node_pressure_waited_seconds", "counter", "Seconds in which some task waited", _WAITED, sensor="pressure"
    ),
    Declared("swarm_node_disk_read_bytes", "counter", "Bytes read from all disks", sensor="disks"),
    Declared("swarm_node_disk_written_bytes", "counter", "Bytes written to all disks", sensor="disks"),
    Declared(
        "swarm_node_disk_busy_ratio",
        "gauge",
        "Share of time in which the disk had something to do",
        _DISK,
        sensor="disks",
    ),
    Declared("swarm_node_disk_queue_length", "gauge", "Mean length of the disk's queue", _DISK, sensor="disks"),
    Declared(
        "swarm_node_disk_wait_seconds",
        "gauge",
        "Mean time that an operation took, queue included",
        _DISK,
        sensor="disks",
    ),
    Declared("swarm_node_network_received_bytes", "counter", "Bytes received, loopback apart", sensor="network"),
    Declared("swarm_node_network_sent_bytes", "counter", "Bytes sent, loopback apart", sensor="network"),
    Declared("swarm_node_network_errors", "counter", "Errors of the interfaces", sensor="network"),
    Declared("swarm_node_network_drops", "counter", "Packets that the interfaces dropped", sensor="network"),
    Declared(
        "swarm_node_interface_received_bytes_per_second", "gauge", "Bytes received lately", _INTERFACE, sensor="network"
    ),
    Declared("swarm_node_interface_sent_bytes_per_second", "gauge", "Bytes sent lately", _INTERFACE, sensor="network"),
    Declared("swarm_node_cgroup_memory_used_bytes", "gauge", "Memory of the resource agent's cgroup", sensor="cgroup"),
    Declared("swarm_node_cgroup_memory_limit_bytes", "gauge", "Its limit; NaN without one", sensor="cgroup"),
    Declared("swarm_node_cgroup_oom_kills", "counter", "Processes killed in it for memory", sensor="cgroup"),
    Declared(
        "swarm_node_cgroup_cpu_limit_cores", "gauge", "Cores that it may use; NaN without a limit", sensor="cgroup"
    ),
    Declared("swarm_node_cgroup_throttles", "counter", "Periods in which it was held back", sensor="cgroup"),
    Declared("swarm_node_cgroup_throttled_seconds", "counter", "Seconds for which it was held back", sensor="cgroup"),
    Declared(
        "swarm_node_zone_temperature_celsius",
        "gauge",
        "Temperature of each thermal zone",
        {"zone": "64 zones at most"},
        sensor="temperature",
    ),
    Declared("swarm_node_power_watts", "gauge", "Power of the node, as far as it is known", sensor="power"),
    Declared("swarm_node_gpus", "gauge", "GPUs that answer", sensor="gpu"),
    Declared("swarm_node_gpu_busy_ratio", "gauge", "Share of time in which a kernel ran", _GPU, sensor="gpu"),
    Declared("swarm_node_gpu_memory_bytes", "gauge", "Memory of the GPU", _GPU, sensor="gpu"),
    Declared("swarm_node_gpu_memory_used_bytes", "gauge", "Memory in use", _GPU, sensor="gpu"),
    Declared("swarm_node_gpu_temperature_celsius", "gauge", "Temperature", _GPU, sensor="gpu"),
    Declared("swarm_node_gpu_power_watts", "gauge", "Power", _GPU, sensor="gpu"),
    Declared("swarm_node_gpu_clock_hertz", "gauge", "Clock of the multiprocessors", _GPU, sensor="gpu"),
    Declared(
        "swarm_node_gpu_throttle_reasons",
        "gauge",
        "NVML's bits that say why the clock is held back",
        _GPU,
        sensor="gpu",
    ),
    Declared(
        "swarm_node_gpu_ecc_errors", "counter", "Uncorrected ECC errors since the driver was loaded", _GPU, sensor="gpu"
    ),
)

_AHEAD: Final = {"horizon": f"{len(HORIZONS)}, seconds: {', '.join(map(str, HORIZONS))}"}

ACTION: Final = Table(
    "What the node does about it",
    "Exported by the node's resource agent: what it refuses while it has more work than it can carry.",
    Declared(
        "swarm_node_overload_level",
        "gauge",
        "What new tasks the node refuses: 0 none, 1 bulk, 2 bulk and normal; critical and high ones never",
    ),
    Declared(
        "swarm_node_overload_changes",
        "counter",
        "How often the node has come to a level, since the resource agent started; the event says why",
        {"level": "3: normal, shed_bulk, shed_normal"},
    ),
    Declared(
        "swarm_node_work_share_ratio",
        "gauge",
        "How much of their time agents may work, so that the node keeps below its cap of power or heat; 1 without",
    ),
    Declared(
        "swarm_node_weight_ratio",
        "gauge",
        "How much of their cores' time agents get: 1 less what the hypervisor, heat and waiting for memory take off; "
        "other nodes' hubs reckon with it",
    ),
    Declared(
        "swarm_node_oldest_wait_seconds",
        "gauge",
        "How long the task that has waited longest to be begun has been on the node's board; 0 when none waits",
        _PRIORITY,
    ),
)

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
