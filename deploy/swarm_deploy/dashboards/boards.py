"""All dashboards. Metrics are those of `deploy/reference/metrics.md`; no panel needs the recording rules.

What is said of a Swarm by each of the operator's replicas is taken by `max`, what a node's board counts by `sum` over
nodes: one member of each exports it.
"""

from __future__ import annotations

from typing import Final

from swarm_deploy.dashboards.boards_care import FAILOVER, HARDWARE, OPERATOR
from swarm_deploy.dashboards.boards_work import ONE_AGENT, OVERVIEW, PLANE

__all__ = ["BOARDS"]

BOARDS: Final = (OVERVIEW, ONE_AGENT, PLANE, HARDWARE, FAILOVER, OPERATOR)
