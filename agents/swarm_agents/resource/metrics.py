"""The hub's and the sensors' metrics, and the node's board's, made from what they know at the moment somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents.resource.board_metrics import BoardMetrics
from swarm_agents.resource.sensors import Availability

if TYPE_CHECKING:
    from swarm_agents.resource.hub import Hub
    from swarm_agents.resource.sensors import Sensors
    from swarm_agents.shm.board import Board

__all__ = ["text"]


def text(board: Board, node: str, hub: Hub | None, sensors: Sensors) -> bytes:
    """Everything in Prometheus' text format; without a hub (it is being made anew) the board's all the same."""
    registry = CollectorRegistry()
    registry.register(BoardMetrics(board, node))
    if hub is not None:
        registry.register(_Metrics(hub, sensors))
    return generate_latest(registry)


class _Metrics(Collector):
    def __init__(self, hub: Hub, sensors: Sensors) -> None:
        self._hub = hub
        self._sensors = sensors

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        events = CounterMetricFamily(
            "swarm_hub_events", "What the hub did and refused, by kind: tasks submitted, forwarded, …", labels=["event"]
        )
        for event, count in sorted(hub.counts.items()):
            events.add_metric([event], count)
        yield events
        sessions = GaugeMetricFamily("swarm_hub_sessions", "Sessions that the hub serves, by kind", labels=["kind"])
        for kind in ("client", "hub", "rest"):
            sessions.add_metric([kind], sum(session.kind == kind for session in hub.sessions))
        yield sessions
        kept = GaugeMetricFamily("swarm_hub_kept_bytes", "Answers that have not been acknowledged yet, in bytes")
        kept.add_metric([], hub.sessions.kept_bytes)
        yield kept
        up = GaugeMetricFamily("swarm_hub_peer_up", "1 while the other node's hub can be sent tasks", labels=["peer"])
        rtt = GaugeMetricFamily("swarm_hub_peer_rtt_seconds", "Round trip to the other node's hub", labels=["peer"])
        away = GaugeMetricFamily("swarm_hub_peer_tasks", "This node's tasks that the peer computes", labels=["peer"])
        for peer in hub.peers.values():
            up.add_metric([peer.node], float(peer.open))
            rtt.add_metric([peer.node], peer.rtt)
            away.add_metric([peer.node], len(peer.forwarded))
        yield from (up, rtt, away)
        yield from self._sensed()

    def _sensed(self) -> Iterator[Metric]:
        known = GaugeMetricFamily(
            "swarm_node_sensor",
            "1 for the availability that a sensor has: available, estimated or unavailable",
            labels=["sensor", "availability"],
        )
        values: dict[str, float] = {}
        for name, reading in self._sensors.readings.items():
            for kind in Availability:
                known.add_metric([name, kind.value], float(reading.availability is kind))
            if reading.availability is not Availability.UNAVAILABLE:
                values |= reading.values
        yield known
        for name, value in values.items():
            family = GaugeMetricFamily(f"swarm_node_{name}", f"{name.replace('_', ' ')} of the node, by its sensor")
            family.add_metric([], value)
            yield family
