"""A node's hub: takes tasks from outside onto the node's board, and carries work to nodes that are idler.

Everything happens in one event loop. A thread parks on the board (see `desk`) and wakes the loop when answers have
come; the sockets are callbacks (see `swarm_agents.wire.loop`). No payload is decoded here: what lies on a board and
what travels are the same bytes.

A task from outside is put on the local board under the id that its client gave it; a task that waits on the board while
another node is idler is claimed by the hub like by any worker, sent there under the same id, and committed here with
the answer. So it is always the home board that decides which answer counts: a hub that dies is declared dead like any
other member, its claims are claimed again, and a late answer finds its claim fenced. When a peer dies its tasks are
handed back at once. What goes wrong with one peer or one message never reaches the others: each message is handled
by itself, and a peer that sends nonsense is answered by a refusal and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from swarm_agents.config import Priority, Settings
from swarm_agents.errors import (
    ConnectionLost,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    VersionMismatch,
    WrongKey,
)
from swarm_agents.resource.balance import MAX_HOPS, choose, surplus
from swarm_agents.resource.desk import Answered, Claimed, Desk
from swarm_agents.resource.peers import Forward, Link, Peer
from swarm_agents.resource.sessions import Entry, Session, Sessions
from swarm_agents.wire import schema
from swarm_agents.wire.frames import FrameError, pack, payload_bytes, unpack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.loop import LoopSocket
from swarm_agents.wire.monitor import Outcome
from swarm_agents.wire.schema import TaskId
from swarm_agents.wire.sockets import bind_router
from swarm_agents.wire.zap import Authenticator, peer_kind

__all__ = ["Hub"]

#: How often the hub looks whether work should leave the node while some waits, and while none does (seconds).
_BALANCE, _BALANCE_IDLE = 0.005, 0.02
#: How many tasks may leave at once.
_BALANCE_BATCH = 64
#: Heartbeats between hubs, in intervals of the swarm's own: those are many a second, and cross a network.
_HEARTBEATS = 5
#: Heartbeats of a client (seconds).
CLIENT_HEARTBEAT = 1.0
#: Tasks that a session may have unanswered.
WINDOW = 512
#: What is answered sooner needs no word that it was accepted (seconds).
_ACCEPTED_AFTER = 0.05
#: Acknowledgements go together, at most this much later (seconds).
_ACK_AFTER = 0.005
_IDS_A_MESSAGE = 1024
#: A full board is asked again after this long (seconds).
_RETRY_AFTER = 0.02


class Hub:
    """See the module's text. Made and used in a running event loop."""

    def __init__(
        self,
        desk: Desk,
        settings: Settings,
        keys: Keys,
        *,
        node: str,
        name: str,
        host: str,
        log: Any,
        report: Callable[[], dict[str, Any]] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Binds `host`:hubPort; `start` begins to serve.

        Raises:
            PortInUse: another process listens there.
            WrongKey: the swarm encrypts, and the hub's keys are not there.
        """
        if settings.transport.encryption and not (keys.hub_public and keys.hub_secret and keys.client_public):
            raise WrongKey(
                "the swarm encrypts, but hub.public, hub.secret or client.public is missing in the keys' directory: "
                "the operator puts them into the swarm's Secret; delete the Secret, and it is made again"
            )
        self.desk = desk
        self.settings = settings
        self.node = node
        self.name = name
        self.counts: Counter[str] = Counter()
        self.peers: dict[str, Peer[Claimed]] = {}
        self.draining = False
        self._keys = keys if settings.transport.encryption else Keys(token=keys.token)
        self._log = log
        self._report = report or dict
        self._rng = rng or random.Random()
        self._instance = secrets.randbits(63)
        #: No compute agent on this node: what comes is sent on at once.
        self._nobody_here = False
        self._stirred = asyncio.Event()
        self._accepted: dict[Session, list[TaskId]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sessions = Sessions(window=WINDOW, keep_bytes=settings.transport.arena_bytes, cancel=desk.cancel)
        self._authenticator = (
            Authenticator(self._context, {self._keys.client_public: "client", self._keys.hub_public: "hub"})
            if self._keys.hub_secret
            else None
        )
        self.address = f"tcp://{host}:{settings.transport.hub_port}"
        try:
            raw = bind_router(
                self._context,
                self.address,
                public=self._keys.hub_public,
                secret=self._keys.hub_secret,
                limit=settings.transport.max_message_bytes,
            )
        except SwarmError:
            if self._authenticator is not None:
                self._authenticator.close()
            self._context.term()
            raise
        self._router = LoopSocket(raw, self._from_outside)

    # -- life

    def start(self) -> None:
        """Connects to the other hubs and begins to serve."""
        self.desk.listen(self._loop, self._from_board)
        self._connect_peers()
        self._tasks = [self._loop.create_task(self._beat()), self._loop.create_task(self._balance())]

    def apply(self, settings: Settings) -> None:
        """Other settings hold: hubs may have come or gone."""
        self.settings = settings
        self._connect_peers()

    def drain(self) -> None:
        """Takes nothing more: clients go elsewhere with what they wait for, and nothing more is forwarded."""
        self.draining = True
        for session in self.sessions:
            if session.kind == "client":
                self._send(session, schema.Bye())
                self.sessions.close(session)

    def resume(self) -> None:
        self.draining = False

    @property
    def in_hand(self) -> int:
        """Tasks of this node's board that other nodes compute at present."""
        return sum(len(peer.forwarded) for peer in self.peers.values())

    async def close(self) -> None:
        """Hands back what is in hand, says good-bye, and lets go of everything."""
        self.draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers.values():
            peer.send(schema.Bye())
            self._hand_back(peer.renew(), "this hub leaves")
        for session in self.sessions:
            self._send(session, schema.Bye())
        await asyncio.sleep(0.02)  # for ZeroMQ's own thread to send the good-byes; nothing depends on them
        for peer in self.peers.values():
            peer.close()
        self.peers.clear()
        self.desk.close()
        self._router.close()
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.term()

    # -- the board

    def _from_board(self) -> None:
        for answered in self.desk.answers():
            self._answered(answered)

    def _answered(self, answered: Answered) -> None:
        answer, payload = answered.answer, answered.payload
        entry = self.sessions.answered(answer.task, answer, payload, payload_bytes(payload))
        if entry is not None:
            for session in list(entry.sessions):
                session.deliver(session, entry)

    # -- messages from outside

    def _from_outside(self, frames: list[zmq.Frame]) -> None:
        route, rest = frames[0].bytes, frames[1:]
        try:
            message, payload = unpack(rest, limit=self.settings.transport.max_message_bytes)
        except (FrameError, VersionMismatch, PayloadTooLarge) as error:
            self.counts[f"refused_{error.code}"] += 1
            self._refuse(route, error)
            return
        if isinstance(message, schema.Hello):
            self._hello(route, message, peer_kind(frames[-1]))
            return
        session = self.sessions.by_route(route)
        if session is None:
            self.counts["refused_stranger"] += 1
            self._refuse(route, ConnectionLost("this hub does not know the connection: say hello first"))
            return
        session.seen = time.monotonic()
        match message:
            case schema.Submit():
                self._submit(session, message, payload)
            case schema.Ack():
                for task in message.tasks:
                    self.sessions.forget(session, task)
            case schema.Cancel():
                self.sessions.forget(session, message.task)
            case schema.Heartbeat(echo=False):
                if message.load is not None and session.kind == "hub" and session.node in self.peers:
                    self.peers[session.node].heard_load(message.load)
                self._send(session, schema.Heartbeat(message.sent, echo=True, load=self.desk.load()), route=route)
            case schema.Query():
                self._send(session, schema.Report(message.number), [msgspec.json.encode(self._report())])
            case schema.Bye():
                self.sessions.close(session)
            case _:
                self.counts["refused_direction"] += 1

    def _hello(self, route: bytes, hello: schema.Hello, kind: str) -> None:
        uid = self.settings.uid
        if hello.swarm and hello.swarm != uid:
            self._refuse(route, WrongKey(f"this is the swarm with UID {uid}, not {hello.swarm}: connect anew"))
            return
        if hello.peer == "hub" and kind not in ("hub", ""):
            self._refuse(route, WrongKey("a client's key can't speak for a hub"))
            return
        if self.draining and hello.peer == "client":
            self._refuse(route, ConnectionLost("this hub is leaving: use another one"))
            return
        if hello.peer == "hub":
            # An earlier life of that node's hub: all that it sent was given back there.
            for old in self.sessions:
                if old.kind == "hub" and old.node == hello.node and old.number != hello.session:
                    self.sessions.close(old)
        now = time.monotonic()
        session = self.sessions.open(hello.session, hello.peer, hello.name, hello.node, self._deliver, now)
        self.sessions.attach(session, route)
        transport = self.settings.transport
        self._send(
            session,
            schema.Welcome(
                swarm=self.settings.swarm,
                uid=uid,
                node=self.node,
                instance=self._instance,
                window=WINDOW,
                max_message_bytes=transport.max_message_bytes,
                heartbeat=self._heartbeat if hello.peer == "hub" else CLIENT_HEARTBEAT,
            ),
            route=route,
        )
        for entry in self.sessions.unsent(session):
            self._deliver(session, entry)

    def submit(self, session: Session, submit: schema.Submit, payload: Sequence[Any]) -> Entry:
        """Puts a session's task on the board, unless it is there already.

        Raises:
            SwarmFull: the board is full, or the session has as much as it may have.
            PayloadTooLarge: the arena can't hold the arguments.
        """
        if self.sessions.find(submit.task) is not None:
            self.counts["repeated"] += 1
        elif not self.sessions.has_room(session):
            raise SwarmFull("too many answers were not acknowledged: fetch them first")
        else:
            self.desk.submit(submit, payload)
            self.counts["submitted"] += 1
            if self._nobody_here:
                self._stirred.set()
        return self.sessions.expect(session, submit.task)

    def _submit(self, session: Session, submit: schema.Submit, payload: Sequence[Any]) -> None:
        try:
            entry = self.submit(session, submit, payload)
        except SwarmFull as error:
            self.counts["refused_full"] += 1
            self._refuse_task(session, submit.task, error, _RETRY_AFTER)
            return
        except SwarmError as error:
            self._refuse_task(session, submit.task, error, 0.0)
            return
        if entry.answer is not None:
            self._deliver(session, entry)
            return
        if not self._accepted:
            self._loop.call_later(_ACCEPTED_AFTER, self._say_accepted)
        self._accepted.setdefault(session, []).append(submit.task)

    def _say_accepted(self) -> None:
        accepted, self._accepted = self._accepted, {}
        for session, tasks in accepted.items():
            waiting = [task for task in tasks if (e := session.entries.get(task)) is not None and e.answer is None]
            for at in range(0, len(waiting), _IDS_A_MESSAGE):
                self._send(session, schema.Accepted(tuple(waiting[at : at + _IDS_A_MESSAGE])))

    # -- messages to outside

    def _deliver(self, session: Session, entry: Entry) -> bool:
        assert entry.answer is not None
        return self._send(session, entry.answer, entry.payload)

    def _send(
        self, session: Session, message: schema.Message, payload: Sequence[Any] = (), *, route: bytes | None = None
    ) -> bool:
        routes = [route] if route is not None else list(reversed(session.routes))
        frames = pack(message, payload)
        for way in routes:
            if self._router.send([way, *frames]):
                return True
            self.sessions.detach(way)
        return False

    def _refuse(self, route: bytes, error: SwarmError) -> None:
        self._router.send([route, *pack(schema.Refusal(error.code, str(error)[:4096]))])

    def _refuse_task(self, session: Session, task: TaskId, error: SwarmError, retry_after: float) -> None:
        self._send(session, schema.Refusal(error.code, str(error)[:4096], task, retry_after))

    # -- other hubs

    @property
    def _heartbeat(self) -> float:
        return self.settings.failover.heartbeat_interval * _HEARTBEATS

    def _connect_peers(self) -> None:
        wanted: dict[str, dict[str, str]] = {}
        for hub in self.settings.hubs:
            if hub.node != self.node and hub.address:
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
            self.settings.transport.max_message_bytes,
            lambda: schema.Hello("hub", self.settings.uid, peer.session, self.name, self.node),
            lambda link, frames: self._from_peer(peer, link, frames),
            lambda link, outcome: self._lost_link(peer, link, outcome),
        )

    def _from_peer(self, peer: Peer[Claimed], link: Link, frames: list[zmq.Frame]) -> None:
        try:
            message, payload = unpack(frames, limit=self.settings.transport.max_message_bytes)
        except SwarmError as error:
            self.counts[f"refused_{error.code}"] += 1
            self._log.warning("a hub sent what can't be read", node=peer.node, error=str(error))
            link.reset()
            return
        match message:
            case schema.Welcome():
                link.welcomed()
                peer.window, peer.limit = message.window, message.max_message_bytes
                link.send(schema.Heartbeat(time.monotonic(), load=self.desk.load()))
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
            self.desk.commit(forward.claim, answer, payload, self._committed)
        else:
            self._committed(False)
        if not peer.acks:
            self._loop.call_later(_ACK_AFTER, self._say_acknowledged, peer)
        peer.acks.append(answer.task)

    def _say_acknowledged(self, peer: Peer[Claimed]) -> None:
        acks, peer.acks = peer.acks, []
        for at in range(0, len(acks), _IDS_A_MESSAGE):
            peer.send(schema.Ack(tuple(acks[at : at + _IDS_A_MESSAGE])))

    def _committed(self, counted: bool) -> None:
        self.counts["forwarded_answered" if counted else "forwarded_late"] += 1

    def _peer_refused(self, peer: Peer[Claimed], task: TaskId, refusal: schema.Refusal) -> None:
        peer.refuses_until = time.monotonic() + max(refusal.retry_after, _RETRY_AFTER)
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
            self.desk.hand_back(forward.claim)
            self.counts["handed_back"] += 1

    # -- the two clocks of a hub

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat)
            now = time.monotonic()
            load = self.desk.load()
            for peer in self.peers.values():
                for link in list(peer.links.values()):
                    link.look()
                    link.send(schema.Heartbeat(now, load=load))
                    if link.open and now - link.heard > max(self.settings.failover.dead_after, 5 * self._heartbeat):
                        link.reset()
            for session in self.sessions.expire(now):
                self._log.info("a session has expired", session=session.name, kind=session.kind)

    async def _balance(self) -> None:
        while True:
            busy, load = False, schema.Load(workers=1)
            for peer in self.peers.values():
                busy = busy or bool(peer.forwarded)
                self._cancel_forwarded(peer)
            if not self.draining and any(peer.open for peer in self.peers.values()):
                load = self.desk.load()
                busy = busy or any(load.depth)
                if self.settings.sensing.balance or not load.workers:
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
            if self.desk.abandoned(forward.claim):
                del peer.forwarded[task]
                peer.send(schema.Cancel(task))
                self.desk.drop(forward.claim)

    def _move(self, lane: int) -> None:
        now = time.monotonic()
        for _ in range(_BALANCE_BATCH):
            local = self.desk.load()
            if surplus(local, lane) == 0:
                return
            candidates = [c for peer in self.peers.values() if (c := peer.candidate(now)) is not None]
            # Whether anything may move at all is known before anything is claimed.
            if choose(local, candidates, lane=lane, size=0, run=None, rng=self._rng) is None:
                return
            claimed = self.desk.claim(lane)
            if claimed is None:
                return
            if not self._forward(claimed, local, candidates, now):
                self.desk.hand_back(claimed, untouched=True)
                return

    def _forward(self, claimed: Claimed, local: schema.Load, candidates: list[Any], now: float) -> bool:
        if claimed.submit.hops >= MAX_HOPS:
            return False
        payload = claimed.payload
        size = payload_bytes(payload)
        fitting = [c for c in candidates if size + schema.MAX_HEADER_BYTES <= self.peers[c.key].limit]
        run = self.desk.run_time(claimed.submit.kernel)
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
        self.counts["forwarded"] += 1
        return True
