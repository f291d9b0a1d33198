"""A node's hub: takes tasks from outside onto the node's board, and carries work to nodes that are idler.

Everything happens in one event loop. A thread parks on the board (see `desk`) and wakes the loop when answers have
come; the sockets are callbacks (see `swarm_agents.wire.loop`). No payload is decoded here: what lies on a board and
what travels are the same bytes.

A task from outside is put on the local board under the id that its client gave it, and its answer is kept until the
client has acknowledged it (`sessions`); work that should leave the node is the carrier's (`carrier`). It is always the
home board that decides which answer counts: a hub that dies is declared dead like any other member, its claims are
claimed again, and what it may still say is fenced. What goes wrong with one peer or one message never reaches the
others: each message is handled by itself, and a peer that sends nonsense is answered by a refusal and counted.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from swarm_agents.config import Settings
from swarm_agents.errors import (
    ConnectionLost,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    VersionMismatch,
    WrongKey,
)
from swarm_agents.resource.carrier import IDS_A_MESSAGE, RETRY_AFTER, Carrier, heartbeat
from swarm_agents.resource.desk import Answered, Claimed, Desk
from swarm_agents.resource.peers import Peer
from swarm_agents.resource.sessions import Entry, Session, Sessions
from swarm_agents.wire import schema
from swarm_agents.wire.frames import FrameError, pack, payload_bytes, unpack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.loop import LoopSocket
from swarm_agents.wire.schema import TaskId
from swarm_agents.wire.sockets import bind_router
from swarm_agents.wire.zap import Authenticator, peer_kind

__all__ = ["Hub"]

#: Heartbeats of a client (seconds).
CLIENT_HEARTBEAT = 1.0
#: Tasks that a session may have unanswered.
WINDOW = 512
#: What is answered sooner needs no word that it was accepted (seconds).
_ACCEPTED_AFTER = 0.05


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
        self.draining = False
        self._keys = keys if settings.transport.encryption else Keys(token=keys.token)
        self._log = log
        self._report = report or dict
        self._instance = secrets.randbits(63)
        self._accepted: dict[Session, list[TaskId]] = {}
        self._expiry: asyncio.Task[None] | None = None
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
        self.carrier = Carrier(
            self._context,
            desk,
            settings,
            self._keys,
            node=node,
            name=name,
            log=log,
            counts=self.counts,
            rng=rng or random.Random(),
        )

    # -- life

    def start(self) -> None:
        """Connects to the other hubs and begins to serve."""
        self.desk.listen(self._loop, self._from_board)
        self.carrier.start()
        self._expiry = self._loop.create_task(self._expire())

    def apply(self, settings: Settings) -> None:
        """Other settings hold: hubs may have come or gone."""
        self.settings = settings
        self.carrier.apply(settings)

    def drain(self) -> None:
        """Takes nothing more: clients go elsewhere with what they wait for, and nothing more is forwarded."""
        self.draining = self.carrier.draining = True
        for session in self.sessions:
            if session.kind == "client":
                self._send(session, schema.Bye())
                self.sessions.close(session)

    def resume(self) -> None:
        """Takes tasks again."""
        self.draining = self.carrier.draining = False

    @property
    def peers(self) -> dict[str, Peer[Claimed]]:
        """The other nodes, by name."""
        return self.carrier.peers

    @property
    def in_hand(self) -> int:
        """Tasks of this node's board that other nodes compute at present."""
        return self.carrier.in_hand

    async def close(self) -> None:
        """Hands back what is in hand, says good-bye, and lets go of everything."""
        self.draining = True
        if self._expiry is not None:
            self._expiry.cancel()
        await self.carrier.close()
        for session in self.sessions:
            self._send(session, schema.Bye())
        await asyncio.sleep(0.02)  # for ZeroMQ's own thread to send the good-byes; nothing depends on them
        self.carrier.disconnect()
        self.desk.close()
        self._router.close()
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.term()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for session in self.sessions.expire(time.monotonic()):
                self._log.info("a session has expired", session=session.name, kind=session.kind)

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
                heartbeat=heartbeat(self.settings) if hello.peer == "hub" else CLIENT_HEARTBEAT,
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
            self.carrier.stir()
        return self.sessions.expect(session, submit.task)

    def _submit(self, session: Session, submit: schema.Submit, payload: Sequence[Any]) -> None:
        try:
            entry = self.submit(session, submit, payload)
        except SwarmFull as error:
            self.counts["refused_full"] += 1
            self._refuse_task(session, submit.task, error, RETRY_AFTER)
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
            for at in range(0, len(waiting), IDS_A_MESSAGE):
                self._send(session, schema.Accepted(tuple(waiting[at : at + IDS_A_MESSAGE])))

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
