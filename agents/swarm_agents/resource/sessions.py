"""Whom the hub works for: its clients and the other hubs, what they have asked, and answers that they have not
acknowledged.

Invariants: a task id is on the board once, however often and by whomever it is submitted; an answer is kept until each
session that asked has acknowledged it, has left, or has been away for `AWAY`; an id that was acknowledged or given up
is remembered for `REMEMBERED` seconds (or the last `MOST_REMEMBERED` of them), and a copy of it that comes late, as by
a second path, is dropped. What is kept is bounded in number (a session's credit) and in bytes: a session is sent no
more unacknowledged answers than it has room for, and beyond `keep_bytes` those of sessions longest away are dropped,
and computed again if they ever ask. No I/O here, and no clock: both are the hub's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from swarm_agents.wire.credit import Account
from swarm_agents.wire.schema import ANSWER_ROOM, Answer, TaskId

__all__ = ["AWAY", "MOST_REMEMBERED", "REMEMBERED", "Entry", "Session", "Sessions"]

#: A session that has not been heard of for this long (seconds) is forgotten: its tasks are cancelled.
AWAY = 30.0
#: How long an id is recognised after its answer was acknowledged (seconds), and how many at most.
REMEMBERED, MOST_REMEMBERED = 60.0, 1 << 16

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
        #: What it was granted, and has unanswered.
        self.account = Account()
        #: Bytes of answers that it takes without acknowledging any; those on the way; and those that wait for room.
        self.room = ANSWER_ROOM
        self.flying = 0
        self.sent: dict[TaskId, int] = {}
        self.waiting: dict[TaskId, Entry] = {}
        #: Bytes of all its answers that are kept.
        self.owed = 0
        #: When it last acknowledged something.
        self.landed_at = now
        #: What it waits for, or has not acknowledged; insertion-ordered.
        self.entries: dict[TaskId, Entry] = {}
        #: Routing ids of its connections, the one to be used last. Only hubs have more than one.
        self.routes: list[bytes] = []

    def takes(self, entry: Entry) -> bool:
        """Whether an answer may be on its way now; counts it if so, and else keeps it for later."""
        task = entry.task
        if task in self.sent:
            return True
        if self.flying and self.flying + entry.size > self.room:
            self.waiting[task] = entry
            return False
        self.waiting.pop(task, None)
        self.sent[task] = entry.size
        self.flying += entry.size
        return True

    def landed(self, task: TaskId) -> None:
        """An answer is not on its way any more."""
        size = self.sent.pop(task, None)
        if size is not None:
            self.flying -= size
        elif self.waiting:
            self.waiting.pop(task, None)

    def restart(self) -> None:
        """Another connection: whatever was on the way is not any more."""
        self.sent.clear()
        self.waiting.clear()
        self.flying = 0


class Entry:
    """A task, and who waits for it."""

    __slots__ = ("answer", "aside", "asked", "payload", "sessions", "size", "task")

    def __init__(self, task: TaskId, asked: int) -> None:
        self.task = task
        #: Bytes of its arguments, and of its answer.
        self.asked = asked
        self.size = 0
        self.sessions: list[Session] = []
        self.answer: Answer | None = None
        self.payload: list[Any] = []
        #: While the payload lies on a disk instead (see `aside`): what to call when nobody wants it any more.
        self.aside: Callable[[], object] | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is answered, and the answer can be read."""
        return self.answer is not None and self.aside is None


class Sessions:
    """All sessions of a hub."""

    def __init__(self, *, window: int, keep_bytes: int, cancel: Callable[[TaskId], object]) -> None:
        """`cancel` is called for a task on the board that nobody waits for any more."""
        self.window = window
        self.keep_bytes = keep_bytes
        self._cancel = cancel
        self._sessions: dict[int, Session] = {}
        self._routes: dict[bytes, Session] = {}
        self._entries: dict[TaskId, Entry] = {}
        self._kept = 0
        #: Bytes of the answers whose payloads lie on a disk.
        self.aside_bytes = 0
        #: When ids were done with, oldest first; by session, since another hub's later life may ask under the same id.
        self._done: dict[tuple[int, TaskId], float] = {}
        self.by_route = self._routes.get
        self.find = self._entries.get

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
        return sum(entry.answer is None for entry in list(self._entries.values()))

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

    def prefer(self, session: Session, route: bytes) -> None:
        """The peer sends its tasks by this connection now, so it gets its answers by it."""
        if len(session.routes) > 1 and route in session.routes:
            session.routes.remove(route)
            session.routes.append(route)

    def detach(self, route: bytes) -> None:
        """A connection has gone; its session may come back by another."""
        session = self._routes.pop(route, None)
        if session is not None and route in session.routes:
            session.routes.remove(route)

    def close(self, session: Session) -> None:
        """It has left: its tasks are cancelled, its answers forgotten."""
        self._sessions.pop(session.number, None)
        for route in session.routes:
            self._routes.pop(route, None)
        for task in list(session.entries):
            self.forget(session, task)

    def expire(self, now: float) -> list[Session]:
        """Closes the sessions that have been away too long, and returns them; forgets ids that are long done with."""
        gone = [s for s in self._sessions.values() if s.kind != "rest" and now - s.seen > AWAY]
        for session in gone:
            self.close(session)
        done = self._done
        while done:
            oldest = next(iter(done))
            if len(done) <= MOST_REMEMBERED and now - done[oldest] <= REMEMBERED:
                break
            del done[oldest]
        return gone

    # -- what they asked

    def has_room(self, session: Session) -> bool:
        """Whether it may submit another task. A limit is twice the window: answers count until acknowledged."""
        return len(session.entries) < session.limit

    def expect(self, session: Session, task: TaskId, asked: int = 0) -> Entry:
        """The session waits for this task, whose arguments have so many bytes."""
        entry = self._entries.get(task)
        if entry is None:
            entry = self._entries[task] = Entry(task, asked)
        if task not in session.entries:
            entry.sessions.append(session)
            session.entries[task] = entry
            if entry.answer is None:
                session.account.take(entry.asked)
            else:
                session.owed += entry.size
        return entry

    def answered(self, task: TaskId, answer: Answer, payload: list[Any], size: int) -> Entry | None:
        """Keeps an answer; None if nobody waits for it, or it has been answered."""
        entry = self._entries.get(task)
        if entry is None or entry.answer is not None:
            return None
        entry.answer, entry.payload, entry.size = answer, payload, size
        for session in entry.sessions:
            session.account.give(entry.asked)
            session.owed += size
        self._kept += size
        if self._kept > self.keep_bytes:
            self._shed(entry)
        return entry

    def forget(self, session: Session, task: TaskId) -> bool:
        """The session has the answer, or does not want it any more; False if it waits for no such task."""
        entry = session.entries.pop(task, None)
        if entry is None:
            return False
        session.landed(task)
        if entry.answer is None:
            session.account.give(entry.asked)
        else:
            session.owed -= entry.size
        entry.sessions.remove(session)
        if not entry.sessions:
            del self._entries[task]
            if entry.aside is None:
                self._kept -= entry.size
            else:
                self.aside_bytes -= entry.size
                entry.aside()
            if entry.answer is None:
                self._cancel(task)
        return True

    def put_aside(self, entry: Entry, drop: Callable[[], object]) -> None:
        """The answer's payload is not kept here from now on; `drop` removes it from where it is."""
        entry.aside, entry.payload = drop, []
        self._kept -= entry.size
        self.aside_bytes += entry.size

    def bring_back(self, entry: Entry, payload: list[Any]) -> None:
        """Undoes `put_aside`."""
        entry.aside, entry.payload = None, payload
        self._kept += entry.size
        self.aside_bytes -= entry.size

    def finish(self, session: Session, task: TaskId, now: float) -> None:
        """`forget`, and remember that it was done with: a late copy of its submission is none."""
        if self.forget(session, task):
            self._done[session.number, task] = now

    def is_finished(self, session: Session, task: TaskId) -> bool:
        """Whether the session acknowledged or cancelled this task not long ago."""
        return (session.number, task) in self._done

    def unsent(self, session: Session) -> Iterable[Entry]:
        """What it must be sent again when it has come back."""
        return [entry for entry in session.entries.values() if entry.answer is not None]

    def _shed(self, newest: Entry) -> None:
        for session in sorted(self._sessions.values(), key=lambda s: s.seen):
            for task, entry in list(session.entries.items()):
                if entry.answer is not None and entry is not newest and not session.routes and entry.aside is None:
                    self.forget(session, task)
                    if self._kept <= self.keep_bytes:
                        return
