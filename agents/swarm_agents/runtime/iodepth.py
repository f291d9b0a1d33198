"""How many requests a disk should have at once: more while that brings more through, fewer when each only waits longer.

A disk serves some requests at the same time; beyond that knee each further one makes all wait, and nothing come faster
(Little's law: what is in flight = throughput times latency). Where the knee lies differs a thousandfold between devices
and moves with what else the device does, so it is looked for all the time: at the end of each window of requests

- the latency has grown to `SLOW` times the best of late: the depth falls to `FALL` of itself, at once;
- one less brought as much through (within `GAIN`), when that was tried last: the depth falls by one;
- there were always as many in flight as allowed, and this depth brings more than one less did, or the last trial is
  `TRIAL` windows ago: it rises by one;
- else it stays. A window in which there was nothing to wait for says nothing about the knee.

This is additive increase and multiplicative decrease on latency, as of TCP Vegas (Brakmo and Peterson 1995), with the
gradient of throughput for a brake. Latencies are compared per window's mean, of requests of like size: the caller cuts
large payloads into pieces. The best latency fades upward by `FADE` a window, so that a device that has become slower
for good is not held back for ever. No clock here.
"""

from __future__ import annotations

import math

__all__ = ["Depth"]

SLOW = 2.0
FALL = 0.7
GAIN = 0.04
TRIAL = 8
FADE = 1.02
#: A window has at least so many requests, and twice as many as may be in flight.
_LEAST_WINDOW = 8
_NEWS = 0.5


class Depth:
    """See the module's text."""

    def __init__(self, least: int = 1, most: int = 16) -> None:
        """`least` and `most`: bounds of the depth, 1 <= least <= most."""
        if not 1 <= least <= most:
            raise ValueError(f"depths from {least} to {most}: expected 1 <= least <= most")
        self.least, self.most = least, most
        self.depth = least
        #: Mean latency of the last window, and of the best of late (seconds).
        self.latency = 0.0
        self.best = math.inf
        #: Bytes a second of the last window.
        self.rate = 0.0
        self._rates: dict[int, float] = {}
        self._trial = 0
        self._begin(-math.inf)

    def _begin(self, now: float) -> None:
        self._since, self._ended, self._bytes, self._waited, self._full = now, 0, 0, 0.0, True

    def ended(self, now: float, latency: float, size: int, *, full: bool) -> None:
        """A request has ended.

        Args:
            now: seconds. latency: seconds it took from when the device got it. size: its bytes.
            full: there were as many in flight as allowed, and more that waited.
        """
        if not (math.isfinite(now) and math.isfinite(latency) and latency >= 0):
            return
        if now < self._since:  # a clock that goes backwards
            self._begin(now)
        if self._since == -math.inf:
            self._begin(now - latency)
        self._ended += 1
        self._bytes += max(size, 0)
        self._waited += latency
        self._full = self._full and full
        if self._ended >= max(_LEAST_WINDOW, 2 * self.depth) and now > self._since:
            self._judge(now)

    def _judge(self, now: float) -> None:
        self.latency = self._waited / self._ended
        self.rate = self._bytes / (now - self._since)
        full = self._full
        self._begin(now)
        slow = self.latency > SLOW * self.best
        self.best = min(self.best * FADE, self.latency)
        if slow:
            self._go(max(math.floor(self.depth * FALL), self.least))
            return
        if not full:
            return
        known = self._rates.get(self.depth)
        self._rates[self.depth] = rate = self.rate if known is None else known + _NEWS * (self.rate - known)
        below = self._rates.get(self.depth - 1)
        self._trial += 1
        if below is not None and rate < below * (1.0 + GAIN):
            self._go(self.depth - 1)
        elif self.depth + 1 not in self._rates or self._trial >= TRIAL:
            self._rates.pop(self.depth + 1, None)  # what was true of it may be no more
            self._go(self.depth + 1)

    def _go(self, depth: int) -> None:
        depth = min(max(depth, self.least), self.most)
        if depth != self.depth:
            self._trial = 0
            for deeper in [known for known in self._rates if known > max(depth, self.depth) + 1]:
                del self._rates[deeper]
        self.depth = depth
