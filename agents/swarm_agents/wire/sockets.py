"""Opens the sockets of the wire, with all options that belong together in one place.

Why these: `ROUTER_MANDATORY`, or an answer to a peer that has gone would vanish without a word; no lingering, because
what was not sent is sent again under the same task id, and a stopping agent must not hang; `MAXMSGSIZE`, because a
frame is allocated before anybody reads it; the kernel's own keepalive, which clears away the connections of machines
that lost power. Rejected: ZMTP's heartbeats, which tell nothing that ours do not, and whose timers cost every small
message some microseconds, since a virtual machine leaves its guest to set one.
"""

from __future__ import annotations

import contextlib
import errno

import zmq

from swarm_agents.errors import PortInUse, SwarmError

__all__ = ["bind_also", "bind_router", "open_dealer", "unbind"]

#: Messages that wait in a connection before a send is refused; credits keep it from being reached.
HIGH_WATER_MARK = 4096
#: A handshake that hangs is given up, and data that nobody confirms (ms).
_HANDSHAKE_MS, _UNCONFIRMED_MS = 5000, 15000
#: Seconds of silence before the kernel asks, between its questions, and how many.
_KEEPALIVE = (10, 2, 3)
#: Domain by which the ZAP handler knows that it is asked; its value means nothing, but must not be empty.
_ZAP_DOMAIN = b"agentswarm"


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], address: str, *, public: str, secret: str, limit: int
) -> zmq.Socket[bytes]:
    """A hub's ROUTER, bound to `tcp://IP:PORT`. Without a key it speaks in the clear.

    Raises:
        PortInUse: somebody else listens there.
        SwarmError: the address can't be bound for another reason.
    """
    socket = context.socket(zmq.ROUTER)
    try:
        _options(socket, limit)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if secret:
            socket.curve_server = True
            socket.curve_publickey = public.encode()
            socket.curve_secretkey = secret.encode()
            socket.zap_domain = _ZAP_DOMAIN
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{address} is in use: stop what listens there, or set another port in spec.transport.zeromq"
            ) from error
        raise SwarmError(f"{address} can't be bound ({error.strerror}): is POD_IP an address of this pod?") from error
    return socket


def bind_also(socket: zmq.Socket[bytes], address: str, *, public: str, secret: str) -> None:
    """Has a hub's ROUTER listen at another address, where it proves itself by this pair; the others keep theirs.

    Raises:
        zmq.ZMQError: it can't be bound, at present or at all.
    """
    if secret:
        socket.curve_publickey = public.encode()
        socket.curve_secretkey = secret.encode()
    socket.bind(address)


def unbind(socket: zmq.Socket[bytes], address: str) -> None:
    """Listens there no more, which cuts off everybody who came by that address."""
    with contextlib.suppress(zmq.ZMQError):
        socket.unbind(address)


def open_dealer(
    context: zmq.Context[zmq.Socket[bytes]], *, server: str, public: str, secret: str, limit: int
) -> zmq.Socket[bytes]:
    """A DEALER that is yet to be connected. Without a server key it speaks in the clear.

    It does not reconnect by itself: a connection that came back would reach a hub that may have forgotten everything,
    so whoever owns the socket opens another one and says hello again.
    """
    socket = context.socket(zmq.DEALER)
    _options(socket, limit)
    # Quick, for the first connection to a hub that is starting; `reconnect stop` needs a draft build.
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if server:
        socket.curve_serverkey = server.encode()
        socket.curve_publickey = public.encode()
        socket.curve_secretkey = secret.encode()
    return socket


def _options(socket: zmq.Socket[bytes], limit: int) -> None:
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, HIGH_WATER_MARK),
        (zmq.RCVHWM, HIGH_WATER_MARK),
        (zmq.MAXMSGSIZE, limit),
        (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
        (zmq.TCP_MAXRT, _UNCONFIRMED_MS),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE[0]),
        (zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE[1]),
        (zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE[2]),
    ):
        socket.setsockopt(option, value)
