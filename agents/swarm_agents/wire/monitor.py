"""What became of a connection: ZeroMQ hides it, and its socket monitor tells.

A wrong CURVE key is silent in ZeroMQ: the socket retries for ever and a send never fails. The monitor's events tell
three cases apart, as measured with libzmq 4.3.5:

- the hub does not know our key: `HANDSHAKE_FAILED_AUTH` with status 400;
- our idea of the hub's key is wrong: the hub can't read our greeting and hangs up, which shows as
  `HANDSHAKE_FAILED_NO_DETAIL` on every attempt (a hub that dies in the middle of a handshake shows it once);
- one side encrypts and the other does not, or it is no ZeroMQ at all: `HANDSHAKE_FAILED_PROTOCOL`.
"""

from __future__ import annotations

import enum

import zmq
from zmq.utils.monitor import parse_monitor_message

__all__ = ["Monitor", "Outcome"]

#: So many hang-ups in a row in the middle of the handshake are a wrong key, not an accident.
_HANGUPS = 3

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
)


class Outcome(enum.Enum):
    """How a connection stands."""

    PENDING = "nothing answers yet"
    OPEN = "connected"
    LOST = "it was connected, and is not any more"
    WRONG_KEY = "the keys do not belong together"
    WRONG_PROTOCOL = "the peer does not encrypt as this side does, or is no hub"


class Monitor:
    """Follows one DEALER's only connection. Owned by the thread or loop that owns the socket."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._watched = socket
        self.socket = socket.get_monitor_socket(_EVENTS)
        self.outcome = Outcome.PENDING
        self._hangups = 0

    def drain(self) -> Outcome:
        """Reads the events that have come, without waiting. `LOST` and the wrong ones are final."""
        while int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            event = parse_monitor_message(self.socket.recv_multipart())["event"]
            self._turn(int(event))
        return self.outcome

    def _turn(self, event: int) -> None:
        if self.outcome not in (Outcome.PENDING, Outcome.OPEN):
            return
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.outcome = Outcome.OPEN
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.outcome = Outcome.WRONG_KEY
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self.outcome = Outcome.WRONG_PROTOCOL
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._hangups += 1
            if self._hangups >= _HANGUPS:
                self.outcome = Outcome.WRONG_KEY
        elif event == zmq.EVENT_DISCONNECTED and self.outcome is Outcome.OPEN:
            self.outcome = Outcome.LOST

    def close(self) -> None:
        """Stops watching; before the watched socket is closed, in the same thread."""
        self._watched.disable_monitor()
        self.socket.close(0)
