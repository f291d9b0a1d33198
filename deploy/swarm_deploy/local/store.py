"""The embedded cluster's memory: every object, in SQLite, with one revision counter and a history to watch.

It stands where etcd stands in a real cluster. All that the API promises about versions rests on four invariants kept
here:

- one counter, raised by one with every write, gives each object its `metadata.resourceVersion`; it is stored in the
  same transaction as the write, so that it never runs backwards, also not when the process is killed;
- an object that was handed out is never changed afterwards: a write stores a new one. Readers, watchers and pages of
  a list therefore share objects without copying (whoever wants to change one copies it first);
- the events of a resource are kept in order in a ring. A watcher is a position in that ring, not a buffer of its own,
  so a slow watcher costs nothing and can't hold memory: when its position falls out of the ring it is told so
  (`Compacted`);
- everything happens on one event loop, so reading and writing need no lock. SQLite is the journal: it is read once,
  when the store opens.

Rejected: reading through SQLite on each request (a list of a thousand pods would parse a thousand bodies again), and
keeping the history on disk (a client that watches across a restart gets 410 and lists again, as it must be able to
anyway).
"""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

__all__ = [
    "Compacted",
    "Event",
    "Missing",
    "Object",
    "Present",
    "Stale",
    "Store",
    "StoreError",
    "StoreUnusable",
    "Watcher",
]

Object = dict[str, Any]

# Raised when the layout of the tables changes; a state directory of another layout is refused rather than guessed at.
_LAYOUT = 1
_HISTORY = 8192


class StoreError(Exception):
    """Whatever the store refuses."""


class Missing(StoreError):  # noqa: N818 - it names what was found
    """There is no object of that name."""


class Present(StoreError):  # noqa: N818 - it names what was found
    """There is one already."""

    def __init__(self, current: Object) -> None:
        super().__init__("object exists")
        self.current = current


class Stale(StoreError):  # noqa: N818 - it names what was found
    """The object has moved on since the revision the writer had read."""

    def __init__(self, current: Object) -> None:
        super().__init__("object was modified")
        self.current = current


class Compacted(StoreError):  # noqa: N818 - it names what was found
    """The history no longer reaches back to the revision asked for."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {asked} ({oldest})")
        self.asked = asked
        self.oldest = oldest


class StoreUnusable(StoreError):  # noqa: N818 - it names what was found
    """The state directory can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Event:
    """One write: what the object became and, so that a selector can tell who entered and who left, what it was."""

    revision: int
    type: str  # ADDED, MODIFIED or DELETED
    namespace: str
    name: str
    object: Object
    previous: Object | None


class _Series:
    """The events of one resource. `first` is the index of the oldest event kept, `floor` the newest revision lost."""

    __slots__ = ("changed", "events", "first", "floor")

    def __init__(self, floor: int, history: int) -> None:
        self.events: deque[Event] = deque(maxlen=history)
        self.first = 0
        self.floor = floor
        self.changed: asyncio.Event | None = None

    def append(self, event: Event) -> None:
        if len(self.events) == self.events.maxlen:
            self.floor = self.events[0].revision
            self.first += 1
        self.events.append(event)
        self.wake()

    def drop(self, revision: int) -> None:
        while self.events and self.events[0].revision <= revision:
            self.floor = self.events.popleft().revision
            self.first += 1
        self.floor = max(self.floor, revision)

    def wake(self) -> None:
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    def position(self, revision: int) -> int:
        """The index of the first event after `revision`; searched from the end, where watchers begin."""
        index = self.first + len(self.events)
        for event in reversed(self.events):
            if event.revision <= revision:
                break
            index -= 1
        return index


class Store:
    """Objects by resource (`pods`, `swarms.agentswarm.dev`), namespace (empty: cluster scope) and name."""

    def __init__(self, path: Path | None = None, *, history: int = _HISTORY) -> None:
        """Open the database file, made when absent; None keeps everything in memory, for tests.

        Raises:
            StoreUnusable: it is in use by another process, damaged, or of another layout.
        """
        self._history = history
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._series: dict[str, _Series] = {}
        self._path = path
        try:
            self._db = self._open(path)
            self._load()
        except sqlite3.Error as e:
            reason = "another cluster is running in it" if "locked" in str(e) else str(e)
            raise StoreUnusable(
                f"can't use the cluster's state in {path}: {reason}."
                " Stop that cluster, or choose another state directory."
            ) from e

    def _open(self, path: Path | None) -> sqlite3.Connection:
        db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=1)
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("PRAGMA journal_mode=WAL")
        # In WAL mode this loses at most the last writes when the machine itself goes down, and never the file's
        # consistency.
        db.execute("PRAGMA synchronous=NORMAL")
        layout = db.execute("PRAGMA user_version").fetchone()[0]
        if layout not in (0, _LAYOUT):
            db.close()
            raise StoreUnusable(
                f"the cluster's state in {path} was written by another version (layout {layout}, not {_LAYOUT}). "
                "Remove it to start afresh, or choose another state directory."
            )
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                "CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, body BLOB NOT NULL,"
                " PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID"
            )
            db.execute("CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
            db.execute("INSERT OR IGNORE INTO facts VALUES ('revision', 0)")
            db.execute(f"PRAGMA user_version={_LAYOUT}")
        return db

    def _load(self) -> None:
        self._revision = int(self._db.execute("SELECT value FROM facts WHERE key='revision'").fetchone()[0])
        self._start = self._revision
        decoder = msgspec.json.Decoder(dict[str, Any])
        for resource, namespace, name, body in self._db.execute("SELECT resource, namespace, name, body FROM objects"):
            self._objects.setdefault(resource, {})[namespace, name] = decoder.decode(body)

    def close(self) -> None:
        """Close the database; every watcher ends."""
        for series in self._series.values():
            series.wake()
        self._db.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """The newest write's."""
        return self._revision

    @property
    def start_revision(self) -> int:
        """The newest revision when the store was opened; the history begins after it."""
        return self._start

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """The object, not to be changed, or None."""
        return self._objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> list[Object]:
        """Every object of a resource, ordered by namespace and name; `namespace` None means all."""
        held = self._objects.get(resource, {})
        if namespace is None:
            return [held[key] for key in sorted(held)]
        return [held[key] for key in sorted(k for k in held if k[0] == namespace)]

    def count(self, resource: str) -> int:
        """How many objects of a resource there are."""
        return len(self._objects.get(resource, {}))

    def resources(self) -> builtins.list[str]:
        """The resources of which there is at least one object."""
        return sorted(r for r, held in self._objects.items() if held)

    # -- writing ----------------------------------------------------------------------------------------------------

    def create(self, resource: str, namespace: str, name: str, obj: Object) -> Object:
        """Store a new object and return it with its resourceVersion; the store owns it from then on.

        Raises:
            Present: there is one of that name.
        """
        current = self.get(resource, namespace, name)
        if current is not None:
            raise Present(current)
        return self._write("ADDED", resource, namespace, name, obj, None)

    def update(self, resource: str, namespace: str, name: str, obj: Object, *, expect: str | None = None) -> Object:
        """Replace an object.

        Args:
            expect: the resourceVersion the writer had read; None overwrites whatever is there.

        Raises:
            Missing: there is none.
            Stale: it has another resourceVersion by now.
        """
        current = self._expect(resource, namespace, name, expect)
        return self._write("MODIFIED", resource, namespace, name, obj, current)

    def delete(
        self, resource: str, namespace: str, name: str, *, expect: str | None = None, last: Object | None = None
    ) -> Object:
        """Remove an object and return its last state, with the resourceVersion of the removal.

        Args:
            last: what watchers are shown, where it differs from what was stored.
        """
        current = self._expect(resource, namespace, name, expect)
        return self._write("DELETED", resource, namespace, name, last if last is not None else current, current)

    def _expect(self, resource: str, namespace: str, name: str, expect: str | None) -> Object:
        current = self.get(resource, namespace, name)
        if current is None:
            raise Missing(f"{resource} {namespace}/{name}")
        if expect is not None and current["metadata"]["resourceVersion"] != expect:
            raise Stale(current)
        return current

    def _write(
        self, kind: str, resource: str, namespace: str, name: str, obj: Object, previous: Object | None
    ) -> Object:
        revision = self._revision + 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(revision)}}
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if kind == "DELETED":
                self._db.execute(
                    "DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", (resource, namespace, name)
                )
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)",
                    (resource, namespace, name, msgspec.json.encode(obj)),
                )
            self._db.execute("UPDATE facts SET value=? WHERE key='revision'", (revision,))
        # The journal holds it: only now may anyone see it.
        self._revision = revision
        held = self._objects.setdefault(resource, {})
        if kind == "DELETED":
            held.pop((namespace, name), None)
        else:
            held[namespace, name] = obj
        self._of(resource).append(Event(revision, kind, namespace, name, obj, previous))
        return obj

    # -- watching ---------------------------------------------------------------------------------------------------

    def _of(self, resource: str) -> _Series:
        series = self._series.get(resource)
        if series is None:
            # Nothing was written to it since the store opened, or its first event is about to be.
            series = self._series[resource] = _Series(self._start, self._history)
        return series

    def compact(self, revision: int) -> None:
        """Forget the history up to and including a revision: a watch from before it is answered `Compacted`."""
        for resource in self._objects:
            self._of(resource).drop(revision)
        for series in self._series.values():
            series.drop(revision)
        self._start = max(self._start, revision)

    def oldest(self, resource: str) -> int:
        """The oldest revision from which a resource can be watched."""
        return self._of(resource).floor

    async def watch(self, resource: str, since: int) -> AsyncGenerator[Event, None]:
        """Every event after a revision, as it happens; without end.

        Raises:
            Compacted: at the first step, or later when the reader was slower than the history is long.
        """
        watcher = self.watcher(resource, since)
        while True:
            for event in watcher.drain():
                yield event
            await watcher.wait()

    def watcher(self, resource: str, since: int) -> Watcher:
        """A reader of every event after a revision, in order and without gaps.

        Raises:
            Compacted: the history does not reach back that far.
        """
        series = self._of(resource)
        if since < series.floor:
            raise Compacted(since, series.floor)
        return Watcher(series, since)


class Watcher:
    """A position in one resource's history."""

    __slots__ = ("_position", "_series", "_since")

    def __init__(self, series: _Series, since: int) -> None:
        self._series = series
        self._since = since
        self._position = series.position(since)

    def drain(self) -> list[Event]:
        """What has happened since the last call.

        Raises:
            Compacted: the reader was slower than the history is long.
        """
        series = self._series
        if self._position < series.first:
            raise Compacted(self._since, series.floor)
        new = series.first + len(series.events) - self._position
        if not new:
            return []
        # From the end: there are few, and a deque is slow in its middle.
        events = [series.events[-n] for n in range(new, 0, -1)]
        self._position += new
        self._since = events[-1].revision
        return events

    async def wait(self, seconds: float | None = None) -> bool:
        """Until something has happened; False when the seconds have passed first."""
        series = self._series
        if self._position < series.first + len(series.events):
            return True
        if series.changed is None:
            series.changed = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await series.changed.wait()
        except TimeoutError:
            return False
        return True
