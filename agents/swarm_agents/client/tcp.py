"""A channel to a hub over ZeroMQ.

Callers send by themselves, and who waits for a future receives by itself (`drive`), under the lock that goes with the
socket (ZeroMQ allows a socket to move between threads with a full fence). So a task that somebody waits for costs no
change of thread here. One thread does the rest: it receives for those who do not wait, keeps the heartbeat, and sends
again what the hub had no room for; while callers receive it only looks in.

The socket's file descriptor is edge-triggered, and any call on the socket may consume the edge. Hence after each send
the sender looks whether something has arrived, and if so wakes the others; a thread that has taken an answer rings for
the caller who may be asleep waiting for it; and with several callers none sleeps long.

Back-pressure has two stages: the hub's credit bounds what is unanswered, in tasks and in bytes, and `submit` waits for
it; a hub whose board is full all the same refuses a task for a while, and then the thread submits it again, so that it
was taken on stays true.
"""

from __future__ import annotations

import heapq
import math
import os
import select
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec
import zmq

from swarm_agents.client.channel import Channel, Sink
from swarm_agents.client.shed import Shed, patience
from swarm_agents.client.task import Request, TaskId, TaskInfo
from swarm_agents.codec import decode, encode
from swarm_agents.errors import (
    ConnectionLost,
    Overloaded,
    PayloadTooLarge,
    SwarmError,
    SwarmFull,
    Unreachable,
    WrongKey,
    from_wire,
)
from swarm_agents.wire import schema
from swarm_agents.wire.credit import Window
from swarm_agents.wire.frames import flatten, pack, payload_bytes, unpack
from swarm_agents.wire.monitor import Outcome
from swarm_agents.wire.network import Network
from swarm_agents.wire.pulse import Patience, Pulse
from swarm_agents.wire.waiter import Spin

if TYPE_CHECKING:
    from swarm_agents.client.connection import Connection

__all__ = ["TcpChannel"]

#: Silent for so many heartbeats, and the hub is given up; later where round trips are slow (see `wire.pulse`).
_SILENT_HEARTBEATS = 5
#: A hub may take its time when it starts, but not for ever to say its first word.
_MAX_INBOUND = 1 << 32
#: Answers are acknowledged together: at this many, or after this long (seconds).
_ACK_BATCH, _ACK_AFTER = 64, 0.02
#: Messages taken in one go.
_BATCH = 64
#: A caller who waits sleeps for this long at most; with others beside it, this long (seconds).
_STEP, _STEP_SHARED = 0.05, 0.002
#: While callers receive the thread does not, and for this long after it only looks in this often (seconds).
_LOOK_IN, _CALLERS_GRACE = 0.002, 0.02


class TcpChannel(Channel):
    """One DEALER, one thread."""

    def __init__(
        self,
        sink: Sink,
        connection: Connection,
        endpoint: str,
        number: int,
        timeout: float,
        network: Network | None = None,
    ) -> None:
        """Connects, greets, and waits to be welcomed. `network` is the channel's own from then on.

        Raises:
            Unreachable, WrongKey, VersionMismatch: nobody welcomed it; the message says what to do.
        """
        self.endpoint = endpoint
        self._sink = sink
        self._number = number
        self._lock = threading.Lock()
        self._room = threading.Condition(threading.Lock())
        self._unanswered: dict[TaskId, Request] = {}
        #: Bytes of their arguments.
        self._sizes: dict[TaskId, int] = {}
        #: Refused for a while: when to try again, and which.
        self._refused: list[tuple[float, TaskId]] = []
        self._shed: Shed[TaskId] = Shed()
        self._reports: dict[int, Any] = {}
        self._acks: list[TaskId] = []
        self._ack_due = math.inf
        self._callers = 0
        self._called = 0.0
        self._spin = Spin()
        self._failure: BaseException | None = None
        self._dead: BaseException | None = None
        self._closing = False
        self._heard = time.monotonic()
        self._beat = 0.0

        self._network = network or Network()
        self._readable, self._receive_one = self._network.readable, self._network.receive
        hub = next((h for h in connection.hubs if h.address == endpoint), None)
        server = (hub.public_key if hub else "") or connection.server_key
        self._encrypts = bool(server)
        self._socket = self._network.dealer(
            server=server, public=connection.public_key, secret=connection.secret_key, limit=-1
        )
        self._monitor = self._network.monitor(self._socket)
        self._fd = int(self._socket.get(zmq.FD))
        self._nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        began = time.monotonic()
        try:
            welcome = self._greet(connection, timeout)
        except BaseException:
            self._release()
            raise
        self._credit = Window(max(welcome.window, 1), welcome.bytes)
        self.window = self._credit.tasks
        self._limit = welcome.max_message_bytes
        self._heartbeat = max(welcome.heartbeat, 0.01)
        self._heard = now = time.monotonic()
        self._pulse = Pulse(self._heartbeat, now)
        self._patience = Patience(_SILENT_HEARTBEATS * self._heartbeat, now, first=now - began)
        self._thread = threading.Thread(target=self._serve, name="swarm-tcp", daemon=True)
        self._thread.start()

    # -- opening

    def _greet(self, connection: Connection, timeout: float) -> schema.Welcome:
        self._socket.connect(self.endpoint)
        self._socket.send_multipart(pack(schema.Hello("client", connection.uid, self._number, _name())))
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise self._unwelcome(timeout)
            ready = self._network.wait((self._socket, self._monitor.socket), left)
            outcome = self._monitor.drain()
            if outcome not in (Outcome.PENDING, Outcome.OPEN):
                raise self._unwelcome(timeout)
            if self._socket in ready:
                message, _ = unpack(self._socket.recv_multipart(copy=False), limit=_MAX_INBOUND)
                if isinstance(message, schema.Welcome):
                    return message
                if isinstance(message, schema.Refusal):
                    raise from_wire({"code": message.code, "message": message.message})

    def _unwelcome(self, timeout: float) -> SwarmError:
        outcome = self._monitor.outcome
        if outcome is Outcome.WRONG_KEY and self._encrypts:
            return WrongKey(
                f"{self.endpoint} does not accept these CURVE keys: take a fresh connection file (`swarm connection`), "
                "the swarm's Secret may have been made anew; pass none of them if it does not encrypt"
            )
        if outcome in (Outcome.WRONG_KEY, Outcome.WRONG_PROTOCOL):
            return WrongKey(
                f"{self.endpoint} does not speak as this client does: pass server_key, public_key and secret_key if "
                "the swarm encrypts, none of them if it does not, and check that the port is the hub's (7400)"
            )
        if outcome is Outcome.OPEN:
            return Unreachable(f"{self.endpoint} accepts connections but has not answered within {timeout:g} s")
        return Unreachable(
            f"nothing answers at {self.endpoint} within {timeout:g} s: check the address, and that the swarm's "
            "resource agent there is running (`swarm status`)"
        )

    # -- what the session calls

    def submit(self, request: Request, timeout: float | None) -> None:
        self._submit(request, timeout, patience(timeout, request.deadline, time.monotonic(), time.time()))

    def submit_again(self, request: Request) -> None:
        self._submit(request, None, None)  # it was accepted once: it is offered again and again

    def _submit(self, request: Request, timeout: float | None, until: float | None) -> None:
        payload = flatten(*encode((request.args, request.kwargs)))
        size = payload_bytes(payload)
        if size + schema.MAX_HEADER_BYTES > self._limit:
            raise PayloadTooLarge(
                f"the arguments of {request.kernel} have {size} bytes, {self.endpoint} takes at most "
                f"{self._limit - schema.MAX_HEADER_BYTES} in one message: split them, or raise "
                "spec.transport.zeromq.maxMessageSize"
            )
        with self._room:
            if request.task in self._unanswered:
                return
            credit, lane = self._credit, request.priority.lane

            def room() -> bool:
                held = until is not None and self._shed.holds(lane) is not None
                return (credit.fits(size) and not held) or self._dead is not None

            if not room() and not self._room.wait_for(room, timeout):
                shed = self._shed.holds(lane)
                if shed is not None:
                    raise Overloaded(str(shed), shed.retry_after)
                raise SwarmFull(
                    f"{credit.used} tasks with {credit.used_bytes} bytes are unanswered, and {self.endpoint} takes "
                    f"{credit.tasks} with {credit.bytes} bytes at present: wait for results, or submit with a longer "
                    "timeout"
                )
            self._check()
            self._unanswered[request.task] = request
            self._sizes[request.task] = size
            if until is not None:
                self._shed.note(request.task, until)
            credit.take(size)
        self._send(_submission(request), payload)

    def cancel(self, task: TaskId) -> None:
        with self._room:
            if not self._forget(task):
                return
        self._send(schema.Cancel(task))

    def info(self, timeout: float) -> dict[str, Any]:
        number = time.monotonic_ns()
        with self._room:
            self._reports[number] = None
        self._send(schema.Query(number))
        with self._room:
            self._room.wait_for(lambda: self._reports[number] is not None or self._dead, timeout)
            report = self._reports.pop(number)
            self._check()
        if report is None:
            raise Unreachable(f"{self.endpoint} has not reported within {timeout:g} s")
        return dict(report)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._send(schema.Bye())
        with self._lock:
            self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check(self) -> None:
        if self._dead is not None:
            raise ConnectionLost(f"the connection to {self.endpoint} is broken: {self._dead}") from self._dead

    # -- the socket: under the lock

    def _send(self, message: schema.Message, payload: list[Any] | tuple[Any, ...] = ()) -> None:
        with self._lock:
            if self._dead is not None:
                return
            try:
                self._network.send(self._socket, pack(message, payload))
            except zmq.ZMQError:  # what is unanswered goes out again when the connection has been made anew
                return
            if self._readable(self._socket):
                self._wake()

    def _wake(self) -> None:
        if self._nudge >= 0:
            os.eventfd_write(self._nudge, 1)
            self._ring()

    def _ring(self) -> None:
        if self._callers:
            os.eventfd_write(self._bell, 1)

    def _receive(self) -> int:
        """Takes what has arrived; returns how many messages that was. Any thread."""
        messages: list[list[Any]] = []
        with self._lock:
            if self._dead is not None:
                return 0
            while len(messages) < _BATCH and self._readable(self._socket):
                messages.append(self._receive_one(self._socket))
        for frames in messages:
            self._take(frames)
        return len(messages)

    def drive(self, future: Future[Any], timeout: float | None) -> float | None:
        """Receives for the caller, who waits."""
        until = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        spin = self._spin
        self._callers += 1
        try:
            while not future.done() and self._dead is None and not self._closing:
                if self._receive():
                    continue
                step = _STEP if self._callers == 1 else _STEP_SHARED
                if until is not None:
                    step = min(step, until - time.monotonic())
                if step <= 0:
                    break
                for descriptor, _ in spin.wait(poll.poll, math.ceil(step * 1000)):
                    if descriptor == self._bell:
                        _clear(descriptor)
        except Exception as error:  # the thread ends the connection by it
            self._failure = error
            with self._lock:
                self._wake()
        finally:
            self._called = time.monotonic()
            self._callers -= 1
        return None if until is None else max(until - time.monotonic(), 0.0)

    # -- the thread

    def _serve(self) -> None:
        # While callers receive, the thread must not be woken by every answer.
        aside, all_ = select.poll(), select.poll()
        for descriptor in (int(self._monitor.socket.get(zmq.FD)), self._nudge):
            aside.register(descriptor, select.POLLIN)
            all_.register(descriptor, select.POLLIN)
        all_.register(self._fd, select.POLLIN)
        error: BaseException | None = None
        try:
            while not self._closing:
                taken = 0 if self._callers else self._receive()
                if taken:
                    # A caller who has come meanwhile may be asleep by now, and its answer among these.
                    with self._lock:
                        self._ring()
                error = self._tick()
                if error is not None:
                    break
                if taken:
                    continue
                due = self._until_due()
                if self._callers or time.monotonic() - self._called < _CALLERS_GRACE:
                    aside.poll(math.ceil(min(due, _LOOK_IN) * 1000))
                else:
                    all_.poll(math.ceil(due * 1000))
                _clear(self._nudge)
        except Exception as problem:
            error = problem
        with self._lock, self._room:
            self._dead = error or ConnectionLost("it was closed")
            self._room.notify_all()
            self._release()
        if not self._closing:
            self._sink.lost(self, self._dead)

    def _tick(self) -> BaseException | None:
        """Heartbeats, and what was refused for a while; returns why the connection is to be given up."""
        now = time.monotonic()
        if self._failure is not None:
            return self._failure
        if now >= self._ack_due:
            self._acknowledge()
        if self._monitor.drain() is not Outcome.OPEN:
            return ConnectionLost(f"{self.endpoint} has closed the connection")
        self._pulse.last = max(self._pulse.last, self._heard)
        silent = self._pulse.silent(now)
        if silent >= self._patience.seconds:
            return ConnectionLost(f"{self.endpoint} has been silent for {silent:.1f} s")
        if now >= self._beat:
            self._beat = now + self._heartbeat
            self._send(schema.Heartbeat(sent=now))
        while self._refused and self._refused[0][0] <= now:
            task = heapq.heappop(self._refused)[1]
            request = self._unanswered.get(task)
            if request is not None:
                with self._room:
                    if self._shed.leave(task):
                        self._credit.take(self._sizes.get(task, 0))
                        self._room.notify_all()
                self._send(_submission(request), flatten(*encode((request.args, request.kwargs))))
        return None

    def _until_due(self) -> float:
        """Seconds until the thread has something to do by itself."""
        silent = self._pulse.last + self._patience.seconds
        due = min(self._beat, silent, self._ack_due, self._refused[0][0] if self._refused else math.inf)
        return max(due - time.monotonic(), 0.0)

    def _take(self, frames: list[Any]) -> None:
        self._heard = time.monotonic()
        message, payload = unpack(frames, limit=_MAX_INBOUND)
        match message:
            case schema.Answer():
                self._answer(message, payload)
            case schema.Refusal(task=None):
                raise from_wire({"code": message.code, "message": message.message})
            case schema.Refusal(task=task) if task is not None:
                if message.code == Overloaded.code and message.retry_after > 0:
                    self._overloaded(task, Overloaded(message.message, message.retry_after))
                elif message.retry_after > 0:
                    heapq.heappush(self._refused, (self._heard + message.retry_after, task))
                else:
                    self._settle(task, None, from_wire({"code": message.code, "message": message.message}), None)
            case schema.Credit():
                with self._room:
                    self._credit.grant(max(message.window, 1), message.bytes)
                    self.window = self._credit.tasks
                    self._room.notify_all()
            case schema.Report():
                with self._room:
                    if message.number in self._reports:
                        self._reports[message.number] = msgspec.json.decode(payload[0])
                        self._room.notify_all()
            case schema.Heartbeat(echo=True):
                self._patience.learn(self._heard - message.sent, self._heard)
            case schema.Bye():
                raise ConnectionLost(f"the hub at {self.endpoint} is leaving")
            case _:
                pass

    def _answer(self, message: schema.Answer, payload: Any) -> None:
        value, error = None, None
        if message.error is not None:
            error = from_wire(message.error)
        else:
            try:
                value = decode(payload[0], payload[1:])
            except (SwarmError, IndexError) as problem:
                error = SwarmError(f"the answer from {message.agent} can't be read: {problem}")
        info = TaskInfo(message.agent, message.attempts, message.queued, message.run, message.hops)
        self._settle(message.task, value, error, info)
        with self._room:
            self._acks.append(message.task)
            full = len(self._acks) >= _ACK_BATCH
            if self._ack_due == math.inf:
                self._ack_due = time.monotonic() + _ACK_AFTER
        if full:
            self._acknowledge()

    def _overloaded(self, task: TaskId, error: Overloaded) -> None:
        with self._room:
            request = self._unanswered.get(task)
            if request is None:
                return
            due = self._shed.refuse(task, request.priority.lane, error, self._heard)
            if due is not None:
                self._credit.give(self._sizes[task])
                self._room.notify_all()
                heapq.heappush(self._refused, (due, task))
                return
        self._settle(task, None, error, None)

    def _settle(self, task: TaskId, value: Any, error: BaseException | None, info: TaskInfo | None) -> None:
        with self._room:
            known = self._forget(task)
        if known:
            self._sink.answered(task, value, error, info)

    def _forget(self, task: TaskId) -> bool:
        """A task is not out any more; False if it was not. The caller holds the room's lock."""
        if task not in self._unanswered:
            return False
        del self._unanswered[task]
        size = self._sizes.pop(task)
        if not self._shed.forget(task):  # one that waits to be tried again has no credit
            self._credit.give(size)
        self._room.notify()
        return True

    def _acknowledge(self) -> None:
        with self._room:
            acks, self._acks, self._ack_due = self._acks, [], math.inf
        if acks:
            self._send(schema.Ack(tuple(acks)))

    def _release(self) -> None:
        self._monitor.close()
        self._socket.close(0)
        self._network.close()
        os.close(self._nudge)
        os.close(self._bell)
        self._nudge = -1


def _clear(descriptor: int) -> None:
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        pass


def _submission(request: Request) -> schema.Submit:
    budget = None if request.deadline is None else request.deadline - time.time()
    return schema.Submit(request.task, request.kernel, request.priority.lane, budget)


def _name() -> str:
    import socket

    return f"{socket.gethostname()}/{os.getpid()}"[:256]
