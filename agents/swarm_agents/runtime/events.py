"""What happened to an agent, kept for whoever asks the pod: started, joined, suspected, declared dead, taken over.

The log has the same lines; this is the short memory that `/v1/events` answers from, bounded, oldest first. The operator
reads it and makes Kubernetes Events of those in `TOLD` (agents know no Kubernetes). Each has a number that counts up
from 1 under a random `run`, so that a reader can ask for what is new, and sees when the supervisor was started anew.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["TOLD", "Events"]

#: Events that concern the swarm and not only the pod: deaths, takeovers, restarts, fences.
TOLD = frozenset(
    {
        "AgentDeclaredDead",
        "AgentDied",
        "AgentHopeless",
        "AgentHung",
        "AgentKilled",
        "AgentReplaced",
        "AgentStuck",
        "CapEased",
        "CapReached",
        "FailedOver",
        "FailurePredicted",
        "Fenced",
        "HubBack",
        "HubLost",
        "NodeRecovered",
        "NodeSlowed",
        "OverloadEased",
        "Overloaded",
        "PlacementMet",
        "PlacementUnmet",
        "SiblingDeclaredDead",
        "StandbyActivated",
        "StandbySteppedBack",
        "TaskOvertaken",
        "TaskRunTwice",
        "TasksResumed",
    }
)


class Events:
    """The last `limit` events, each also logged."""

    def __init__(self, log: Any, limit: int = 256, now: Callable[[], float] = time.time) -> None:
        self._log = log
        self._now = now
        self._events: deque[dict[str, Any]] = deque(maxlen=limit)
        self._last = 0
        #: Of this supervisor, and of no other.
        self.run = uuid.uuid4().hex[:8]
        #: Fingerprints of the keys that the pod's hub serves, at its port and at its second one, as it said last.
        self.keys = ("", "")

    def record(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Keeps and logs an event; `event` is a CamelCase reason as Kubernetes Events have it."""
        self._last += 1
        if event == "KeysServed":
            self.keys = (str(fields["main"]), str(fields["second"]))
        elif event == "AgentDied":
            self.keys = ("", "")
        self._events.append({"number": self._last, "time": self._now(), "event": event, "level": level, **fields})
        getattr(self._log, level)(event, **fields)

    def recent(self, after: int = 0) -> list[dict[str, Any]]:
        """The events with a number above `after`, oldest first; times are Unix seconds."""
        return [event for event in self._events if event["number"] > after]

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last
