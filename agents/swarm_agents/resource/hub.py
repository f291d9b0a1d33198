"""A node's hub: takes tasks from outside onto the node's board, and carries work to nodes that are idler.

Everything happens under the lock of one reactor (see `swarm_agents.wire.reactor`): in its thread what comes by the
sockets, in the thread that waits for the board what was answered there. No payload is decoded here: what lies on a
board and what travels are the same bytes.

A task from outside is put on the local board under the id that its client gave it, and its answer is kept until the
client has acknowledged it (`sessions`); work that should leave the node is the carrier's (`carrier`). It is always the
home board that decides which answer counts: a hub that dies is declared dead like any other member, its claims are
claimed again, and what it may still say is fenced. What goes wrong with one peer or one message never reaches the
others: each message is handled by itself, and a peer that sends nonsense is answered by a refusal and counted.

Every session has credit: tasks and bytes that it may have unanswered, made from what the board has room for and from
what its answers take (`swarm_agents.wire.credit`). Should a session take no answers at all, its credit shrinks to one
task; should those kept come to twice `arenaSize` all the same, the hub takes no more from the board until some are
acknowledged, and lets go of the session that owes most and acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from swarm_agents.config import Settings
from swarm_agents.errors import (
    ConnectionLost,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    VersionMismatch,
    WrongKey,
)
from swarm_agents.resource import greeting
from swarm_agents.resource.carrier import IDS_A_MESSAGE, RETRY_AFTER, Carrier
from swarm_agents.resource.desk import Answered, Claimed, Desk
from swarm_agents.resource.doors import Doors, allowed_keys
from swarm_agents.resource.grants import Grants
from swarm_agents.resource.leaving import Leaving
from swarm_agents.resource.mirroring import Mirroring
from swarm_agents.resource.outbox import Outbox
from swarm_agents.resource.peers import Peer
from swarm_agents.resource.sessions import Entry, Session, Sessions
from swarm_agents.runtime.store import parse_task
from swarm_agents.wire import schema
from swarm_agents.wire.frames import FrameError, payload_bytes, unpack
from swarm_agents.wire.keys import Keys
from swarm_agents.wire.network import Network
from swarm_agents.wire.reactor import ServedSocket
from swarm_agents.wire.schema import TaskId
from swarm_agents.wire.zap import peer_kind

__all__ = ["Hub"]

#: The most tasks that a session may have unanswered.
WINDOW = 512
#: A hub that was late is asked to take tasks again after this long (seconds).
LATE_RETRY_AFTER = 1.0
#: What is answered sooner needs no word that it was accepted (seconds).
_ACCEPTED_AFTER = 0.05
#: With answers of so many times `arenaSize` kept, no more are taken from the board.
_MOST_KEPT = 2
#: Then a session that has acknowledged nothing for this long (seconds) is let go.
STALLED = 10.0
#: How a session's tasks come, as the board's statistics name it.
_PATHS = {"client": "tcp", "hub": "node", "rest": "rest"}


class Hub:
    """See the module's text. Any thread may call it."""

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
        keep: Path | None = None,
        network: Network | None = None,
        tell: Callable[..., None] = lambda event, **fields: None,
    ) -> None:
        """Binds `host`:hubPort, and the other addresses that the settings give this node; `start` begins to serve.

        `keep`: the board's directory, where checkpoints lie; without one none is mirrored. `network` is the hub's own
        from then on. `tell` has an event put on record.

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
        self._network = network or Network()
        self.reactor = self._network.reactor(f"hub {name}", on_error=self._failed)
        self._limit = settings.transport.max_message_bytes
        self._keys = keys if settings.transport.encryption else Keys(token=keys.token)
        self._log = log
        self._report = report or dict
        self._instance = secrets.randbits(63)
        self._accepted: dict[Session, list[TaskId]] = {}
        #: Whose key each connection that has said hello was made with.
        self._kinds: dict[bytes, str] = {}
        self.sessions = Sessions(window=WINDOW, keep_bytes=settings.transport.arena_bytes, cancel=desk.cancel)
        self._by_route = self.sessions.by_route
        self._handlers: dict[type, Callable[[Session, bytes, Any, list[Any]], None]] = {
            schema.Submit: self._on_submit,
            schema.Ack: self._on_ack,
            schema.Cancel: self._on_cancel,
            schema.Recall: self._on_recall,
            schema.Heartbeat: self._on_heartbeat,
            schema.Credit: self._on_credit,
            schema.Query: self._on_query,
            schema.Bye: self._on_bye,
            schema.Mirrored: self._on_mirror,
            schema.Confirmed: self._on_mirror,
            schema.Withdrawn: self._on_mirror,
            schema.Wanted: self._on_mirror,
        }
        self._authenticator = (
            self._network.authenticator(self.reactor, allowed_keys(self._keys)) if self._keys.hub_secret else None
        )
        self.address = f"tcp://{host}:{settings.transport.hub_port}"
        try:
            self._doors = Doors(
                self._network,
                self.reactor,
                settings,
                self._keys,
                node=node,
                host=host,
                log=log,
                changed=lambda main, second: tell("KeysServed", main=main, second=second),
            )
        except SwarmError:
            if self._authenticator is not None:
                self._authenticator.close()
            self.reactor.stop()
            self._network.close()
            raise
        self._router: ServedSocket = self.reactor.serve(
            self._doors.router, self._from_outside, routed=True, known=self._kinds
        )
        self._outbox = Outbox(self._router, self.sessions)
        self._send, self._refuse = self._outbox.send, self._outbox.refuse
        self._grants = Grants(self.reactor, desk, self.sessions, self._outbox)
        self._leaving = Leaving(self)
        self.carrier = Carrier(
            self.reactor,
            self._network,
            desk,
            settings,
            self._keys,
            node=node,
            name=name,
            log=log,
            counts=self.counts,
            rng=rng or random.Random(),
            askers=self._askers,
            give_back=self._give_back,
            tell=tell,
        )
        self._mirroring: Mirroring | None = None
        if keep is not None:
            self._mirroring = Mirroring(
                keep,
                node,
                most=settings.checkpoints.node_bytes,
                nodes=lambda: self._with_copies(self.carrier.copying),
                finders=lambda: self._with_copies(self.carrier.finding),
                send=self._send_to,
                origin=self._origin,
                log=log,
            )

    @property
    def addresses(self) -> list[str]:
        """All addresses that it listens on."""
        return self._doors.addresses

    def _failed(self, error: Exception) -> None:
        self.counts["errors"] += 1
        self._log.error("something could not be handled", error=f"{type(error).__name__}: {error}", exc_info=error)

    # -- life

    def start(self) -> None:
        """Connects to the other hubs and begins to serve."""
        with self.reactor:
            self._doors.apply(self.settings, self._keys)
            self.carrier.start()
            self.reactor.call_later(1.0, self._expire)
            self._grants.start()
        self.reactor.after_turn = self._from_board
        self.reactor.start()
        if self._mirroring is not None:
            self._mirroring.start()
        self.desk.listen(self.reactor, self._from_board)

    def apply(self, settings: Settings) -> None:
        """Other settings hold: hubs may have come or gone."""
        with self.reactor:
            self.settings = settings
            self._doors.apply(settings, self._keys)
            self.carrier.apply(settings)

    def rekey(self, keys: Keys) -> None:
        """Other keys hold, or are about to: who may come in, and what this hub proves itself by, follow them."""
        with self.reactor:
            if self._authenticator is None:
                return  # without encryption
            self._keys = keys
            self._authenticator.allow(allowed_keys(keys))
            self._doors.apply(self.settings, keys)
            self.carrier.rekey(keys)

    def drain(self) -> None:
        """Takes nothing more, and has those outside go elsewhere with what has not been begun here (`leaving`)."""
        with self.reactor:
            self.draining = self.carrier.draining = True
            self._leaving.begin()

    def resume(self) -> None:
        """Takes tasks again."""
        with self.reactor:
            self.draining = self.carrier.draining = False
            self._leaving.stay()

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
        await asyncio.to_thread(self.shut)

    def shut(self) -> None:
        """`close`, for those without an event loop."""
        if self._mirroring is not None:
            self._mirroring.close()
        with self.reactor:
            self.draining = True
            self.carrier.stop()
            for session in self.sessions:
                self._send(session, schema.Bye())
        time.sleep(0.02)  # for ZeroMQ's own thread to send the good-byes; nothing depends on them
        self.reactor.stop()
        with self.reactor:
            self.carrier.disconnect()
            self._router.close()
            if self._authenticator is not None:
                self._authenticator.close()
        self._network.close()
        # ZeroMQ has let go of everything that lay in the arena.
        self.carrier.hand_back_all()
        self.desk.close()

    def _expire(self) -> None:
        self.reactor.call_later(1.0, self._expire)
        now = self.reactor.clock()
        for session in self.sessions.expire(now):
            self._log.info("a session has expired", session=session.name, kind=session.kind)
        for route in [route for route in self._kinds if self._by_route(route) is None]:
            del self._kinds[route]
        if self.sessions.kept_bytes > _MOST_KEPT * self.sessions.keep_bytes:
            owing = [s for s in self.sessions if s.owed and s.kind != "rest" and now - s.landed_at > STALLED]
            if owing:
                worst = max(owing, key=lambda s: s.owed)
                self.counts["stalled"] += 1
                self._log.warning("a session takes no answers: it is let go", session=worst.name, bytes=worst.owed)
                self.say_bye(worst)

    # -- the board

    def _from_board(self) -> bool:
        """Takes what was answered; False: not now."""
        if self.sessions.kept_bytes > _MOST_KEPT * self.sessions.keep_bytes:
            return False
        for answered in self.desk.answers():
            self._answered(answered)
        return True

    def _answered(self, answered: Answered) -> None:
        answer, payload = answered.answer, answered.payload
        size = payload_bytes(payload)
        self._grants.learn(size)
        entry = self.sessions.answered(answer.task, answer, payload, size)
        if entry is not None:
            for session in entry.sessions if len(entry.sessions) == 1 else list(entry.sessions):
                session.deliver(session, entry)

    # -- messages from outside

    def _from_outside(self, frames: list[Any]) -> None:
        route = frames[0]
        try:
            message, payload = unpack(frames, limit=self._limit, at=1)
        except (FrameError, VersionMismatch, PayloadTooLarge) as error:
            self.counts[f"refused_{error.code}"] += 1
            self._refuse(route, error)
            return
        session = self._by_route(route)
        if session is None or type(message) is schema.Hello:
            if type(message) is schema.Hello:
                greeting.receive(self, route, message, self._kinds.get(route) or peer_kind(frames[1]))
            else:
                self.counts["refused_stranger"] += 1
                self._refuse(route, ConnectionLost("this hub does not know the connection: say hello first"))
            return
        session.seen = self.reactor.clock()
        handler = self._handlers.get(type(message))
        if handler is None:
            self.counts["refused_direction"] += 1
        else:
            handler(session, route, message, payload)

    def _on_submit(self, session: Session, route: bytes, submit: schema.Submit, payload: list[Any]) -> None:
        if self.draining and session.kind == "client":
            self._outbox.refuse_task(session, submit.task, SwarmFull("this hub is leaving"), RETRY_AFTER)
            return
        if session.routes[-1] != route:
            self.sessions.prefer(session, route)
        if submit.begun and self._mirroring is not None:
            self._mirroring.ask()  # whoever begins it again here looks for its checkpoint where it was
        try:
            entry = self.submit(session, submit, payload)
        except SwarmFull as error:
            self.counts["refused_full"] += 1
            self._outbox.push_back(session, submit.task, error, RETRY_AFTER)
            return
        except SwarmError as error:
            self._outbox.refuse_task(session, submit.task, error, 0.0)
            return
        if entry is None:
            return
        if entry.answer is not None:
            self._outbox.deliver(session, entry)
            return
        if not self._accepted:
            self.reactor.call_later(_ACCEPTED_AFTER, self._say_accepted)
        self._accepted.setdefault(session, []).append(submit.task)

    def _on_ack(self, session: Session, route: bytes, ack: schema.Ack, payload: list[Any]) -> None:
        now = session.landed_at = session.seen
        for task in ack.tasks:
            self.sessions.finish(session, task, now)
        if session.waiting:
            self._outbox.pump(session)

    def _on_cancel(self, session: Session, route: bytes, cancel: schema.Cancel, payload: list[Any]) -> None:
        if session.kind == "hub":
            # Not remembered: that hub may be asked for the task again, and send it here again.
            self.sessions.forget(session, cancel.task)
        else:
            self.sessions.finish(session, cancel.task, session.seen)
        if session.waiting:
            self._outbox.pump(session)

    def _on_recall(self, session: Session, route: bytes, recall: schema.Recall, payload: list[Any]) -> None:
        for task in recall.tasks:
            if self.give_up(session, task, "it was late, and had not been begun here"):
                self.counts["given_back_late"] += 1

    def say_bye(self, session: Session) -> None:
        """Has a session's peer go elsewhere."""
        self._send(session, schema.Bye())
        self.sessions.close(session)

    def give_up(self, session: Session, task: TaskId, why: str) -> bool:
        """Takes a task off the board that only this session waits for and nobody has begun; False: there is none."""
        entry = session.entries.get(task)
        if entry is None or len(entry.sessions) != 1 or not self.desk.withdraw(task):
            return False
        self.sessions.forget(session, task)
        self._outbox.refuse_task(session, task, SwarmFull(why), LATE_RETRY_AFTER)
        return True

    def _on_heartbeat(self, session: Session, route: bytes, beat: schema.Heartbeat, payload: list[Any]) -> None:
        if beat.echo:
            return
        if beat.load is not None and session.kind == "hub" and session.node in self.peers:
            self.peers[session.node].heard_load(beat.load)
        load = self.carrier.offer() if session.kind == "hub" else None
        self._send(session, schema.Heartbeat(beat.sent, echo=True, load=load), route=route)

    def _on_credit(self, session: Session, route: bytes, credit: schema.Credit, payload: list[Any]) -> None:
        session.room = credit.bytes
        self._outbox.pump(session)

    def _on_query(self, session: Session, route: bytes, query: schema.Query, payload: list[Any]) -> None:
        self._send(session, schema.Report(query.number), [msgspec.json.encode(self._report())])

    def _on_bye(self, session: Session, route: bytes, bye: schema.Bye, payload: list[Any]) -> None:
        self.sessions.close(session)

    # -- checkpoints of other nodes, and ours there: what the thread that deals with them asks of the hub

    def _on_mirror(self, session: Session, route: bytes, message: Any, payload: list[Any]) -> None:
        if self._mirroring is not None and session.kind == "hub" and session.node in self.peers:
            self._mirroring.heard(session.node, message, b"".join(bytes(part) for part in payload))

    def _with_copies(self, able: set[str]) -> list[str]:
        with self.reactor:
            return [node for node, peer in self.peers.items() if peer.open and node in able]

    def _send_to(self, node: str, message: Any, payload: bytes = b"") -> bool:
        if len(payload) + schema.MAX_HEADER_BYTES > self._limit:
            return False
        with self.reactor:
            peer = self.peers.get(node)
            return peer is not None and peer.send(message, [payload] if payload else [])

    def _origin(self, key: str) -> str:
        task = parse_task(key)
        with self.reactor:
            return next(iter(self._askers(task[0])), "") if task is not None else ""

    def _askers(self, task: TaskId) -> list[str]:
        """The nodes whose hubs wait for a task."""
        entry = self.sessions.find(task)
        return [session.node for session in entry.sessions if session.kind == "hub"] if entry is not None else []

    def _give_back(self, task: TaskId, node: str) -> bool:
        entry = self.sessions.find(task)
        if entry is None or len(entry.sessions) != 1 or entry.sessions[0].node != node:
            return False
        session = entry.sessions[0]
        self.sessions.forget(session, task)
        self._outbox.refuse_task(session, task, SwarmFull("this node has become the busier one"), RETRY_AFTER)
        return True

    def submit(self, session: Session, submit: schema.Submit, payload: Sequence[Any]) -> Entry | None:
        """Puts a session's task on the board, unless it is there already. None: it was done with before.

        Raises:
            SwarmFull: the board is full, or the session has as much as it may have.
            PayloadTooLarge: the arena can't hold the arguments.
        """
        task = submit.task
        if (known := self.sessions.find(task)) is not None:
            if session.kind == "hub" and session not in known.sessions and self.carrier.is_away(task):
                raise SwarmFull("this task waits for another node, which may be waiting for this one")
            self.counts["repeated"] += 1
            return self.sessions.expect(session, task)
        if self.sessions.is_finished(session, task):
            self.counts["repeated_late"] += 1
            if session.kind == "hub":  # a copy that comes late finds nothing to take back there
                raise SwarmFull("this node has answered the task before")
            return None
        size = payload_bytes(payload)
        if not self.sessions.has_room(session):
            raise SwarmFull("too many answers were not acknowledged: fetch them first")
        if session.kind != "rest" and not session.account.admits(size, session.seen):
            self.counts["refused_credit"] += 1
            raise SwarmFull(
                f"this is more than the credit of {session.account.tasks} tasks and {session.account.bytes} bytes "
                "that this hub has granted: wait for answers"
            )
        self.desk.submit(submit, payload, _PATHS[session.kind])
        self.counts["submitted"] += 1
        self.carrier.stir()
        return self.sessions.expect(session, task, size)

    def _say_accepted(self) -> None:
        accepted, self._accepted = self._accepted, {}
        for session, tasks in accepted.items():
            waiting = [task for task in tasks if (e := session.entries.get(task)) is not None and e.answer is None]
            for at in range(0, len(waiting), IDS_A_MESSAGE):
                self._send(session, schema.Accepted(tuple(waiting[at : at + IDS_A_MESSAGE])))
