"""Disks and their queues, and the network's interfaces: totals of the node, and each device's own."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable

from swarm_agents.resource.sensing.columns import Columns
from swarm_agents.resource.sensing.files import Files
from swarm_agents.resource.sensing.parse import disks as parse_disks
from swarm_agents.resource.sensing.parse import network as parse_network
from swarm_agents.resource.sensing.reading import Availability, Lazy, Reading, Source, unavailable
from swarm_agents.resource.sensing.since import Rates

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
    kinds: dict[str, bool] = {}

    def is_disk(name: str) -> bool:
        if name not in kinds:
            kinds[name] = not _NOT_DISKS.match(name) and not files.find(f"sys/class/block/{name}/partition")
        return kinds[name]

    def learn(data: bytes) -> tuple[list[str], list[int]]:
        found = parse_disks(data)
        names = [name for name in found if is_disk(name)][:MOST_DEVICES]
        # one kind of count after the other, so that each is a slice
        return names, [found[name][which] for which in range(11) for name in names]

    file = Columns(files, "proc/diskstats", learn)
    rate = Rates(clock)

    def read() -> Reading:
        if file.read():
            rate.begin([(name, which) for which in range(11) for name in file.words])
        names = file.words
        if not names:
            return unavailable("no disks are shown")
        now, moved, count = file.values.tolist(), rate.of(file.address), len(names)
        values = {
            "disk_read_bytes": _SECTOR * _known(now[2 * count : 3 * count]),
            "disk_written_bytes": _SECTOR * _known(now[6 * count : 7 * count]),
        }
        return Reading(Availability.AVAILABLE, values, "", Lazy(functools.partial(_queues, names, now, moved)))

    return read


def _queues(names: list[str], now: list[float], moved: list[float]) -> dict[str, dict[str, float]]:
    """Of each disk, from its counts and their rates: reads, merged, sectors, ms; the same of writes; in flight, ms
    busy, ms waited."""
    count = len(names)
    busy: dict[str, float] = {}
    queue: dict[str, float] = {}
    waits: dict[str, float] = {}
    for at, name in enumerate(names):
        reads, took, writes, write_took = (moved[at + which * count] for which in (0, 3, 4, 7))
        flying, share, weighted = now[at + 8 * count], moved[at + 9 * count], moved[at + 10 * count]
        if share == share:  # not NaN
            busy[name] = min(share / 1e3, 1.0)
        if weighted == weighted:
            queue[name] = weighted / 1e3
        elif 0 <= flying < _LONGEST:
            queue[name] = flying
        if reads + writes > 0 and took + write_took >= 0:
            waits[name] = (took + write_took) / (reads + writes) / 1e3
    return {"disk_busy_ratio": busy, "disk_queue_length": queue, "disk_wait_seconds": waits}


def _known(counts: list[float]) -> float:
    return sum([count for count in counts if count == count])


def network(files: Files, clock: Callable[[], float] = time.monotonic) -> Source:
    """Bytes, errors and drops; of all interfaces but the loopback, and the rates of each."""

    def learn(data: bytes) -> tuple[list[str], list[int]]:
        found = dict(list(parse_network(data).items())[:MOST_DEVICES])
        names = sorted(found, key=lambda name: name == "lo")  # which counts for itself alone, and is the last
        return names, [found[name][which] for which in range(8) for name in names]

    file = Columns(files, "proc/net/dev", learn)
    rate = Rates(clock)

    def read() -> Reading:
        if file.read():
            rate.begin([(name, which) for which in range(8) for name in file.words])
        names = file.words
        if not names:
            return unavailable("no interfaces are shown")
        now, moved, count = file.values.tolist(), rate.of(file.address), len(names)
        outer = count - (names[-1] == "lo")
        got, _, bad, lost, put, _, bad_out, lost_out = [
            _known(now[first : first + outer]) for first in range(0, 8 * count, count)
        ]
        values = {
            "network_received_bytes": got,
            "network_sent_bytes": put,
            "network_errors": bad + bad_out,
            "network_drops": lost + lost_out,
        }
        return Reading(Availability.AVAILABLE, values, "", Lazy(functools.partial(_flows, names, moved)))

    return read


def _flows(names: list[str], moved: list[float]) -> dict[str, dict[str, float]]:
    count = len(names)

    def of(which: int) -> dict[str, float]:
        each = moved[which * count : (which + 1) * count]
        return {name: rate for name, rate in zip(names, each, strict=True) if rate == rate}

    return {"interface_received_bytes_per_second": of(0), "interface_sent_bytes_per_second": of(4)}
