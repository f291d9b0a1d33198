"""The agent's sign of life: one thread in compiled code that touches the board's heartbeat word.

It needs no GIL, so a kernel that holds it for seconds does not make its agent look dead; a process that is stopped or
starved of its cores does. It beats at the interval that the settings say at that moment, and ends by itself when the
board has fenced the agent: a fenced agent must not look alive, and its main thread is told.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from swarm_agents.shm.vigil import beat_until_stopped, stop_beating

if TYPE_CHECKING:
    from swarm_agents.runtime.context import AgentContext

__all__ = ["Heartbeat"]


class Heartbeat:
    """Beats for `context.member` until it is stopped or the member is fenced."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context
        self._wish = np.zeros(2, np.int64)  # stop, and the pause in ns
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to beat for the place that the context holds now. The first beat is made before this returns."""
        self.stop()
        context = self._context
        member = context.member
        assert member is not None
        context.board.heartbeat(member)
        self._wish = wish = np.zeros(2, np.int64)
        self.follow()
        base = context.board.mapping.base

        def beat() -> None:
            stopped = beat_until_stopped(base, member.index, member.epoch, int(wish.ctypes.data))
            if not stopped and context.member is member:
                context.fenced = True
                context.wake()

        self._thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        self._thread.start()

    def follow(self) -> None:
        """Takes the interval from the settings of the context."""
        self._wish[1] = max(int(self._context.settings.failover.heartbeat_interval * 1e9), 1_000_000)

    def stop(self) -> None:
        """Ends the beats; returns when none will follow."""
        if self._thread is not None:
            stop_beating(int(self._wish.ctypes.data))
            self._thread.join()
            self._thread = None
