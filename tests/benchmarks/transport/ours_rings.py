"""Our rings' side of the measurements: the same message as the peers', by the public Python API or in compiled code.

Every function returns one figure: seconds one way, messages a second, or how many messages were wrong.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pairs import cores, one_way_seconds, partner, pin

from swarm_agents.shm import ring_probe
from swarm_agents.shm.ring import Receiver, Ring, Sender

__all__ = ["compiled_latency", "litmus", "ring_latency", "ring_stream_batched", "ring_stream_single"]

MESSAGE = bytes(range(64))
BATCH = 256
_STOP = b""


@contextmanager
def _two_rings() -> Iterator[tuple[str, Sender, Receiver]]:
    """A ring there and one back, and this process's ends of them; on the first core from here on."""
    pin(cores()[0])
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="agentswarm-bench-") as folder:
        there, back = (Ring.create(Path(folder) / name, slots=1024, slot_bytes=64) for name in ("there", "back"))
        with there.sender() as tx, back.receiver() as rx:
            yield folder, tx, rx


def _other_ends(folder: str) -> tuple[Sender, Receiver]:
    return Ring.open(Path(folder) / "back").sender(), Ring.open(Path(folder) / "there").receiver()


def _ready(tx: Sender, rx: Receiver) -> None:
    """A message there and back: the partner is up, and both have compiled what they need."""
    tx.send(MESSAGE)
    assert rx.receive(60) == MESSAGE


def _echo(folder: str) -> None:
    tx, rx = _other_ends(folder)
    send, receive = tx.send, rx.receive
    while message := receive():
        send(message)


def ring_latency(count: int = 100_000) -> float:
    """One way, `send` and `receive` of bytes."""
    with _two_rings() as (folder, tx, rx), partner(_echo, folder):
        _ready(tx, rx)
        send, receive = tx.send, rx.receive

        def exchange() -> None:
            send(MESSAGE)
            receive()

        seconds = one_way_seconds(exchange, count, count // 10)
        tx.send(_STOP)
    return seconds


def _sink(folder: str, count: int) -> None:
    tx, rx = _other_ends(folder)
    receive = rx.receive
    tx.send(receive())
    for _ in range(count):
        receive()
    tx.send(MESSAGE)


def ring_stream_single(count: int = 1_000_000) -> float:
    """Messages a second, one `send` and one `receive` each."""
    with _two_rings() as (folder, tx, rx), partner(_sink, folder, count):
        _ready(tx, rx)
        send = tx.send
        began = time.perf_counter()
        for _ in range(count):
            send(MESSAGE)
        rx.receive()
        return count / (time.perf_counter() - began)


def _sink_of_rows(folder: str, count: int) -> None:
    tx, rx = _other_ends(folder)
    rows = np.zeros((BATCH, len(MESSAGE)), np.uint8)
    rx.receive_many(rows[:1], None)
    tx.send(MESSAGE)
    while count:
        count -= rx.receive_many(rows[: min(BATCH, count)], None)
    tx.send(MESSAGE)


def ring_stream_batched(count: int = 40_000 * BATCH) -> float:
    """Messages a second, from and into the rows of NumPy arrays."""
    rows = np.tile(np.frombuffer(MESSAGE, np.uint8), (BATCH, 1))
    with _two_rings() as (folder, tx, rx), partner(_sink_of_rows, folder, count):
        tx.send_many(rows[:1])
        rx.receive(60)
        began = time.perf_counter()
        for _ in range(count // BATCH):
            tx.send_many(rows, None)
        rx.receive()
        return count / (time.perf_counter() - began)


def _compiled_echo(folder: str, rounds: int) -> None:
    tx, rx = _other_ends(folder)
    message = np.zeros(512, np.int64)
    at = int(message.ctypes.data)
    ring_probe.echo(tx.at, rx.at, at, 0)
    tx.send(rx.receive())
    ring_probe.echo(tx.at, rx.at, at, rounds)


def compiled_latency(rounds: int = 1_000_000) -> float:
    """One way, from compiled code to compiled code: what the C program beside it does with C11 atomics."""
    warm_up = rounds // 10 + 1
    with _two_rings() as (folder, tx, rx), partner(_compiled_echo, folder, rounds + warm_up):
        message = np.zeros(1024, np.int64)
        at = int(message.ctypes.data)
        ring_probe.pings(tx.at, rx.at, at, len(MESSAGE), 0)
        _ready(tx, rx)
        ring_probe.pings(tx.at, rx.at, at, len(MESSAGE), warm_up)
        began = time.perf_counter()
        good = ring_probe.pings(tx.at, rx.at, at, len(MESSAGE), rounds)
        seconds = (time.perf_counter() - began) / rounds / 2
    if good != rounds:
        raise AssertionError(f"of {rounds} messages {good} came back as they went")
    return seconds


_CHUNK = 1_000_000


def _litmus_sink(folder: str, chunks: int) -> None:
    tx, rx = _other_ends(folder)
    message = np.zeros(512, np.int64)
    at = int(message.ctypes.data)
    ring_probe.ring_receives(rx.at, at, len(MESSAGE), 0, 0)
    tx.send(rx.receive())
    wrong = 0
    for chunk in range(chunks):  # in chunks, so that a signal is seen
        wrong += ring_probe.ring_receives(rx.at, at, len(MESSAGE), chunk * _CHUNK, _CHUNK)
    tx.send(wrong.to_bytes(8, "little"))


def litmus(iterations: int = 100_000_000) -> int:
    """Sends so many messages, each word of which is derived from its number: how many came torn or out of order."""
    chunks = max(iterations // _CHUNK, 1)
    with _two_rings() as (folder, tx, rx), partner(_litmus_sink, folder, chunks):
        message = np.zeros(512, np.int64)
        at = int(message.ctypes.data)
        ring_probe.ring_sends(tx.at, at, len(MESSAGE), 0, 0)
        _ready(tx, rx)
        for chunk in range(chunks):
            if ring_probe.ring_sends(tx.at, at, len(MESSAGE), chunk * _CHUNK, _CHUNK) != _CHUNK:
                raise AssertionError("the ring refused a message")
        answer = rx.receive(60)
    if answer is None:
        raise AssertionError("the receiver did not come to its end")
    return int.from_bytes(answer, "little")
