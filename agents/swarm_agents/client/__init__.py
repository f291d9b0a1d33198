"""The client: what a user's program imports to have a swarm compute.

    from swarm_agents.client import Swarm

    with Swarm.connect() as swarm:                       # or a URL, or a kubeconfig's context and a swarm's name
        f = swarm.submit("risk.monte_carlo", returns, weights, paths=1_000_000, seed=7, priority="critical")
        f.result(timeout=10)
        for y in swarm.map("hash.sha256_tree", blocks): ...

On the swarm's own machine it speaks through the shared memory of the node's board, from elsewhere through a hub by
ZeroMQ, and where only HTTP passes by the hub's REST interface. The base of an import is small: what a way of
connecting needs is imported when it is used.
"""

from __future__ import annotations

from concurrent.futures import as_completed, wait

from swarm_agents.client.aio import AsyncSwarm
from swarm_agents.client.connection import Connection, read_connection, resolve, write_connection
from swarm_agents.client.swarm import Swarm
from swarm_agents.client.task import SwarmFuture, TaskInfo
from swarm_agents.config import Priority
from swarm_agents.errors import (
    BadArguments,
    ConnectionLost,
    DeadlineExceeded,
    KernelError,
    PayloadError,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    TaskCancelled,
    TaskLost,
    UnknownKernel,
    Unreachable,
    VersionMismatch,
    WrongKey,
)
from swarm_agents.retry import Retry

__all__ = [
    "AsyncSwarm",
    "BadArguments",
    "Connection",
    "ConnectionLost",
    "DeadlineExceeded",
    "KernelError",
    "PayloadError",
    "PayloadTooLarge",
    "Priority",
    "Retry",
    "Swarm",
    "SwarmError",
    "SwarmFull",
    "SwarmFuture",
    "TaskCancelled",
    "TaskInfo",
    "TaskLost",
    "UnknownKernel",
    "Unreachable",
    "VersionMismatch",
    "WrongKey",
    "as_completed",
    "read_connection",
    "resolve",
    "wait",
    "write_connection",
]
