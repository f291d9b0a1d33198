"""The peers' side of each measurement: the same message or no-op, written as each library's documentation has it.

Every function returns one figure: seconds one way, or items a second. Peers are imported inside, so that a peer that is
not installed fails only its own rows.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from pairs import cores, one_way_seconds, partner, pin

MESSAGE = bytes(range(64))
MIB = 1 << 20


# pyzmq ------------------------------------------------------------------------------------------------------------


def _zmq_echo(address: str, copy: bool, curve: dict[str, bytes] | None) -> None:
    import zmq

    socket = zmq.Context().socket(zmq.PAIR)
    _curve_client(socket, curve)
    socket.connect(address)
    while True:
        message = socket.recv(copy=copy)
        if len(message) == 0:
            return
        socket.send(message, copy=copy)


def _curve_client(socket: Any, curve: dict[str, bytes] | None) -> None:
    for option, value in (curve or {}).items():
        setattr(socket, option, value)


def _zmq_one_way(address: str, payload: bytes, count: int, *, copy: bool = True, encrypted: bool = False) -> float:
    import zmq

    pin(cores()[0])
    socket = zmq.Context().socket(zmq.PAIR)
    client_curve = None
    if encrypted:
        server_public, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_server = True
        public, secret = zmq.curve_keypair()
        client_curve = {"curve_publickey": public, "curve_secretkey": secret, "curve_serverkey": server_public}
    socket.bind(address)
    with partner(_zmq_echo, socket.getsockopt_string(zmq.LAST_ENDPOINT), copy, client_curve):

        def exchange() -> None:
            socket.send(payload, copy=copy)
            socket.recv(copy=copy)

        seconds = one_way_seconds(exchange, count, count // 10 + 1)
        socket.send(b"")
    socket.close(linger=0)
    return seconds


def pyzmq_ipc_latency() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _zmq_one_way(f"ipc://{folder}/socket", MESSAGE, 10_000)


def pyzmq_tcp_curve_latency() -> float:
    return _zmq_one_way("tcp://127.0.0.1:*", MESSAGE, 10_000, encrypted=True)


def pyzmq_ipc_array() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _zmq_one_way(f"ipc://{folder}/socket", bytes(MIB), 500, copy=False)


def _zmq_sink(address: str, count: int) -> None:
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.rcvhwm = 100_000
    socket.connect(address)
    for _ in range(count):
        socket.recv()
    done = context.socket(zmq.PUSH)
    done.connect(address + "-done")
    done.send(b"")
    done.close()
    context.term()


def pyzmq_ipc_stream(count: int = 300_000) -> float:
    """Messages a second, one `send` each: ZeroMQ batches them itself on the way."""
    import zmq

    pin(cores()[0])
    with tempfile.TemporaryDirectory() as folder:
        context = zmq.Context()
        socket, done = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        socket.sndhwm = 100_000
        address = f"ipc://{folder}/socket"
        socket.bind(address)
        done.bind(address + "-done")
        with partner(_zmq_sink, address, count + 1):
            socket.send(MESSAGE)  # connected from here on
            began = time.perf_counter()
            for _ in range(count):
                socket.send(MESSAGE)
            done.recv()
            elapsed = time.perf_counter() - began
        socket.close()
        done.close()
        context.term()
    return count / elapsed


# iceoryx2 ---------------------------------------------------------------------------------------------------------


class _Message(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * 64),)


def _iceoryx2_ports(name: str, *, echo: bool) -> tuple[Any, Any, Any]:
    """The node, and the publisher and subscriber of one side. All its files have names that begin with `name`."""
    import iceoryx2 as iox2

    iox2.set_log_level(iox2.LogLevel.Error)
    config = iox2.config.default()
    config.global_cfg.prefix = iox2.FileName.new(f"{name}_")
    config.global_cfg.root_path = iox2.Path.new(f"{tempfile.gettempdir()}/{name}/")
    node = iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)

    def service(suffix: str) -> Any:
        named = node.service_builder(iox2.ServiceName.new(f"{name}/{suffix}"))
        return named.publish_subscribe(_Message).open_or_create()

    there, back = service("there"), service("back")
    out, into = (back, there) if echo else (there, back)
    return node, out.publisher_builder().create(), into.subscriber_builder().create()


_STOP = 255


def _iceoryx2_echo(name: str, ready: Any) -> None:
    node, publisher, subscriber = _iceoryx2_ports(name, echo=True)
    ready.set()
    last = False
    while not last:
        while (received := subscriber.receive()) is None:
            pass
        message = _Message.from_buffer_copy(received.payload().contents)
        received.delete()
        publisher.loan_uninit().write_payload(message).send()
        last = message.data[0] == _STOP
    del node


def iceoryx2_latency(count: int = 20_000) -> float:
    """One way by busy polling, as its own latency benchmark does it."""
    pin(cores()[0])
    name = f"agentswarm-bench-{os.getpid()}"
    try:
        return _iceoryx2_one_way(name, count)
    finally:  # its nodes leave a file that is meant for the next ones
        for left in Path("/dev/shm").glob(f"{name}_*"):
            left.unlink()
        shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


def _iceoryx2_one_way(name: str, count: int) -> float:
    node, publisher, subscriber = _iceoryx2_ports(name, echo=False)
    message = _Message.from_buffer_copy(MESSAGE)

    def send() -> None:
        publisher.loan_uninit().write_payload(message).send()

    def exchange() -> None:
        send()
        while (received := subscriber.receive()) is None:
            pass
        received.delete()

    ready = multiprocessing.get_context("spawn").Event()
    with partner(_iceoryx2_echo, name, ready):
        # nothing is kept for a subscriber that comes later
        if not ready.wait(30):
            raise TimeoutError("the iceoryx2 echo did not come up")
        seconds = one_way_seconds(exchange, count, count // 10)
        message.data[0] = _STOP
        send()
    del node
    return seconds


# C11 --------------------------------------------------------------------------------------------------------------


def c11_latency(rounds: int = 1_000_000) -> float:
    source = Path(__file__).with_name("pingpong.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "pingpong"
        subprocess.run(["gcc", "-O3", "-march=native", "-std=gnu11", "-o", str(program), str(source)], check=True)
        first, second = cores()
        words = [str(program), str(rounds), str(first), str(second)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


# Ray and Dask -----------------------------------------------------------------------------------------------------


def ray_tasks(calls: int = 1_000, tasks: int = 3_000) -> dict[str, float]:
    """`actor_rtt`: seconds of a synchronous call of an actor; `per_s`: tasks a second, gathered together."""
    import logging

    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, _temp_dir=folder
        )
        figures = {"actor_rtt": _ray_actor_rtt(ray, calls), "per_s": _ray_tasks_per_s(ray, tasks)}
        ray.shutdown()
    return figures


def _ray_actor_rtt(ray: Any, count: int) -> float:
    @ray.remote
    class Actor:
        def noop(self) -> None:
            return None

    actor = Actor.remote()
    for _ in range(count // 10):
        ray.get(actor.noop.remote())
    began = time.perf_counter()
    for _ in range(count):
        ray.get(actor.noop.remote())
    seconds = (time.perf_counter() - began) / count
    ray.kill(actor)
    return seconds


def _ray_tasks_per_s(ray: Any, count: int) -> float:
    @ray.remote
    def noop() -> None:
        return None

    ray.get([noop.remote() for _ in range(count // 10)])
    began = time.perf_counter()
    ray.get([noop.remote() for _ in range(count)])
    return count / (time.perf_counter() - began)


def _noop(_: int) -> None:
    return None


def dask_tasks_per_s(count: int = 2_000) -> float:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.gather(client.map(_noop, range(count // 10), pure=False))
        began = time.perf_counter()
        client.gather(client.map(_noop, range(count), pure=False))
        return count / (time.perf_counter() - began)
