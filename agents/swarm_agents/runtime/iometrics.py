"""The metrics of a process's queue for the disk."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from swarm_agents.runtime.exported import IO, IO_RESULTS
from swarm_agents.runtime.ioqueue import IoQueue

__all__ = ["collect"]


def collect(queue: IoQueue) -> Iterator[Metric]:
    """As `swarm_agents.runtime.exported.IO` declares them."""
    for name, value in (
        ("swarm_io_depth", queue.depth),
        ("swarm_io_in_flight", queue.in_flight),
        ("swarm_io_waiting", queue.waiting),
        ("swarm_io_latency_seconds", queue.latency),
    ):
        yield IO[name].gauge(((), float(value)))
    yield IO["swarm_io_bytes"].counter(((), queue.bytes))
    counts = dict(
        zip(
            IO_RESULTS,
            (queue.ended - queue.failed, queue.failed, queue.refused, queue.cancelled),
            strict=True,
        )
    )
    yield IO["swarm_io_requests"].counter(*(((result,), count) for result, count in counts.items()))
