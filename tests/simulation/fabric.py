"""The network between the simulated machines, and ZeroMQ's sockets on it, as the product asks for them.

A connection is TCP's: what arrives is in order and once, or the connection breaks and both sides learn of it, each when
a packet can reach it. A partition holds everything up and tells nobody; it lasts, or heals and lets through what is
still wanted. A path between two machines has a delay with jitter and a rate. ZeroMQ's part is modelled as far as the
product relies on it: a ROUTER names each connection anew and refuses to send to one that is gone, a DEALER connects
again by itself, a full connection refuses, a handshake needs the other process awake, large frames are sent from where
they lie (so they are read here when they arrive, not when they are sent), and a socket's descriptor tells of a message
once: any call on the socket takes that back, and nothing is told again before the socket has been found empty.

Beyond TCP, a path may be *wild*: it delivers tasks, answers, acknowledgements, cancellations, credit and heartbeats
twice and out of order, which the protocol promises to bear (two paths and reconnections can do the same).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from simulation.fibers import Descriptors
from simulation.world import MS, US, World

if TYPE_CHECKING:
    from simulation.sockets import Socket

__all__ = ["Connection", "Fabric", "Hold", "Path"]

_NOT_TWICE = (b"hello", b"welcome", b"bye", b"query", b"report")


class Path:
    """What lies between two machines, one network interface of each."""

    def __init__(self) -> None:
        self.delay = 150 * US
        self.jitter = 60 * US
        #: Bytes a second.
        self.rate = 600e6
        #: Nothing passes, and nobody is told.
        self.cut = False
        #: Of its messages, this share comes twice or late.
        self.wild = 0.0


class Fabric:
    """All machines' network."""

    def __init__(self, world: World, descriptors: Descriptors) -> None:
        self.world = world
        self.descriptors = descriptors
        self.routers: dict[str, Socket] = {}
        self.connections: list[Connection] = []
        self._paths: dict[tuple[str, str, str], Path] = {}
        #: Machines that are off the network altogether.
        self.lost: set[str] = set()
        self.messages = self.bytes = 0
        #: What a path is made like.
        self.make_path: Callable[[], Path] = Path

    def path(self, one: str, other: str, interface: str = "") -> Path:
        """The path between two machines by this interface ("": the first)."""
        key = (one, other, interface) if one < other else (other, one, interface)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = self.make_path()
        return path

    def paths(self, one: str, other: str) -> list[Path]:
        pair = {one, other}
        return [path for (a, b, _), path in self._paths.items() if {a, b} == pair]

    def passes(self, connection: Connection) -> bool:
        hosts = connection.hosts
        return not connection.path.cut and (hosts[0] == hosts[1] or self.lost.isdisjoint(hosts))

    def heal(self, path: Path) -> None:
        """Lets everything through again."""
        path.cut = False
        self.flush()

    def flush(self) -> None:
        for connection in list(self.connections):
            connection.flush()

    def break_(self, one: str, other: str) -> None:
        """All connections between two machines break: what is on its way is lost, and both sides are told."""
        pair = {one, other}
        for connection in list(self.connections):
            if set(connection.hosts) == pair:
                connection.end(None)


class Connection:
    """A TCP connection between a DEALER (side 0) and a ROUTER (side 1)."""

    def __init__(self, fabric: Fabric, dealer: Socket, router: Socket, path: Path, route: bytes) -> None:
        self.fabric = fabric
        self.sides = (dealer, router)
        self.hosts = (dealer.host, router.host)
        self.path = path
        self.route = route
        self.open = True
        #: Which side has closed it: what it had sent before arrives. None: nobody, or it broke.
        self._closed_by: int | None = None
        #: By direction: when what was sent last arrives, and what a partition holds up; messages not arrived yet.
        self._last = [0, 0]
        self._held: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self.flying = [0, 0]
        self._owed: list[int] = []
        #: Of frames that lie where they were sent from; and the messages, by their number, that have not arrived.
        self._holds: set[Hold] = set()
        self._away: dict[int, list[Any]] = {}
        fabric.connections.append(self)

    def send(self, side: int, frames: list[Any], holds: list[Hold]) -> None:
        fabric, path, world = self.fabric, self.path, self.fabric.world
        self.flying[side] += 1
        self._holds.update(holds)
        fabric.messages += 1
        item = self._away[fabric.messages] = [frames, holds, fabric.messages]
        if not fabric.passes(self) or self._held[side]:
            self._held[side].append(item)
            return
        size = sum(len(frame) for frame in frames)
        fabric.bytes += size
        rng = world.rng
        when = world.now + path.delay + int(rng.random() * path.jitter)
        begin = self._last[side]
        if path.wild and rng.random() < path.wild and _tag(frames) not in _NOT_TWICE:
            late = when + int(rng.expovariate(1 / (20 * MS)))
            if rng.random() < 0.5:
                world.push(
                    late, self.sides[1 - side].process, self._arrive, (side, [list(map(bytes, frames)), [], 0], False)
                )
            else:
                world.push(late, self.sides[1 - side].process, self._arrive, (side, item, True))
                return
        when = self._last[side] = max(when, begin) + int(size / path.rate * 1e9)
        world.push(when, self.sides[1 - side].process, self._arrive, (side, item, True))

    def _arrive(self, side: int, item: Any, counted: bool) -> None:
        if counted:
            self.flying[side] -= 1
        if not self.open and side != self._closed_by:
            for hold in item[1]:
                hold.done = True
            return
        if counted and not self.fabric.passes(self):
            self.flying[side] += 1
            self._held[side].append(item)
            return
        frames, holds, number = item
        self._away.pop(number, None)
        self.sides[1 - side].arrived(self, [bytes(frame) for frame in frames])
        for hold in holds:
            hold.done = True
            self._holds.discard(hold)

    def flush(self) -> None:
        """What was held up by a partition goes on."""
        if not self.fabric.passes(self):
            return
        for side in self._owed:
            self._tell(side)
        self._owed.clear()
        for side in (0, 1):
            held = list(self._held[side])
            self._held[side].clear()
            self.flying[side] -= len(held)
            if self.open:
                for frames, holds, number in held:
                    self._away.pop(number, None)
                    self.send(side, frames, holds)

    def end(self, by: int | None) -> None:
        """One side has closed it (None: it broke): the other learns of it when a packet can reach it."""
        if not self.open:
            return
        self.open = False
        self._closed_by = by
        # What still arrives has been copied by the kernel: the memory it came from may be another's from now on.
        for item in self._away.values():
            item[0] = [bytes(frame) for frame in item[0]]
        self._away.clear()
        for hold in self._holds:
            hold.done = True
        for side in (0, 1):
            if by != side:
                if self.fabric.passes(self):
                    self._tell(side)
                else:
                    self._owed.append(side)
            else:
                self.sides[side].disconnected(self, told=False)
        if not self._owed:
            self.fabric.connections.remove(self)

    def _tell(self, side: int) -> None:
        world, socket = self.fabric.world, self.sides[side]
        if self in self.fabric.connections and self._owed:
            self.fabric.connections.remove(self)
        when = world.now + self.path.delay + world.rng.randrange(self.path.jitter + 1)
        world.push(max(when, self._last[1 - side]), socket.process, socket.disconnected, (self,))


def _tag(frames: Sequence[Any]) -> bytes:
    """The name of a message, out of its header."""
    first = bytes(frames[0][:32])
    length = first[9] & 31
    return first[10 : 10 + length]


class Hold:
    """`zmq.MessageTracker`."""

    done = False
