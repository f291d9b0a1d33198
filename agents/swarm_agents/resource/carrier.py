"""Carries this node's work to idler nodes, and their answers home: the hub's outward half.

A task that waits on the board while another node is idler is claimed like by any worker, sent there under the same id,
and committed here with the answer. When a peer dies its tasks are handed back at once, as begun once more; a late
answer finds no claim, or one that is fenced, and changes nothing. A task that was sent here by another hub can be sent
on, but no further than `MAX_HOPS`, and never as a task to the hub that waits for it: that one is told to take it back.

A large payload is sent from where it lies in the arena, and the board may give that room to somebody else as soon as
the claim is settled. So a claim is settled only when ZeroMQ has let go of every frame that was sent of it: at once, as
a rule, since an answer comes after the task has left; later, when a task was sent by a second path and its first is
stuck. What would leave otherwise are another task's bytes under this one's id.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

import msgspec

from swarm_agents.config import Priority, Settings
from swarm_agents.errors import SwarmError
from swarm_agents.resource.balance import MAX_HOPS, Candidate, choose, surplus
from swarm_agents.resource.desk import Claimed, Desk
from swarm_agents.resource.peers import DEAD, SUSPECTED, Forward, Link, Peer
from swarm_agents.resource.recall import Recalls
from swarm_agents.wire import schema
from swarm_agents.wire.frames import payload_bytes, unpack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.monitor import Outcome
from swarm_agents.wire.network import Network
from swarm_agents.wire.reactor import Reactor
from swarm_agents.wire.schema import TaskId

__all__ = ["IDS_A_MESSAGE", "RETRY_AFTER", "Carrier", "heartbeat"]

#: How often it is looked whether work should leave the node while some waits, and while none does (seconds).
_BALANCE, _BALANCE_IDLE = 0.005, 0.02
#: How many tasks may leave at once.
_BALANCE_BATCH = 64
#: Among so many peers, drawn anew for each task, it is chosen: looking at a thousand would take longer than a task.
_CANDIDATES = 16
#: Heartbeats between hubs, in intervals of the swarm's own: those are many a second, and cross a network.
_HEARTBEATS = 5
#: Acknowledgements go together, at most this much later (seconds).
_ACK_AFTER = 0.005
IDS_A_MESSAGE = 1024
#: A full board is asked again after this long (seconds).
RETRY_AFTER = 0.02
#: Whether ZeroMQ has let go of a payload is asked again after this long (seconds).
_HELD = 0.0005
#: When it is looked first whether a lost node's tasks are gone on with, and for how long (seconds).
_LOOK_RESUMED, _RESUMED_WITHIN = 0.0005, 30.0


def heartbeat(settings: Settings) -> float:
    """Seconds between the heartbeats of two hubs."""
    return settings.failover.heartbeat_interval * _HEARTBEATS


def silence(settings: Settings) -> float:
    """Seconds between heartbeats by which a link's silence is counted: `DEAD` of them are no less than `deadAfter`."""
    return max(heartbeat(settings), settings.failover.dead_after / DEAD)


class Carrier:
    """See the module's text. Used under the reactor's lock."""

    def __init__(
        self,
        reactor: Reactor,
        network: Network,
        desk: Desk,
        settings: Settings,
        keys: Keys,
        *,
        node: str,
        name: str,
        log: Any,
        counts: Counter[str],
        rng: random.Random,
        askers: Callable[[TaskId], Container[str]] = lambda task: (),
        give_back: Callable[[TaskId, str], bool] = lambda task, node: False,
        tell: Callable[..., None] = lambda event, **fields: None,
    ) -> None:
        """
        Args:
            askers: the nodes whose hubs wait for a task.
            give_back: tells such a node that the task will not be computed here; False: somebody else waits for it too.
            tell: has an event put on record: its reason, and its facts by name.
        """
        self.peers: dict[str, Peer[Claimed]] = {}
        #: Nodes whose hubs keep copies of checkpoints.
        self.copying: set[str] = set()
        #: Nodes whose hubs can be asked for them.
        self.finding: set[str] = set()
        #: Nodes whose hubs give back what is late and not begun.
        self._recalling: set[str] = set()
        self._recalls = Recalls()
        #: Nothing more leaves.
        self.draining = False
        self._reactor = reactor
        self._network = network
        self._desk = desk
        self._settings = settings
        self._keys = keys
        self._node = node
        self._name = name
        self._log = log
        self._counts = counts
        self._rng = rng
        self._askers = askers
        self._give_back = give_back
        self._tell = tell
        #: Nodes that were reached, until they are lost; and those that were lost.
        self._reached: set[str] = set()
        self._lost_nodes: set[str] = set()
        #: No compute agent on this node: what comes is sent on at once.
        self._nobody_here = False
        self._stirred = False
        self._stopped = False
        #: Answered, or given up, while ZeroMQ still looks at their payload; and how they end.
        self._held: list[tuple[Forward[Claimed], Callable[[Forward[Claimed]], None]]] = []

    def start(self) -> None:
        """Connects to the other hubs and begins to carry."""
        self.apply(self._settings)
        self._beat()
        self._balance()

    def stir(self) -> None:
        """A task has come from outside."""
        if self._nobody_here and not self._stirred:
            self._stirred = True
            self._reactor.call_later(0.0, self._move_all)

    def is_away(self, task: TaskId) -> bool:
        """Whether another node computes this task of this node's board."""
        return any(task in peer.forwarded for peer in self.peers.values())

    @property
    def in_hand(self) -> int:
        """Tasks of this node's board that other nodes compute at present."""
        return sum(len(peer.forwarded) for peer in list(self.peers.values())) + len(self._held)

    def offer(self) -> schema.Load:
        """The node's load as other hubs are to see it: who drains has nobody for them, so that they send nothing."""
        load = self._desk.load()
        return msgspec.structs.replace(load, workers=0, idle=0) if self.draining else load

    def stop(self) -> None:
        """Says good-bye; `disconnect` and `hand_back_all` follow."""
        self._stopped = self.draining = True
        for peer in self.peers.values():
            peer.send(schema.Bye())

    def disconnect(self) -> None:
        """Closes all links."""
        for peer in self.peers.values():
            for link in peer.links.values():
                link.close()

    def hand_back_all(self) -> None:
        """Hands back what is in hand; after the sockets' context has ended, so that nothing is being sent any more."""
        held, self._held = self._held, []
        for forward, end in held:
            end(forward)
        for peer in self.peers.values():
            for forward in self._lost(peer.renew(), "this hub leaves"):
                self._desk.hand_back(forward.claim)
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
            wanted_links = {address: self._proof(server) for address, server in addresses.items()}
            for gone in peer.arrange(wanted_links, partial(self._link, peer)):
                self._resend(peer, gone)
            if not peer.open:
                self._hand_back(peer.renew(), f"node {node} has moved")

    def rekey(self, keys: Keys) -> None:
        """Other keys hold: what is connected by those that hold no more is connected anew."""
        self._keys = keys
        self.apply(self._settings)

    def _proof(self, server: str) -> tuple[str, Keys]:
        """What a link goes by: the key that the far hub must have, and the set of ours that belongs to it."""
        return (server, self._keys.of_server(server)) if self._keys.hub_secret else ("", self._keys)

    def _link(self, peer: Peer[Claimed], address: str, proof: tuple[str, Keys]) -> Link:
        return Link(
            self._reactor,
            self._network,
            address,
            *proof,
            self._settings.transport.max_message_bytes,
            silence(self._settings),
            lambda: schema.Hello("hub", self._settings.uid, peer.session, self._name, self._node),
            lambda link, frames: self._from_peer(peer, link, frames),
            lambda link, outcome: self._lost_link(peer, link, outcome),
        )

    def _from_peer(self, peer: Peer[Claimed], link: Link, frames: list[Any]) -> None:
        try:
            message, payload = unpack(frames, limit=self._settings.transport.max_message_bytes)
        except SwarmError as error:
            self._counts[f"refused_{error.code}"] += 1
            self._log.warning("a hub sent what can't be read", node=peer.node, error=str(error))
            link.reset()
            return
        match message:
            case schema.Answer():
                self._peer_answered(peer, message, payload)
            case schema.Heartbeat(echo=True):
                link.heard_echo(self._reactor.clock() - message.sent)
                if message.load is not None:
                    peer.heard_load(message.load)
            case schema.Credit():
                peer.window.grant(message.window, message.bytes)
                self.stir()
            case schema.Welcome():
                link.welcomed()
                peer.limit = message.max_message_bytes
                (self.copying.add if message.copies else self.copying.discard)(peer.node)
                (self.finding.add if message.finds else self.finding.discard)(peer.node)
                (self._recalling.add if message.recalls else self._recalling.discard)(peer.node)
                peer.window.grant(message.window, message.bytes)
                link.send(schema.Heartbeat(self._reactor.clock(), load=self.offer()))
                self._log.info("connected to a hub", node=peer.node, address=link.address)
                self._reached.add(peer.node)
                if peer.node in self._lost_nodes:
                    self._lost_nodes.discard(peer.node)
                    self._tell("HubBack", peer=peer.node)
            case schema.Refusal(task=task) if task is not None:
                self._peer_refused(peer, task, message)
            case schema.Refusal():
                self._log.warning("a hub refuses this one", node=peer.node, code=message.code, reason=message.message)
                link.reset()
            case schema.Bye():
                link.reset()
            case _:
                pass

    def _peer_answered(self, peer: Peer[Claimed], answer: schema.Answer, payload: Sequence[Any]) -> None:
        forward = peer.settle(answer.task)
        if forward is not None:
            self._recalls.learn(forward.submit.kernel, self._reactor.clock() - forward.sent)
            self._recalls.forget(answer.task)
            peer.heard_answer(forward, answer, payload_bytes(payload), self._reactor.clock())
            if not answer.node:
                answer = msgspec.structs.replace(answer, node=peer.node)
            self._end(forward, lambda forward: self._desk.commit(forward.claim, answer, payload, self._committed))
        else:
            self._committed(False)
        if not peer.acks:
            self._reactor.call_later(_ACK_AFTER, self._say_acknowledged, peer)
        peer.acks.append(answer.task)

    def _say_acknowledged(self, peer: Peer[Claimed]) -> None:
        acks, peer.acks = peer.acks, []
        for at in range(0, len(acks), IDS_A_MESSAGE):
            peer.send(schema.Ack(tuple(acks[at : at + IDS_A_MESSAGE])))

    def _committed(self, counted: bool) -> None:
        self._counts["forwarded_answered" if counted else "forwarded_late"] += 1

    def _peer_refused(self, peer: Peer[Claimed], task: TaskId, refusal: schema.Refusal) -> None:
        peer.refuses_until = self._reactor.clock() + max(refusal.retry_after, RETRY_AFTER)
        forward = peer.settle(task)
        if forward is not None:
            self._recalls.forget(task)
            # Refused is not begun: it must not count against the limit of attempts.
            self._hand_back([forward], refusal.message, untouched=True)

    def _lost_link(self, peer: Peer[Claimed], link: Link, outcome: Outcome) -> None:
        if self._stopped:
            return
        if outcome is not Outcome.LOST:
            self._log.error("a hub can't be used", node=peer.node, address=link.address, reason=outcome.value)
        if peer.open:
            self._resend(peer, link)
        else:
            self._lost_peer(peer, link, outcome)

    def _lost_peer(self, peer: Peer[Claimed], link: Link, outcome: Outcome) -> None:
        """The last link is gone: what the node had in hand comes back, and that it was lost is put on record."""
        found = self._reactor.clock()
        forwards = peer.renew()
        self._hand_back(forwards, f"node {peer.node} is gone")
        if peer.node in self._reached:
            self._reached.discard(peer.node)
            self._lost_nodes.add(peer.node)
            self._tell(
                "HubLost",
                level="warning",
                peer=peer.node,
                reason=outcome.value,
                tasks=len(forwards),
                detect=round(max(found - link.heard, 0.0), 6),
                claim=round(self._reactor.clock() - found, 6),
            )
            if forwards:
                self._await_resumed(peer.node, [forward.claim for forward in forwards], found)

    def _await_resumed(self, node: str, claims: list[Claimed], found: float) -> None:
        """Puts on record when the first of a lost node's tasks was gone on with."""
        passed = self._reactor.clock() - found
        if self._stopped or passed > _RESUMED_WITHIN:
            return
        if any(map(self._desk.resumed, claims)):
            self._tell("TasksResumed", peer=node, tasks=len(claims), resume=round(passed, 6))
            return
        pause = max(_LOOK_RESUMED, passed / 16)  # looked for less and less often: 6 % of the figure at most
        self._reactor.call_later(pause, self._await_resumed, node, claims, found)

    def _resend(self, peer: Peer[Claimed], link: Link) -> None:
        """Sends what went by a link that is lost, or not to be trusted, by another; what has arrived is recognised."""
        now = self._reactor.clock()
        for forward in peer.forwarded.values():
            if forward.via is link:
                peer.forward(forward, now)
                self._counts["sent_again"] += 1

    # -- how a forwarded task ends

    def _end(self, forward: Forward[Claimed], end: Callable[[Forward[Claimed]], None]) -> None:
        """Settles a claim, when ZeroMQ does not look at its payload any more."""
        if not forward.held:
            end(forward)
            return
        if not self._held:
            self._reactor.call_later(_HELD, self._end_held)
        self._held.append((forward, end))

    def _end_held(self) -> None:
        held, self._held = self._held, []
        for forward, end in held:
            if forward.held:
                self._held.append((forward, end))
            else:
                end(forward)
        if self._held:
            self._reactor.call_later(_HELD, self._end_held)

    def _lost(self, forwards: list[Forward[Claimed]], reason: str) -> list[Forward[Claimed]]:
        if forwards:
            self._log.warning("tasks come back", tasks=len(forwards), reason=reason)
            self._counts["handed_back"] += len(forwards)
        return forwards

    def _hand_back(self, forwards: list[Forward[Claimed]], reason: str, *, untouched: bool = False) -> None:
        for forward in self._lost(forwards, reason):
            self._end(forward, lambda forward: self._desk.hand_back(forward.claim, untouched=untouched))

    # -- the two clocks of a hub

    def _beat(self) -> None:
        if self._stopped:
            return
        self._reactor.call_later(heartbeat(self._settings), self._beat)
        now, load = self._reactor.clock(), None
        for peer in self.peers.values():
            for link in list(peer.links.values()):
                link.look()
                if not link.open:
                    continue
                load = load or self.offer()
                link.send(schema.Heartbeat(now, load=load))
                missed = link.pulse.missed(now)
                if missed >= DEAD:
                    link.reset()
                elif missed >= SUSPECTED and not link.suspected:
                    link.suspected = True
                    self._log.warning("a link is silent", node=peer.node, address=link.address)
                    if peer.link is not link:
                        self._resend(peer, link)

    def _balance(self) -> None:
        if self._stopped:
            return
        busy = self._move_all()
        self._reactor.call_later(_BALANCE if busy else _BALANCE_IDLE, self._balance)

    def _move_all(self) -> bool:
        """Moves what should move; False if there is nothing that might."""
        self._stirred = False
        busy, load = False, schema.Load(workers=1)
        for peer in self.peers.values():
            busy = busy or bool(peer.forwarded)
            self._cancel_forwarded(peer)
            self._recall(peer)
        if not self.draining and any(peer.open for peer in self.peers.values()):
            load = self._desk.load()
            busy = busy or any(load.depth)
            if self._settings.sensing.balance or not load.workers:
                for lane in range(len(Priority)):
                    if load.depth[lane]:
                        self._move(lane)
        self._nobody_here = not load.workers
        return busy

    def _cancel_forwarded(self, peer: Peer[Claimed]) -> None:
        for task, forward in list(peer.forwarded.items()):
            if self._desk.abandoned(forward.claim):
                peer.settle(task)
                self._recalls.forget(task)
                peer.cancel(task, self._reactor.clock())
                self._end(forward, lambda forward: self._desk.drop(forward.claim))

    def _recall(self, peer: Peer[Claimed]) -> None:
        """Calls back what is late there, while there is somebody idle to take it."""
        failover = self._settings.failover
        if not peer.forwarded or peer.node not in self._recalling or not failover.straggler_share:
            return
        others = (other.load.idle for other in self.peers.values() if other is not peer and other.open)
        if not (self._desk.load().idle or any(others)):
            return
        late = self._recalls.late(peer.forwarded.values(), failover, self._reactor.clock())
        for at in range(0, len(late), IDS_A_MESSAGE):
            peer.send(schema.Recall(tuple(late[at : at + IDS_A_MESSAGE])))
        self._counts["recalled"] += len(late)

    def _move(self, lane: int) -> None:
        now = self._reactor.clock()
        for _ in range(_BALANCE_BATCH):
            local = self._desk.load()
            if surplus(local, lane) == 0:
                return
            candidates = self._candidates(now)
            # Whether anything may move at all is known before anything is claimed.
            if choose(local, candidates, lane=lane, size=0, run=None, rng=self._rng) is None:
                return
            claimed = self._desk.claim(lane)
            if claimed is None:
                return
            if not self._forward(claimed, local, candidates, now):
                self._desk.hand_back(claimed, untouched=True)
                return

    def _candidates(self, now: float) -> list[Candidate]:
        """Peers to choose from: of many only some, because the choice is between two of them anyhow."""
        peers = list(self.peers.values())
        if len(peers) > _CANDIDATES:
            peers = self._rng.sample(peers, _CANDIDATES)
        return [c for peer in peers if (c := peer.candidate(now)) is not None]

    def _forward(self, claimed: Claimed, local: schema.Load, candidates: list[Candidate], now: float) -> bool:
        submit = claimed.submit
        if submit.hops >= MAX_HOPS:
            return False
        payload = claimed.payload
        size = payload_bytes(payload)
        fitting = [c for c in candidates if size + schema.MAX_HEADER_BYTES <= self.peers[c.key].limit]
        node = choose(
            local,
            fitting,
            lane=submit.lane,
            size=size,
            run=self._desk.run_time(submit.kernel),
            answer=self._desk.answer_bytes(submit.kernel),
            rng=self._rng,
        )
        if node is None:
            return False
        if node in self._askers(submit.task):
            # Sent there as a task, it would be recognised as the one that waits for this node: each for the other.
            if not self._give_back(submit.task, node):
                return False
            self._counts["given_back"] += 1
            self._desk.drop(claimed)
            return True
        peer = self.peers[node]
        if submit.task in peer.forwarded or peer.may_still_cancel(submit.task, now):
            # It was left on the board by a hub that died, and submitted again: a claim that is forgotten never ends.
            return False
        forward = Forward(claimed, msgspec.structs.replace(submit, hops=submit.hops + 1), payload, size, now)
        peer.take(forward)
        peer.news += 1
        if not peer.forward(forward, now):
            peer.settle(submit.task)
            return False
        self._counts["forwarded"] += 1
        return True
