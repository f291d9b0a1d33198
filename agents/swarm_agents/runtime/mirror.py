"""Checkpoints on another node: what is sent when, who has what, and which of two is the newer. No I/O of its own.

A checkpoint beside the board dies with its node. So each node's hub sends the newest ones to the hub of another node,
which puts them beside *its* board under names that `ctx.resume` looks at too: whoever begins the task there finds them
without asking. Which node that is follows from the task's id and the names of the nodes alone (`partner`), or is the
node that the task came from, which will claim it again; so nobody has to be told.

    home                                   partner
      Mirrored(key, term, sequence) + value ─▶   keeps it, if it is newer than what it has
                                       ◀─  Confirmed(key, term, sequence)      of what it has now
      Withdrawn(key)                    ─▶   forgets it                        the task is answered

A third node may be the one where the task goes on: neither its own nor the partner. Then nothing lies beside the board
there, and the agent that begins the task asks its hub (`store.Store.ask`), which asks the few nodes that can have a
copy (`holders`): `Wanted(key)`, answered by `Mirrored` or, where there is none, by `Confirmed` of term 0. Agents ask
only while there is a reason: a node was lost of late, or a task has come here that was begun elsewhere.

`Mirror` is the sending half, `Mirrored` copies received are kept by `Copies`. The hub owns sockets and time: it calls
`Mirror.plan` every `INTERVAL` or so, sends what that says, and hands answers to `confirmed`.

Invariants: at most one message of a key is on the way, and `ROOM` bytes to a node; a newer value replaces one that has
not been sent; (term, sequence) only grows, so repeated, delayed and reordered messages change nothing; what is not
confirmed within `PATIENCE` is sent again. A copy that is never withdrawn goes by age (`store.COPY_RETENTION`).
Rejected: sending differences (the value is opaque, and a lost message would cost the whole chain), waiting for the
confirmation in `ctx.checkpoint` (a task would be as slow as the network).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from swarm_agents.runtime.keepfile import copy_of, numbers, read
from swarm_agents.runtime.store import file_name, list_files, parse_task
from swarm_agents.wire.schema import Confirmed, Mirrored, Wanted, Withdrawn

__all__ = [
    "Confirmed",
    "Copies",
    "Mirror",
    "MirrorLink",
    "Mirrored",
    "Wanted",
    "Withdrawn",
    "holders",
    "newest_of",
    "partner",
    "read_bytes",
]

#: Seconds between two looks at what is new.
INTERVAL = 0.25
#: Seconds until what was not confirmed is sent again.
PATIENCE = 2.0
#: Bytes on the way to one node.
ROOM = 32 << 20
#: A key must have been kept for so long before it is mirrored: what is over sooner is not worth a message (seconds).
SETTLED = 0.5
_KEEP, _COPY = "board.keep-t", "board.copy-"


class MirrorLink(Protocol):
    """What a hub provides: how a message gets to another node. It must not block."""

    def send(self, node: str, message: Mirrored | Confirmed | Withdrawn | Wanted, payload: bytes = b"") -> bool:
        """False: there is no connection, or no room on it; try again later."""
        ...


def partner(key: str, here: str, nodes: Iterable[str], origin: str = "") -> str | None:
    """The node that a key's copies go to: the one its task came from, else by the highest of hashes (rendezvous), so
    that a node that comes or goes changes the partners of few keys. None: there is no other node."""
    return next(iter(holders(key, here, nodes, origin, 1)), None)


def holders(key: str, here: str, nodes: Iterable[str], origin: str = "", most: int = 4) -> list[str]:
    """The nodes that may have a key's copies, the likeliest first: where the task came from, then by `partner`'s
    hashes, which a node that comes or goes does not change for the others."""
    others = {node for node in nodes if node and node != here}
    ranked = sorted(others, key=lambda node: hashlib.blake2b(f"{key}\0{node}".encode()).digest(), reverse=True)
    first = [origin] if origin in others else []
    return [*first, *(node for node in ranked if node != origin)][:most]


@dataclass
class _Sent:
    """What is known of a key's copy."""

    node: str
    term: int
    seen: float
    #: (term, sequence) on the way, since when, how many bytes; and the newest that was confirmed.
    way: tuple[int, int] | None = None
    since: float = 0.0
    size: int = 0
    confirmed: tuple[int, int] = (0, 0)


@dataclass
class Mirror:
    """The sending half of one node. `now` is the caller's monotonic clock."""

    here: str
    link: MirrorLink
    #: The newest value of each key that this node keeps: (term, sequence), read when it is sent.
    newest: Callable[[], dict[str, tuple[int, int]]]
    #: The bytes of a key's file; None when it is gone or being written.
    load: Callable[[str], tuple[int, int, bytes] | None]
    #: Where a task came from; empty: from here.
    origin: Callable[[str], str] = field(default=lambda _: "")
    _keys: dict[str, _Sent] = field(default_factory=dict)

    def plan(self, nodes: Iterable[str], now: float) -> int:
        """Sends what is due; how many messages. `nodes`: those that can be reached at present."""
        reachable, newest, sent = set(nodes), self.newest(), 0
        for key in [key for key in self._keys if key not in newest]:
            gone = self._keys[key]
            if gone.way is None and gone.confirmed == (0, 0):
                del self._keys[key]
            elif gone.node not in reachable:
                del self._keys[key]  # its copy goes by age
            elif self.link.send(gone.node, Withdrawn(key, max(gone.term, gone.confirmed[0]))):
                del self._keys[key]
                sent += 1
        room: dict[str, int] = {}
        for each in self._keys.values():
            if each.way is not None:
                room[each.node] = room.get(each.node, 0) + each.size
        for key, have in sorted(newest.items(), key=lambda item: self._age(item[0])):
            to = partner(key, self.here, reachable, self.origin(key))
            if to is None:
                continue
            each = self._keys.setdefault(key, _Sent(to, have[0], now))
            if each.node != to:  # the partner has gone, or a better one has come
                each = self._keys[key] = _Sent(to, have[0], each.seen)
            if each.way is not None and now - each.since < PATIENCE:
                continue
            if have <= each.confirmed or now - each.seen < SETTLED:
                continue
            if each.way is not None:
                room[to] = room.get(to, 0) - each.size
                each.way = None
            loaded = self.load(key)
            if loaded is None:
                continue
            term, sequence, data = loaded
            if room.get(to, 0) and room.get(to, 0) + len(data) > ROOM:
                continue
            if self.link.send(to, Mirrored(key, term, sequence), data):
                each.way, each.since, each.size, each.term = (term, sequence), now, len(data), term
                room[to] = room.get(to, 0) + len(data)
                sent += 1
        return sent

    def _age(self, key: str) -> tuple[int, float]:
        """The never mirrored first, then those whose copy is the oldest."""
        each = self._keys.get(key)
        return (0, 0.0) if each is None or each.confirmed == (0, 0) else (1, each.since)

    def confirmed(self, node: str, message: Confirmed) -> None:
        """A partner says what it has. Anything that was not asked, or comes from another node, is ignored."""
        each = self._keys.get(message.key)
        if each is None or each.node != node:
            return
        have = message.term, message.sequence
        each.confirmed = max(each.confirmed, have)
        if each.way is not None and have >= each.way:
            each.way = None

    def lost(self, node: str) -> None:
        """The connection to a node is gone: what was on the way to it is not any more."""
        for each in self._keys.values():
            if each.node == node:
                each.way, each.confirmed = None, (0, 0)

    def lag(self) -> int:
        """How many keys have no confirmed copy of their newest value, as of the last plan."""
        newest = self.newest()
        return sum(1 for key, have in newest.items() if key not in self._keys or self._keys[key].confirmed < have)


class Copies:
    """The receiving half: other nodes' checkpoints beside this node's board."""

    def __init__(self, directory: Path, *, most: int) -> None:
        """`most`: bytes of all copies together."""
        self._directory = directory
        self._most = most

    def mirrored(self, message: Mirrored, payload: bytes) -> Confirmed:
        """Keeps a copy if it is newer than what is here; says what is here then."""
        key = message.key
        if parse_task(key) is None:
            return Confirmed(key, 0, 0)
        have = self._have(key)
        if (message.term, message.sequence) <= have:
            return Confirmed(key, *have)
        path = self._directory / file_name(_COPY, key, message.term)
        fresh = self._directory / f"board.keepnew-{os.getpid()}-copy"
        try:
            if self._used() + len(payload) > self._most:
                return Confirmed(key, *have)
            fresh.write_bytes(payload)
            fresh.chmod(0o600)
            head, kept, _ = read(fresh, key)
            if kept is None or (head.term, kept.sequence) != (message.term, message.sequence):
                raise ValueError("the copy is not what its message says")
            os.rename(fresh, path)
        except (OSError, ValueError):
            fresh.unlink(missing_ok=True)
            return Confirmed(key, *have)
        self._drop(key, message.term - 1)
        return Confirmed(key, message.term, message.sequence)

    def withdrawn(self, message: Withdrawn) -> None:
        """The task is answered."""
        if parse_task(message.key) is not None:
            self._drop(message.key, message.term)

    def _have(self, key: str) -> tuple[int, int]:
        for found in list_files(self._directory, (_COPY,), key):
            with contextlib.suppress(OSError, ValueError):
                head, kept, _ = read(found.path, key)
                if kept is not None:
                    return head.term, kept.sequence
        return 0, 0

    def found(self, key: str) -> tuple[int, int, bytes] | None:
        """The newest whole value that lies here for a task, whoever kept it: term, number, the bytes of its file."""
        if parse_task(key) is None:
            return None
        for found in list_files(self._directory, (_KEEP.removesuffix("t"), _COPY), key):
            with contextlib.suppress(OSError, ValueError):
                copied = copy_of(found.path, key)
                if copied is not None:
                    return copied
        return None

    def _used(self) -> int:
        total = 0
        for found in list_files(self._directory, (_COPY,)):
            with contextlib.suppress(OSError):
                total += found.path.stat().st_size
        return total

    def _drop(self, key: str, term: int) -> None:
        for found in list_files(self._directory, (_COPY,), key):
            if found.term <= term:
                found.path.unlink(missing_ok=True)


def read_bytes(directory: Path, key: str) -> tuple[int, int, bytes] | None:
    """The newest whole value that this node keeps for a key, as the bytes of a file: for `Mirror.load`."""
    for found in list_files(directory, (_KEEP.removesuffix("t"),), key):
        with contextlib.suppress(OSError, ValueError):
            return copy_of(found.path, key)
    return None


def newest_of(directory: Path) -> dict[str, tuple[int, int]]:
    """What this node keeps for tasks: for `Mirror.newest`. Looks at heads and numbers, not at the values."""
    newest: dict[str, tuple[int, int]] = {}
    for found in list_files(directory, (_KEEP,)):
        with contextlib.suppress(OSError, ValueError):
            head, sequence = numbers(found.path)
            if sequence:
                newest[head.key] = max(newest.get(head.key, (0, 0)), (head.term, sequence))
    return newest
