"""The depth finds a disk's knee, and follows it when it moves."""

from __future__ import annotations

import heapq
import math
import random

import pytest

from swarm_agents.runtime.iodepth import Depth


class Disk:
    """Serves `width` requests at a time, each for `service` seconds or about that; always as many as allowed wait."""

    def __init__(self, width: int, service: float = 0.01, noise: float = 0.0, seed: int = 1) -> None:
        self.width, self.service, self.noise = width, service, noise
        self.random = random.Random(seed)
        self.now = 0.0
        self.ends: list[float] = []
        self.free: list[float] = []
        self.under_way: list[tuple[float, float]] = []

    def run(self, depth: Depth, requests: int, *, full: bool = True) -> list[int]:
        seen = []
        for _ in range(requests):
            while len(self.under_way) < depth.depth:
                self.free = sorted(end for end in self.free if end > self.now)
                begin = self.free[-self.width] if len(self.free) >= self.width else self.now
                end = begin + self.service * (1 + self.noise * (self.random.random() - 0.5))
                heapq.heappush(self.free, end)
                heapq.heappush(self.under_way, (end, self.now))
            end, since = heapq.heappop(self.under_way)
            self.now = max(self.now, end)
            depth.ended(self.now, self.now - since, 1 << 20, full=full)
            seen.append(depth.depth)
        return seen


@pytest.mark.parametrize("knee", [1, 2, 4, 8])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_depth_settles_about_the_knee(knee: int, noise: float) -> None:
    depth = Depth(most=32)
    seen = Disk(knee, noise=noise).run(depth, 12_000)[-4000:]
    mean = sum(seen) / len(seen)
    assert 0.7 * knee <= mean <= 1.6 * knee + 1
    assert max(seen) <= 2 * knee + 2


def test_it_falls_when_the_disk_becomes_slower_and_rises_when_it_has_recovered() -> None:
    depth, disk = Depth(most=32), Disk(8)
    disk.run(depth, 8000)
    disk.width = 2
    slow = disk.run(depth, 6000)[-2000:]
    assert sum(slow) / len(slow) <= 4
    disk.width = 8
    well = disk.run(depth, 12_000)[-2000:]
    assert sum(well) / len(well) >= 6


def test_a_disk_that_is_slower_for_good_is_not_held_at_one_for_ever() -> None:
    depth, disk = Depth(most=32), Disk(8)
    disk.run(depth, 6000)
    disk.service *= 20
    seen = disk.run(depth, 16_000)[-2000:]
    assert sum(seen) / len(seen) >= 5


def test_a_queue_that_is_never_full_does_not_raise_it() -> None:
    depth = Depth(most=32)
    Disk(8).run(depth, 4000, full=False)
    assert depth.depth == 1


def test_it_stays_within_its_bounds() -> None:
    depth = Depth(least=2, most=3)
    assert set(Disk(64).run(depth, 4000)) <= {2, 3}
    with pytest.raises(ValueError, match="1 <= least"):
        Depth(least=0)
    with pytest.raises(ValueError, match="1 <= least"):
        Depth(least=4, most=3)


def test_absurd_times_change_nothing() -> None:
    depth = Depth()
    for now, latency in ((math.nan, 1.0), (1.0, math.nan), (1.0, -1.0), (math.inf, 1.0), (5.0, 0.0), (-5.0, 0.0)):
        for _ in range(20):
            depth.ended(now, latency, -1, full=True)
    assert 1 <= depth.depth <= depth.most
