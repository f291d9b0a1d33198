"""A process's place in the simulated network: what it hands to hubs and clients as `wire.network.Network`.

The product's own `Reactor`, `ServedSocket` and `Monitor` run here; what they wait by and speak through is simulated.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from simulation.fabric import Fabric
from simulation.fibers import Descriptor, Poll, current
from simulation.sockets import Socket
from simulation.world import MS, US, Process, S
from swarm_agents.errors import PortInUse
from swarm_agents.wire.monitor import Monitor
from swarm_agents.wire.reactor import Reactor, ServedSocket

__all__ = ["SimNetwork"]


def _send_frames(socket: Socket, frames: Sequence[Any], holds: list[Any] | None = None) -> None:
    """As `wire.reactor.send_frames`; what is larger than `_COPY_BELOW` is sent from where it lies."""
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        flags = int(zmq.NOBLOCK) | (int(zmq.SNDMORE) if index < last else 0)
        size = len(frame) if type(frame) is bytes else memoryview(frame).nbytes
        if size < _COPY_BELOW:
            socket.send(frame, flags)
        else:
            hold = socket.send(frame, flags, False, True)
            if holds is not None:
                holds.append(hold)


#: Smaller than ZeroMQ's, so that small boards show what large ones would.
_COPY_BELOW = 512


class _Served(ServedSocket):
    _send_frame, _receive_frame, _question = (
        staticmethod(lambda socket, *args: socket.send(*args)),
        staticmethod(lambda socket, *args: socket.recv(*args)),
        staticmethod(lambda socket, option: lambda: socket.get(option)),  # type: ignore[assignment]
    )
    _send_frames = staticmethod(_send_frames)  # type: ignore[assignment]


class _Reactor(Reactor):
    sockets = _Served


class _Waiter:
    """In the place of `wire.waiter.Waiter`."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self._process = network.process
        self._table = network.descriptors.table
        self.nudge_fd, self.alarm_fd = network.descriptors.make(), network.descriptors.make()
        self._ring = 0
        self._fiber: Any = None
        self._fds: dict[int, Descriptor] = {}
        for fd in (self.nudge_fd, self.alarm_fd):
            self.add(fd)

    def add(self, fd: int) -> None:
        self._fds[fd] = self._table[fd]
        self._fds[fd].watchers.append(self._stirred)

    def remove(self, fd: int) -> None:
        self._fds.pop(fd).watchers.remove(self._stirred)

    def _stirred(self) -> None:
        fiber, self._fiber = self._fiber, None
        if fiber is not None:
            fiber.wake(self._process.world.rng.randrange(2 * US, 15 * US))

    def wait(self, pause: float | None) -> list[tuple[int, int]]:
        while True:
            found = [(fd, 1) for fd, descriptor in self._fds.items() if descriptor.ready]
            fiber = current()
            assert fiber is not None
            if found or pause == 0.0:
                fiber.spins()
                return found
            self._fiber = fiber
            fiber.block(pause)
            self._fiber = None

    def wake(self) -> None:
        if self.nudge_fd in self._fds:
            self._fds[self.nudge_fd].signal()

    def nudged(self) -> None:
        self._fds[self.nudge_fd].ready = False

    def ring_in(self, delay: float) -> None:
        self._ring += 1
        self._process.after(max(int(delay * S), 1), self._rings, self._ring)

    def _rings(self, number: int) -> None:
        if number == self._ring and self.alarm_fd in self._fds:
            self._fds[self.alarm_fd].signal()

    def rung(self) -> None:
        self._fds[self.alarm_fd].ready = False

    def close(self) -> None:
        for descriptor in self._fds.values():
            if self._stirred in descriptor.watchers:
                descriptor.watchers.remove(self._stirred)
        for fd in (self.nudge_fd, self.alarm_fd):
            self._table.pop(fd, None)
        self._fds.clear()


class SimNetwork:
    """In the place of `wire.network.Network`: one process's."""

    def __init__(self, fabric: Fabric, process: Process, host: str, clock: Callable[[], float]) -> None:
        self.fabric = fabric
        self.descriptors = fabric.descriptors
        self.process = process
        self.host = host
        self._clock = clock

    readable = staticmethod(lambda socket: bool(socket.get(zmq.EVENTS)))
    receive = staticmethod(lambda socket: socket.recv_multipart())
    send = staticmethod(_send_frames)

    def reactor(self, name: str, *, on_error: Callable[[Exception], None]) -> Reactor:
        return _Reactor(name, on_error=on_error, clock=self._clock, waiter=_Waiter(self))  # type: ignore[arg-type]

    def router(self, address: str, **options: Any) -> Socket:
        socket = Socket(self, zmq.ROUTER)
        try:
            socket.bind(address)
        except PortInUse:
            socket.close()
            raise
        return socket

    def bind_also(self, socket: Socket, address: str, **options: Any) -> None:
        try:
            socket.bind(address)
        except PortInUse as error:
            raise zmq.ZMQError(errno.EADDRINUSE) from error

    def unbind(self, socket: Socket, address: str) -> None:
        socket.unbind(address)

    def dealer(self, **options: Any) -> Socket:
        return Socket(self, zmq.DEALER)

    def monitor(self, socket: Socket) -> Monitor:
        return Monitor(socket)  # type: ignore[arg-type]

    def wait(self, sockets: Sequence[Any], seconds: float) -> list[Any]:
        poll = Poll(self.descriptors)
        until = self.fabric.world.now + max(round(seconds * S), 1)
        for socket in sockets:
            poll.register(socket.fd)
        while True:
            found = [socket for socket in sockets if socket.get(zmq.EVENTS)]
            left = until - self.fabric.world.now
            if found or left <= 0:
                return found
            poll.poll(left / MS)

    def close(self) -> None:
        pass
