"""The operator's own metrics, in Prometheus' text format. One registry an instance, so that tests can have several."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from swarm_operator import __version__
from swarm_operator.exported import ACTIONS, CONDITIONS, OPERATOR, RECONCILED, ROLES, STATES
from swarm_operator.views import SwarmView

__all__ = ["Metrics"]

_SCALED: Final = "swarm_operator_autoscale_"
_VALUES: Final = {"True": 1.0, "False": 0.0}


class Metrics(Collector):
    """Counters, histograms and gauges of one operator; which there are, `exported.OPERATOR` says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("api_requests")
        self.request_seconds = self._histogram("api_request_seconds")
        self.reconciles = self._counter("reconciles")
        self.reconcile_seconds = self._histogram("reconcile_seconds")
        self.queue_seconds = self._histogram("queue_seconds")
        self.actions = self._counter("actions")
        self.status_writes = self._counter("status_writes")
        self.autoscales = self._counter("autoscales")
        self._autoscale = {
            one.name.removeprefix(_SCALED): Gauge(registry=self.registry, **one.arguments("gauge"))
            for one in OPERATOR
            if one.name.startswith(_SCALED) and one.labels
        }
        # There before the first, so that a rate over it is 0 and not absent.
        for result in RECONCILED:
            self.reconciles.labels(result)
        for action, result in itertools.product(ACTIONS, ("done", "failed")):
            self.actions.labels(action, result)
        for result in ("out", "in", "failed"):
            self.autoscales.labels(result)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            self.request_seconds.labels(method)
        self._read: list[Callable[[], Metric]] = [
            lambda: OPERATOR["swarm_operator_build"].info({"version": __version__})
        ]
        self.registry.register(self)

    def _counter(self, name: str) -> Counter:
        return Counter(registry=self.registry, **OPERATOR[f"swarm_operator_{name}"].arguments("counter"))

    def _histogram(self, name: str) -> Histogram:
        return Histogram(registry=self.registry, **OPERATOR[f"swarm_operator_{name}"].arguments("histogram"))

    def read(self, name: str, value: Callable[[], float]) -> None:
        """Has a gauge or counter without labels read when it is scraped."""
        one = OPERATOR[f"swarm_operator_{name}"]
        make = one.counter if one.kind == "counter" else one.gauge
        self._read.append(lambda: make(((), value())))

    def read_swarms(self, swarms: Callable[[], Iterable[SwarmView]]) -> None:
        """Has each Swarm's status read when it is scraped."""
        self._read.append(lambda: _agents(swarms()))
        self._read.append(lambda: _conditions(swarms()))

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read what is not there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What is read when it is scraped."""
        for read in self._read:
            yield read()

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


def _agents(swarms: Iterable[SwarmView]) -> Metric:
    return OPERATOR["swarm_operator_agents"].gauge(
        *(
            ((swarm.namespace, swarm.name, role, state), float(counts.get(state) or 0))
            for swarm in swarms
            for role in ROLES
            if isinstance(counts := swarm.status.get(role), dict)
            for state in STATES
        )
    )


def _conditions(swarms: Iterable[SwarmView]) -> Metric:
    return OPERATOR["swarm_operator_swarm_condition"].gauge(
        *(
            ((swarm.namespace, swarm.name, each["type"]), _VALUES.get(each.get("status", ""), math.nan))
            for swarm in swarms
            for each in swarm.status.get("conditions") or ()
            if each.get("type") in CONDITIONS
        )
    )
