"""The agent's sign of life: one small thread that touches the board's heartbeat word.

It beats at the interval that the settings say at that moment. It stops by itself when the board has fenced the agent:
a fenced agent must not look alive, and its main thread is told.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from swarm_agents.errors import Fenced

if TYPE_CHECKING:
    from swarm_agents.runtime.context import AgentContext

__all__ = ["Heartbeat"]


class Heartbeat:
    """Beats for `context.member` until it is stopped or the member is fenced."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to beat for the place that the context holds now. The first beat is made before this returns."""
        self.stop()
        context = self._context
        member = context.member
        assert member is not None
        context.board.heartbeat(member)
        self._stop = stop = threading.Event()

        def beat() -> None:
            while not stop.wait(context.settings.failover.heartbeat_interval):
                try:
                    context.board.heartbeat(member)
                except Fenced:
                    if context.member is member:
                        context.fenced = True
                        context.wake()
                    return

        self._thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the beats; returns when none will follow."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
