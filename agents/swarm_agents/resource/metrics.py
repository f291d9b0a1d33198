"""The hub's and the sensors' metrics, and the node's board's, made from what they know at the moment somebody asks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from swarm_agents.resource.board_metrics import BoardMetrics
from swarm_agents.resource.exported import EVENTS, FORESIGHT, HUB, NODE
from swarm_agents.resource.foresight.forecast import HORIZONS
from swarm_agents.resource.foresight.watcher import NODE_SERIES
from swarm_agents.resource.sensing import Availability
from swarm_agents.runtime import iometrics, ioqueue

if TYPE_CHECKING:
    from swarm_agents.resource.foresight.forecast import Forecast
    from swarm_agents.resource.foresight.watcher import Foresight
    from swarm_agents.resource.hub import Hub
    from swarm_agents.resource.sensing import Sensors
    from swarm_agents.shm.board import Board

__all__ = ["text"]


def text(
    board: Board,
    node: str,
    hub: Hub | None,
    sensors: Sensors,
    foresight: Foresight | None = None,
    action: Iterable[Callable[[], Iterable[Metric]]] = (),
) -> bytes:
    """Everything in Prometheus' text format; without a hub (it is being made anew) the board's all the same."""
    registry = CollectorRegistry()
    registry.register(BoardMetrics(board, node))
    registry.register(_NodeMetrics(sensors))
    if foresight is not None:
        registry.register(_ForesightMetrics(foresight))
    for metrics in action:
        registry.register(_Made(metrics))
    if hub is not None:
        registry.register(_HubMetrics(hub))
    return generate_latest(registry)


class _Made(Collector):
    """What somebody makes when it is asked for."""

    def __init__(self, made: Callable[[], Iterable[Metric]]) -> None:
        self._made = made

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._made()


class _HubMetrics(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        counts = dict.fromkeys(EVENTS, 0) | hub.counts
        yield HUB["swarm_hub_events"].counter(*(((event,), count) for event, count in counts.items()))
        kinds = Counter(session.kind for session in hub.sessions)
        yield HUB["swarm_hub_sessions"].gauge(*(((kind,), kinds[kind]) for kind in ("client", "hub", "rest")))
        yield HUB["swarm_hub_kept_bytes"].gauge(((), hub.sessions.kept_bytes))
        yield HUB["swarm_hub_aside_bytes"].gauge(((), hub.sessions.aside_bytes))
        yield from iometrics.collect(ioqueue.shared())
        peers = list(hub.peers.values())
        yield HUB["swarm_hub_peer_up"].gauge(*(((peer.node,), float(peer.open)) for peer in peers))
        yield HUB["swarm_hub_peer_rtt_seconds"].gauge(*(((peer.node,), peer.rtt) for peer in peers))
        yield HUB["swarm_hub_peer_tasks"].gauge(*(((peer.node,), len(peer.forwarded)) for peer in peers))


class _NodeMetrics(Collector):
    """Of the hardware; there without a hub, too."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        readings = self._sensors.readings
        yield NODE["swarm_node_sensor"].gauge(
            *(
                ((name, kind.value), float(reading.availability is kind))
                for name, reading in readings.items()
                for kind in Availability
            )
        )
        values: dict[str, float] = {}
        series: dict[str, Mapping[str, float]] = {}
        for reading in readings.values():
            if reading.availability is not Availability.UNAVAILABLE:
                values |= {f"swarm_node_{name}": value for name, value in reading.values.items()}
                series |= {f"swarm_node_{name}": each for name, each in reading.series.items()}
        for one in NODE:
            if not one.sensor:
                continue
            # What no sensor says is there all the same, once and without a label's value: a query over it is not empty,
            # it is unknown.
            samples: list[tuple[tuple[str, ...], float]]
            if one.labels:
                samples = [((label,), value) for label, value in series.get(one.name, {"": math.nan}).items()]
            else:
                samples = [((), values.get(one.name, math.nan))]
            yield one.counter(*samples) if one.kind == "counter" else one.gauge(*samples)


class _ForesightMetrics(Collector):
    """What comes, and how wrong it has been."""

    def __init__(self, foresight: Foresight) -> None:
        self._foresight = foresight

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        found = self._foresight.forecasts()
        errors = []
        for name, value in NODE_SERIES.items():
            known = found.get(name, {})
            yield FORESIGHT[f"swarm_node_forecast_{value}"].gauge(
                *(((str(at),), known[at].value if at in known else math.nan) for at in HORIZONS)
            )
            for at in HORIZONS:
                errors.append(((name, str(at)), _share(known[at]) if at in known else math.nan))
        yield FORESIGHT["swarm_node_forecast_error_ratio"].gauge(*((labels, share) for labels, share in errors))
        yield FORESIGHT["swarm_node_foresight_seconds"].counter(((), self._foresight.spent))


def _share(forecast: Forecast) -> float:
    """Of the last value's error: 1 where neither has any."""
    return forecast.error / forecast.error_last if forecast.error_last else 1.0
