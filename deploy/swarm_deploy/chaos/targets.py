"""Who can be hit: the processes of a local cluster's swarm, found by the environment that they were started with.

Every process of a local cluster carries the cluster's id, every agent its swarm's UID, its pod and its node. A pod's
supervisor is the one whose parent is not of the pod; its agent is the child by the name that the runtime gives it.
A process is held by its number and its start time, so that a signal never reaches another one that has got the number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from swarm_deploy.local.processes import Process
from swarm_deploy.local.record import CLUSTER_MARK

__all__ = ["Target", "find", "operators"]

_AGENT = "swarm-agent"


@dataclass(frozen=True)
class Target:
    """A process that plays a part in a swarm."""

    process: Process
    #: agent, standby, hub (the forked agents), supervisor, operator.
    part: str
    #: The pod, and its node; empty for an operator.
    pod: str = ""
    node: str = ""

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return f"{self.part} {self.pod}{where} (process {self.process.pid})".replace("  ", " ")


_PARTS = {"compute": "agent", "standby": "standby", "resource": "hub"}


def find(cluster: str, uid: str) -> list[Target]:
    """The agents and supervisors of the swarm with this UID in a local cluster, by part and pod."""
    members: dict[int, dict[str, str]] = {}
    for pid, environment in _environments(cluster):
        if environment.get("SWARM_UID") == uid and "POD_NAME" in environment:
            members[pid] = environment
    found = []
    for pid, environment in members.items():
        stat = _stat(pid)
        process = Process.of(pid)
        if stat is None or process is None:
            continue
        name, parent = stat
        pod, node = environment["POD_NAME"], environment.get("NODE_NAME", "")
        if members.get(parent, {}).get("POD_NAME") != pod:
            found.append(Target(process, "supervisor", pod, node))
        elif name == _AGENT:
            part = _PARTS.get(environment.get("SWARM_ROLE", ""), "")
            found.append(Target(process, part, pod, node))
    return sorted(found, key=lambda target: (target.part, target.pod, target.process.pid))


def operators(cluster: str) -> list[Target]:
    """The operator of a local cluster."""
    found = []
    for pid, _ in _environments(cluster):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"/swarm-operator") for word in words[:2]) and (process := Process.of(pid)) is not None:
            found.append(Target(process, "operator"))
    return found


def _environments(cluster: str) -> list[tuple[int, dict[str, str]]]:
    mark = f"{CLUSTER_MARK}={cluster}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                raw = file.read().split(b"\0")
        except OSError:  # gone meanwhile, or another user's
            continue
        if mark in raw:
            pairs = (os.fsdecode(entry).partition("=") for entry in raw)
            found.append((int(name), {key: value for key, _, value in pairs}))
    return found


def _stat(pid: int) -> tuple[str, int] | None:
    """A process's name and its parent; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    name = text[text.index(b"(") + 1 : text.rindex(b")")].decode(errors="replace")
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else (name, int(fields[1]))
