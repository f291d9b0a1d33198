"""Many nodes in one process: virtual time, a network that only delays and loses whole machines, and node stand-ins.

For the simulation at scale (`scale`). The hubs' code is the product's: `Hub`, `Carrier`, `Peer`, `Link`, `Pulse`,
sessions, credit, `balance.choose`, and the wire's frames. What is cheaper than the truth: a reactor here is a heap of
timers without threads, a connection never breaks (machines fall silent instead), and a node's board with its agents is
a queue with so many workers (`Machine`), which has the board's interface towards a hub (`resource.desk.Desk`) but none
of its shared memory.
"""

from __future__ import annotations

import heapq
import itertools
import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from swarm_agents.resource.desk import Answered, Claimed
from swarm_agents.wire import schema
from swarm_agents.wire.monitor import Outcome

__all__ = ["Clockwork", "Machine", "Net", "Work"]

#: Messages to one machine within this time are handed over together (seconds).
_TICK = 100e-6
#: One way between two machines (seconds).
DELAY = 150e-6
_RUN = struct.Struct("<d")
_numbers = itertools.count()


class Clockwork:
    """Virtual time, and who is connected to whom."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._heap: list[tuple[float, int, Net | None, Callable[..., object], tuple[Any, ...]]] = []
        self.routers: dict[str, Socket] = {}
        #: When an agent began each task last, wherever that was.
        self.begun: dict[Any, float] = {}

    def at(self, when: float, net: Net | None, function: Callable[..., object], *args: Any) -> None:
        """Calls a function then, unless its machine is lost by then."""
        heapq.heappush(self._heap, (when, next(_numbers), net, function, args))

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, net, function, args = heapq.heappop(heap)
            if net is None or not net.lost:
                self.now = when
                function(*args)
        self.now = until


class Net:
    """A machine's network, in the place of `wire.network.Network`; counts what the machine sends."""

    def __init__(self, clockwork: Clockwork) -> None:
        self.clockwork = clockwork
        self.lost = False
        self.sent = self.sent_bytes = 0
        self._coming: dict[int, list[tuple[Socket, list[Any]]]] = {}
        self.made: Reactor | None = None

    def reactor(self, name: str, *, on_error: Callable[[Exception], None]) -> Reactor:
        self.made = Reactor(self)
        return self.made

    def router(self, address: str, **options: Any) -> Socket:
        socket = self.clockwork.routers[address] = Socket(self)
        return socket

    def dealer(self, **options: Any) -> Socket:
        return Socket(self)

    def monitor(self, socket: Socket) -> Socket:
        return socket

    def close(self) -> None:
        pass

    def send(self, to: Socket, frames: list[Any]) -> None:
        self.sent += 1
        self.sent_bytes += sum(len(frame) for frame in frames)
        other = to.net
        tick = int((self.clockwork.now + DELAY) / _TICK) + 1
        coming = other._coming.get(tick)
        if coming is None:
            coming = other._coming[tick] = []
            self.clockwork.at(tick * _TICK, other, other._arrive, tick)
        coming.append((to, frames))

    def _arrive(self, tick: int) -> None:
        for socket, frames in self._coming.pop(tick):
            if not socket.closed:
                socket.on_message(frames)
        assert self.made is not None
        if self.made.after_turn is not None:
            self.made.after_turn()


class Socket:
    """A DEALER or ROUTER, its monitor, and what a reactor serves it by, in one."""

    __slots__ = ("closed", "full", "net", "number", "on_message", "outcome", "peer", "routes")

    def __init__(self, net: Net) -> None:
        self.net = net
        self.closed = self.full = False
        self.outcome = Outcome.PENDING
        self.peer: Socket | None = None
        self.number = b"\0" + next(_numbers).to_bytes(6, "little")
        self.routes: dict[bytes, Socket] = {}
        self.on_message: Callable[[list[Any]], object] = lambda frames: None

    @property
    def socket(self) -> Any:
        return SimpleNamespace(get=lambda option: 0)

    def connect(self, address: str) -> None:
        peer = self.net.clockwork.routers.get(address)
        if peer is not None:
            self.peer = peer
            peer.routes[self.number] = self
            if not peer.net.lost:
                self.outcome = Outcome.OPEN

    def drain(self) -> Outcome:
        return self.outcome

    def send(self, frames: Sequence[Any], holds: list[Any] | None = None) -> bool:
        if self.peer is not None:
            self.net.send(self.peer, [self.number, *frames])
            return True
        to = self.routes.get(frames[0])
        if to is None or to.closed:
            return False
        self.net.send(to, list(frames[1:]))
        return True

    def close(self, linger: int = 0) -> None:
        self.closed = True
        if self.peer is not None:
            self.peer.routes.pop(self.number, None)


class Reactor:
    """In the place of `wire.reactor.Reactor`: timers and sockets, in one thread."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self.after_turn: Callable[[], object] | None = None
        self.on_error: Callable[[Exception], None] = _raise

    def __enter__(self) -> Reactor:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def clock(self) -> float:
        return self._net.clockwork.now

    def serve(self, socket: Socket, on_message: Callable[[list[Any]], object], **options: Any) -> Socket:
        socket.on_message = on_message
        return socket

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        pass

    def forget(self, fd: int) -> None:
        pass

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(function, args)
        self._net.clockwork.at(self._net.clockwork.now + delay, self._net, timer.fire)
        return timer

    def post(self, function: Callable[..., object], *args: Any) -> None:
        self.call_later(0.0, function, *args)

    def start(self) -> None:
        pass


class Timer:
    """What `call_later` returns."""

    __slots__ = ("_args", "_function", "cancelled")

    def __init__(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:
            self._function(*self._args)


def _raise(error: Exception) -> None:
    raise error


class Work:
    """A task on one machine."""

    __slots__ = ("begun", "claimed", "done", "run", "since", "submit", "visitor")

    def __init__(self, submit: schema.Submit, run: float, since: float, visitor: bool) -> None:
        self.submit = submit
        self.run = run
        self.since = since
        #: It came from another node.
        self.visitor = visitor
        self.begun = self.done = 0.0
        self.claimed = False


class Machine:
    """A node's board and agents, as its hub sees them: a queue, and so many workers."""

    def __init__(self, net: Net, workers: int, mean: float, slots: int = 4096) -> None:
        self.net = net
        self.workers = workers
        self.idle = workers
        self._mean = mean
        self._slots = slots
        self._queue: deque[Work] = deque()
        self._answers: list[Answered] = []
        self._callback: Callable[[], object] = lambda: None
        #: Tasks of its own clients, by id.
        self.own: dict[schema.TaskId, Work] = {}

    def arrive(self, task: schema.TaskId, run: float) -> None:
        """A client of the node submits a task."""
        work = self.own[task] = Work(schema.Submit(task, "scale.work", 2), run, self.net.clockwork.now, False)
        self._put(work)

    def _put(self, work: Work) -> None:
        self._queue.append(work)
        self._begin()

    def _begin(self) -> None:
        clockwork = self.net.clockwork
        while self.idle and self._queue:
            work = self._queue.popleft()
            self.idle -= 1
            work.begun = clockwork.begun[work.submit.task] = clockwork.now
            clockwork.at(clockwork.now + work.run, self.net, self._end, work)

    def _end(self, work: Work) -> None:
        self.idle += 1
        work.done = self.net.clockwork.now
        if work.visitor:
            queued = work.begun - work.since
            answer = schema.Answer(work.submit.task, None, "agent", 1, queued, work.run, work.submit.hops)
            self._answers.append(Answered(answer, [b"done"]))
            self.net.clockwork.at(work.done + 20e-6, self.net, self._callback)
        self._begin()

    # -- what a hub asks of its desk

    def listen(self, reactor: Any, callback: Callable[[], object]) -> None:
        self._callback = callback

    def submit(self, submit: schema.Submit, payload: Sequence[Any], path: str = "local") -> None:
        self._put(Work(submit, _RUN.unpack(bytes(payload[0]))[0], self.net.clockwork.now, True))

    def cancel(self, task: schema.TaskId) -> None:
        pass

    def withdraw(self, task: schema.TaskId) -> bool:
        return False

    def answers(self) -> list[Answered]:
        found, self._answers = self._answers, []
        return found

    def claim(self, lane: int) -> Claimed | None:
        if lane != 2 or not self._queue:
            return None
        work = self._queue.popleft()
        work.claimed = True
        return Claimed(work.submit, [_RUN.pack(work.run)], work)

    def commit(self, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any], done: Any) -> None:
        work: Work = claimed.token
        now = self.net.clockwork.now
        work.done = now
        if work.visitor:
            self._answers.append(Answered(answer, [b"done"]))
            self.net.clockwork.at(now + 20e-6, self.net, self._callback)
        done(True)

    def hand_back(self, claimed: Claimed, *, untouched: bool = False) -> None:
        claimed.token.claimed = False
        self._queue.appendleft(claimed.token)
        self._begin()

    def resumed(self, claimed: Claimed) -> bool:
        return bool(claimed.token.claimed)

    def abandoned(self, claimed: Claimed) -> bool:
        return False

    def drop(self, claimed: Claimed) -> None:
        pass

    def load(self) -> schema.Load:
        waiting = len(self._queue)
        return schema.Load(self.workers, self.idle, (0, 0, waiting, 0), max(self._slots // 4 - waiting, 0), self._mean)

    def run_time(self, kernel: str) -> float | None:
        return self._mean

    def answer_bytes(self, kernel: str) -> float:
        return 0.0

    def close(self) -> None:
        pass


def central_queue(arrivals: Sequence[tuple[float, float]], workers: int) -> list[float]:
    """How long each task would have waited had all machines one queue, and moving cost nothing (seconds)."""
    free = [0.0] * workers
    waits = []
    for when, run in arrivals:
        begin = max(when, heapq.heappop(free))
        heapq.heappush(free, begin + run)
        waits.append(begin - when)
    return waits


def poisson(rng: random.Random, rate: float, since: float, until: float) -> list[float]:
    """Moments of a Poisson process."""
    found = []
    when = since + rng.expovariate(rate)
    while when < until:
        found.append(when)
        when += rng.expovariate(rate)
    return found
