"""Whom the hub works for: its clients and the other hubs, what they have asked, and answers that they have not
acknowledged.

Invariants: a task id is on the board once, however often and by whomever it is submitted; an answer is kept until each
session that asked has acknowledged it, has left, or has been away for `AWAY`; what is kept is bounded in number (a
session's window) and in bytes (`keep_bytes`): beyond that the answers of those longest away are dropped, and computed
again if they ever ask. No I/O here, and no clock: both are the hub's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from swarm_agents.wire.schema import Answer, TaskId

__all__ = ["AWAY", "Entry", "Session", "Sessions"]

#: A session that has not been heard of for this long (seconds) is forgotten: its tasks are cancelled.
AWAY = 30.0

#: Gets an answer to the session, if it is there at present.
Deliver = Callable[["Session", "Entry"], object]


class Session:
    """A client, another hub, or the REST interface."""

    def __init__(self, number: int, kind: str, name: str, node: str, deliver: Deliver, limit: int, now: float) -> None:
        #: Entries that it may have.
        self.limit = limit
        self.number = number
        self.kind = kind
        self.name = name
        self.node = node
        self.deliver = deliver
        self.seen = now
        #: What it waits for, or has not acknowledged; insertion-ordered.
        self.entries: dict[TaskId, Entry] = {}
        #: Routing ids of its connections, the latest last. Only hubs have more than one.
        self.routes: list[bytes] = []


class Entry:
    """A task, and who waits for it."""

    __slots__ = ("answer", "payload", "sessions", "size", "task")

    def __init__(self, task: TaskId) -> None:
        self.task = task
        self.sessions: list[Session] = []
        self.answer: Answer | None = None
        self.payload: list[Any] = []
        self.size = 0


class Sessions:
    """All sessions of a hub."""

    def __init__(self, *, window: int, keep_bytes: int, cancel: Callable[[TaskId], object]) -> None:
        """`cancel` is called for a task on the board that nobody waits for any more."""
        self.window = window
        self._keep_bytes = keep_bytes
        self._cancel = cancel
        self._sessions: dict[int, Session] = {}
        self._routes: dict[bytes, Session] = {}
        self._entries: dict[TaskId, Entry] = {}
        self._kept = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    @property
    def kept_bytes(self) -> int:
        """Bytes of the answers that are kept."""
        return self._kept

    @property
    def unanswered(self) -> int:
        """Tasks on the board on behalf of sessions."""
        return sum(entry.answer is None for entry in self._entries.values())

    # -- who is there

    def open(self, number: int, kind: str, name: str, node: str, deliver: Deliver, now: float) -> Session:
        """The session of this number, old or new."""
        session = self._sessions.get(number)
        if session is None:
            session = self._sessions[number] = Session(number, kind, name, node, deliver, 2 * self.window, now)
        session.seen = now
        return session

    def attach(self, session: Session, route: bytes) -> None:
        """From now on this connection speaks for the session; a client's earlier one does not any more."""
        if session.kind != "hub":
            for old in session.routes:
                self._routes.pop(old, None)
            session.routes.clear()
        if route in session.routes:
            session.routes.remove(route)
        session.routes.append(route)
        self._routes[route] = session

    def detach(self, route: bytes) -> None:
        """A connection has gone; its session may come back by another."""
        session = self._routes.pop(route, None)
        if session is not None and route in session.routes:
            session.routes.remove(route)

    def by_route(self, route: bytes) -> Session | None:
        return self._routes.get(route)

    def close(self, session: Session) -> None:
        """It has left: its tasks are cancelled, its answers forgotten."""
        self._sessions.pop(session.number, None)
        for route in session.routes:
            self._routes.pop(route, None)
        for task in list(session.entries):
            self.forget(session, task)

    def expire(self, now: float) -> list[Session]:
        """Closes the sessions that have been away too long, and returns them."""
        gone = [s for s in self._sessions.values() if s.kind != "rest" and now - s.seen > AWAY]
        for session in gone:
            self.close(session)
        return gone

    # -- what they asked

    def find(self, task: TaskId) -> Entry | None:
        return self._entries.get(task)

    def has_room(self, session: Session) -> bool:
        """Whether it may submit another task. A limit is twice the window: answers count until acknowledged."""
        return len(session.entries) < session.limit

    def expect(self, session: Session, task: TaskId) -> Entry:
        """The session waits for this task."""
        entry = self._entries.get(task)
        if entry is None:
            entry = self._entries[task] = Entry(task)
        if session not in entry.sessions:
            entry.sessions.append(session)
            session.entries[task] = entry
        return entry

    def answered(self, task: TaskId, answer: Answer, payload: list[Any], size: int) -> Entry | None:
        """Keeps an answer; None if nobody waits for it."""
        entry = self._entries.get(task)
        if entry is None or entry.answer is not None:
            return None
        entry.answer, entry.payload, entry.size = answer, payload, size
        self._kept += size
        self._shed(entry)
        return entry

    def forget(self, session: Session, task: TaskId) -> None:
        """The session has the answer, or does not want it any more."""
        entry = session.entries.pop(task, None)
        if entry is None:
            return
        entry.sessions.remove(session)
        if not entry.sessions:
            del self._entries[task]
            self._kept -= entry.size
            if entry.answer is None:
                self._cancel(task)

    def unsent(self, session: Session) -> Iterable[Entry]:
        """What it must be sent again when it has come back."""
        return [entry for entry in session.entries.values() if entry.answer is not None]

    def _shed(self, newest: Entry) -> None:
        if self._kept <= self._keep_bytes:
            return
        for session in sorted(self._sessions.values(), key=lambda s: s.seen):
            for task, entry in list(session.entries.items()):
                if entry.answer is not None and entry is not newest and not session.routes:
                    self.forget(session, task)
                    if self._kept <= self._keep_bytes:
                        return
