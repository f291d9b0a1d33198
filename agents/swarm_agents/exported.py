"""How a metric is declared before it can be exported: its name, its kind, what it says, and what bounds its labels.

Every metric of agents and operator is made from such a declaration, and `deploy/reference/metrics.md` is the list of
them: what is not declared can't be exported, and what is declared and not exported a test finds. A name is refused
where it breaks Prometheus' conventions, and a label where nobody has said how many values it can have: a series more
for each task or client is how a Prometheus dies.

Rejected: to read the table off a scrape (a metric that appears after its first event would be missing from it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import prometheus_client
from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

__all__ = ["Declared", "Kind", "Table", "exposition", "process"]

# A second series for every counter and histogram, that nobody has asked for and no query needs.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

Kind = Literal["counter", "gauge", "histogram", "info"]

_NAME = re.compile(r"(swarm|process)_[a-z][a-z0-9]*(_[a-z0-9]+)*")
#: What no name ends with: the suffixes are the format's, the units are not base units.
_RESERVED = re.compile(r"_(total|count|sum|bucket|created|info)$|_(ms|us|ns|millis|micros|nanos|kb|mb|gb|percent)$")
_UNITS = re.compile(r"_(milli|micro|nano)seconds|_(kilo|mega|kibi|mebi)bytes")


class Declared(Struct, frozen=True):
    """One metric. `name` is without the suffix that its kind adds (`_total`, `_info`, `_bucket`, …)."""

    name: str
    kind: Kind
    text: str
    #: Each label, and what bounds the number of its values, for people.
    labels: Mapping[str, str] = {}
    #: The sensor on whose availability the value depends; NaN while there is none.
    sensor: str = ""
    #: Upper bounds of a histogram's buckets where they are fixed here, in the metric's unit.
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or _RESERVED.search(self.name) or _UNITS.search(self.name):
            raise ValueError(f"{self.name}: not a name by Prometheus' conventions (base units, no reserved suffix)")
        for label, bound in self.labels.items():
            if not bound or label in ("job", "instance", "le", "quantile"):
                raise ValueError(f"{self.name}: the label {label} is not bounded, or is Prometheus' own")
        if self.kind == "histogram" and not self.name.endswith(("_seconds", "_bytes")):
            raise ValueError(f"{self.name}: a histogram says its unit")

    @property
    def exposed(self) -> str:
        """The name as it is in queries; of a histogram without `_bucket`, `_sum` and `_count`."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    def series(self) -> tuple[str, ...]:
        """Every name that a sample of it can have."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        return (self.exposed,)

    def gauge(self, *values: tuple[Iterable[str], float]) -> GaugeMetricFamily:
        """The family with these samples: label values in the declared order, and the value."""
        family = GaugeMetricFamily(self._of("gauge"), self.text, labels=tuple(self.labels))
        for labels, value in values:
            family.add_metric(list(labels), value)
        return family

    def counter(self, *values: tuple[Iterable[str], float]) -> CounterMetricFamily:
        """As `gauge`, for a counter."""
        family = CounterMetricFamily(self._of("counter"), self.text, labels=tuple(self.labels))
        for labels, value in values:
            family.add_metric(list(labels), value)
        return family

    def histogram(self, *values: tuple[Iterable[str], list[tuple[str, float]], float]) -> HistogramMetricFamily:
        """As `gauge`: label values, cumulative counts by upper bound, and the sum."""
        family = HistogramMetricFamily(self._of("histogram"), self.text, labels=tuple(self.labels))
        for labels, buckets, total in values:
            family.add_metric(list(labels), buckets, total)
        return family

    def info(self, value: dict[str, str]) -> Metric:
        """The family that says who somebody is; the value is always 1."""
        family = GaugeMetricFamily(f"{self._of('info')}_info", self.text, labels=tuple(self.labels))
        family.add_metric([value[label] for label in self.labels], 1.0)
        return family

    def arguments(self, kind: Kind) -> dict[str, Any]:
        """For prometheus-client's own `Counter`, `Gauge` and `Histogram`."""
        return {"name": self._of(kind), "documentation": self.text, "labelnames": tuple(self.labels)} | (
            {"buckets": self.buckets} if self.buckets else {}
        )

    def _of(self, kind: Kind) -> str:
        if self.kind != kind:
            raise TypeError(f"{self.name} is declared as a {self.kind}")
        return self.name


class Table:
    """The declarations of one part, by name; each once."""

    def __init__(self, title: str, text: str, *declared: Declared) -> None:
        self.title = title
        self.text = text
        self._by_name = {one.name: one for one in declared}
        if len(self._by_name) != len(declared):
            raise ValueError(f"{title}: a metric is declared twice")

    def __getitem__(self, name: str) -> Declared:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._by_name.values())


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(*families: Metric) -> bytes:
    """Families in Prometheus' text format."""
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Families(families))
    return prometheus_client.generate_latest(registry)


def process(prefix: str, of: str) -> tuple[Declared, ...]:
    """What prometheus-client's `ProcessCollector` exports of a process (`of`: whose, for people)."""
    kinds: dict[str, tuple[Kind, str]] = {
        "virtual_memory_bytes": ("gauge", "Virtual memory"),
        "resident_memory_bytes": ("gauge", "Resident memory"),
        "start_time_seconds": ("gauge", "Start, since the epoch,"),
        "cpu_seconds": ("counter", "CPU time, user and system,"),
        "open_fds": ("gauge", "Open file descriptors"),
        "max_fds": ("gauge", "Most open file descriptors"),
    }
    return tuple(Declared(f"{prefix}process_{name}", kind, f"{text} of {of}") for name, (kind, text) in kinds.items())
