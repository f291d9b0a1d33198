"""The network as hubs and clients use it: who opens sockets, follows them, and runs a reactor on them.

One object is one process's place in the network, made once and handed down. So nobody else makes a ZeroMQ context or
knows what a socket is made of, and a simulation can hand down a network of its own, where time and losses are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from swarm_agents.wire.monitor import Monitor
from swarm_agents.wire.reactor import Reactor, readable, receive, send_frames
from swarm_agents.wire.sockets import bind_also, bind_router, open_dealer, unbind
from swarm_agents.wire.zap import Authenticator

__all__ = ["Network"]


class Network:
    """ZeroMQ over TCP, in a context of its own; `close` waits until nothing is being sent any more."""

    #: Whether a message has arrived at a socket; a message that has; sending one without waiting (see `reactor`).
    readable = staticmethod(readable)
    receive = staticmethod(receive)
    send = staticmethod(send_frames)
    #: See `sockets`.
    bind_also, unbind = staticmethod(bind_also), staticmethod(unbind)

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def reactor(self, name: str, *, on_error: Callable[[Exception], None]) -> Reactor:
        """What serves this network's sockets."""
        return Reactor(name, on_error=on_error)

    def router(self, address: str, *, public: str, secret: str, limit: int) -> zmq.Socket[bytes]:
        """See `sockets.bind_router`."""
        return bind_router(self._context, address, public=public, secret=secret, limit=limit)

    def dealer(self, *, server: str, public: str, secret: str, limit: int) -> zmq.Socket[bytes]:
        """See `sockets.open_dealer`."""
        return open_dealer(self._context, server=server, public=public, secret=secret, limit=limit)

    def monitor(self, socket: zmq.Socket[bytes]) -> Monitor:
        """What follows a dealer's connection."""
        return Monitor(socket)

    def authenticator(self, reactor: Reactor, allowed: dict[str, str]) -> Authenticator:
        """Who decides on the keys of those that connect to this network's routers."""
        return Authenticator(reactor, self._context, allowed)

    def wait(self, sockets: Sequence[zmq.Socket[bytes]], seconds: float) -> list[Any]:
        """Waits until one of the sockets has a message; those that have one."""
        poller = zmq.Poller()
        for socket in sockets:
            poller.register(socket, zmq.POLLIN)
        return [socket for socket, _ in poller.poll(math.ceil(seconds * 1000))]

    def close(self) -> None:
        """After all sockets have been closed."""
        self._context.term()
