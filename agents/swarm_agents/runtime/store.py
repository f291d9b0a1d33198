"""What a node keeps for its agents and their tasks: checkpoints and durable state, in files beside the board.

They lie in the board's directory under names that begin like the board's own, so they go with it when the last member
leaves. A key (`task <id> <kernel>`, `agent <place>`) has a file for each writer that it has had, told apart by a
*term*; readers take the highest term that holds a whole value.

A writer takes its term in this order: look what there is, make sure that the claim (or the place) still holds, link
the file under the next number, which fails when the number is taken, and begin anew then. So an agent that was
declared dead in between either links first, and its successor's term is higher, or finds the number taken, looks again
and sees that it is fenced. In no case does it write into its successor's file. The files of earlier terms are removed
by the successor when its own holds a value, hence nothing is lost if it dies before.

Bounds: `max_bytes` a value, `node_bytes` a node; what does not fit into the latter is not kept, which is logged once a
writer and counted: a simulation shall not fail for want of room to save it. What is left behind, a janitor clears away.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.metrics_core import Metric

from swarm_agents.config import Checkpoints
from swarm_agents.errors import PayloadTooLarge, SharedMemoryFull
from swarm_agents.runtime import iometrics, ioqueue
from swarm_agents.runtime.exported import CHECKPOINTS, COMPUTE
from swarm_agents.runtime.keepfile import Head, KeepFile, Kept, Parts, file_bytes, read, split

if TYPE_CHECKING:
    from swarm_agents.runtime.volume import Volume
    from swarm_agents.shm.board import Board

__all__ = [
    "ASK",
    "WANT",
    "Found",
    "Janitor",
    "Keeper",
    "Store",
    "agent_key",
    "file_name",
    "list_files",
    "parse_task",
    "task_key",
]

#: Begins like the board's own file: who removes the board removes these.
_KEEP, _COPY, _SPARE, _NEW, WANT = "board.keep-", "board.copy-", "board.spare-", "board.keepnew-", "board.want-"
#: The hub touches it when checkpoints may lie on other nodes: agents ask for `ASK_FOR` seconds then.
ASK = "board.ask"
ASK_FOR = 60.0
#: How long an agent waits for what other nodes have, at most (seconds).
ASK_PATIENCE = 1.2
_ASK_LOOK = 0.002
_SMALLEST = 16 << 10
#: A file is kept for the next task unless it is larger than this (bytes).
_LARGEST_SPARE = 16 << 20
#: How long what belongs to no task on the board is left: who submitted it may come back and submit it again (seconds).
ORPHANED = 120.0
#: How long a copy for another node is left without news (seconds).
COPY_RETENTION = 900.0
_numbers = itertools.count()


def task_key(task_id: tuple[int, int], kernel: str) -> str:
    """The key of a task's checkpoints."""
    return f"task {task_id[0]:016x}{task_id[1]:016x} {kernel}"


def parse_task(key: str) -> tuple[tuple[int, int], str] | None:
    """The task's id and kernel in a key, or None when it is no task's."""
    kind, _, rest = key.partition(" ")
    number, _, kernel = rest.partition(" ")
    if kind != "task" or len(number) != 32:
        return None
    return (int(number[:16], 16), int(number[16:], 16)), kernel


def agent_key(place: str) -> str:
    """The key of an agent's durable state; `place` is the pod's name without its incarnation."""
    return f"agent {place}"


def _digest(key: str) -> str:
    """The first letter says of what kind it is: t of a task, a of an agent."""
    return key[:1] + hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def file_name(prefix: str, key: str, term: int) -> str:
    """The name that a writer of this term has its file under."""
    return f"{prefix}{_digest(key)}.{term:08x}"


class Found(NamedTuple):
    """A file that may hold a value."""

    term: int
    path: Path


def list_files(directory: Path, prefixes: tuple[str, ...], key: str | None = None) -> list[Found]:
    """The files of one key, or of all, the highest term first; those that say nothing readable are left out."""
    wanted = tuple(prefix + (_digest(key) + "." if key is not None else "") for prefix in prefixes)
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.startswith(wanted):
                with contextlib.suppress(ValueError):
                    found.append(Found(int(name.rpartition(".")[2], 16), directory / name))
    return sorted(found, reverse=True)


class Store:
    """A process's way to what its node keeps. One thread writes a key."""

    def __init__(
        self,
        directory: Path,
        limits: Checkpoints,
        *,
        owner: str = "",
        place: tuple[int, int] = (0, 0),
        log: Any = None,
        volume: Volume | None = None,
    ) -> None:
        """`owner`: the pod's name; `place`: its index on the board and its epoch."""
        self.directory = directory
        self.limits = limits
        self.owner = owner
        self.place = place
        self.volume = volume
        self.log = log
        #: kept, resumed, skipped, torn, fenced: since the process began; bytes: written.
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._spare: KeepFile | None = None

    def find(self, key: str, *, fresh: bool = True) -> list[Found]:
        """Where values of a key may lie, the best first. `fresh`: look at the volume anew, too."""
        found = list_files(self.directory, (_KEEP, _COPY), key)
        if self.volume is not None:
            found = sorted(found + self.volume.find(key, fresh=fresh), key=lambda one: one.term, reverse=True)
        return found

    def read(self, key: str, *, fresh: bool = True, usable: Callable[[Kept], bool] = lambda _: True) -> Kept | None:
        """The newest whole value that is `usable`; what is passed over is logged. Its arrays are read-only."""
        best: Kept | None = None
        for found in self.find(key, fresh=fresh):
            if best is not None and found.term < best.term:
                break
            kept: Kept | None = None
            try:
                _, kept, flaws = read(found.path, key)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                flaws = (str(error),)
            if kept is not None and not usable(kept):
                flaws = (*flaws, f"number {kept.sequence} is of version {kept.version}")
                kept = None
            for flaw in flaws:
                self.counts["torn"] += 1
                if self.log is not None:
                    self.log.warning(
                        "a kept value can't be used, an older one is taken if there is one",
                        key=key,
                        file=found.path.name,
                        reason=flaw,
                    )
            if kept is not None and (best is None or (kept.term, kept.sequence) > (best.term, best.sequence)):
                best = kept
        return best

    def ask(self, key: str) -> bool:
        """Has the hub look for a task's checkpoint on other nodes, and waits until it has; False: no reason to ask."""
        if parse_task(key) is None:
            return False
        try:
            if time.time() - (self.directory / ASK).stat().st_mtime > ASK_FOR:
                return False
            wanted = self.directory / f"{WANT}{_digest(key)}"
            wanted.write_text(key)
        except OSError:  # nobody has ever touched it, or there is no room for a line
            return False
        until = time.monotonic() + ASK_PATIENCE
        while wanted.exists() and time.monotonic() < until:
            time.sleep(_ASK_LOOK)
        wanted.unlink(missing_ok=True)
        return True

    def keeper(self, key: str, held: Callable[[], bool], *, fresh: bool = True) -> Keeper:
        """The one writer of a key; `held` says whether it still is."""
        return Keeper(self, key, held, fresh)

    def used(self) -> int:
        """Bytes of all that is kept on this node."""
        total = 0
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith((_KEEP, _COPY, _SPARE, _NEW)):
                    with contextlib.suppress(OSError):
                        total += entry.stat().st_size
        return total

    def make(self, length: int) -> KeepFile:
        """A nameless file with room for `length` bytes: the one left by the last task, or a new one.

        Raises:
            SharedMemoryFull: the node's share of checkpoints is used up, or the file system is full.
        """
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            if spare.capacity >= length and spare.path.exists():
                return spare
            drop(spare)
        capacity = max(_SMALLEST, length + length // 8)
        size, used, most = file_bytes(capacity), self.used(), self.limits.node_bytes
        if used + size > most:
            raise SharedMemoryFull(
                f"{used} bytes of checkpoints are kept on this node already, {size} more would be over the limit of "
                f"{most}: keep less, or raise checkpoints.nodeBytes"
            )
        return KeepFile(self.directory / f"{_NEW}{os.getpid()}-{next(_numbers)}", capacity)

    def recycle(self, file: KeepFile) -> None:
        """Takes back a file that nobody needs any more."""
        with self._lock:
            if self._spare is None and file.bytes <= _LARGEST_SPARE:
                path = self.directory / f"{_SPARE}{self.place[0]}-{self.place[1]}-{os.getpid()}"
                try:
                    os.rename(file.path, path)
                except OSError:
                    file.close()  # a successor, or whoever removed the board, was here
                    return
                file.path = path
                self._spare = file
                return
        drop(file)

    def metrics(self) -> list[Metric]:
        """What became of checkpoints, and the queue to the volume."""
        counts = self.counts
        return [
            *(iometrics.collect(ioqueue.shared()) if self.volume is not None else ()),
            COMPUTE["swarm_checkpoints"].counter(*(((result,), counts[result]) for result in CHECKPOINTS)),
            COMPUTE["swarm_checkpoint_bytes"].counter(((), counts["bytes"])),
            COMPUTE["swarm_checkpoints_resumed"].counter(((), counts["resumed"])),
            COMPUTE["swarm_checkpoints_unusable"].counter(((), counts["torn"])),
        ]

    def close(self) -> None:
        """Lets go of what was kept in reserve."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            drop(spare)


def drop(file: KeepFile) -> None:
    """Closes a file and removes it."""
    file.path.unlink(missing_ok=True)
    file.close()


class Keeper:
    """Keeps the values of one key, one after the other. See the module's text for what holds against late writers."""

    def __init__(self, store: Store, key: str, held: Callable[[], bool], fresh: bool) -> None:
        self.key = key
        self.term = 0
        self._store = store
        self._held = held
        self._fresh = fresh
        self._file: KeepFile | None = None
        self._complained = False

    @property
    def file(self) -> KeepFile | None:
        """What it writes to; None before the first value."""
        return self._file

    def read(self, usable: Callable[[Kept], bool] = lambda _: True) -> Kept | None:
        """The newest value of this key, whoever kept it."""
        kept = self._store.read(self.key, fresh=self._fresh, usable=usable)
        if kept is None and self._store.ask(self.key):
            kept = self._store.read(self.key, fresh=self._fresh, usable=usable)
        if kept is not None:
            self._store.counts["resumed"] += 1
        return kept

    def write(self, value: Any, *, version: int = 0) -> bool:
        """Keeps a value. False: there was no room, or this writer has been replaced by another.

        Raises:
            PayloadError: the value has no encoding.
            PayloadTooLarge: it is larger than `max_bytes`.
        """
        store, parts = self._store, split(value)
        if parts.length > store.limits.max_bytes:
            raise PayloadTooLarge(
                f"a checkpoint of {parts.length} bytes is over the limit of {store.limits.max_bytes}: keep less "
                "(what can be computed again need not be kept), or raise checkpoints.maxBytes"
            )
        if not self._held():
            store.counts["fenced"] += 1
            return False
        file = self._file
        if file is not None and parts.length <= file.capacity:
            file.write(parts, version=version)
        else:
            try:
                if not self._move(parts, version):
                    store.counts["fenced"] += 1
                    return False
            except SharedMemoryFull as error:
                store.counts["skipped"] += 1
                if store.log is not None and not self._complained:
                    self._complained = True
                    store.log.warning("a checkpoint was not kept", key=self.key, reason=str(error))
                return False
        store.counts["kept"] += 1
        store.counts["bytes"] += parts.length
        if store.volume is not None:
            store.volume.offer(self)
        return True

    def _move(self, parts: Parts, version: int) -> bool:
        """Writes the value into a file that has room for it, and puts that in its place."""
        store, old = self._store, self._file
        file = store.make(parts.length)
        try:
            while True:
                earlier = [] if old is not None else store.find(self.key, fresh=self._fresh)
                term = self.term if old is not None else max((one.term for one in earlier), default=0) + 1
                if not self._held():
                    drop(file)
                    return False
                file.begin(Head(self.key, term, store.owner, store.place[1]))
                if old is not None:
                    file.sequence = old.sequence
                file.write(parts, version=version)
                path = store.directory / file_name(_KEEP, self.key, term)
                try:
                    if old is not None:
                        os.rename(file.path, path)
                    else:
                        os.link(file.path, path)
                        os.unlink(file.path)
                    break
                except FileExistsError:
                    continue  # somebody else has this term: a predecessor that woke up, or the one who came after us
        except BaseException:
            drop(file)
            raise
        file.path = path
        self._file, self.term = file, term
        if old is not None:
            old.close()
        for one in earlier:
            if one.path.parent == store.directory:
                one.path.unlink(missing_ok=True)
        return True

    def done(self) -> None:
        """The task is answered: nothing of this key is needed any more."""
        file, self._file = self._file, None
        for one in self._store.find(self.key, fresh=False):
            if one.path.parent == self._store.directory and (file is None or one.path != file.path):
                one.path.unlink(missing_ok=True)
        if file is not None:
            self._store.recycle(file)
        if self._store.volume is not None:
            self._store.volume.forget(self)

    def release(self) -> None:
        """Leaves what is kept to whoever comes next."""
        file, self._file = self._file, None
        if self._store.volume is not None:
            self._store.volume.let_go(self)
        if file is not None:
            file.close()


class Janitor:
    """Clears away what nobody will ask for. Each supervisor has one; several at once do no harm."""

    def __init__(self, board: Board, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._clock = clock
        #: Since when a file has been of no use, by name; and the task that it belongs to.
        self._since: dict[str, float] = {}
        self._tasks: dict[str, tuple[int, int] | None] = {}

    def tidy(self, alive: Iterable[tuple[int, int]]) -> int:
        """Removes what has been of no use for long; returns how many files. `alive`: members by index and epoch."""
        directory, now, removed = self._board.directory, self._clock(), 0
        try:
            names = [name for name in os.listdir(directory) if name.startswith((_KEEP, _COPY, _SPARE, _NEW, WANT))]
        except OSError:
            return 0
        living = {f"{index}-{epoch}" for index, epoch in alive}
        for name in names:
            if not self._is_needless(directory / name, living):
                self._since.pop(name, None)
            elif now - self._since.setdefault(name, now) >= ORPHANED:
                with contextlib.suppress(OSError):
                    os.unlink(directory / name)
                    removed += 1
        for gone in [name for name in self._tasks if name not in names]:
            self._tasks.pop(gone, None)
            self._since.pop(gone, None)
        return removed

    def _is_needless(self, path: Path, living: set[str]) -> bool:
        name = path.name
        if name.startswith(_SPARE):
            return "-".join(name.removeprefix(_SPARE).split("-")[:2]) not in living
        if name.startswith((_NEW, WANT)):
            return True  # needed for a moment only
        if name.startswith(_COPY):
            with contextlib.suppress(OSError):
                return time.time() - path.stat().st_mtime > COPY_RETENTION
        if name not in self._tasks:
            try:
                parsed = parse_task(read(path)[0].key)
            except (OSError, ValueError):
                return True
            self._tasks[name] = parsed[0] if parsed is not None else None
        task = self._tasks[name]
        return task is not None and self._board.find(task) is None
