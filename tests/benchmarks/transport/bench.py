"""`make bench-transport`: the data plane against its peers, the same message, task or array on the same two cores.

The peers' figures are taken by `peers.py`, as each library's documentation has it; ours by `ours_*.py`, through the
public Python API (`compiled_latency` alone is inside compiled code, as its peer is). Both sides of a pair of processes
are pinned. Ray and Dask have two workers each, on whatever cores the kernel gives them, because pinning would only slow
them down; ours is one agent on the second core, and the client is on the first.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from command import main  # noqa: E402
from harness import Better, Measure, Row  # noqa: E402

OUTPUT = HERE.parents[2] / "build" / "bench" / "transport.json"
DISTRIBUTIONS = ("iceoryx2", "pyzmq", "ray", "distributed", "numpy", "numba")


def _rings(function: str, **options: object) -> Measure:
    return Measure(HERE / "ours_rings.py", function, **options)  # type: ignore[arg-type]


def _peer(function: str, **options: object) -> Measure:
    return Measure(HERE / "peers.py", function, **options)  # type: ignore[arg-type]


_TASKS = HERE / "ours_tasks.py"
_RTT = Measure(_TASKS, "tasks", "rtt", limit=300)
_RATE = Measure(_TASKS, "tasks", "per_s", limit=300)
_PRIORITY = HERE / "ours_priority.py"
_IDLE = HERE / "ours_idle.py"

ROWS = (
    Row(
        "latency_vs_iceoryx2",
        "64 bytes one way through a ring, public Python API, against iceoryx2's busy poll",
        "s",
        Better.LESS,
        _rings("ring_latency", limit=120),
        _peer("iceoryx2_latency"),
        goal=8,
    ),
    Row(
        "latency_vs_pyzmq_ipc",
        "64 bytes one way through a ring, public Python API, against a pair of pyzmq sockets over ipc",
        "s",
        Better.LESS,
        _rings("ring_latency", limit=120),
        _peer("pyzmq_ipc_latency"),
        goal=50,
    ),
    Row(
        "latency_vs_c11",
        "64 bytes one way between two compiled functions, against C11 atomics compiled by gcc",
        "s",
        Better.LESS,
        _rings("compiled_latency", limit=120),
        _peer("c11_latency"),
        goal=0.67,
    ),
    Row(
        "stream_vs_pyzmq_ipc",
        "messages of 64 bytes a second, sent and received in batches, against pyzmq over ipc",
        "/s",
        Better.MORE,
        _rings("ring_stream_batched", limit=120),
        _peer("pyzmq_ipc_stream"),
        goal=20,
    ),
    Row(
        "stream_single_vs_pyzmq_ipc",
        "messages of 64 bytes a second, one call each, against pyzmq over ipc",
        "/s",
        Better.MORE,
        _rings("ring_stream_single", limit=120),
        _peer("pyzmq_ipc_stream"),
        goal=2,
    ),
    Row(
        "task_rtt_vs_ray_actor",
        "a no-op kernel submitted and awaited, against a synchronous call of a Ray actor",
        "s",
        Better.LESS,
        _RTT,
        _peer("ray_tasks", key="actor_rtt", limit=120),
        goal=50,
    ),
    Row(
        "tasks_per_s_vs_ray",
        "no-op kernels a second, all submitted before the first answer is asked for, against Ray tasks",
        "/s",
        Better.MORE,
        _RATE,
        _peer("ray_tasks", key="per_s", limit=120),
        goal=50,
    ),
    Row(
        "tasks_per_s_vs_dask",
        "the same against Dask's distributed scheduler",
        "/s",
        Better.MORE,
        _RATE,
        _peer("dask_tasks_per_s", limit=120),
        goal=50,
    ),
    Row(
        "priority_p99",
        "p99 of a critical no-op's round trip while all other lanes are kept full (ours), and while they are empty",
        "s",
        Better.SHARE,
        Measure(_PRIORITY, "priority", "full", limit=300),
        Measure(_PRIORITY, "priority", "idle", limit=300),
        goal=2,
    ),
    Row(
        "parked_cpu",
        "share of one core that an idle compute agent's process uses, all its threads",
        "of a core",
        Better.SHARE,
        Measure(_IDLE, "parked_cpu", "agent", limit=300),
        goal=0.01,
    ),
    Row(
        "array_1MiB_vs_pyzmq_ipc",
        "an array of 1 MiB handed to a co-located agent, one way, against pyzmq over ipc without its copies",
        "s",
        Better.LESS,
        Measure(HERE / "ours_arrays.py", "array_one_way", limit=120),
        _peer("pyzmq_ipc_array"),
        goal=20,
    ),
    Row(
        "crossnode_vs_pyzmq_tcp",
        "64 bytes one way through our TCP path with CURVE, against bare pyzmq over TCP with CURVE",
        "s",
        Better.LESS,
        Measure(HERE / "ours_wire.py", "wire_one_way", limit=120),
        _peer("pyzmq_tcp_curve_latency"),
        goal=0.7,
    ),
    Row(
        "litmus",
        "violations of the ring's ordering in 10^8 messages",
        "violations",
        Better.SHARE,
        _rings("litmus", arguments='{"iterations": 100000000}', limit=300, rounds=1),
        goal=0,
    ),
    Row(
        "hub_task_rtt",
        "a no-op kernel submitted over TCP with CURVE to a node's hub, and awaited",
        "s",
        Better.LESS,
        Measure(HERE / "ours_wire.py", "hub_task_rtt", limit=120),
    ),
    Row(
        "map_per_s",
        "values a second of Swarm.map",
        "/s",
        Better.MORE,
        Measure(_TASKS, "tasks", "map_per_s", limit=300),
    ),
    Row(
        "parked_cpu_supervisor",
        "share of one core that its supervisor uses meanwhile",
        "of a core",
        Better.SHARE,
        Measure(_IDLE, "parked_cpu", "supervisor", limit=300),
    ),
    Row(
        "parked_cpu_resource",
        "share of one core that the node's resource agent uses meanwhile, its sensors included",
        "of a core",
        Better.SHARE,
        Measure(_IDLE, "parked_cpu", "resource", limit=300),
    ),
)

if __name__ == "__main__":
    sys.exit(main(ROWS, OUTPUT, distributions=DISTRIBUTIONS))
