"""The other nodes' hubs: a connection to each of their addresses, what they have to do, and what was sent to them.

A `Link` is one DEALER to one address, and makes itself anew when it breaks. A `Peer` is a node, with a link for each of
its addresses. All of them are kept open and heard: heartbeats go by each, and give each its round-trip time. Tasks go
by the first address in the settings unless another is clearly quicker, so that a path which broke is used again when it
is back. A link that has missed `SUSPECTED` heartbeats is used no more while there is another, and what went by it
unanswered is sent again by that one, under the same ids, which the far side recognises; at `DEAD` it is made anew. Only
when none is left is what the node had in hand given back. The session number by which the peer knows this hub changes
whenever all links were down, because then everything sent before was given back: the peer drops what belongs to the
old number.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import zmq

from swarm_agents.resource.balance import DEFAULT_RATE, Candidate
from swarm_agents.wire import schema
from swarm_agents.wire.credit import Window
from swarm_agents.wire.frames import pack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.monitor import Monitor, Outcome
from swarm_agents.wire.network import Network
from swarm_agents.wire.pulse import Pulse
from swarm_agents.wire.reactor import Reactor, ServedSocket, Timer
from swarm_agents.wire.schema import Cancel, Load, TaskId

__all__ = ["DEAD", "SUSPECTED", "Forward", "Link", "Peer"]

Claim = TypeVar("Claim")

#: Heartbeats missed in a row after which a link is avoided; and given up.
SUSPECTED, DEAD = 2, 5
#: Seconds before a broken link is tried again; doubled up to the most while it stays broken.
_RETRY, _RETRY_MOST = 0.1, 2.0
#: Weight of a new observation in a running mean.
_NEWS = 0.2
#: Payloads below this say nothing about a link's rate.
_RATE_BYTES = 256 << 10
#: Another link is preferred to an earlier one if that costs so many times as much.
_DEARER = 1.5
#: A message that went by another link may arrive this much later (seconds).
_STRAY = 1.0
#: What a link is taken to cost that no heartbeat has crossed yet (seconds).
_UNKNOWN_RTT = 0.5


class Forward(Generic[Claim]):
    """A task of this node that another one computes."""

    __slots__ = ("claim", "holds", "payload", "sent", "size", "submit", "via")

    def __init__(self, claim: Claim, submit: schema.Submit, payload: Sequence[Any], size: int, sent: float) -> None:
        self.claim = claim
        self.submit = submit
        self.payload = payload
        self.size = size
        self.sent = sent
        #: The link that it went by last.
        self.via: Link | None = None
        #: Says of each frame that was not copied whether ZeroMQ still looks at it.
        self.holds: list[zmq.MessageTracker] = []

    @property
    def held(self) -> bool:
        """Whether ZeroMQ still looks at the payload, so that it must stay as it is."""
        return any(not hold.done for hold in self.holds)


class Link:
    """One connection to one address of another hub. Used under the reactor's lock."""

    def __init__(
        self,
        reactor: Reactor,
        network: Network,
        address: str,
        server: str,
        keys: Keys,
        limit: int,
        interval: float,
        hello: Callable[[], schema.Hello],
        on_message: Callable[[Link, list[Any]], None],
        on_lost: Callable[[Link, Outcome], None],
    ) -> None:
        self.address = address
        #: The far hub has said welcome.
        self.open = False
        #: It has been silent for a while.
        self.suspected = False
        self.outcome = Outcome.PENDING
        self.rtt = 0.0
        self.rate = DEFAULT_RATE
        #: When what was sent will have left (by the clock).
        self.busy_until = 0.0
        self.pulse = Pulse(interval, reactor.clock())
        self._reactor = reactor
        self._network = network
        self._server = server
        self._keys = keys
        self._limit = limit
        self._hello = hello
        self._on_message = on_message
        self._on_lost = on_lost
        self._retry = _RETRY
        self._timer: Timer | None = None
        self._socket: ServedSocket | None = None
        self._monitor: Monitor | None = None
        self._monitor_fd = -1
        self._closed = False
        self._connect()

    @property
    def proof(self) -> tuple[str, str]:
        """The far hub's public key, and this one's, by which the connection is made."""
        return self._server, self._keys.hub_public

    @property
    def heard(self) -> float:
        """When something came last, by the clock."""
        return self.pulse.last

    @property
    def cost(self) -> float:
        """Seconds that a small message takes there and back, as far as is known."""
        return self.rtt or _UNKNOWN_RTT

    def send(self, message: schema.Message, payload: Sequence[Any] = (), holds: list[Any] | None = None) -> bool:
        """False: the link is not open, or full."""
        return self.open and self._socket is not None and self._socket.send(pack(message, payload), holds)

    def sent(self, size: int, now: float) -> None:
        """Notes that so many bytes are on their way."""
        self.busy_until = max(self.busy_until, now) + size / self.rate

    def welcomed(self) -> None:
        """The far hub has answered: from now on the link carries tasks."""
        self.open = True
        self.suspected = False
        self._retry = _RETRY

    def heard_echo(self, seconds: float) -> None:
        """A heartbeat came back after this long."""
        self.rtt = seconds if self.rtt == 0.0 else (1 - _NEWS) * self.rtt + _NEWS * seconds

    def reset(self, outcome: Outcome = Outcome.LOST) -> None:
        """Gives the connection up, says so, and tries again after a while."""
        if self._closed or self._socket is None:
            return
        self._disconnect()
        self.outcome = outcome
        self._timer = self._reactor.call_later(self._retry, self._connect)
        self._retry = min(self._retry * 2, _RETRY_MOST)
        self._on_lost(self, outcome)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()

    def _connect(self) -> None:
        raw = self._network.dealer(
            server=self._server,
            public=self._keys.hub_public,
            secret=self._keys.hub_secret,
            limit=self._limit,
        )
        self._monitor = self._network.monitor(raw)
        self._monitor_fd = int(self._monitor.socket.get(zmq.FD))
        self._reactor.watch(self._monitor_fd, self.look)
        raw.connect(self.address)
        self._socket = self._reactor.serve(raw, self._receive)
        self._socket.send(pack(self._hello()))
        self.pulse.heard(self._reactor.clock())
        self.look()

    def _disconnect(self) -> None:
        self.open = self.suspected = False
        self.rtt = 0.0
        if self._monitor is not None:
            self._reactor.forget(self._monitor_fd)
            self._monitor.close()
            self._monitor = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self, frames: list[Any]) -> None:
        self.pulse.heard(self._reactor.clock())
        self.suspected = False
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
        #: By address, in the settings' order.
        self.links: dict[str, Link] = {}
        self.session = secrets.randbits(63)
        self.load = Load()
        #: What it has granted.
        self.window = Window()
        self.limit = 0
        self.forwarded: dict[TaskId, Forward[Claim]] = {}
        #: Answers to be acknowledged.
        self.acks: list[TaskId] = []
        #: What was cancelled there, and when (by the clock), from the oldest on.
        self._cancelled: dict[TaskId, float] = {}
        #: Tasks sent since its load was last heard of.
        self.news = 0
        #: Until then (by the clock) it has refused to take more.
        self.refuses_until = 0.0

    def arrange(self, wanted: dict[str, tuple[str, Keys]], make: Callable[[str, tuple[str, Keys]], Link]) -> list[Link]:
        """Has one link an address, by these keys; returns those that were closed for it."""
        before, self.links, closed = self.links, {}, []
        for address, (server, keys) in wanted.items():
            link = before.pop(address, None)
            if link is not None and link.proof != (server, keys.hub_public):
                before[address], link = link, None
            self.links[address] = link or make(address, (server, keys))
        for link in before.values():
            link.close()
            closed.append(link)
        return closed

    @property
    def open(self) -> bool:
        """Whether any link carries tasks."""
        return any(link.open for link in self.links.values())

    @property
    def link(self) -> Link | None:
        """The link that tasks go by; None while there is none."""
        if len(self.links) == 1:
            for only in self.links.values():
                return only if only.open else None
        usable = [link for link in self.links.values() if link.open]
        if len(usable) > 1:
            usable = [link for link in usable if not link.suspected] or usable
            least = min(link.cost for link in usable)
            return next(link for link in usable if link.cost <= _DEARER * least)
        return usable[0] if usable else None

    @property
    def rtt(self) -> float:
        """Round trip by the link in use, seconds; 0 while none is known."""
        link = self.link
        return link.rtt if link is not None else 0.0

    @property
    def rate(self) -> float:
        """Bytes a second over the link in use."""
        link = self.link
        return link.rate if link is not None else DEFAULT_RATE

    def send(self, message: schema.Message, payload: Sequence[Any] = ()) -> bool:
        """Sends by the link in use, or another that takes it."""
        link = self.link
        if link is not None and link.send(message, payload):
            return True
        return any(other.send(message, payload) for other in self.links.values() if other is not link)

    def forward(self, forward: Forward[Claim], now: float) -> bool:
        """Sends a task, for the first time or again."""
        link = self.link
        if link is None or not link.send(forward.submit, forward.payload, forward.holds):
            for link in self.links.values():  # any that takes it
                if link.send(forward.submit, forward.payload, forward.holds):
                    break
            else:
                return False
        forward.via = link
        link.sent(forward.size, now)
        return True

    def take(self, forward: Forward[Claim]) -> None:
        """It is there, until `settle`."""
        self.forwarded[forward.submit.task] = forward
        self.window.take(forward.size)

    def cancel(self, task: TaskId, now: float) -> None:
        """Nobody wants a task any more that is there."""
        self.send(Cancel(task))
        self._cancelled.pop(task, None)
        self._cancelled[task] = now

    def may_still_cancel(self, task: TaskId, now: float) -> bool:
        """Whether the same task, sent now by another link, could be overtaken by its being cancelled before."""
        while self._cancelled:
            oldest = next(iter(self._cancelled))
            if now - self._cancelled[oldest] < _STRAY:
                break
            del self._cancelled[oldest]
        return task in self._cancelled

    def settle(self, task: TaskId) -> Forward[Claim] | None:
        """It is there no more; None if it was not."""
        forward = self.forwarded.pop(task, None)
        if forward is not None:
            self.window.give(forward.size)
        return forward

    def heard_load(self, load: Load) -> None:
        self.load = load
        self.news = 0

    def heard_answer(self, forward: Forward[Claim], answer: schema.Answer, size: int, now: float) -> None:
        """Learns the link's rate from a task that carried much."""
        link = forward.via
        moved = forward.size + size
        if link is None or moved < _RATE_BYTES:
            return
        spent = now - forward.sent - answer.queued - answer.run - link.rtt
        if spent > 0:
            link.rate = (1 - _NEWS) * link.rate + _NEWS * moved / spent

    def candidate(self, now: float) -> Candidate | None:
        """The peer for the chooser; None while it can't be sent anything."""
        link = self.link
        if link is None or now < self.refuses_until:
            return None
        window = self.window
        return Candidate(
            key=self.node,
            load=self.load,
            underway=self.news,
            credit=window.tasks - window.used,
            credit_bytes=window.bytes - window.used_bytes if window.used else self.limit,
            rtt=link.rtt,
            rate=link.rate,
            backlog=max(0.0, link.busy_until - now),
        )

    def renew(self) -> list[Forward[Claim]]:
        """All links are down: returns what was in hand there, and takes a new session number."""
        lost = list(self.forwarded.values())
        self.forwarded.clear()
        self.window.clear()
        self.session = secrets.randbits(63)
        self.news = 0
        return lost

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.links.clear()
