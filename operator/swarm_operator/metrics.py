"""The operator's own metrics, in Prometheus' text format. One registry an instance, so that tests can have several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

__all__ = ["Metrics"]

_FAST = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Metrics:
    """Counters, histograms and gauges of one operator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        self.requests = Counter(
            "swarm_operator_api_requests_total", "Requests to the API server.", ("method", "kind", "code"), registry=r
        )
        self.request_seconds = Histogram(
            "swarm_operator_api_request_seconds", "How long they took.", ("method",), buckets=_FAST, registry=r
        )
        self.reconciles = Counter(
            "swarm_operator_reconciles_total", "Plans made and carried out.", ("result",), registry=r
        )
        self.reconcile_seconds = Histogram(
            "swarm_operator_reconcile_seconds", "From taking a key to being done with it.", buckets=_FAST, registry=r
        )
        self.queue_seconds = Histogram(
            "swarm_operator_queue_seconds", "How long keys waited in the work queue.", buckets=_FAST, registry=r
        )
        self.actions = Counter("swarm_operator_actions_total", "Actions carried out.", ("action", "result"), registry=r)
        self.status_writes = Counter("swarm_operator_status_writes_total", "Statuses written.", registry=r)
        self.autoscales = Counter(
            "swarm_operator_autoscales_total",
            "Counts that the autoscaler wrote, by direction (out, in), and rounds that failed.",
            ("result",),
            registry=r,
        )
        self._autoscale = {
            name: Gauge(f"swarm_operator_autoscale_{name}", text, ("namespace", "swarm"), registry=r)
            for name, text in (
                ("desired", "Compute agents that the autoscaler wants."),
                ("queue_seconds", "What 19 of 20 tasks waited no longer than, of late."),
                ("arrivals_per_second", "Tasks that come, per second."),
                ("completions_per_second", "Tasks that are done, per second."),
                ("task_seconds", "What a task takes on average."),
                ("waiting_tasks", "Tasks that wait."),
                ("busy_agents", "Compute agents that have a task in hand."),
            )
        }

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is scraped."""
        Gauge(f"swarm_operator_{name}", text, registry=self.registry).set_function(read)

    def autoscale(self, namespace: str, swarm: str, values: Mapping[str, float]) -> None:
        """What the autoscaler knows of a Swarm and wants of it."""
        for name, value in values.items():
            self._autoscale[name].labels(namespace, swarm).set(value)

    def autoscale_gone(self, namespace: str, swarm: str) -> None:
        """A Swarm is not autoscaled any more."""
        for gauge in self._autoscale.values():
            with contextlib.suppress(KeyError):
                gauge.remove(namespace, swarm)

    def observe_request(self, method: str, kind: str, status: int, seconds: float) -> None:
        """One request to the API server; the length of a watch is none."""
        self.requests.labels(method, kind, str(status)).inc()
        if not kind.endswith("/watch"):
            self.request_seconds.labels(method).observe(seconds)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
