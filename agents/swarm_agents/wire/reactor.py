"""The hub's engine: sockets, timers, and what other threads ask for, all under one lock.

A message costs a node's hub a few microseconds of Python, and an event loop around it would cost as much again: a
future or a handle each, and another turn of the loop after each send. Here a socket's message is handled where it was
received, and whoever holds the lock may send: the reactor's own thread, the thread that waits for the board's answers,
or one that serves REST. (ZeroMQ lets a socket move between threads with a full fence; the lock is one.) So neither a
task nor its answer waits for a second thread to wake up.

ZeroMQ's file descriptor is edge-triggered, and any call on the socket may consume the edge, also a send. Hence the one
rule: who has sent looks, before it lets go of the lock, whether something has arrived meanwhile. `with reactor:` sees
to it. Time comes from `clock`, so that whatever is timed here can be tested without waiting.

Rejected: `zmq.asyncio` and callbacks in an asyncio loop (three to four times the cost of a small message, and answers
of the board reached the loop by way of a thread and a pipe); one thread a socket (a send must then be handed over).
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from types import TracebackType
from typing import Any, ClassVar

import zmq

from swarm_agents.wire.options import question
from swarm_agents.wire.waiter import Waiter

__all__ = ["Reactor", "ServedSocket", "Timer", "readable", "receive", "send_frames"]

#: Messages of one socket that are taken in one go, before the others get their turn.
_BATCH = 64
#: Rounds in which a thread that only came to send also receives, before it leaves the rest to the reactor's thread.
_ROUNDS = 4
#: Frames below this are copied: cheaper than the bookkeeping that frees them later. (pyzmq has the same limit.)
COPY_BELOW = 64 << 10
# Plain integers, and the compiled class's own methods: the enum's `|` and the wrappers cost more than a small send.
_NOBLOCK, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _READABLE, _RCVMORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.RCVMORE)
_Base: Any = zmq.backend.Socket
_send, _recv, _get = _Base.send, _Base.recv, _Base.get


def send_frames(socket: zmq.Socket[bytes], frames: Sequence[Any], holds: list[Any] | None = None) -> None:
    """Sends a message without waiting; large frames from where they lie, which must stay as it is until they are gone.

    Args:
        holds: gets a `zmq.MessageTracker` for every frame that was not copied; when its `done` is true, ZeroMQ does not
            look at that memory any more.

    Raises:
        zmq.ZMQError: the peer has gone, or its connection is full; nothing was sent. (ZeroMQ takes a message whole.)
    """
    send = _send
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        flags = _MORE if index < last else _NOBLOCK
        size = len(frame) if type(frame) is bytes else memoryview(frame).nbytes
        if size < COPY_BELOW:
            send(socket, frame, flags)
        elif holds is None:
            send(socket, frame, flags, False)
        else:
            holds.append(send(socket, frame, flags, False, True))


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message has arrived."""
    return bool(_get(socket, _EVENTS) & _READABLE)


def receive(socket: zmq.Socket[bytes]) -> list[Any]:
    """A message that has arrived: its first frame as bytes, the others as `zmq.Frame`, which nothing copies."""
    frames = [_recv(socket, _NOBLOCK)]
    while _get(socket, _RCVMORE):
        frames.append(_recv(socket, _NOBLOCK, False))
    return frames


class Timer:
    """What `call_later` returns."""

    __slots__ = ("args", "cancelled", "function", "when")

    def __init__(self, when: float, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.function = function
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ServedSocket:
    """A socket that a reactor receives from. Used under the reactor's lock."""

    #: What is asked of the socket itself.
    _send_frame, _receive_frame, _question = staticmethod(_send), staticmethod(_recv), staticmethod(question)
    _send_frames = staticmethod(send_frames)

    def __init__(
        self,
        reactor: Reactor,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[Any]], None],
        *,
        routed: bool = False,
        known: Container[bytes] = (),
    ) -> None:
        """See `Reactor.serve`."""
        self.socket = socket
        self.fd = int(socket.get(zmq.FD))
        self._events, self._more = self._question(socket, _EVENTS), self._question(socket, _RCVMORE)
        self.closed = False
        #: The last send failed because the connection is full: its peer takes nothing at present, but is there.
        self.full = False
        #: Something was sent since it was last looked whether anything has arrived.
        self.touched = False
        self._reactor = reactor
        self._on_message = on_message
        self._routed = routed
        self._known = known

    def send(self, frames: Sequence[Any], holds: list[Any] | None = None) -> bool:
        """Sends without waiting. False: the peer has gone, or its connection is full (`full`)."""
        if not self.touched:
            self.touched = True
            self._reactor.touched.append(self)
        try:
            if len(frames) <= 2 and type(last := frames[-1]) is bytes and len(last) < COPY_BELOW:
                if len(frames) == 2:
                    self._send_frame(self.socket, frames[0], _MORE)
                self._send_frame(self.socket, last, _NOBLOCK)
                return True
            self._send_frames(self.socket, frames, holds)
        except zmq.ZMQError as error:  # a ROUTER says EHOSTUNREACH or EAGAIN; a socket that was closed, ENOTSOCK
            self.full = error.errno == zmq.EAGAIN
            return False
        return True

    def drain(self, signalled: bool = True) -> None:
        """Receives and handles what has arrived, up to a batch; what is left has its turn soon.

        Args:
            signalled: the descriptor was readable, so that most likely there is a message: one question less.
        """
        socket, recv, on_message = self.socket, self._receive_frame, self._on_message
        for _ in range(_BATCH):
            if signalled:
                signalled = False
            elif not self._events() & _READABLE:
                # Asked after all that was sent meanwhile, so nobody need ask again.
                if self.touched:
                    self.touched = False
                    touched = self._reactor.touched
                    if touched and touched[-1] is self:
                        touched.pop()
                return
            try:
                # What comes first is small, cheaper to copy than to wrap. Arrays are not copied.
                first = recv(socket, _NOBLOCK)
            except zmq.Again:
                continue
            frames = [first]
            if self._routed:
                # A stranger's frame is kept whole: it tells whose key was used.
                frames.append(recv(socket, _NOBLOCK, first in self._known))
            while self._more():
                frames.append(recv(socket, _NOBLOCK, False))
            try:
                on_message(frames)
            except Exception as error:  # one peer's message must not stop the others'
                self._reactor.on_error(error)
            if self.closed:
                return
        self._reactor.again(self)

    def close(self) -> None:
        """Closes the socket; what was not sent is dropped."""
        if not self.closed:
            self.closed = True
            self._reactor.forget(self.fd)
            self.socket.close(0)


class Reactor:
    """See the module's text. `with reactor:` holds the lock; it may be nested."""

    #: What it serves sockets by.
    sockets: ClassVar[type[ServedSocket]] = ServedSocket

    def __init__(
        self,
        name: str,
        *,
        on_error: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        waiter: Waiter | None = None,
    ) -> None:
        """`on_error` is told what a handler has raised; everything goes on. `waiter` is the reactor's from now on."""
        self.name = name
        self.clock = clock
        self.on_error = on_error
        #: Called after each turn in which something arrived or fell due.
        self.after_turn: Callable[[], object] | None = None
        self.touched: list[ServedSocket] = []
        self._lock = threading.RLock()
        self._depth = 0
        self._handlers: dict[int, Callable[[], object]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._waiter = waiter or Waiter()
        self._wake = self._waiter.wake
        self._handlers[self._waiter.nudge_fd] = self._waiter.nudged
        self._handlers[self._waiter.alarm_fd] = self._alarmed
        #: When the alarm is due, by the clock.
        self._alarm_at = float("inf")
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- the lock

    def __enter__(self) -> Reactor:
        self._lock.acquire()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._depth == 1 and self.touched:
                self._look()
        finally:
            self._depth -= 1
            self._lock.release()

    def _look(self) -> None:
        for _ in range(_ROUNDS):
            touched, self.touched = self.touched, []
            for socket in touched:
                # Those that were asked since have been struck off.
                if socket.touched and not socket.closed:
                    socket.drain(False)
            if not self.touched:
                return
        self._wake()

    def again(self, socket: ServedSocket) -> None:
        """Has a socket looked at once more before the lock is let go, or in the next turn."""
        socket.touched = True
        if socket not in self.touched:
            self.touched.append(socket)

    # -- what is served

    def serve(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[list[Any]], None],
        *,
        routed: bool = False,
        known: Container[bytes] = (),
    ) -> ServedSocket:
        """Receives from a socket from now on.

        Args:
            on_message: called with a message's frames: the first as bytes, the others as `zmq.Frame`, which nothing
                copies. What it raises goes to `on_error`.
            routed: the first frame is a routing id (a ROUTER's): then the second is bytes too, if the id is in `known`.
        """
        with self:
            served = self.sockets(self, socket, on_message, routed=routed, known=known)
            self.watch(served.fd, served.drain)
            # What arrived before is signalled no more.
            served.touched = True
            self.touched.append(served)
        return served

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Has `callback` called while a file descriptor is readable."""
        with self:
            self._handlers[fd] = callback
            self._waiter.add(fd)

    def forget(self, fd: int) -> None:
        """Watches it no longer; before it is closed."""
        with self:
            if self._handlers.pop(fd, None) is not None:
                self._waiter.remove(fd)

    # -- when something is called

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Has a function called in the reactor's thread; any thread may ask, without waiting for the lock."""
        self._posted.append((function, args))
        self._wake()

    #: As an asyncio loop calls it.
    call_soon_threadsafe = post

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Timer:
        """Has a function called in the reactor's thread after `delay` seconds."""
        timer = Timer(self.clock() + delay, function, args)
        with self:
            first = not self._timers or timer.when < self._timers[0][0]
            heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        if first and threading.current_thread() is not self._thread:
            self._wake()
        return timer

    def _alarmed(self) -> None:
        self._waiter.rung()
        self._alarm_at = float("inf")

    # -- the thread

    def start(self) -> None:
        """Begins to serve, on a thread of its own."""
        self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. The sockets are closed by whoever opened them, afterwards."""
        self._stopping = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._wake()
            self._thread.join()
        with self._lock:
            self._handlers.clear()
            self._waiter.close()

    def _serve(self) -> None:
        wait, lock = self._waiter.wait, self._lock
        pause: float | None = 0.0
        while not self._stopping:
            ready = wait(pause)
            # As `with self` does, without two calls a message.
            lock.acquire()
            self._depth += 1
            try:
                self.turn(ready)
                if self.touched:
                    self._look()
                if self._timers and self._timers[0][0] < self._alarm_at:
                    self._set_alarm()
                pause = 0.0 if self._posted or self.touched else None
            finally:
                self._depth -= 1
                lock.release()

    def turn(self, ready: Sequence[tuple[int, int]] = ()) -> None:
        """Serves these descriptors (as `epoll` gives them), what was posted, and the timers that are due."""
        for fd, _ in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                try:
                    handler()
                except Exception as error:  # as with a message: what goes wrong in one place stays there
                    self.on_error(error)
        while self._posted:
            function, args = self._posted.popleft()
            self._call(function, *args)
        timers = self._timers
        if timers and timers[0][0] <= (now := self.clock()):
            while timers and timers[0][0] <= now:
                timer = heapq.heappop(timers)[2]
                if not timer.cancelled:
                    self._call(timer.function, *timer.args)
        if self.after_turn is not None:
            self._call(self.after_turn)

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:
            self.on_error(error)

    def _set_alarm(self) -> None:
        self._alarm_at = self._timers[0][0]
        self._waiter.ring_in(self._alarm_at - self.clock())
