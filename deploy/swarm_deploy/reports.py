"""What every node of a swarm says of itself, gathered for `swarm top` and `swarm agents`.

A hub reports on its own node alone, so each hub is asked. A node that does not answer is a row that says so: the
picture of a swarm must not shrink silently when a part of it is in trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec

from swarm_agents.client import Connection, Swarm
from swarm_agents.client.connection import resolve
from swarm_agents.errors import SwarmError

__all__ = ["NodeReport", "Reporter"]


@dataclass(frozen=True)
class NodeReport:
    """One node's answer. `report` is what `GET /v1/swarm` shows; empty where `error` says why there is none."""

    node: str
    report: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def agents(self) -> list[dict[str, Any]]:
        """The node's agents, clients left out, by role and name."""
        members = [m for m in self.report.get("members", ()) if m.get("role") in ("compute", "standby", "resource")]
        return sorted(members, key=lambda m: (m["role"] == "resource", m["role"], m["name"]))

    @property
    def sensors(self) -> dict[str, Any]:
        """What the node's sensors say, by name."""
        return dict(self.report.get("sensors", {}))


class Reporter:
    """Keeps a connection to each hub, and asks them all at once."""

    def __init__(self, target: str | None, *, timeout: float = 5.0) -> None:
        """Raises Unreachable when nothing says where the swarm is."""
        connection = resolve(target)
        self.title = "/".join(part for part in (connection.namespace, connection.swarm) if part) or str(target)
        self._timeout = timeout
        self._ways = list(_ways(connection))
        self._open: dict[str, Swarm] = {}
        self._stack = ExitStack()
        self._pool = self._stack.enter_context(ThreadPoolExecutor(max(len(self._ways), 1), "report"))

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves all hubs."""
        for swarm in self._open.values():
            swarm.shutdown(wait=False, cancel_futures=True)
        self._open.clear()
        self._stack.close()

    def read(self) -> list[NodeReport]:
        """Every node's report, in the order of the settings."""
        return list(self._pool.map(self._ask, self._ways))

    def _ask(self, way: tuple[str, Connection]) -> NodeReport:
        node, connection = way
        try:
            swarm = self._open.get(node)
            if swarm is None:
                swarm = self._open[node] = Swarm.connect(connection, timeout=self._timeout, retry_window=0.0)
            report = swarm.info(timeout=self._timeout)
            return NodeReport(report.get("node") or node, report)
        except (SwarmError, TimeoutError) as error:
            gone = self._open.pop(node, None)
            if gone is not None:
                gone.shutdown(wait=False, cancel_futures=True)
            return NodeReport(node, error=str(error).splitlines()[0])


def _ways(connection: Connection) -> Iterator[tuple[str, Connection]]:
    """A connection for each node: its hub alone, or, where no hub is known, the board."""
    if not connection.hubs:
        yield "this node", connection
    for hub in connection.hubs:
        yield hub.node or hub.address, msgspec.structs.replace(connection, board=None, hubs=(hub,))
