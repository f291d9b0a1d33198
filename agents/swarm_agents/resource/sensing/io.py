"""Disks and their queues, and the network's interfaces: totals of the node, and each device's own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import disks as parse_disks
from swarm_agents.resource.sensing.parse import network as parse_network
from swarm_agents.resource.sensing.reading import Availability, Reading, Source, unavailable
from swarm_agents.resource.sensing.since import Counters

__all__ = ["MOST_DEVICES", "disks", "network"]

#: Devices that are shown one by one at most: what bounds the label.
MOST_DEVICES = 64
#: Not disks of their own: memory, files, and what is made of other disks is counted there.
_NOT_DISKS = re.compile(r"loop|ram|zram|dm-|md|sr|fd")
_SECTOR = 512
#: No queue is as long: the kernel's count of what is in flight has been seen to fall below zero and wrap.
_LONGEST = 1 << 20


def disks(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Bytes, operations, the share of time that each disk had something to do, and how long its queue was."""
    counters = Counters()
    kinds: dict[str, bool] = {}

    def is_disk(name: str) -> bool:
        if name not in kinds:
            kinds[name] = not _NOT_DISKS.match(name) and not files.find(f"sys/class/block/{name}/partition")
        return kinds[name]

    def read() -> Reading:
        found, now = parse_disks(files.read("proc/diskstats")), clock()
        names = [name for name in found if is_disk(name)][:MOST_DEVICES]
        if not names:
            return unavailable("no disks are shown")
        values = {"disk_read_bytes": 0.0, "disk_written_bytes": 0.0}
        busy: dict[str, float] = {}
        queue: dict[str, float] = {}
        waits: dict[str, float] = {}
        for name in names:
            ops, _, sectors, ms, writes, _, written, write_ms, flying, active, waited = found[name]
            values["disk_read_bytes"] += sectors * _SECTOR
            values["disk_written_bytes"] += written * _SECTOR
            share = counters.rate((name, "busy"), active, now)
            if share is not None:
                busy[name] = min(share / 1e3, 1.0)
            weighted = counters.rate((name, "waited"), waited, now)
            if weighted is not None:
                queue[name] = weighted / 1e3
            elif 0 <= flying < _LONGEST:
                queue[name] = float(flying)
            rate = counters.rate((name, "ops"), ops + writes, now)
            took = counters.rate((name, "took"), ms + write_ms, now)
            if rate and took is not None:
                waits[name] = took / rate / 1e3
        series = {"disk_busy_ratio": busy, "disk_queue_length": queue, "disk_wait_seconds": waits}
        return Reading(Availability.AVAILABLE, values, "", series)

    return read


def network(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Bytes, errors and drops; of all interfaces but the loopback, and the rates of each."""
    counters = Counters()

    def read() -> Reading:
        found, now = parse_network(files.read("proc/net/dev")), clock()
        if not found:
            return unavailable("no interfaces are shown")
        values = dict.fromkeys(("network_received_bytes", "network_sent_bytes", "network_errors", "network_drops"), 0.0)
        received: dict[str, float] = {}
        sent: dict[str, float] = {}
        for name, (got, _, bad, lost, put, _, bad_out, lost_out) in list(found.items())[:MOST_DEVICES]:
            if name != "lo":
                values["network_received_bytes"] += got
                values["network_sent_bytes"] += put
                values["network_errors"] += bad + bad_out
                values["network_drops"] += lost + lost_out
            if (rate := counters.rate((name, 0), got, now)) is not None:
                received[name] = rate
            if (rate := counters.rate((name, 1), put, now)) is not None:
                sent[name] = rate
        series = {"interface_received_bytes_per_second": received, "interface_sent_bytes_per_second": sent}
        return Reading(Availability.AVAILABLE, values, "", series)

    return read
