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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents import __version__
from swarm_agents.config import Priority
from swarm_agents.runtime.ledger import set_aside
from swarm_agents.runtime.scoreboard import BUCKETS

if TYPE_CHECKING:
    from swarm_agents.runtime.supervisor import Supervisor

__all__ = ["Metrics"]

_FAILOVER_BUCKETS = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics(Collector):
    """A registry of what one pod exports."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._registry = CollectorRegistry()
        self._failover = Histogram(
            "swarm_failover_seconds",
            "Seconds of the stages of the failovers that this pod declared: detect (last heartbeat to declared dead), "
            "claim (to all its tasks being free again), resume (to the first of them running elsewhere)",
            ["stage"],
            registry=self._registry,
            buckets=_FAILOVER_BUCKETS,
        )
        self._replaced = Histogram(
            "swarm_agent_replaced_seconds",
            "Seconds from the death of this pod's agent to the next process (fork) and to its taking work (ready)",
            ["stage"],
            registry=self._registry,
            buckets=_FAILOVER_BUCKETS,
        )
        self._fences = Counter(
            "swarm_fences_total",
            "Agents that this pod's supervisor declared dead, by the witness: exit (it ended), process, lock, stopped, "
            "dying (killed, and not ended yet), confirmed (silent, as two watchers say), "
            "heartbeat (silent for deadAfter)",
            ["witness"],
            registry=self._registry,
        )
        for witness in ("exit", "process", "lock", "stopped", "dying", "confirmed", "heartbeat"):
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
        yield InfoMetricFamily(
            "swarm_agent",
            "Who this agent is",
            {
                "swarm": identity.swarm,
                "namespace": identity.namespace,
                "agent": identity.pod,
                "role": str(identity.role),
                "ordinal": str(identity.ordinal),
                "node": identity.node,
                "revision": identity.revision,
                "version": __version__,
            },
        )
        yield _gauge("swarm_agent_up", "1 while the agent is ready for work", float(not supervisor.unready()))
        yield _gauge("swarm_agent_epoch", "The agent's epoch on its node's board", supervisor.epoch)
        yield _gauge("swarm_agent_active", "1 while the agent takes part, 0 for a standby in wait", supervisor.acting)
        yield _gauge("swarm_agent_draining", "1 while the agent claims nothing more", supervisor.draining)
        yield _gauge("swarm_tasks_running", "Tasks in hand", scores.running)
        restarts = CounterMetricFamily(
            "swarm_agent_restarts", "Agents that this pod's supervisor has replaced after they died"
        )
        restarts.add_metric([], supervisor.restarts.total)
        yield restarts
        rejoins = CounterMetricFamily("swarm_agent_rejoins", "Times that the agent found itself fenced and rejoined")
        rejoins.add_metric([], scores.rejoins)
        yield rejoins
        guard = supervisor.guard
        for name, text, count in (
            ("swarm_suspicions", "Agents that this pod's supervisor suspected", guard.watch.suspicions),
            ("swarm_suspicions_withdrawn", "Suspects that were heard again", guard.watch.withdrawn),
        ):
            family = CounterMetricFamily(name, text)
            family.add_metric([], count)
            yield family
        limits = guard.limits()
        threshold = GaugeMetricFamily(
            "swarm_detection_threshold_seconds",
            "Silence from which an agent of the node is suspected, dead if a second witness agrees, dead anyway",
            labels=["stage"],
        )
        for stage in ("suspect", "confirmed", "dead"):
            threshold.add_metric([stage], getattr(limits, stage))
        yield threshold
        tasks = CounterMetricFamily("swarm_tasks", "Tasks that the agent has ended", labels=["result", "priority"])
        for labels, count in scores.tasks().items():
            tasks.add_metric(labels, count)
        yield tasks
        seconds = HistogramMetricFamily(
            "swarm_task_seconds", "Seconds from a task's claim to its commit", labels=["priority"]
        )
        bounds = [*map(str, BUCKETS), "+Inf"]
        for priority in Priority:
            counts, total = scores.histogram(priority)
            seconds.add_metric([str(priority)], list(zip(bounds, map(float, counts), strict=True)), total)
        yield seconds
        cores = supervisor.cores
        yield _gauge("swarm_agent_cores", "CPUs that the agent may run on", len(cores.cpus))
        yield _gauge(
            "swarm_agent_cores_exclusive",
            "1 when these CPUs are the agent's alone, 0 when not, NaN when that is not known",
            math.nan if cores.exclusive is None else float(cores.exclusive),
        )
        yield from self._board()
        yield from self._process()

    def _board(self) -> Iterator[Metric]:
        supervisor = self._supervisor
        node = supervisor.identity.node
        aside = GaugeMetricFamily(
            "swarm_tasks_set_aside",
            "Tasks of the node that were given up of late; `GET /v1/swarm` lists them with who died over them",
            labels=["node"],
        )
        aside.add_metric([node], len(set_aside(supervisor.board.directory)))
        yield aside

    def _process(self) -> Iterator[Metric]:
        """CPU and memory of the agent's process; absent while there is none."""
        pid = self._supervisor.agent_pid
        try:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return
        cpu = CounterMetricFamily("swarm_agent_cpu_seconds", "CPU seconds of the present agent process")
        cpu.add_metric([], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
        yield cpu
        yield _gauge(
            "swarm_agent_resident_memory_bytes",
            "Resident memory of the agent process",
            int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
