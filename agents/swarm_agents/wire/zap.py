"""Decides whose CURVE key may connect: ZeroMQ's own authentication protocol (RFC 27), answered by the hub's reactor.

pyzmq's ready-made authenticators want a thread of their own or a `zmq.asyncio` context, and log every connection. What
is needed here is one comparison. Invariants: a key that is not in the table gets no answer to anything, not even an
error message; the name that the table gives a key (`hub` or `client`) is set on every message of that connection by
ZeroMQ itself (`User-Id`), so a peer can't claim it.
"""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils import z85

from swarm_agents.wire.reactor import Reactor

__all__ = ["Authenticator", "peer_kind"]

_ENDPOINT = "inproc://zeromq.zap.01"


class Authenticator:
    """The ZAP handler of a context. Made before the ROUTER is bound, on the reactor that serves both."""

    def __init__(self, reactor: Reactor, context: zmq.Context[zmq.Socket[bytes]], allowed: dict[str, str]) -> None:
        """`allowed` maps a public key in Z85 to the kind of peer that holds it."""
        self.allow(allowed)
        self.refused = 0
        socket = context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(_ENDPOINT)
        self._socket = reactor.serve(socket, self._answer)

    def allow(self, allowed: dict[str, str]) -> None:
        """From now on these may connect, and no others; who is connected stays so until its address is closed."""
        self._allowed = {z85.decode(key.encode()): kind.encode() for key, kind in allowed.items() if key}

    def close(self) -> None:
        """Stops answering; after the ROUTER has been closed."""
        self._socket.close()

    def _answer(self, frames: list[Any]) -> None:
        # routing id, delimiter, version, request id, domain, address, identity, mechanism, credentials
        parts = [bytes(frame) for frame in frames]
        if len(parts) < 8:
            return
        version, request = parts[2], parts[3]
        kind = self._allowed.get(parts[8]) if parts[7] == b"CURVE" and len(parts) == 9 else None
        if kind is None:
            self.refused += 1
        verdict = (b"200", b"OK", kind, b"") if kind is not None else (b"400", b"unknown key", b"", b"")
        self._socket.send([parts[0], b"", version, request, *verdict])


def peer_kind(frame: Any) -> str:
    """What the authenticator called the sender of this frame; empty on a connection without encryption."""
    try:
        return str(frame.get("User-Id"))
    except (zmq.ZMQError, AttributeError):  # bytes, of a connection that has said hello before
        return ""
