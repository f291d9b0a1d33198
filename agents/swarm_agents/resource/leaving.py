"""How a hub leaves: nothing is begun any more for those outside, and what has been begun is answered if it can be.

Other hubs get back what they sent and nobody has begun here; what runs is answered. A client has one connection, so it
goes as a whole: what it waits for and nobody has begun is taken off the board, nothing new is taken from it, and when
what runs for it has been answered and acknowledged it is told to go elsewhere, where it submits the rest under the same
ids. Only a task that takes longer than `PATIENCE` is begun anew there: until it were done, all that its client submits
meanwhile would have to wait.

An agent that leaves as well hands its task back to the board, so the hub keeps looking until it is gone, or stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from swarm_agents.resource.hub import Hub
    from swarm_agents.resource.sessions import Session

__all__ = ["PATIENCE", "Leaving"]

#: How long a client is kept for what runs for it (seconds).
PATIENCE: Final = 1.0
#: How often it is looked whether what runs has been answered (seconds).
_LOOK: Final = 0.02


class Leaving:
    """Under the reactor's lock."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: Until when clients are kept; None: the hub stays.
        self._until: float | None = None
        self._looking = False

    def begin(self) -> None:
        """The hub is to leave; to be called again is harmless."""
        if self._until is None:
            self._until = self._hub.reactor.clock() + PATIENCE
        if not self._looking:
            self._look()

    def stay(self) -> None:
        """The hub need not leave after all."""
        self._until = None

    def _look(self) -> None:
        hub, self._looking = self._hub, self._until is not None
        if self._until is None:
            return
        hub.reactor.call_later(_LOOK, self._look)
        for session in hub.sessions:
            if session.kind == "hub":
                for task in [task for task, entry in session.entries.items() if entry.answer is None]:
                    hub.counts["given_back_leaving"] += hub.give_up(session, task, "this hub is leaving")
            elif session.kind == "client":
                self._dismiss(session, self._until)

    def _dismiss(self, session: Session, until: float) -> None:
        hub = self._hub
        for task, entry in list(session.entries.items()):
            if entry.answer is None and len(entry.sessions) == 1 and hub.desk.withdraw(task):
                hub.sessions.forget(session, task)
        if session.routes and session.entries and hub.reactor.clock() < until:
            return
        hub.say_bye(session)
