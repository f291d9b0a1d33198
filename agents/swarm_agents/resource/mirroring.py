"""The hub's part in copies of checkpoints: a thread of its own, because files and checksums must not hold up tasks.

The hub's reactor hands over what comes and sends what is given to it; what is sent when, and which copy counts, is
`swarm_agents.runtime.mirror`. Agents of this node ask for what other nodes have by a file beside the board
(`runtime.store.Store.ask`), which is removed when all that were asked have answered, or `_PATIENCE` is over.
Invariant: `Mirror` and `Copies` are used by this thread alone.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm_agents.runtime.mirror import INTERVAL, Copies, Mirror, holders, newest_of, read_bytes
from swarm_agents.runtime.store import ASK, ASK_FOR, WANT
from swarm_agents.wire.schema import Confirmed, Mirrored, Wanted, Withdrawn

__all__ = ["Mirroring"]

#: Messages that wait to be dealt with; more are dropped, and sent again by their sender.
_MOST = 64
#: How often it is looked whether a node is lost, and, while agents may ask, whether one does (seconds).
_LOOK, _LOOK_ASKED = 0.05, 0.005
#: How long those are waited for who were asked for a copy (seconds).
_PATIENCE = 1.0


class Mirroring:
    """Sends a node's checkpoints to its partners, and keeps theirs."""

    def __init__(
        self,
        directory: Path,
        here: str,
        *,
        most: int,
        nodes: Callable[[], list[str]],
        finders: Callable[[], list[str]],
        send: Callable[[str, Any, bytes], bool],
        origin: Callable[[str], str],
        log: Any,
    ) -> None:
        """
        Args:
            directory: the board's.
            here: this node.
            most: bytes of other nodes' copies.
            nodes: those that can be reached and take copies.
            finders: those that can be asked for copies.
            send: sends a message to a node without waiting; False: not now.
            origin: the node that a key's task came from, or an empty text.
        """
        self._directory = directory
        self._here = here
        self._nodes = nodes
        self._finders = finders
        self._origin = origin
        self._log = log
        self._send = send
        self._copies = Copies(directory, most=most)
        self._mirror = Mirror(here, self, lambda: newest_of(directory), lambda key: read_bytes(directory, key), origin)
        self._reached: set[str] = set()
        #: Until when agents may ask (monotonic seconds).
        self._asked_until = 0.0
        #: Keys that are looked for: who has not answered yet, and until when they are waited for.
        self._wanted: dict[str, tuple[set[str], float, Path]] = {}
        self._heard: queue.Queue[tuple[str, Any, bytes] | None] = queue.Queue(_MOST)
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, node: str, message: Mirrored | Confirmed | Withdrawn | Wanted, payload: bytes = b"") -> bool:
        """What `Mirror` sends by."""
        return self._send(node, message, payload)

    def heard(self, node: str, message: Mirrored | Confirmed | Withdrawn | Wanted, payload: bytes) -> None:
        """A message has come from another node's hub."""
        try:
            self._heard.put_nowait((node, message, payload))
        except queue.Full:
            pass

    def close(self) -> None:
        """Ends the thread; what it is at is finished first."""
        if self._thread.is_alive():
            while True:
                try:
                    self._heard.put_nowait(None)
                    break
                except queue.Full:
                    self._heard.get_nowait()
            self._thread.join()

    def ask(self) -> None:
        """From now on and for a while agents ask for checkpoints that they don't find here. Any thread."""
        self._asked_until = time.monotonic() + ASK_FOR
        try:
            (self._directory / ASK).touch(mode=0o600)
        except OSError as error:  # a file without contents: the board itself is going
            self._log.warning("agents can't be told that checkpoints lie elsewhere", reason=str(error))

    def _run(self) -> None:
        due = looked = time.monotonic()
        while True:
            now = time.monotonic()
            pause = _LOOK_ASKED if now < self._asked_until else _LOOK
            try:
                item = self._heard.get(timeout=max(min(due, looked + pause) - now, 0.001))
                if item is None:
                    return
                self._deal(*item)
            except queue.Empty:
                pass
            except Exception:
                self._log.exception("a message about checkpoints could not be handled")
            now = time.monotonic()
            try:
                if now - looked >= pause:
                    looked = now
                    self._look(now)
                if now >= due:
                    due = now + INTERVAL
                    self._mirror.plan(self._reached, now)
            except Exception:
                self._log.exception("checkpoints could not be mirrored")

    def _deal(self, node: str, message: Any, payload: bytes) -> None:
        match message:
            case Mirrored():
                self._send(node, self._copies.mirrored(message, payload), b"")
                self._answered(node, message.key)
            case Confirmed():
                self._mirror.confirmed(node, message)
                self._answered(node, message.key)
            case Withdrawn():
                self._copies.withdrawn(message)
            case Wanted():
                found = self._copies.found(message.key)
                if found is None or not self._send(node, Mirrored(message.key, found[0], found[1]), found[2]):
                    self._send(node, Confirmed(message.key, 0, 0), b"")

    def _look(self, now: float) -> None:
        """Notices nodes that are lost, and agents that ask."""
        reached = set(self._nodes())
        lost, self._reached = self._reached - reached, reached
        for node in lost:
            self._mirror.lost(node)
        if lost:
            self.ask()
        if now >= self._asked_until and not self._wanted:
            return
        for path in self._directory.glob(f"{WANT}*"):
            with contextlib.suppress(OSError):
                key = path.read_text()
                if key and key not in self._wanted:
                    self._want(key, path, now)
        for key, (waiting, until, path) in list(self._wanted.items()):
            if not waiting or now > until:
                del self._wanted[key]
                path.unlink(missing_ok=True)

    def _want(self, key: str, path: Path, now: float) -> None:
        asked = holders(key, self._here, self._finders(), self._origin(key))
        waiting = {node for node in asked if self._send(node, Wanted(key), b"")}
        self._wanted[key] = waiting, now + _PATIENCE, path

    def _answered(self, node: str, key: str) -> None:
        wanted = self._wanted.get(key)
        if wanted is not None:
            wanted[0].discard(node)
            if not wanted[0]:
                del self._wanted[key]
                wanted[2].unlink(missing_ok=True)
