"""The credit that a hub grants its sessions: reckoned anew all the time from what the board and the hub have room for.

See `swarm_agents.wire.credit` for the arithmetic. Used under the reactor's lock.
"""

from __future__ import annotations

from swarm_agents.resource.desk import Desk
from swarm_agents.resource.outbox import Outbox
from swarm_agents.resource.sessions import Session, Sessions
from swarm_agents.wire import schema
from swarm_agents.wire.credit import offer
from swarm_agents.wire.reactor import Reactor

__all__ = ["Grants"]

#: How often credit is reckoned anew (seconds).
_EVERY = 0.05
#: A session's share of the bytes of answers that are kept at most.
_SHARE = 4
#: Weight of a new observation in a running mean.
_NEWS = 0.05


class Grants:
    """See the module's text."""

    def __init__(self, reactor: Reactor, desk: Desk, sessions: Sessions, outbox: Outbox) -> None:
        self._reactor = reactor
        self._desk = desk
        self._sessions = sessions
        self._outbox = outbox
        #: Bytes of an answer, on average of late.
        self._answer_bytes = 0.0

    def start(self) -> None:
        """Reckons from now on."""
        self._reactor.call_later(_EVERY, self._renew)

    def learn(self, size: int) -> None:
        """An answer had so many bytes."""
        self._answer_bytes += _NEWS * (size - self._answer_bytes)

    def offer(self, session: Session, load: schema.Load | None = None, sharers: int = 0) -> tuple[int, int]:
        """The tasks and bytes that a session should be granted now."""
        load = load or self._desk.load()
        # Half of the arena's room: the other half is for results.
        return offer(
            session.account,
            room=load.room,
            room_bytes=load.room_bytes // 2,
            sharers=sharers or self._sharers(),
            most=self._sessions.window,
            answer=self._answer_bytes,
            owed=session.owed,
            answers=self._sessions.keep_bytes // _SHARE,
        )

    def _sharers(self) -> int:
        return sum(bool(session.entries) for session in self._sessions) or 1

    def _renew(self) -> None:
        self._reactor.call_later(_EVERY, self._renew)
        present = [session for session in self._sessions if session.routes]
        if not present:
            return
        now, load, sharers = self._reactor.clock(), self._desk.load(), self._sharers()
        for session in present:
            if session.waiting:
                self._outbox.pump(session)
            tasks, size = self.offer(session, load, sharers)
            if session.account.worth_telling(tasks, size):
                session.account.renew(tasks, size, now)
                self._outbox.send(session, schema.Credit(tasks, size))
