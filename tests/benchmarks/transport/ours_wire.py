"""Our side of the measurements across nodes: TCP with CURVE, through the parts that hubs and their peers are made of.

`wire_one_way` is the row's own: 64 bytes as a `Submit` to a ROUTER and as an `Answer` back to a DEALER, through the
reactor, with header and schema, the authenticator, credit counted on both sides, and answers that are kept until they
are acknowledged, 64 at a time. What a hub does with a message beyond that (its table of tasks, its board) is measured
by the others, which are there to be looked at and have no peer: `hub_one_way` is the same exchange with a whole hub,
whose board is replaced by one that answers at once; `hub_task_rtt` and `hub_tasks_per_s` are no-op tasks of a client,
by way of a hub and a board, to an agent that is a process of its own, and back.

The two ends are pinned to a core each, as the peers' are; where there are three processes none is pinned.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from pairs import cores, partner, pin

__all__ = ["hub_one_way", "hub_task_rtt", "hub_tasks_per_s", "wire_one_way"]

MESSAGE = bytes(range(64))
UID = "6f1c8a52-0000-4000-8000-0000000000be"
LIMIT = 1 << 28
#: As a hub grants them at most.
WINDOW = 512
ACK_BATCH = 64
#: A measurement that takes longer has failed (seconds).
LONGEST = 60.0


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _raise(error: Exception) -> None:
    import traceback

    traceback.print_exception(error)
    os._exit(1)


def _while_parent_lives() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)


# the wire ---------------------------------------------------------------------------------------------------------


def _wire_echo(port: int, keys: Any) -> None:
    """A hub's outer half: it answers each task with its arguments."""
    import zmq

    from swarm_agents.wire import schema
    from swarm_agents.wire.credit import Account
    from swarm_agents.wire.frames import pack, payload_bytes, unpack
    from swarm_agents.wire.reactor import Reactor
    from swarm_agents.wire.sockets import bind_router
    from swarm_agents.wire.zap import Authenticator, peer_kind

    reactor, context = Reactor("echo", on_error=_raise), zmq.Context()
    Authenticator(reactor, context, {keys.client_public: "client", keys.hub_public: "hub"})
    accounts: dict[bytes, Account] = {}
    kept: dict[schema.TaskId, tuple[schema.Answer, list[Any]]] = {}

    def on_message(frames: list[Any]) -> None:
        route = frames[0]
        message, payload = unpack(frames, limit=LIMIT, at=1)
        if type(message) is schema.Submit:
            account, size, task = accounts[route], payload_bytes(payload), message.task
            if task in kept or not account.admits(size, reactor.clock()):
                raise AssertionError("a peer that keeps to its credit, and repeats nothing")
            account.take(size)
            answer = schema.Answer(task, None, "risk-compute-0-1", 1, 1e-6, 1e-6, message.hops)
            kept[task] = answer, payload
            account.give(size)
            router.send([route, *pack(answer, payload)])
        elif type(message) is schema.Ack:
            for task in message.tasks:
                del kept[task]
        elif type(message) is schema.Hello:
            if peer_kind(frames[1]) != "hub":
                raise AssertionError("a stranger")
            accounts[route] = Account()
            accounts[route].renew(WINDOW, 1 << 26, reactor.clock())
            welcome = schema.Welcome("bench", UID, "a", 1, WINDOW, LIMIT, 1.0, 1 << 26)
            router.send([route, *pack(welcome)])

    raw = bind_router(context, f"tcp://127.0.0.1:{port}", public=keys.hub_public, secret=keys.hub_secret, limit=LIMIT)
    router = reactor.serve(raw, on_message, routed=True, known=accounts)
    reactor.start()
    _while_parent_lives()


def _exchange(port: int, keys: Any, count: int) -> float:
    """Submits 64 bytes as soon as the last have come back, as a hub does to its peer; seconds one way."""
    from swarm_agents.resource.peers import Forward, Link, Peer
    from swarm_agents.wire import schema
    from swarm_agents.wire.frames import unpack
    from swarm_agents.wire.network import Network
    from swarm_agents.wire.reactor import Reactor

    reactor, network = Reactor("bench", on_error=_raise), Network()
    peer: Peer[None] = Peer("a")
    ended = threading.Event()
    warm_up = count // 10 + 1
    sent, began, took = 0, 0.0, 0.0
    acks: list[schema.TaskId] = []

    def submit() -> None:
        nonlocal sent
        sent += 1
        submit = schema.Submit((peer.session, sent), "core.echo", 2, None, 1)
        if not peer.window.fits(len(MESSAGE)):
            raise AssertionError("credit has run out")
        forward = Forward(None, submit, [MESSAGE], len(MESSAGE), 0.0)
        peer.take(forward)
        peer.forward(forward, reactor.clock())

    def on_message(link: Link, frames: list[Any]) -> None:
        nonlocal began, took
        message, payload = unpack(frames, limit=LIMIT)
        if type(message) is schema.Answer:
            if peer.settle(message.task) is None or payload[0] != MESSAGE:
                raise AssertionError("an answer to nothing that was asked")
            acks.append(message.task)
            if len(acks) == ACK_BATCH:
                link.send(schema.Ack(tuple(acks)))
                acks.clear()
            if sent == warm_up:
                began = time.perf_counter()
            if sent == warm_up + count:
                took = time.perf_counter() - began
                ended.set()
            else:
                submit()
        elif type(message) is schema.Welcome:
            link.welcomed()
            peer.window.grant(message.window, message.bytes)
            submit()
        elif type(message) is schema.Credit:
            peer.window.grant(message.window, message.bytes)

    def hello() -> schema.Hello:
        return schema.Hello("hub", UID, peer.session, "b", "b")

    with reactor:
        peer.links["a"] = Link(
            reactor, network, f"tcp://127.0.0.1:{port}", keys.hub_public, keys, LIMIT, 1.0, hello, on_message,
            lambda link, outcome: None,
        )  # fmt: skip
    reactor.start()
    if not ended.wait(LONGEST):
        raise TimeoutError(f"{sent} of {count} messages within {LONGEST:g} s")
    reactor.stop()
    with reactor:
        peer.close()
    network.close()
    return took / count / 2


def wire_one_way(count: int = 10_000) -> float:
    """Seconds that 64 bytes take to the other side."""
    pin(cores()[0])
    from swarm_agents.wire.keys import make_keys

    keys, port = make_keys(), _free_port()
    with partner(_wire_echo, port, keys) as echo:
        seconds = _exchange(port, keys, count)
        echo.kill()
    return seconds


# a whole hub ------------------------------------------------------------------------------------------------------


class _EchoDesk:
    """A board that has answered before one looks."""

    def __init__(self) -> None:
        self._done: deque[Any] = deque()

    def listen(self, *args: Any) -> None:
        pass

    def submit(self, submit: Any, payload: Any, path: str = "local") -> None:
        from swarm_agents.resource.desk import Answered
        from swarm_agents.wire.schema import Answer

        answer = Answer(submit.task, None, "risk-compute-0-1", 1, 1e-6, 1e-6, submit.hops)
        self._done.append(Answered(answer, payload))

    def answers(self) -> list[Any]:
        done = list(self._done)
        self._done.clear()
        return done

    def load(self) -> Any:
        from swarm_agents.wire.schema import Load

        return Load(workers=1, idle=1, room=1 << 20)

    def cancel(self, task: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _settings(port: int) -> Any:
    from swarm_agents.config import Settings, Transport

    return Settings(swarm="bench", namespace="bench", uid=UID, transport=Transport(hub_port=port))


def _hub(desk: Any, port: int, keys: Any) -> Any:
    import structlog

    from swarm_agents.resource.hub import Hub

    hub = Hub(desk, _settings(port), keys, node="a", name="a", host="127.0.0.1", log=structlog.get_logger())
    hub.start()
    return hub


def _hub_echo(port: int, keys: Any) -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    hub = _hub(_EchoDesk(), port, keys)
    _while_parent_lives()
    hub.shut()


def hub_one_way(count: int = 10_000) -> float:
    """`wire_one_way` with a hub's table of tasks and all else that it does on the far side."""
    pin(cores()[0])
    from swarm_agents.wire.keys import make_keys

    keys, port = make_keys(), _free_port()
    with partner(_hub_echo, port, keys) as echo:
        seconds = _exchange(port, keys, count)
        echo.kill()
    return seconds


def _board_hub(directory: str, port: int, keys: Any, ready: Any, stop: Any) -> None:
    import logging

    import structlog

    from swarm_agents.resource.desk import Desk
    from swarm_agents.shm.board import Board, Geometry

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    board = Board.open(Path(directory), Geometry(4096, 16 << 20, 16), swarm_uid=UID)
    member = board.join("bench-resource", "resource")
    hub = _hub(Desk(board, member), port, keys)
    ready.set()
    while not stop.wait(0.02):
        board.heartbeat(member)
    hub.shut()
    board.leave(member)


def _board_agent(directory: str, ready: Any, stop: Any) -> None:
    from swarm_agents.shm.board import Board

    board = Board.attach(Path(directory))
    member = board.join("bench-compute", "compute")
    worker = board.worker(member)
    ready.set()
    while not stop.is_set():
        claim = worker.claim(0.05)
        if claim is not None:
            worker.commit(claim, None)
        else:
            board.heartbeat(member)
    board.leave(member)


def _with_hub(measure: Any) -> float:
    """Calls `measure` with a client of a hub; hub and agent are processes of their own, and nobody is pinned."""
    import multiprocessing

    from swarm_agents.client import Connection, Swarm
    from swarm_agents.config import Hub
    from swarm_agents.wire.keys import make_keys

    keys, port, context = make_keys(), _free_port(), multiprocessing.get_context("spawn")
    stop = context.Event()
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="agentswarm-bench-", dir=shared) as folder:
        processes = []
        for function, words in ((_board_hub, (f"{folder}/board", port, keys)), (_board_agent, (f"{folder}/board",))):
            ready = context.Event()
            processes.append(context.Process(target=function, args=(*words, ready, stop), daemon=True))
            processes[-1].start()
            if not ready.wait(LONGEST):
                raise TimeoutError(f"{function.__name__} did not come up")
        where = Connection(
            uid=UID,
            hubs=(Hub(node="a", address=f"tcp://127.0.0.1:{port}"),),
            server_key=keys.hub_public,
            public_key=keys.client_public,
            secret_key=keys.client_secret,
        )
        try:
            with Swarm.connect(where) as swarm:
                return float(measure(swarm))
        finally:
            stop.set()
            for process in processes:
                process.join(10)


def hub_task_rtt(count: int = 3_000) -> float:
    """Seconds that a no-op task takes from a client outside the node to an agent, and its answer back."""

    def measure(swarm: Any) -> float:
        for _ in range(count // 10):
            swarm.run("core.noop")
        began = time.perf_counter()
        for _ in range(count):
            swarm.run("core.noop")
        return (time.perf_counter() - began) / count

    return _with_hub(measure)


def hub_tasks_per_s(count: int = 20_000) -> float:
    """No-op tasks a second of one client that waits for none before it submits the next."""

    def measure(swarm: Any) -> float:
        for future in [swarm.submit("core.noop") for _ in range(count // 10)]:
            future.result()
        began = time.perf_counter()
        for future in [swarm.submit("core.noop") for _ in range(count)]:
            future.result()
        return count / (time.perf_counter() - began)

    return _with_hub(measure)


def main() -> None:
    """Measures all of it, and what the row is compared with."""
    import peers

    for name, function, scale, unit in (
        ("pyzmq_tcp_curve_latency", peers.pyzmq_tcp_curve_latency, 1e6, "µs"),
        ("wire_one_way", wire_one_way, 1e6, "µs"),
        ("hub_one_way", hub_one_way, 1e6, "µs"),
        ("hub_task_rtt", hub_task_rtt, 1e6, "µs"),
        ("hub_tasks_per_s", hub_tasks_per_s, 1.0, "tasks/s"),
    ):
        allowed = os.sched_getaffinity(0)
        print(f"{name:26s} {function() * scale:10.1f} {unit}", flush=True)
        os.sched_setaffinity(0, allowed)


if __name__ == "__main__":
    main()
