"""What happened to an agent, kept for whoever asks the pod: started, joined, died, declared dead, given up.

The log has the same lines; this is the short memory that `/v1/events` answers from, bounded, newest last.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

__all__ = ["Events"]


class Events:
    """The last `limit` events, each also logged."""

    def __init__(self, log: Any, limit: int = 256) -> None:
        self._log = log
        self._events: deque[dict[str, Any]] = deque(maxlen=limit)

    def record(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Keeps and logs an event; `event` is a CamelCase reason as Kubernetes Events have it."""
        self._events.append({"time": time.time(), "event": event, **fields})
        getattr(self._log, level)(event, **fields)

    def recent(self) -> list[dict[str, Any]]:
        """The events, oldest first; times are Unix seconds."""
        return list(self._events)
