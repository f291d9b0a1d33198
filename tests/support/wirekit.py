"""What the wire's tests are made with: a board of one process's own memory, and hubs that run on a thread."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from swarm_agents.client import Connection
from swarm_agents.codec import decode, encode
from swarm_agents.config import Failover, Settings, Transport
from swarm_agents.config import Hub as HubAddress
from swarm_agents.errors import SwarmFull, UnknownKernel, to_wire
from swarm_agents.resource.desk import Answered, Claimed
from swarm_agents.resource.hub import Hub
from swarm_agents.resource.rest import Rest
from swarm_agents.wire import schema
from swarm_agents.wire.keys import Keys, make_keys
from swarm_agents.wire.reactor import Reactor
from swarm_agents.wire.schema import TaskId

KEYS = make_keys()
UID = "6f1c8a52-0000-4000-8000-000000000001"


def eventually(condition: Callable[[], Any], within: float = 10.0) -> Any:
    """Polls until the condition holds."""
    until = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {within} s"
        time.sleep(0.002)
    return value


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def make_settings(**changes: Any) -> Settings:
    transport = {"hub_port": free_port(), "rest_port": free_port(), "arena_bytes": 1 << 22} | changes.pop(
        "transport", {}
    )
    failover = {"heartbeat_interval": 0.02, "dead_after": 0.8} | changes.pop("failover", {})
    return Settings(
        swarm="risk",
        namespace="test",
        uid=UID,
        transport=Transport(**transport),
        failover=Failover(**failover),
        **changes,
    )


class Task:
    def __init__(self, submit: schema.Submit, payload: Sequence[Any], mine: bool) -> None:
        self.submit = submit
        self.payload = payload
        self.mine = mine
        self.cancelled = False


KERNELS: dict[str, Callable[..., Any]] = {
    "core.echo": lambda *args: args[0] if len(args) == 1 else list(args),
    "core.double": lambda x: x * 2,
    "core.fail": lambda message: (_ for _ in ()).throw(RuntimeError(message)),
}


class FakeDesk:
    """A desk without a board: tasks wait in a list until a test, or its own `work`, computes them."""

    def __init__(self, *, workers: int = 1, room: int = 1000, auto: bool = True) -> None:
        self.workers = workers
        self.room = room
        #: Compute what is submitted at once.
        self.auto = auto
        self.waiting: deque[Task] = deque()
        self.done: list[Answered] = []
        self.begun: list[TaskId] = []
        self.cancelled: list[TaskId] = []
        self.committed: dict[TaskId, Any] = {}
        self.handed_back: list[TaskId] = []
        self.given_up: set[TaskId] = set()
        self.times: dict[str, float] = {}
        #: A load to show instead of the true one.
        self.shown: schema.Load | None = None
        self._wake: Callable[[], None] = lambda: None

    def listen(self, reactor: Reactor, callback: Callable[[], bool]) -> None:
        self._wake = lambda: reactor.post(callback)

    def submit(self, submit: schema.Submit, payload: Sequence[Any], path: str = "local") -> None:
        if len(self.waiting) >= self.room:
            raise SwarmFull("the board is full")
        self.waiting.append(Task(submit, [bytes(part) for part in payload], True))
        if self.auto:
            self.work()

    def work(self, most: int = 1 << 30) -> None:
        """Computes what waits, as the node's compute agents would."""
        while self.waiting and most:
            most -= 1
            self._compute(self.waiting.popleft())
        self._wake()

    def _compute(self, task: Task) -> None:
        number = task.submit.task
        self.begun.append(number)
        if task.cancelled:
            return
        error, payload = None, []
        try:
            args, kwargs = decode(task.payload[0], task.payload[1:])
            if task.submit.kernel not in KERNELS:
                raise UnknownKernel(f"no kernel {task.submit.kernel}")
            header, arrays = encode(KERNELS[task.submit.kernel](*args, **kwargs))
            payload = [header, *arrays]
        except Exception as problem:
            error = to_wire(problem, "Traceback of the agent")
        answer = schema.Answer(number, error, "risk-compute-0-1", 1, 0.0, 0.001, task.submit.hops)
        if task.mine:
            self.done.append(Answered(answer, payload))
        else:
            self.committed[number] = answer

    def own(self, number: TaskId, kernel: str, *args: Any) -> None:
        """A task that one of this node's own clients has submitted."""
        header, arrays = encode((args, {}))
        self.waiting.append(Task(schema.Submit(number, kernel, 2), [header, *arrays], False))

    def answers(self) -> list[Answered]:
        done, self.done = self.done, []
        return done

    def cancel(self, task: TaskId) -> None:
        self.cancelled.append(task)
        for waiting in self.waiting:
            waiting.cancelled = waiting.cancelled or waiting.submit.task == task

    def withdraw(self, task: TaskId) -> bool:
        found = next((waiting for waiting in self.waiting if waiting.submit.task == task and waiting.mine), None)
        if found is not None:
            self.waiting.remove(found)
        return found is not None

    def claim(self, lane: int) -> Claimed | None:
        if not self.waiting or lane != 2:
            return None
        task = self.waiting.popleft()
        return Claimed(task.submit, task.payload, task)

    def commit(
        self, claimed: Claimed, answer: schema.Answer, payload: Sequence[Any], done: Callable[[bool], None]
    ) -> None:
        if claimed.token.mine:
            self.done.append(Answered(answer, [bytes(part) for part in payload]))
            self._wake()
        else:
            value = None if answer.error else decode(bytes(payload[0]), [bytes(part) for part in payload[1:]])
            self.committed[answer.task] = value
        done(True)

    def hand_back(self, claimed: Claimed, *, untouched: bool = False) -> None:
        if not untouched:
            self.handed_back.append(claimed.submit.task)
        self.waiting.append(claimed.token)

    def resumed(self, claimed: Claimed) -> bool:
        return claimed.token not in self.waiting

    def abandoned(self, claimed: Claimed) -> bool:
        return claimed.submit.task in self.given_up

    def drop(self, claimed: Claimed) -> None:
        self.given_up.discard(claimed.submit.task)

    def load(self) -> schema.Load:
        if self.shown is not None:
            depth = (0, 0, len(self.waiting), 0)
            return schema.Load(self.shown.workers, self.shown.idle, depth, self.shown.room, self.shown.run_mean)
        depth = (0, 0, len(self.waiting), 0)
        return schema.Load(workers=self.workers, idle=0, depth=depth, room=self.room - len(self.waiting), run_mean=0.01)

    def run_time(self, kernel: str) -> float | None:
        return self.times.get(kernel)

    def answer_bytes(self, kernel: str) -> float:
        return 0.0

    def close(self) -> None:
        pass


class HubThread:
    """A hub with its REST interface, in a loop on a thread of its own."""

    def __init__(
        self,
        desk: Any,
        settings: Settings,
        keys: Keys = KEYS,
        *,
        node: str = "node-a",
        host: str = "127.0.0.1",
        seed: int = 1,
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.host = host
        self.node = node
        self._keys = keys
        self._seed = seed
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name=f"hub {node}", daemon=True)
        self._thread.start()
        assert self._started.wait(20)
        if self._error is not None:
            self._thread.join()
            raise self._error

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.errors: list[Any] = []
        #: What the hub has put on record.
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        self._stop = asyncio.Event()
        self._kill = False
        rest = None
        try:
            self.hub = Hub(
                self.desk,
                self.settings,
                self._keys,
                node=self.node,
                name=f"risk-resource-{self.node}",
                host=self.host,
                log=structlog.get_logger(),
                report=self.report,
                rng=random.Random(self._seed),
                tell=lambda event, **fields: self.told.append((event, fields)),
            )
            self.hub.reactor.on_error = self.errors.append
            self.rest = rest = Rest(
                self.hub, self._keys.token, report=self.report, kernels=lambda: [{"name": "core.echo"}]
            )
            await rest.start(self.host, self.settings.transport.rest_port)
            self.hub.start()
        except BaseException as error:
            self._error = error
            if rest is not None:
                await self.hub.close()
            return
        finally:
            self._started.set()
        await self._stop.wait()
        await rest.close()
        await self.hub.close()

    def report(self) -> dict[str, Any]:
        return {"uid": UID, "node": self.node, "hubs": [peer.node for peer in self.hub.peers.values()]}

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls a function while the hub does nothing else."""
        with self.hub.reactor:
            return function()

    def sever(self) -> None:
        """Ends as a killed process would: its sockets close without a word."""

        def cut() -> None:
            self.hub.carrier._stopped = True
            self.hub._router.close()
            for peer in self.hub.peers.values():
                peer.close()

        self.call(cut)

    def close(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"tcp://{self.host}:{self.settings.transport.hub_port}"

    @property
    def rest_url(self) -> str:
        return f"http://{self.host}:{self.settings.transport.rest_port}"


class Tunnel:
    """A TCP port that leads to another one, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                thread = threading.Thread(target=self._copy, args=(one, other), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass

    def freeze(self) -> None:
        """Lets nothing through any more, and breaks nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        """Lets everything through again, also what has been held up."""
        self._flows.set()

    def cut(self) -> None:
        """Breaks all connections, and takes no more."""
        self._flows.set()
        for sock in (self._listener, *self._sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(10)


def connection(*hubs: HubThread, keys: Keys = KEYS) -> Connection:
    """A client's connection to these hubs, in this order."""
    found = tuple(HubAddress(node=hub.node, address=hub.url, rest=hub.rest_url) for hub in hubs)
    return msgspec.structs.replace(connection_to(keys=keys), hubs=found)


def connection_to(*addresses: str, keys: Keys = KEYS) -> Connection:
    """A client's connection to the hubs at these addresses."""
    return Connection(
        swarm="risk",
        uid=UID,
        hubs=tuple(HubAddress(node="", address=address) for address in addresses),
        server_key=keys.hub_public,
        public_key=keys.client_public,
        secret_key=keys.client_secret,
        token=keys.token,
    )
