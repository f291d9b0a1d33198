"""The hub's part in copies of checkpoints: a thread of its own, because files and checksums must not hold up tasks.

The hub's reactor hands over what comes and sends what is given to it; what is sent when, and which copy counts, is
`swarm_agents.runtime.mirror`. Invariant: `Mirror` and `Copies` are used by this thread alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm_agents.runtime.mirror import INTERVAL, Copies, Mirror, newest_of, read_bytes
from swarm_agents.wire.schema import Confirmed, Mirrored, Withdrawn

__all__ = ["Mirroring"]

#: Messages that wait to be dealt with; more are dropped, and sent again by their sender.
_MOST = 64


class Mirroring:
    """Sends a node's checkpoints to its partners, and keeps theirs."""

    def __init__(
        self,
        directory: Path,
        here: str,
        *,
        most: int,
        nodes: Callable[[], list[str]],
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
            send: sends a message to a node without waiting; False: not now.
            origin: the node that a key's task came from, or an empty text.
        """
        self._nodes = nodes
        self._log = log
        self._send = send
        self._copies = Copies(directory, most=most)
        self._mirror = Mirror(here, self, lambda: newest_of(directory), lambda key: read_bytes(directory, key), origin)
        self._reached: set[str] = set()
        self._heard: queue.Queue[tuple[str, Any, bytes] | None] = queue.Queue(_MOST)
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, node: str, message: Mirrored | Confirmed | Withdrawn, payload: bytes = b"") -> bool:
        """What `Mirror` sends by."""
        return self._send(node, message, payload)

    def heard(self, node: str, message: Mirrored | Confirmed | Withdrawn, payload: bytes) -> None:
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

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            try:
                item = self._heard.get(timeout=max(due - time.monotonic(), 0.001))
                if item is None:
                    return
                self._deal(*item)
            except queue.Empty:
                pass
            except Exception:
                self._log.exception("a message about checkpoints could not be handled")
            if time.monotonic() >= due:
                try:
                    self._plan()
                except Exception:
                    self._log.exception("checkpoints could not be mirrored")
                due = time.monotonic() + INTERVAL

    def _deal(self, node: str, message: Any, payload: bytes) -> None:
        if isinstance(message, Mirrored):
            self._send(node, self._copies.mirrored(message, payload), b"")
        elif isinstance(message, Confirmed):
            self._mirror.confirmed(node, message)
        else:
            self._copies.withdrawn(message)

    def _plan(self) -> None:
        reached = set(self._nodes())
        for node in self._reached - reached:
            self._mirror.lost(node)
        self._reached = reached
        self._mirror.plan(reached, time.monotonic())
