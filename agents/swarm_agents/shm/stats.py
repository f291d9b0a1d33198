"""What a board knows about itself: depths, totals, latencies, failovers. Read without disturbing anybody.

Every counter of a member and every histogram has one writer, so a sum over the members is right up to what is being
counted at the moment. Histograms have two buckets an octave from 128 ns on (bounds 2^k and 1.5 * 2^k): a quantile read
from them is at most a third too high. All are sums since the board was made, and a place on the board that has another
member goes on counting where the last one ended: they never fall. A reader that wants a window subtracts two readings.

By priority and path: the round trips, hence how many tasks were answered, and the events (see `tally`). How long tasks
waited and ran is by priority: agents do not ask where a task came from.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from swarm_agents.config import Priority
from swarm_agents.shm import leases, tasks
from swarm_agents.shm.layout import (
    COUNTER_NAMES,
    EVENT_NAMES,
    F_DETECTED,
    F_DONE,
    F_EPOCH,
    F_FENCED,
    F_INDEX,
    F_LAST_BEAT,
    F_REQUEUED,
    F_RESUMED,
    F_TASKS,
    FAILOVER_RECORDS,
    FAILOVER_STRIDE,
    H_FAILOVER_AT,
    H_HIST_AT,
    H_LEASES,
    H_MAX_MEMBERS,
    H_PAGE_BYTES,
    H_PAGES,
    H_PAGES_USED,
    H_RECLAIMED,
    H_TALLIES_AT,
    HIST_BUCKETS,
    HIST_SHIFT,
    HIST_WORDS,
    HISTOGRAMS,
    LANES,
    M_EMPTY,
    PATHS,
    STATE_NAMES,
)
from swarm_agents.shm.members import counters_at, name_at, record_at, word_at

if TYPE_CHECKING:
    from swarm_agents.shm.files import Mapping

__all__ = ["BoardStats", "FailoverRecord", "Histogram", "read_stats"]


class Histogram(msgspec.Struct, frozen=True):
    """Durations by fixed buckets."""

    counts: tuple[int, ...]
    #: Of all that was counted, in seconds.
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.counts)

    @staticmethod
    def bounds() -> tuple[float, ...]:
        """Upper bound of each bucket in seconds; the last is infinite."""
        ends = [2.0**HIST_SHIFT]
        for index in range(1, HIST_BUCKETS - 1):
            octave, half = divmod(index - 1, 2)
            ends.append(2.0 ** (HIST_SHIFT + octave) * (2.0 if half else 1.5))
        return (*(end * 1e-9 for end in ends), float("inf"))

    def quantile(self, q: float) -> float:
        """Upper bound of the bucket that holds the quantile, in seconds; nan when there is nothing."""
        total = self.total
        if not total:
            return float("nan")
        reached, rank = 0, q * total
        for count, bound in zip(self.counts, self.bounds(), strict=True):
            reached += count
            if reached >= rank:
                return bound
        return float("inf")

    def __sub__(self, other: Histogram) -> Histogram:
        """What came since `other` was read."""
        counts = tuple(a - b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.seconds - other.seconds)

    def __add__(self, other: Histogram) -> Histogram:
        """Both together."""
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.seconds + other.seconds)


class FailoverRecord(msgspec.Struct, frozen=True):
    """One death and how the board got over it. Times are CLOCK_MONOTONIC seconds."""

    number: int
    index: int
    name: str
    epoch: int
    #: claims that were taken from it
    tasks: int
    last_heartbeat: float
    detected: float
    fenced: float
    requeued: float
    #: when an agent first claimed one of them again; None: not yet, or there was none
    resumed: float | None


class BoardStats(msgspec.Struct, frozen=True):
    """A reading of the board."""

    #: by priority: how many tasks are ready, claimed, done (answered, but not taken yet), being written
    depth: dict[str, dict[str, int]]
    #: sums over all members since the board was made: submitted, claimed, committed, failed (of the committed),
    #: fenced (late commits refused), handed_back, full (submits refused), answered, cancelled, parks; and of the board
    #: itself retried (claims taken from the dead), lost (given up), expired, dropped (their submitter was gone)
    totals: dict[str, int]
    #: by kind (queued, run, round_trip) and priority
    latency: dict[str, dict[str, Histogram]]
    #: round trips by the path that tasks came by (local, tcp, node, rest) and priority
    round_trips: dict[str, dict[str, Histogram]]
    #: retried, lost, expired, dropped, full, cancelled by path and priority
    events: dict[str, dict[str, dict[str, int]]]
    failovers: list[FailoverRecord]
    arena_bytes: int
    arena_used: int
    #: shared arrays in the arena
    arrays: int = 0
    #: bytes of the arena that they take
    array_bytes: int = 0
    #: references to them that are held (by members, tasks, results), and how many there can be
    leases: int = 0
    most_leases: int = 0
    #: what sweeps have freed since the board was made, because whoever held it is gone: arrays, leases, blocks
    reclaimed: dict[str, int] = {}

    def ready(self) -> dict[str, int]:
        """Tasks that wait, by priority."""
        return {lane: states["ready"] for lane, states in self.depth.items()}


def read_depths(mapping: Mapping) -> dict[str, dict[str, int]]:
    """How many slots of each lane are in which state."""
    out = np.zeros(LANES * len(STATE_NAMES), np.int64)
    tasks.depths(mapping.base, int(out.ctypes.data))
    rows: Sequence[Sequence[int]] = out.reshape(LANES, len(STATE_NAMES)).tolist()
    return {
        str(lane): {name: row[index] for index, name in enumerate(STATE_NAMES) if name != "free"}
        for lane, row in zip(Priority, rows, strict=True)
    }


def read_stats(mapping: Mapping, words: dict[int, int]) -> BoardStats:
    """Reads everything."""
    totals = dict.fromkeys(COUNTER_NAMES, 0)
    used = []
    for index in range(words[H_MAX_MEMBERS]):
        at = record_at(words, index)
        if word_at(mapping, at)[0] != M_EMPTY or word_at(mapping, at)[2]:
            used.append(index)
            for name, value in counters_at(mapping, at).items():
                totals[name] += value
    events = _events(mapping, words)
    for name in ("retried", "lost", "expired", "dropped"):
        totals[name] = sum(sum(lanes.values()) for lanes in events[name].values())
    shared = np.zeros(3, np.int64)
    leases.count_arrays(mapping.base, int(shared.ctypes.data))
    queued, run, *by_path = _histograms(mapping, words, used)
    round_trips = dict(zip(PATHS, by_path, strict=True))
    latency = {
        "queued": queued,
        "run": run,
        "round_trip": {lane: functools.reduce(add, (path[lane] for path in by_path)) for lane in queued},
    }
    return BoardStats(
        depth=read_depths(mapping),
        totals=totals,
        latency=latency,
        round_trips=round_trips,
        events=events,
        failovers=_failovers(mapping, words),
        arena_bytes=words[H_PAGES] * words[H_PAGE_BYTES],
        arena_used=max(0, _word(mapping, H_PAGES_USED)) * words[H_PAGE_BYTES],
        arrays=int(shared[0]),
        array_bytes=int(shared[1]) * words[H_PAGE_BYTES],
        leases=int(shared[2]),
        most_leases=words[H_LEASES],
        reclaimed={what: _word(mapping, H_RECLAIMED + at) for at, what in enumerate(("arrays", "leases", "blocks"))},
    )


def _histograms(mapping: Mapping, words: dict[int, int], members: list[int]) -> list[dict[str, Histogram]]:
    """Sums over the members: of each kind, by priority."""
    shape = (words[H_MAX_MEMBERS], LANES, HISTOGRAMS, HIST_WORDS)
    all_of_them = np.frombuffer(mapping.view, np.int64, int(np.prod(shape)), words[H_HIST_AT]).reshape(shape)
    sums = all_of_them[members].sum(axis=0)
    return [
        {
            str(lane): Histogram(
                tuple(sums[lane.lane, kind, :HIST_BUCKETS].tolist()), int(sums[lane.lane, kind, HIST_BUCKETS]) * 1e-9
            )
            for lane in Priority
        }
        for kind in range(HISTOGRAMS)
    ]


def _events(mapping: Mapping, words: dict[int, int]) -> dict[str, dict[str, dict[str, int]]]:
    shape = (len(EVENT_NAMES), LANES, len(PATHS))
    counted = np.frombuffer(mapping.view, np.int64, int(np.prod(shape)), words[H_TALLIES_AT]).reshape(shape).tolist()
    return {
        event: {path: {str(lane): lanes[lane.lane][at] for lane in Priority} for at, path in enumerate(PATHS)}
        for event, lanes in zip(EVENT_NAMES, counted, strict=True)
    }


def _failovers(mapping: Mapping, words: dict[int, int]) -> list[FailoverRecord]:
    records = []
    for place in range(FAILOVER_RECORDS):
        r = struct.unpack_from("<10q", mapping.view, H_FAILOVER_AT + place * FAILOVER_STRIDE)
        if r[F_DONE]:
            records.append(
                FailoverRecord(
                    number=r[F_DONE] - 1,
                    index=r[F_INDEX],
                    name=name_at(mapping, record_at(words, r[F_INDEX])),
                    epoch=r[F_EPOCH],
                    tasks=r[F_TASKS],
                    last_heartbeat=r[F_LAST_BEAT] * 1e-9,
                    detected=r[F_DETECTED] * 1e-9,
                    fenced=r[F_FENCED] * 1e-9,
                    requeued=r[F_REQUEUED] * 1e-9,
                    resumed=r[F_RESUMED] * 1e-9 if r[F_RESUMED] else None,
                )
            )
    return sorted(records, key=lambda record: record.number)


def _word(mapping: Mapping, index: int) -> int:
    return int(struct.unpack_from("<q", mapping.view, index * 8)[0])
