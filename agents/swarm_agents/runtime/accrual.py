"""How long a silence has to be before it means something: a threshold that follows the node's own jitter. Pure.

On a quiet node heartbeats are a few milliseconds late at most, and a silence of a tenth of a second says a lot; on one
that is crowded, throttled or virtual it says nothing. A fixed timeout is wrong on one of the two. An accrual detector
(Hayashibara, Défago, Yared, Katayama: The phi accrual failure detector, SRDS 2004) gives a silence `t` a degree of
suspicion instead,

    phi(t) = -log10 P(a pause of somebody who lives is longer than t),

and a threshold is the silence at which phi reaches what one is ready to risk. The paper takes pauses for normal; on
real machines their tail is heavier, so here it is exponential, as in Apache Cassandra's detector (CASSANDRA-2597):
phi(t) = t / (scale * ln 10). The scale is the mean of the pauses, or what the longest of them hints at if that is more
(the longest of n exponential pauses is expected at scale * (ln n + 0.577)); the longest is forgotten by halves, so that
a crowd that comes back every minute is still remembered.

Invariants: thresholds lie within the settings' bounds, whatever was learned: suspicion between three heartbeats and
`suspect_after`, a death that a second witness confirms between `suspect_after` and `dead_after`, a death without one at
`dead_after`. Until enough was learned they are at the upper bounds. No clock in here: time is passed in.

Rejected: a detector for each member (a node's members share its cores and its jitter, and one learns from all sooner);
a quantile of the window alone (it knows nothing beyond the longest pause that it has seen).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from swarm_agents.config import Failover

__all__ = ["CERTAINTY", "SUSPICION", "Accrual", "Limits"]

#: Suspicion costs a closer look: once in a thousand pauses it may be wrong.
SUSPICION = 3.0
#: A death costs what its agent had in hand: once in 10^12 pauses, some centuries of a node's.
CERTAINTY = 12.0
#: Pauses that must have been seen before the thresholds follow them.
_WARM = 64
_WINDOW = 512
#: After so many seconds the longest pause counts half.
_HALF_LIFE = 60.0
_EULER = 0.5772


@dataclass(frozen=True, slots=True)
class Limits:
    """From which silence on (seconds) a member is suspected; dead if a second witness suspects it, too; dead anyway."""

    suspect: float
    confirmed: float
    dead: float

    @classmethod
    def of(cls, failover: Failover) -> Limits:
        """The settings' upper bounds."""
        return cls(failover.suspect_after, failover.dead_after, failover.dead_after)


class Accrual:
    """What is known of the pauses of those who live."""

    def __init__(self) -> None:
        self._pauses: deque[float] = deque(maxlen=_WINDOW)
        self._sum = 0.0
        self._longest = 0.0

    def learn(self, pause: float, elapsed: float) -> None:
        """Somebody who lives was silent for `pause` seconds; it is `elapsed` seconds since this was called last."""
        if len(self._pauses) == _WINDOW:
            self._sum -= self._pauses[0]
        self._pauses.append(pause)
        self._sum += pause
        self._longest = max(self._longest * 0.5 ** (elapsed / _HALF_LIFE), pause)

    @property
    def scale(self) -> float:
        """Seconds: the exponential tail's."""
        count = len(self._pauses)
        if not count:
            return math.inf
        return max(self._sum / count, self._longest / (math.log(count) + _EULER), 1e-6)

    def phi(self, silent: float) -> float:
        """How suspicious a silence of so many seconds is; 0 while nothing is known."""
        return silent / (self.scale * math.log(10))

    def silence_at(self, phi: float) -> float:
        """The silence (seconds) that is so suspicious."""
        return phi * self.scale * math.log(10)

    def limits(self, failover: Failover) -> Limits:
        """The thresholds now, within the settings' bounds."""
        if len(self._pauses) < _WARM:
            return Limits.of(failover)
        least = min(3 * failover.heartbeat_interval, failover.suspect_after)
        return Limits(
            suspect=min(max(self.silence_at(SUSPICION), least), failover.suspect_after),
            confirmed=min(max(self.silence_at(CERTAINTY), failover.suspect_after), failover.dead_after),
            dead=failover.dead_after,
        )
