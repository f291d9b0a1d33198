"""Answers that nobody takes at present lie on a disk, so that the node's memory is for those who do.

The hub keeps each answer until whoever asked has acknowledged it, in memory of its own, not in the arena: at a limit it
stops taking answers from the board, and the arena fills up behind it. Before that, from `HIGH` of the limit on, the
coldest are written to files and their memory is freed, down to `LOW`: first those of the session that has acknowledged
nothing for longest, of each session those that it is sent last. They come back when the session has room for them.

Why this state and no other: an answer that waits here is the hub's alone. Nobody else refers to it, no claim, lease or
generation of the board names it, and all of it happens under the reactor's lock, but for the reading and writing, which
is done on a list of buffers that nobody changes. What lies in the arena itself is not put aside: a worker that has
claimed a slot may read its payload at any instruction.

A write that fails leaves the answer where it is, and none is tried for `PAUSE` seconds. A file that is gone or damaged
costs its own answer: the task ends with `TaskLost`, said by name, and may be submitted again.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from swarm_agents.config import Priority
from swarm_agents.errors import SwarmFull, TaskLost, to_wire
from swarm_agents.resource.outbox import Outbox
from swarm_agents.resource.sessions import Entry, Session, Sessions
from swarm_agents.resource.spillfiles import Spilled, SpillFiles, in_memory
from swarm_agents.runtime.ioqueue import IoQueue, shared

if TYPE_CHECKING:
    from swarm_agents.resource.hub import Hub

__all__ = ["Aside", "open_aside"]

#: Shares of the bytes of answers that a hub keeps: from the one on, down to the other.
HIGH, LOW = 0.5, 0.35
#: Smaller answers are not worth a file (bytes).
LEAST = 64 << 10
#: After a write that failed none is tried for so long (seconds).
PAUSE = 10.0
#: What may lie on the disk, as a multiple of the bytes of answers that a hub keeps.
MOST = 4
_LOOK = 0.1
#: How long a hub that ends waits for its disk (seconds).
_LAST = 2.0


class Aside:
    """See the module's text. `reactor` is a `wire.reactor.Reactor`; all but the files' work is done under its lock."""

    def __init__(
        self,
        reactor: Any,
        sessions: Sessions,
        outbox: Outbox,
        files: SpillFiles,
        queue: IoQueue,
        counts: Counter[str],
        log: Any,
    ) -> None:
        self._reactor, self._sessions, self._files, self._queue = reactor, sessions, files, queue
        self._counts, self._log = counts, log
        self._where: dict[Entry, Spilled] = {}
        self._writing: dict[Entry, int] = {}
        #: What is being read, or is to be as soon as the queue has room.
        self._fetching: dict[Entry, bool] = {}
        #: What the disk has still to do.
        self._futures: set[Future[Any]] = set()
        self._not_before = 0.0
        self._closed = False
        outbox.fetch = self.fetch

    @property
    def on_disk(self) -> int:
        """Bytes on the disk."""
        return self._files.bytes

    def start(self) -> None:
        """Looks from now on, ten times a second."""
        self._reactor.call_later(_LOOK, self._look)

    def close(self) -> None:
        """Removes the files; what lies there is answered no more. Before the hub ends, and not under its lock."""
        self._closed = True
        for future in list(self._futures):
            future.cancel()
        wait(list(self._futures), _LAST)
        self._files.close()

    def _look(self) -> None:
        if not self._closed:
            self._reactor.call_later(_LOOK, self._look)
            self.relieve()
            for entry in [entry for entry, asked in self._fetching.items() if not asked]:
                self._read(entry)

    def _await(self, future: Future[Any], then: Callable[[Entry, Future[Any]], None], entry: Entry) -> None:
        self._futures.add(future)

        def done(ended: Future[Any]) -> None:
            self._futures.discard(ended)
            if not self._closed:
                self._reactor.post(then, entry, ended)

        future.add_done_callback(done)

    # -- away

    def relieve(self) -> None:
        """Puts aside what there is too much of."""
        kept, limit = self._sessions.kept_bytes - sum(self._writing.values()), self._sessions.keep_bytes
        if kept <= HIGH * limit or self._reactor.clock() < self._not_before:
            return
        for entry in self._coldest():
            if kept <= LOW * limit or not self._write(entry):
                return
            kept -= entry.size

    def _coldest(self) -> Iterator[Entry]:
        for session in sorted(self._sessions, key=lambda one: one.landed_at):
            for entry in reversed(list(session.entries.values())):
                if entry not in self._writing and self._is_cold(entry):
                    yield entry

    def _is_cold(self, entry: Entry) -> bool:
        """Whether nobody is being sent this answer, or could be now."""
        return (
            entry.size >= LEAST
            and entry.answer is not None
            and entry.answer.error is None
            and bool(entry.payload)
            and entry.aside is None
            and all(
                session.kind != "rest"
                and entry.task not in session.sent
                and (not session.routes or entry.task in session.waiting)
                for session in entry.sessions
            )
        )

    def _write(self, entry: Entry) -> bool:
        try:
            future = self._queue.submit(functools.partial(self._files.write, entry.payload), entry.size, Priority.BULK)
        except SwarmFull:
            return False  # the disk does not keep up: at the next look
        self._writing[entry] = entry.size
        self._await(future, self._written, entry)
        return True

    def _written(self, entry: Entry, done: Future[Spilled]) -> None:
        self._writing.pop(entry, None)
        if self._closed or done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._counts["put_aside_failed"] += 1
            if self._reactor.clock() >= self._not_before:
                self._log.warning("answers can't be put aside; they stay in memory", reason=str(error))
            self._not_before = self._reactor.clock() + PAUSE
            return
        spilled = done.result()
        if self._sessions.find(entry.task) is not entry or not self._is_cold(entry):
            self._files.drop(spilled)  # it was wanted in the meantime, or is not wanted at all any more
            return
        self._where[entry] = spilled
        self._counts["put_aside"] += 1
        self._sessions.put_aside(entry, functools.partial(self._drop, entry))

    def _drop(self, entry: Entry) -> None:
        self._fetching.pop(entry, None)
        spilled = self._where.pop(entry, None)
        if spilled is not None:
            self._files.drop(spilled)

    # -- and back

    def fetch(self, session: Session, entry: Entry) -> bool:
        """Has an answer come back if the session takes it; it is delivered then. False: it does not take it now."""
        coming = sum(one.size for one in self._fetching if one is not entry and session in one.sessions)
        flying = session.flying + coming
        if flying and flying + entry.size > session.room and session.kind != "rest":  # that one is read here, not sent
            return False
        if entry not in self._fetching:
            self._read(entry)
        return True

    def _read(self, entry: Entry) -> None:
        self._fetching[entry] = False
        try:
            future = self._queue.submit(
                functools.partial(self._files.read, self._where[entry]), entry.size, Priority.NORMAL
            )
        except SwarmFull:
            return
        self._fetching[entry] = True
        self._await(future, self._came, entry)

    def _came(self, entry: Entry, done: Future[list[bytes]]) -> None:
        if self._closed or done.cancelled() or entry not in self._where:
            return  # nobody wants it any more
        error = done.exception()
        self._drop(entry)
        if error is None:
            self._counts["brought_back"] += 1
            self._sessions.bring_back(entry, list(done.result()))
        else:
            self._counts["aside_lost"] += 1
            self._log.error("an answer that was put aside is lost", reason=str(error))
            lost = TaskLost(f"its answer had been put aside and can't be read back: submit it again ({error})")
            assert entry.answer is not None
            entry.answer = msgspec.structs.replace(entry.answer, error=to_wire(lost))
            self._sessions.bring_back(entry, [])
        for session in list(entry.sessions):
            session.deliver(session, entry)


def open_aside(hub: Hub, directory: Path, log: Any) -> Aside | None:
    """Has a hub's answers put aside below a directory; None, and said why, where that is of no use or can't be."""
    if in_memory(directory):
        log.info("no answers are put aside: that directory lies in memory", directory=str(directory))
        return None
    try:
        files = SpillFiles(directory / "aside", MOST * hub.sessions.keep_bytes)
    except OSError as error:
        log.warning("no answers can be put aside", directory=str(directory), reason=str(error))
        return None
    aside = Aside(hub.reactor, hub.sessions, hub._outbox, files, shared(), hub.counts, log)
    aside.start()
    return aside
