"""Carries this node's work to idler nodes, and their answers home: the hub's outward half.

A task that waits on the board while another node is idler is claimed like by any worker, sent there under the same id,
and committed here with the answer. When a peer dies its tasks are handed back at once, as begun once more; a late
answer finds no claim, or one that is fenced, and changes nothing. A task that was sent here by another hub can be sent
on, but no further than `MAX_HOPS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq

from swarm_agents.config import Priority, Settings
from swarm_agents.errors import SwarmError
from swarm_agents.resource.balance import MAX_HOPS, Candidate, choose, surplus
from swarm_agents.resource.desk import Claimed, Desk
from swarm_agents.resource.peers import Forward, Link, Peer
from swarm_agents.wire import schema
from swarm_agents.wire.frames import payload_bytes, unpack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.monitor import Outcome
from swarm_agents.wire.schema import TaskId

__all__ = ["IDS_A_MESSAGE", "RETRY_AFTER", "Carrier", "heartbeat"]

#: How often it is looked whether work should leave the node while some waits, and while none does (seconds).
_BALANCE, _BALANCE_IDLE = 0.005, 0.02
#: How many tasks may leave at once.
_BALANCE_BATCH = 64
#: Heartbeats between hubs, in intervals of the swarm's own: those are many a second, and cross a network.
_HEARTBEATS = 5
#: Acknowledgements go together, at most this much later (seconds).
_ACK_AFTER = 0.005
IDS_A_MESSAGE = 1024
#: A full board is asked again after this long (seconds).
RETRY_AFTER = 0.02


def heartbeat(settings: Settings) -> float:
    """Seconds between the heartbeats of two hubs."""
    return settings.failover.heartbeat_interval * _HEARTBEATS


class Carrier:
    """See the module's text. Made and used in a running event loop."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        desk: Desk,
        settings: Settings,
        keys: Keys,
        *,
        node: str,
        name: str,
        log: Any,
        counts: Counter[str],
        rng: random.Random,
    ) -> None:
        self.peers: dict[str, Peer[Claimed]] = {}
        #: Nothing more leaves.
        self.draining = False
        self._context = context
        self._desk = desk
        self._settings = settings
        self._keys = keys
        self._node = node
        self._name = name
        self._log = log
        self._counts = counts
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        #: No compute agent on this node: what comes is sent on at once.
        self._nobody_here = False
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Connects to the other hubs and begins to carry."""
        self.apply(self._settings)
        self._tasks = [self._loop.create_task(self._beat()), self._loop.create_task(self._balance())]

    def stir(self) -> None:
        """A task has come from outside."""
        if self._nobody_here:
            self._stirred.set()

    @property
    def in_hand(self) -> int:
        """Tasks of this node's board that other nodes compute at present."""
        return sum(len(peer.forwarded) for peer in self.peers.values())

    async def close(self) -> None:
        """Hands back what is in hand, and says good-bye; `disconnect` follows."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers.values():
            peer.send(schema.Bye())
            self._hand_back(peer.renew(), "this hub leaves")

    def disconnect(self) -> None:
        """Closes all links."""
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()

    # -- who the other hubs are

    def apply(self, settings: Settings) -> None:
        """Other settings hold: hubs may have come or gone."""
        self._settings = settings
        wanted: dict[str, dict[str, str]] = {}
        for hub in self._settings.hubs:
            if hub.node != self._node and hub.address:
                wanted.setdefault(hub.node, {})[hub.address] = hub.public_key or self._keys.hub_public
        for node in list(self.peers):
            if node not in wanted:
                peer = self.peers.pop(node)
                self._hand_back(peer.renew(), f"node {node} has left the swarm")
                peer.close()
        for node, addresses in wanted.items():
            peer = self.peers.setdefault(node, Peer(node))
            for address in set(peer.links) - set(addresses):
                peer.links.pop(address).close()
            for address in set(addresses) - set(peer.links):
                peer.links[address] = self._link(peer, address, addresses[address])
            if not peer.open:
                self._hand_back(peer.renew(), f"node {node} has moved")

    def _link(self, peer: Peer[Claimed], address: str, server: str) -> Link:
        return Link(
            self._context,
            address,
            server if self._keys.hub_secret else "",
            self._keys,
            self._settings.transport.max_message_bytes,
            lambda: schema.Hello("hub", self._settings.uid, peer.session, self._name, self._node),
            lambda link, frames: self._from_peer(peer, link, frames),
            lambda link, outcome: self._lost_link(peer, link, outcome),
        )

    def _from_peer(self, peer: Peer[Claimed], link: Link, frames: list[zmq.Frame]) -> None:
        try:
            message, payload = unpack(frames, limit=self._settings.transport.max_message_bytes)
        except SwarmError as error:
            self._counts[f"refused_{error.code}"] += 1
            self._log.warning("a hub sent what can't be read", node=peer.node, error=str(error))
            link.reset()
            return
        match message:
            case schema.Welcome():
                link.welcomed()
                peer.window, peer.limit = message.window, message.max_message_bytes
                link.send(schema.Heartbeat(time.monotonic(), load=self._desk.load()))
                self._log.info("connected to a hub", node=peer.node, address=link.address)
            case schema.Answer():
                self._peer_answered(peer, message, payload)
            case schema.Refusal(task=task) if task is not None:
                self._peer_refused(peer, task, message)
            case schema.Refusal():
                self._log.warning("a hub refuses this one", node=peer.node, code=message.code, reason=message.message)
                link.reset()
            case schema.Heartbeat(echo=True):
                peer.heard_echo(time.monotonic() - message.sent)
                if message.load is not None:
                    peer.heard_load(message.load)
            case schema.Credit():
                peer.window = message.window
            case schema.Bye():
                link.reset()
            case _:
                pass

    def _peer_answered(self, peer: Peer[Claimed], answer: schema.Answer, payload: Sequence[Any]) -> None:
        forward = peer.forwarded.pop(answer.task, None)
        if forward is not None:
            peer.heard_answer(forward, answer, payload_bytes(payload), time.monotonic())
            self._desk.commit(forward.claim, answer, payload, self._committed)
        else:
            self._committed(False)
        if not peer.acks:
            self._loop.call_later(_ACK_AFTER, self._say_acknowledged, peer)
        peer.acks.append(answer.task)

    def _say_acknowledged(self, peer: Peer[Claimed]) -> None:
        acks, peer.acks = peer.acks, []
        for at in range(0, len(acks), IDS_A_MESSAGE):
            peer.send(schema.Ack(tuple(acks[at : at + IDS_A_MESSAGE])))

    def _committed(self, counted: bool) -> None:
        self._counts["forwarded_answered" if counted else "forwarded_late"] += 1

    def _peer_refused(self, peer: Peer[Claimed], task: TaskId, refusal: schema.Refusal) -> None:
        peer.refuses_until = time.monotonic() + max(refusal.retry_after, RETRY_AFTER)
        forward = peer.forwarded.pop(task, None)
        if forward is not None:
            self._hand_back([forward], refusal.message)

    def _lost_link(self, peer: Peer[Claimed], link: Link, outcome: Outcome) -> None:
        if outcome is not Outcome.LOST:
            self._log.error("a hub can't be used", node=peer.node, address=link.address, reason=outcome.value)
        if peer.open:
            for forward in peer.forwarded.values():  # by the other way; what has arrived already is recognised
                peer.send(forward.submit, forward.payload)
        else:
            self._hand_back(peer.renew(), f"node {peer.node} is gone")

    def _hand_back(self, forwards: list[Forward[Claimed]], reason: str) -> None:
        if forwards:
            self._log.warning("tasks come back", tasks=len(forwards), reason=reason)
        for forward in forwards:
            self._desk.hand_back(forward.claim)
            self._counts["handed_back"] += 1

    # -- the two clocks of a hub

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(heartbeat(self._settings))
            now = time.monotonic()
            load = self._desk.load()
            for peer in self.peers.values():
                for link in list(peer.links.values()):
                    link.look()
                    link.send(schema.Heartbeat(now, load=load))
                    if link.open and now - link.heard > max(
                        self._settings.failover.dead_after, 5 * heartbeat(self._settings)
                    ):
                        link.reset()

    async def _balance(self) -> None:
        while True:
            busy, load = False, schema.Load(workers=1)
            for peer in self.peers.values():
                busy = busy or bool(peer.forwarded)
                self._cancel_forwarded(peer)
            if not self.draining and any(peer.open for peer in self.peers.values()):
                load = self._desk.load()
                busy = busy or any(load.depth)
                if self._settings.sensing.balance or not load.workers:
                    for lane in range(len(Priority)):
                        if load.depth[lane]:
                            self._move(lane)
            self._nobody_here = not load.workers
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BALANCE if busy else _BALANCE_IDLE):
                    await self._stirred.wait()
            self._stirred.clear()

    def _cancel_forwarded(self, peer: Peer[Claimed]) -> None:
        for task, forward in list(peer.forwarded.items()):
            if self._desk.abandoned(forward.claim):
                del peer.forwarded[task]
                peer.send(schema.Cancel(task))
                self._desk.drop(forward.claim)

    def _move(self, lane: int) -> None:
        now = time.monotonic()
        for _ in range(_BALANCE_BATCH):
            local = self._desk.load()
            if surplus(local, lane) == 0:
                return
            candidates = [c for peer in self.peers.values() if (c := peer.candidate(now)) is not None]
            # Whether anything may move at all is known before anything is claimed.
            if choose(local, candidates, lane=lane, size=0, run=None, rng=self._rng) is None:
                return
            claimed = self._desk.claim(lane)
            if claimed is None:
                return
            if not self._forward(claimed, local, candidates, now):
                self._desk.hand_back(claimed, untouched=True)
                return

    def _forward(self, claimed: Claimed, local: schema.Load, candidates: list[Candidate], now: float) -> bool:
        if claimed.submit.hops >= MAX_HOPS:
            return False
        payload = claimed.payload
        size = payload_bytes(payload)
        fitting = [c for c in candidates if size + schema.MAX_HEADER_BYTES <= self.peers[c.key].limit]
        run = self._desk.run_time(claimed.submit.kernel)
        node = choose(local, fitting, lane=claimed.submit.lane, size=size, run=run, rng=self._rng)
        if node is None:
            return False
        peer = self.peers[node]
        submit = msgspec.structs.replace(claimed.submit, hops=claimed.submit.hops + 1)
        peer.forwarded[submit.task] = Forward(claimed, submit, payload, size, now)
        peer.news += 1
        if not peer.send(submit, payload):
            del peer.forwarded[submit.task]
            return False
        self._counts["forwarded"] += 1
        return True
