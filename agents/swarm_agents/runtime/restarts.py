"""When to fork the next agent after one has died, and when to give the pod up: pure, so that a table can test it.

An agent that had worked, or was ready for a while, is replaced at once: whatever killed it, its place must not stay
empty. One that dies before that is replaced after a pause that doubles, and after `GIVE_UP` such deaths in a row the
pod fails, because what a fork of this supervisor can't mend a fresh container perhaps can (the kubelet's ring).
Time before it was ready does not count: an agent that takes long to start and then falls would be forked for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["GIVE_UP", "Restarts"]

#: Deaths in a row, each before any work was done, after which the pod gives up: about half a minute.
GIVE_UP = 10
#: An agent that was ready for this long had a fair start, whether there was work or not (seconds). A hub ends no tasks;
#: with more patience than this one that is killed every few seconds, and serves well between, would be given up.
_SETTLED = 1.0
#: The second fruitless death in a row waits this long, the next ones twice as long each (seconds).
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """What is remembered of the agents so far."""

    total: int = 0
    #: Deaths in a row without any work done.
    fruitless: int = 0

    def died(self, *, served: float, worked: bool) -> Restarts:
        """An agent has died that was ready for `served` seconds; `worked` says whether it ended a task."""
        fruitless = 0 if worked or served >= _SETTLED else self.fruitless + 1
        return replace(self, total=self.total + 1, fruitless=fruitless)

    @property
    def hopeless(self) -> bool:
        """Whether the pod should fail."""
        return self.fruitless >= GIVE_UP

    @property
    def pause(self) -> float:
        """Seconds until the next fork; none after a first death."""
        if self.fruitless < 2:
            return 0.0
        return min(_FIRST_PAUSE * 2.0 ** (self.fruitless - 2), _LONGEST_PAUSE)
