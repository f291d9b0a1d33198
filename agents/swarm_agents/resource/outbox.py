"""What a hub sends to its sessions: answers as fast as each takes them, and everything else at once.

A session that has said how many bytes of unacknowledged answers it takes is sent no more; the rest waits here, in its
session, and goes out when some have landed. Of what waits long the payload may lie on a disk (see `aside`): it is asked
for when there is room for it, and sent when it is there. Used under the reactor's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swarm_agents.errors import SwarmError, SwarmFull
from swarm_agents.resource.sessions import Entry, Session, Sessions
from swarm_agents.wire import schema
from swarm_agents.wire.frames import pack
from swarm_agents.wire.reactor import ServedSocket
from swarm_agents.wire.schema import TaskId

__all__ = ["Outbox"]

#: Of an error's text, so much travels.
_LONGEST_REASON = 4096


class Outbox:
    """See the module's text."""

    def __init__(self, router: ServedSocket, sessions: Sessions) -> None:
        self._router = router
        self._sessions = sessions
        #: Has a payload brought back that lies on a disk, if the session takes it now; False: it does not.
        self.fetch: Callable[[Session, Entry], bool] = lambda session, entry: False

    def deliver(self, session: Session, entry: Entry) -> None:
        """Sends an answer, now or when the session takes it."""
        if entry.aside is not None:
            if session.routes and entry.task not in session.sent:
                session.waiting[entry.task] = entry
                self.fetch(session, entry)
            return
        if session.routes and session.takes(entry):
            self._transmit(session, entry)

    def pump(self, session: Session) -> None:
        """Sends the answers for which there is room now."""
        for entry in list(session.waiting.values()):
            if entry.aside is not None:
                if not self.fetch(session, entry):
                    return
                continue
            if not (session.takes(entry) and self._transmit(session, entry)):
                return

    def _transmit(self, session: Session, entry: Entry) -> bool:
        assert entry.answer is not None
        if self.send(session, entry.answer, entry.payload):
            return True
        session.landed(entry.task)
        if session.routes:  # it takes nothing at present: later
            session.waiting[entry.task] = entry
        return False

    def send(
        self, session: Session, message: schema.Message, payload: Sequence[Any] = (), *, route: bytes | None = None
    ) -> bool:
        """Sends by this route, or by whichever of the session's takes it; False: none does."""
        frames = pack(message, payload)
        if route is None:
            routes = session.routes
            if len(routes) == 1:
                route = routes[0]
            else:
                return any(self._send_by(way, frames) for way in reversed(list(routes)))
        return self._send_by(route, frames)

    def _send_by(self, route: bytes, frames: list[Any]) -> bool:
        if self._router.send([route, *frames]):
            return True
        if not self._router.full:
            self._sessions.detach(route)
        return False

    def refuse(self, route: bytes, error: SwarmError) -> None:
        """Tells a connection why it is not taken."""
        self._router.send([route, *pack(schema.Refusal(error.code, str(error)[:_LONGEST_REASON]))])

    def push_back(self, session: Session, task: TaskId, error: SwarmFull, soon: float) -> None:
        """Tells a session that a task is not taken at present. A client comes back when the error says, or `soon`;
        another hub soon, for it has other tasks to send, and learns of overload by this node's load."""
        self.refuse_task(session, task, error, (session.kind != "hub" and error.retry_after) or soon)

    def refuse_task(self, session: Session, task: TaskId, error: SwarmError, retry_after: float) -> None:
        """Tells a session why a task is not taken, and after how many seconds it may be tried again (0: never)."""
        self.send(session, schema.Refusal(error.code, str(error)[:_LONGEST_REASON], task, retry_after))
