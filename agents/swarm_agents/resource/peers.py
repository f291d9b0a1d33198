"""The other nodes' hubs: a connection to each of their addresses, what they have to do, and what was sent to them.

A `Link` is one DEALER to one address, and makes itself anew when it breaks. A `Peer` is a node, with a link for each of
its addresses: with two, tasks go on by the other when one breaks, under the same ids, and only when none is left is
what the node had in hand given back. The session number by which the peer knows this hub changes whenever all links
were down, because then everything sent before was given back: the peer drops what belongs to the old number.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import zmq

from swarm_agents.resource.balance import DEFAULT_RATE, Candidate
from swarm_agents.wire import schema
from swarm_agents.wire.frames import pack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.loop import LoopSocket
from swarm_agents.wire.monitor import Monitor, Outcome
from swarm_agents.wire.schema import Load, TaskId
from swarm_agents.wire.sockets import open_dealer

__all__ = ["Forward", "Link", "Peer"]

Claim = TypeVar("Claim")

#: Seconds before a broken link is tried again; doubled up to the most while it stays broken.
_RETRY, _RETRY_MOST = 0.1, 2.0
#: Weight of a new observation in a running mean.
_NEWS = 0.2
#: Payloads below this say nothing about a link's rate.
_RATE_BYTES = 256 << 10


class Forward(Generic[Claim]):
    """A task of this node that another one computes."""

    __slots__ = ("claim", "payload", "sent", "size", "submit")

    def __init__(self, claim: Claim, submit: schema.Submit, payload: Sequence[Any], size: int, sent: float) -> None:
        self.claim = claim
        self.submit = submit
        self.payload = payload
        self.size = size
        self.sent = sent


class Link:
    """One connection to one address of another hub."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        server: str,
        keys: Keys,
        limit: int,
        hello: Callable[[], schema.Hello],
        on_message: Callable[[Link, list[zmq.Frame]], None],
        on_lost: Callable[[Link, Outcome], None],
    ) -> None:
        self.address = address
        #: The far hub has said welcome.
        self.open = False
        self.outcome = Outcome.PENDING
        self.heard = 0.0
        self._context = context
        self._server = server
        self._keys = keys
        self._limit = limit
        self._hello = hello
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._retry = _RETRY
        self._timer: asyncio.TimerHandle | None = None
        self._socket: LoopSocket | None = None
        self._monitor: Monitor | None = None
        self._monitor_fd = -1
        self._closed = False
        self._connect()

    def send(self, message: schema.Message, payload: Sequence[Any] = ()) -> bool:
        """False: the link is not open, or full."""
        return self.open and self._socket is not None and self._socket.send(pack(message, payload))

    def welcomed(self) -> None:
        """The far hub has answered: from now on the link carries tasks."""
        self.open = True
        self._retry = _RETRY

    def reset(self, outcome: Outcome = Outcome.LOST) -> None:
        """Gives the connection up, says so, and tries again after a while."""
        if self._closed or self._socket is None:
            return
        self._disconnect()
        self.outcome = outcome
        self._timer = self._loop.call_later(self._retry, self._connect)
        self._retry = min(self._retry * 2, _RETRY_MOST)
        self._on_lost(self, outcome)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()

    def _connect(self) -> None:
        raw = open_dealer(
            self._context,
            server=self._server,
            public=self._keys.hub_public,
            secret=self._keys.hub_secret,
            limit=self._limit,
        )
        self._monitor = Monitor(raw)
        self._monitor_fd = int(self._monitor.socket.get(zmq.FD))
        self._loop.add_reader(self._monitor_fd, self.look)
        raw.connect(self.address)
        self._socket = LoopSocket(raw, self._receive)
        self._socket.send(pack(self._hello()))
        self.heard = time.monotonic()
        self.look()

    def _disconnect(self) -> None:
        self.open = False
        if self._monitor is not None:
            self._loop.remove_reader(self._monitor_fd)
            self._monitor.close()
            self._monitor = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self, frames: list[zmq.Frame]) -> None:
        self.heard = time.monotonic()
        self._on_message(self, frames)

    def look(self) -> None:
        """Looks what the monitor has to say; called when it has something, and now and then."""
        if self._monitor is None:
            return
        outcome = self._monitor.drain()
        if outcome in (Outcome.PENDING, Outcome.OPEN):
            self.outcome = outcome
        else:
            self.reset(outcome)


class Peer(Generic[Claim]):
    """Another node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.links: dict[str, Link] = {}
        self.session = secrets.randbits(63)
        self.load = Load()
        self.rtt = 0.0
        self.rate = DEFAULT_RATE
        self.window = 0
        self.limit = 0
        self.forwarded: dict[TaskId, Forward[Claim]] = {}
        #: Answers to be acknowledged.
        self.acks: list[TaskId] = []
        #: Tasks sent since its load was last heard of.
        self.news = 0
        #: Until then (monotonic seconds) it has refused to take more.
        self.refuses_until = 0.0

    @property
    def open(self) -> bool:
        """Whether any link carries tasks."""
        return any(link.open for link in self.links.values())

    def send(self, message: schema.Message, payload: Sequence[Any] = ()) -> bool:
        """Sends by the first link that takes it."""
        return any(link.send(message, payload) for link in self.links.values())

    def heard_load(self, load: Load) -> None:
        self.load = load
        self.news = 0

    def heard_echo(self, seconds: float) -> None:
        """A heartbeat came back after this long."""
        self.rtt = seconds if self.rtt == 0.0 else (1 - _NEWS) * self.rtt + _NEWS * seconds

    def heard_answer(self, forward: Forward[Claim], answer: schema.Answer, size: int, now: float) -> None:
        """Learns the link's rate from a task that carried much."""
        moved = forward.size + size
        spent = now - forward.sent - answer.queued - answer.run - self.rtt
        if moved >= _RATE_BYTES and spent > 0:
            self.rate = (1 - _NEWS) * self.rate + _NEWS * moved / spent

    def candidate(self, now: float) -> Candidate | None:
        """The peer for the chooser; None while it can't be sent anything."""
        if not self.open or now < self.refuses_until:
            return None
        return Candidate(
            key=self.node,
            load=self.load,
            underway=self.news,
            credit=self.window - len(self.forwarded),
            rtt=self.rtt,
            rate=self.rate,
        )

    def renew(self) -> list[Forward[Claim]]:
        """All links are down: returns what was in hand there, and takes a new session number."""
        lost = list(self.forwarded.values())
        self.forwarded.clear()
        self.session = secrets.randbits(63)
        self.news = 0
        return lost

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.links.clear()
