"""The metrics that every agent's pod exports of itself (see `swarm_agents.exported`)."""

from __future__ import annotations

from typing import Final

from swarm_agents.config import Priority
from swarm_agents.exported import Declared, Table, process
from swarm_agents.runtime.scoreboard import BUCKETS, RESULTS

__all__ = ["CHECKPOINTS", "COMPUTE", "IO", "IO_RESULTS", "POD", "PRIORITIES", "SECOND_RUNS", "WITNESSES"]

PRIORITIES: Final = f"{len(Priority)} priorities: {', '.join(map(str, Priority))}"
#: Who says that an agent is dead.
WITNESSES: Final = ("exit", "process", "lock", "stopped", "dying", "confirmed", "heartbeat")
#: What becomes of a checkpoint, and of a second run.
CHECKPOINTS: Final = ("kept", "skipped", "fenced")
SECOND_RUNS: Final = ("won", "lost", "failed", "yielded", "refused")

#: What becomes of a request to the disk.
IO_RESULTS: Final = ("done", "failed", "refused", "cancelled")

_STAGES: Final = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ONE: Final = "one a pod"

POD: Final = Table(
    "Every agent",
    "Each pod exports these of itself at its port 9402.",
    Declared(
        "swarm_agent",
        "info",
        "Who this agent is; always 1",
        dict.fromkeys(("swarm", "namespace", "agent", "role", "ordinal", "node", "revision", "version"), _ONE),
    ),
    Declared("swarm_agent_up", "gauge", "1 while the agent is ready for work"),
    Declared("swarm_agent_epoch", "gauge", "The agent's epoch on its node's board"),
    Declared("swarm_agent_active", "gauge", "1 while the agent takes part, 0 for a standby in wait"),
    Declared("swarm_agent_draining", "gauge", "1 while the agent claims nothing more"),
    Declared("swarm_agent_unfit", "gauge", "1 while the agent takes no tasks because its place is not as required"),
    Declared(
        "swarm_agent_failure_probability_ratio",
        "gauge",
        "How likely the agent is to fail soon (0 to 1), as its supervisor and the node's resource agent reckon; "
        "`GET /v1/status` says why",
    ),
    Declared("swarm_agent_restarts", "counter", "Agents that this pod's supervisor has replaced after they died"),
    Declared("swarm_agent_rejoins", "counter", "Times that the agent found itself fenced and rejoined"),
    Declared("swarm_agent_cores", "gauge", "CPUs that the agent may run on"),
    Declared(
        "swarm_agent_cores_avoided",
        "gauge",
        "CPUs that the agent keeps off for a while: they are stolen from, throttled or hot",
    ),
    Declared("swarm_agent_core_moves", "counter", "Times that the agent left such a CPU, or took it again"),
    Declared(
        "swarm_agent_cores_exclusive",
        "gauge",
        "1 when these CPUs are the agent's alone, 0 when not, NaN when that is not known",
    ),
    Declared(
        "swarm_agent_cores_exclusive_wanted",
        "gauge",
        "1 when the Swarm asks for exclusive CPUs (scheduling.cpuPinning Preferred or Required)",
    ),
    Declared("swarm_agent_cpu_seconds", "counter", "CPU seconds of the present agent process"),
    Declared("swarm_agent_resident_memory_bytes", "gauge", "Resident memory of the agent process"),
    Declared("swarm_tasks_running", "gauge", "Tasks in hand"),
    Declared(
        "swarm_tasks",
        "counter",
        "Tasks that the agent has ended",
        {"result": f"{len(RESULTS)} results: {', '.join(RESULTS)}", "priority": PRIORITIES},
    ),
    Declared(
        "swarm_task_seconds",
        "histogram",
        "Seconds from a task's claim to its commit",
        {"priority": PRIORITIES},
        buckets=BUCKETS,
    ),
    Declared(
        "swarm_tasks_set_aside",
        "gauge",
        "Tasks of the node that were given up of late; each pod of the node says so: take `max by (node)`. "
        "`GET /v1/swarm` lists them with who died over them",
        {"node": _ONE},
    ),
    Declared(
        "swarm_failover_seconds",
        "histogram",
        "Seconds of the stages of the failovers that this pod declared: detect (last heartbeat to declared dead), "
        "claim (to all its tasks being free again), resume (to the first of them running elsewhere)",
        {"stage": "3 stages: detect, claim, resume"},
        buckets=_STAGES,
    ),
    Declared(
        "swarm_agent_replaced_seconds",
        "histogram",
        "Seconds from the death of this pod's agent to the next process (fork) and to its taking work (ready)",
        {"stage": "2 stages: fork, ready"},
        buckets=_STAGES,
    ),
    Declared(
        "swarm_fences",
        "counter",
        "Agents that this pod's supervisor declared dead, by the witness: exit (it ended), process, lock, stopped, "
        "dying (killed, and not ended yet), confirmed (silent, as two watchers say), heartbeat (silent for deadAfter)",
        {"witness": f"{len(WITNESSES)} witnesses: {', '.join(WITNESSES)}"},
    ),
    Declared("swarm_suspicions", "counter", "Agents that this pod's supervisor suspected"),
    Declared("swarm_suspicions_withdrawn", "counter", "Suspects that were heard again"),
    Declared(
        "swarm_detection_threshold_seconds",
        "gauge",
        "Silence from which an agent of the node is suspected, dead if a second witness agrees, dead anyway",
        {"stage": "3 stages: suspect, confirmed, dead"},
    ),
    *process("swarm_supervisor_", "the pod's supervisor"),
)

COMPUTE: Final = Table(
    "Compute agents and standbys",
    "Exported by the agent's own process, hence not while it is being replaced.",
    Declared("swarm_agent_lives", "gauge", "How often this agent's place was filled since it was first"),
    Declared(
        "swarm_checkpoints",
        "counter",
        "Checkpoints by what became of them; skipped: no room",
        {"result": f"{len(CHECKPOINTS)} results: {', '.join(CHECKPOINTS)}"},
    ),
    Declared("swarm_checkpoint_bytes", "counter", "Bytes of checkpoints that were kept"),
    Declared("swarm_checkpoints_resumed", "counter", "Tasks that went on from a checkpoint"),
    Declared("swarm_checkpoints_unusable", "counter", "Torn or outdated checkpoints met"),
    Declared(
        "swarm_second_runs",
        "counter",
        "Tasks of slow agents that this agent has run a second time: won (it was first to answer), "
        "lost, failed (the first run goes on), yielded (to fresh work), refused (it may be begun once only)",
        {"result": f"{len(SECOND_RUNS)} results: {', '.join(SECOND_RUNS)}"},
    ),
)

IO: Final = Table(
    "Large reads and writes",
    "Exported by agents that write to a disk: copies of checkpoints on a volume, answers that are put aside.",
    Declared("swarm_io_depth", "gauge", "Requests to the disk that may be under way: as many as make it faster"),
    Declared("swarm_io_in_flight", "gauge", "Requests to the disk that are under way"),
    Declared("swarm_io_waiting", "gauge", "Requests to the disk that wait for their turn"),
    Declared("swarm_io_latency_seconds", "gauge", "Mean seconds of the last requests, from when they began"),
    Declared("swarm_io_bytes", "counter", "Bytes that requests have read and written"),
    Declared(
        "swarm_io_requests",
        "counter",
        "Requests by what became of them; refused: too many waited",
        {"result": f"{len(IO_RESULTS)} results: {', '.join(IO_RESULTS)}"},
    ),
)
