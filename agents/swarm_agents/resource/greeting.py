"""How a hub receives who says hello: whether it may come in, which session it speaks for, and what it is granted.

Under the reactor's lock; a part of `hub`, apart for its length alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm_agents.errors import ConnectionLost, WrongKey
from swarm_agents.resource.carrier import heartbeat, silence
from swarm_agents.wire import schema

if TYPE_CHECKING:
    from swarm_agents.resource.hub import Hub

__all__ = ["CLIENT_HEARTBEAT", "receive"]

#: Heartbeats of a client, at most (seconds).
CLIENT_HEARTBEAT = 1.0


def receive(hub: Hub, route: bytes, hello: schema.Hello, kind: str) -> None:
    """Welcomes a peer or refuses it, and sends again what it has not acknowledged.

    Args:
        kind: whose key the connection was made with, "" without encryption.
    """
    uid = hub.settings.uid
    if hello.swarm and hello.swarm != uid:
        hub._refuse(route, WrongKey(f"this is the swarm with UID {uid}, not {hello.swarm}: connect anew"))
        return
    if hello.peer == "hub" and kind not in ("hub", ""):
        hub._refuse(route, WrongKey("a client's key can't speak for a hub"))
        return
    if hub.draining and hello.peer == "client":
        hub._refuse(route, ConnectionLost("this hub is leaving: use another one"))
        return
    if hello.peer == "hub":
        # An earlier life of that node's hub: all that it sent was given back there.
        for old in hub.sessions:
            if old.kind == "hub" and old.node == hello.node and old.number != hello.session:
                hub.sessions.close(old)
    now = hub.reactor.clock()
    session = hub.sessions.open(hello.session, hello.peer, hello.name, hello.node, hub._outbox.deliver, now)
    if session.kind != hello.peer:
        hub._refuse(route, WrongKey("this session is another's: connect anew"))
        return
    again = bool(session.routes) and route not in session.routes and hello.peer == "hub"
    hub.sessions.attach(session, route)
    hub._kinds[route] = kind
    session.room = hello.room
    session.landed_at = now
    tasks, size = hub._grants.offer(session)
    session.account.renew(tasks, size, now)
    hub._send(
        session,
        schema.Welcome(
            swarm=hub.settings.swarm,
            uid=uid,
            node=hub.node,
            instance=hub._instance,
            window=tasks,
            max_message_bytes=hub._limit,
            heartbeat=heartbeat(hub.settings) if hello.peer == "hub" else min(CLIENT_HEARTBEAT, silence(hub.settings)),
            bytes=size,
            copies=hub._mirroring is not None,
            finds=hub._mirroring is not None,
            recalls=True,
        ),
        route=route,
    )
    if not again:  # a second path changes nothing for what is on its way by the first
        session.restart()
        for entry in hub.sessions.unsent(session):
            hub._outbox.deliver(session, entry)
