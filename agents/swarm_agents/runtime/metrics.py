"""The pod's metrics, made when somebody asks for them from what the board, the scoreboard and the supervisor know.

One endpoint a pod and no multiprocess mode: prometheus-client runs in the supervisor only, and its values are not kept
in it but read off. What the node's board counts for all its members, the node's resource agent exports alone (see
`resource.board_metrics`), so that sums over pods count nothing twice; the tasks that were set aside are known to each
pod of the node, hence their label `node`: take `max by (node)`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents import __version__
from swarm_agents.config import Priority
from swarm_agents.runtime.exported import POD, WITNESSES
from swarm_agents.runtime.ledger import set_aside
from swarm_agents.runtime.scoreboard import BUCKETS

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["Metrics"]


class Metrics(Collector):
    """A registry of what one pod exports."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._registry = CollectorRegistry()
        self._failover = Histogram(registry=self._registry, **POD["swarm_failover_seconds"].arguments("histogram"))
        self._replaced = Histogram(
            registry=self._registry, **POD["swarm_agent_replaced_seconds"].arguments("histogram")
        )
        self._fences = Counter(registry=self._registry, **POD["swarm_fences"].arguments("counter"))
        for witness in WITNESSES:
            self._fences.labels(witness)
        for histogram, stages in ((self._failover, ("detect", "claim", "resume")), (self._replaced, ("fork", "ready"))):
            for stage in stages:
                histogram.labels(stage)  # so that a rate over it is 0, not absent, before the first
        ProcessCollector(namespace="swarm_supervisor", registry=self._registry)
        self._registry.register(self)

    def failover(self, stage: str, seconds: float) -> None:
        """Counts one stage of a failover."""
        self._failover.labels(stage).observe(max(seconds, 0.0))

    def replaced(self, stage: str, seconds: float) -> None:
        """Counts one stage of an agent's replacement."""
        self._replaced.labels(stage).observe(max(seconds, 0.0))

    def fenced(self, witness: str) -> None:
        """Counts a declaration of death."""
        self._fences.labels(witness).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # so that registering does not collect before the supervisor runs

    def collect(self) -> Iterator[Metric]:
        supervisor = self._supervisor
        identity, scores = supervisor.identity, supervisor.scoreboard
        yield POD["swarm_agent"].info(
            {
                "swarm": identity.swarm,
                "namespace": identity.namespace,
                "agent": identity.pod,
                "role": str(identity.role),
                "ordinal": str(identity.ordinal),
                "node": identity.node,
                "revision": identity.revision,
                "version": __version__,
            }
        )
        guard, cores = supervisor.guard, supervisor.cores
        for name, value in (
            ("swarm_agent_up", not supervisor.unready()),
            ("swarm_agent_epoch", supervisor.epoch),
            ("swarm_agent_active", supervisor.acting),
            ("swarm_agent_draining", supervisor.draining),
            ("swarm_agent_unfit", bool(supervisor.unfit)),
            ("swarm_agent_failure_probability_ratio", supervisor.outlook.forecast.probability),
            ("swarm_agent_cores", len(cores.cpus)),
            ("swarm_agent_cores_avoided", len(supervisor.core_balance.avoided)),
            ("swarm_agent_cores_exclusive", math.nan if cores.exclusive is None else cores.exclusive),
            ("swarm_agent_cores_exclusive_wanted", supervisor.wishes.pins),
            ("swarm_tasks_running", scores.running),
        ):
            yield POD[name].gauge(((), float(value)))
        for name, count in (
            ("swarm_agent_restarts", supervisor.restarts.total),
            ("swarm_agent_rejoins", scores.rejoins),
            ("swarm_agent_core_moves", supervisor.core_balance.moves),
            ("swarm_suspicions", guard.watch.suspicions),
            ("swarm_suspicions_withdrawn", guard.watch.withdrawn),
        ):
            yield POD[name].counter(((), count))
        limits = guard.limits()
        yield POD["swarm_detection_threshold_seconds"].gauge(
            *(((stage,), getattr(limits, stage)) for stage in ("suspect", "confirmed", "dead"))
        )
        yield POD["swarm_tasks"].counter(*scores.tasks().items())
        bounds = [*map(str, BUCKETS), "+Inf"]
        yield POD["swarm_task_seconds"].histogram(
            *(
                ((str(priority),), list(zip(bounds, map(float, counts), strict=True)), total)
                for priority in Priority
                for counts, total in (scores.histogram(priority),)
            )
        )
        aside = len(set_aside(supervisor.board.directory))
        yield POD["swarm_tasks_set_aside"].gauge(((identity.node,), aside))
        yield from self._process()

    def _process(self) -> Iterator[Metric]:
        """CPU and memory of the agent's process; absent while there is none."""
        pid = self._supervisor.agent_pid
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        yield POD["swarm_agent_cpu_seconds"].counter(((), used))
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        yield POD["swarm_agent_resident_memory_bytes"].gauge(((), resident))
