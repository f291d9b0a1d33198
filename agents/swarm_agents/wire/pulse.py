"""Whether the other side of a connection lives, when nobody closes it: a node that lost its power says nothing more.

`Pulse` counts the silence between heartbeats, and `Patience` says how much of it is too much. A fixed bound is wrong
somewhere: on a quiet machine an answer comes within milliseconds, and 0.8 s without one mean that the node is gone; on
one that is crowded a second is nothing, and who gives a hub up there moves his tasks to where they are begun anew,
which makes the crowd denser. So patience follows the slowest round trip of late, between bounds.

No clock in here: times are seconds of whatever clock the caller has.
"""

from __future__ import annotations

__all__ = ["MOST_PATIENCE", "Patience", "Pulse"]

#: No silence longer than this is borne (seconds), unless the heartbeats themselves are rarer.
MOST_PATIENCE = 5.0
#: A silence so many times as long as the slowest round trip of late means something.
_TIMES = 4.0
#: After so many seconds a slow round trip counts half.
_HALF_LIFE = 30.0


class Pulse:
    """Whether the other side lives, by the heartbeats that it misses."""

    __slots__ = ("interval", "last", "looked")

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self.last = self.looked = now

    def heard(self, now: float) -> None:
        """Something came, whatever it was."""
        self.last = now

    def silent(self, now: float) -> float:
        """Seconds since something was heard last. To be asked every interval: time in which nobody asked is not
        counted, because it is this side that was stopped then."""
        asleep = now - self.looked - 2 * self.interval
        self.looked = now
        if asleep > 0:
            self.last = min(self.last + asleep, now)
        return now - self.last

    def missed(self, now: float) -> int:
        """Heartbeats missed since something was heard last; to be asked as `silent` is."""
        return int(self.silent(now) / self.interval)


class Patience:
    """How long a silence is borne: `least` seconds, more while round trips are slow, but no more than `most`."""

    __slots__ = ("_at", "_slowest", "least", "most")

    def __init__(self, least: float, now: float, *, first: float = 0.0, most: float = MOST_PATIENCE) -> None:
        """`first` is what the first exchange took."""
        self.least = least
        self.most = max(most, least)
        self._slowest = first
        self._at = now

    def learn(self, seconds: float, now: float) -> None:
        """A round trip took so long."""
        faded = self._slowest * 0.5 ** (max(now - self._at, 0.0) / _HALF_LIFE)
        self._slowest, self._at = max(faded, seconds), now

    @property
    def seconds(self) -> float:
        """The silence that is borne now."""
        return min(max(self.least, _TIMES * self._slowest), self.most)
