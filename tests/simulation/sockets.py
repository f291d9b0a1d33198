"""ZeroMQ's sockets on the simulated network, as the product asks for them. See `fabric`."""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from simulation.fabric import Connection, Hold, Path
from simulation.fibers import Descriptor
from simulation.world import MS
from swarm_agents.errors import PortInUse
from swarm_agents.wire.sockets import HIGH_WATER_MARK

if TYPE_CHECKING:
    from simulation.network import SimNetwork

__all__ = ["Socket"]

_EVENT = struct.Struct("=hi")


class Socket:
    """A DEALER or a ROUTER, of one process."""

    def __init__(self, network: SimNetwork, kind: int) -> None:
        self.network = network
        self.fabric = network.fabric
        self.process = network.process
        self.host = network.host
        self.kind = kind
        self.closed = False
        self.fd = network.descriptors.make()
        self._descriptor: Descriptor = network.descriptors.table[self.fd]
        self._inbox: deque[list[Any]] = deque()
        self._message: list[Any] = []
        self._at = 0
        #: The reader has found nothing: it will be told of the next message.
        self._asleep = True
        self._building: list[Any] = []
        # A DEALER's
        self._connection: Connection | None = None
        self._target = ""
        self._outbox: deque[tuple[list[Any], list[Hold]]] = deque()
        self._monitor: _MonitorSocket | None = None
        self._pause = 50 * MS
        # A ROUTER's
        self._routes: dict[bytes, Connection] = {}
        self._bound: list[str] = []
        self.process.on_death.append(self._died)

    # -- what the product calls

    def get(self, option: int) -> int:
        if option == zmq.FD:
            return self.fd
        if option == zmq.RCVMORE:
            return int(self._at < len(self._message))
        assert option == zmq.EVENTS
        self._descriptor.ready = False
        if not self._inbox:
            self._asleep = True
            return 0
        return int(zmq.POLLIN)

    def recv(self, flags: int = 0, copy: bool = True) -> Any:
        if self._at >= len(self._message):
            self._descriptor.ready = False
            if not self._inbox:
                self._asleep = True
                raise zmq.Again
            self._message, self._at = self._inbox.popleft(), 0
        frame = self._message[self._at]
        self._at += 1
        return frame

    def recv_multipart(self, copy: bool = True) -> list[Any]:
        frames = [self.recv()]
        while self.get(zmq.RCVMORE):
            frames.append(self.recv())
        return frames

    def send(self, frame: Any, flags: int = 0, copy: bool = True, track: bool = False) -> Any:
        """A frame; `flags` may say that more follow."""
        hold = None
        if not copy:
            hold = Hold()
            frame = memoryview(frame).cast("B")
        else:
            frame = bytes(frame)
        self._building.append((frame, hold))
        if flags & zmq.SNDMORE:
            return hold
        built, self._building = self._building, []
        try:
            self._send([frame for frame, _ in built], [hold for _, hold in built if hold is not None])
        except zmq.ZMQError:
            raise
        return hold

    def send_multipart(self, frames: Sequence[Any]) -> None:
        self._send([bytes(frame) for frame in frames], [])

    def _send(self, frames: list[Any], holds: list[Hold]) -> None:
        if self.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        self._descriptor.ready = False
        if self.kind == zmq.ROUTER:
            connection = self._routes.get(bytes(frames[0]))
            if connection is None or not connection.open:
                raise zmq.ZMQError(zmq.EHOSTUNREACH)
            if connection.flying[1] >= HIGH_WATER_MARK:
                raise zmq.ZMQError(zmq.EAGAIN)
            connection.send(1, frames[1:], holds)
            return
        connection = self._connection
        if connection is not None and connection.open:
            if connection.flying[0] >= HIGH_WATER_MARK:
                raise zmq.ZMQError(zmq.EAGAIN)
            connection.send(0, frames, holds)
            return
        if len(self._outbox) >= HIGH_WATER_MARK:
            raise zmq.ZMQError(zmq.EAGAIN)
        self._outbox.append((frames, holds))

    def bind(self, address: str) -> None:
        if address in self.fabric.routers:
            raise PortInUse(f"{address} is in use")
        self.fabric.routers[address] = self
        self._bound.append(address)

    def unbind(self, address: str) -> None:
        if address not in self._bound:
            raise zmq.ZMQError(errno.ENOENT)
        self._bound.remove(address)
        del self.fabric.routers[address]
        for connection in list(self._routes.values()):
            if connection.sides[0]._target == address:
                connection.end(1)

    def connect(self, address: str) -> None:
        self._target = address
        self._dial()

    def close(self, linger: int = 0) -> None:
        if self.closed:
            return
        self.closed = True
        for address in self._bound:
            del self.fabric.routers[address]
        connections = list(self._routes.values())
        if self._connection is not None:
            connections.append(self._connection)
        for connection in connections:
            connection.end(1 if self.kind == zmq.ROUTER else 0)
        for _, holds in self._outbox:
            for hold in holds:
                hold.done = True
        self._outbox.clear()
        self.network.descriptors.table.pop(self.fd, None)

    def get_monitor_socket(self, events: int) -> _MonitorSocket:
        self._monitor = _MonitorSocket(self.network)
        return self._monitor

    def disable_monitor(self) -> None:
        self._monitor = None

    # -- what happens

    def _died(self) -> None:
        # The kernel closes what the process had open.
        self.close()

    def _tell(self, event: int) -> None:
        if self._monitor is not None:
            self._monitor.arrived([_EVENT.pack(event, 0), self._target.encode()])

    def _dial(self) -> None:
        if self.closed or self._connection is not None:
            return
        router = self.fabric.routers.get(self._target)
        world, rng = self.fabric.world, self.fabric.world.rng
        host = _host_of(self._target)
        path = self.fabric.path(self.host, host, _interface_of(self._target))
        near = self.host == host
        blocked = (path.cut and not near) or (not near and not self.fabric.lost.isdisjoint((self.host, host)))
        if blocked or router is None:
            self.process.after(self._pause + rng.randrange(10 * MS), self._dial)
            self._pause = min(self._pause * 2, 500 * MS)
            return
        # The kernel takes the connection; ZeroMQ's greeting needs the other process awake.
        delay = 3 * (path.delay + rng.randrange(path.jitter + 1))
        world.push(world.now + delay, router.process, self._accepted, (router, path))
        if not router.process.stopped:
            self.process.after(5000 * MS, self._dial)  # in case nothing came of it

    def _accepted(self, router: Socket, path: Path) -> None:
        if self.closed or self._connection is not None or not self.process.alive:
            return
        if router.closed or path.cut:
            self.process.after(self._pause, self._dial)
            return
        rng = self.fabric.world.rng
        route = b"\0" + rng.getrandbits(32).to_bytes(4, "little")
        connection = self._connection = Connection(self.fabric, self, router, path, route)
        router._routes[route] = connection
        self._pause = 50 * MS
        self.process.after(path.delay, self._established, connection)

    def _established(self, connection: Connection) -> None:
        if connection is not self._connection or not connection.open:
            return
        self._tell(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        waiting, self._outbox = self._outbox, deque()
        for frames, holds in waiting:
            connection.send(0, frames, holds)

    def arrived(self, connection: Connection, frames: list[Any]) -> None:
        """A message has come."""
        if self.closed:
            return
        self._inbox.append([connection.route, *frames] if self.kind == zmq.ROUTER else frames)
        if self._asleep:
            self._asleep = False
            self._descriptor.signal()

    def disconnected(self, connection: Connection, told: bool = True) -> None:
        """The connection is gone."""
        if self.kind == zmq.ROUTER:
            self._routes.pop(connection.route, None)
            return
        if connection is self._connection:
            self._connection = None
            if told and not self.closed:
                self._tell(zmq.EVENT_DISCONNECTED)
                self.process.after(self._pause, self._dial)


class _MonitorSocket:
    """What ZeroMQ tells of a connection."""

    def __init__(self, network: SimNetwork) -> None:
        self._network = network
        self.fd = network.descriptors.make()
        self._descriptor = network.descriptors.table[self.fd]
        self._inbox: deque[list[bytes]] = deque()

    def arrived(self, frames: list[bytes]) -> None:
        self._inbox.append(frames)
        self._descriptor.signal()

    def get(self, option: int) -> int:
        if option == zmq.FD:
            return self.fd
        self._descriptor.ready = False
        return int(zmq.POLLIN) if self._inbox else 0

    def recv_multipart(self) -> list[bytes]:
        return self._inbox.popleft()

    def close(self, linger: int = 0) -> None:
        self._network.descriptors.table.pop(self.fd, None)


def _host_of(address: str) -> str:
    """`tcp://NODE.INTERFACE:PORT`, as addresses are here."""
    return address.removeprefix("tcp://").partition(":")[0].partition(".")[0]


def _interface_of(address: str) -> str:
    return address.removeprefix("tcp://").partition(":")[0].partition(".")[2]
