"""What a running cluster leaves for others to find it by. Light to import: commands and clients look here first."""

from __future__ import annotations

from pathlib import Path

import msgspec

from swarm_deploy import __version__

__all__ = ["CLUSTER_MARK", "Record", "shared_memory", "start_time"]

#: In the environment of every process that a cluster starts: its id. By it what a killed cluster has left is found.
CLUSTER_MARK = "SWARM_LOCAL_CLUSTER"
_SHM = Path("/dev/shm")


class Record(msgspec.Struct, rename="camel"):
    """`cluster.json`: who runs here, for whoever comes later."""

    pid: int
    start_time: int
    cluster: str
    url: str
    nodes: int
    cpus_per_node: int
    version: str = __version__
    operator: bool = True
    ready: bool = False
    #: Where the operator answers /metrics, /healthz and /readyz; empty when none runs.
    operator_url: str = ""


def shared_memory(cluster: str) -> Path:
    """Where the nodes of a cluster have their shared memory."""
    return _SHM / f"agentswarm-local-{cluster}"


def start_time(pid: int) -> int:
    """In clock ticks since boot; 0 when there is no such process, or only what a killed one leaves to its parent."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return 0 if fields[0] == b"Z" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0
