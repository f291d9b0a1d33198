"""The methods of a ring's ends that enter no Python: they do what those in Python do, and leave the rest to them."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from swarm_agents.errors import Fenced, PayloadError, PayloadTooLarge, RingFull
from swarm_agents.shm import ring_ends
from swarm_agents.shm.cpython import layout_known
from swarm_agents.shm.ring import Receiver, Ring, Sender

pytestmark = pytest.mark.skipif(not layout_known(), reason="this interpreter keeps objects elsewhere: all is in Python")


@pytest.fixture
def ring(tmp_path) -> Iterator[Ring]:
    ring = Ring.create(tmp_path / "ring", slots=8, slot_bytes=64)
    yield ring
    ring.remove()


@pytest.fixture
def ends(ring) -> Iterator[tuple[Sender, Receiver]]:
    with ring.sender() as tx, ring.receiver() as rx:
        yield tx, rx


def test_the_methods_are_compiled_and_still_say_what_they_take(ends):
    tx, rx = ends
    for method, python in ((tx.send, ring_ends._SEND), (rx.receive, ring_ends._RECEIVE)):
        assert inspect.isbuiltin(method)
        assert list(inspect.signature(method).parameters) == list(inspect.signature(python).parameters)[1:]
        assert method.__doc__ == inspect.getdoc(python)


@pytest.mark.parametrize(
    "message",
    [b"", b"x", bytes(range(64)), bytearray(b"loose"), memoryview(b"seen"), np.arange(8.0), np.arange(6).reshape(2, 3)],
    ids=repr,
)
def test_whatever_has_contiguous_memory_is_sent_as_its_bytes(ends, message):
    tx, rx = ends
    tx.send(message)
    assert tx.try_send(message) is True
    into = bytearray(64)
    assert rx.receive() == bytes(memoryview(message).cast("B") if len(message) else b"")
    assert rx.receive_into(into) == memoryview(message).nbytes
    assert bytes(into[: memoryview(message).nbytes]) == bytes(message)


def test_named_arguments_and_time_limits_go_the_long_way_with_the_same_meaning(ends):
    tx, rx = ends
    tx.send(data=b"a")
    tx.send(b"b", timeout=0)
    tx.send(b"c", 1.0)
    assert [rx.receive(timeout=1), rx.receive(1), rx.try_receive(), rx.try_receive()] == [b"a", b"b", b"c", None]
    assert rx.receive(timeout=0) is None
    assert rx.receive_into(buffer=bytearray(4), timeout=0) is None


def test_errors_are_those_of_python(ends):
    tx, rx = ends
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'data'"):
        tx.send()
    with pytest.raises(TypeError, match="unexpected keyword argument 'late'"):
        tx.send(b"", late=1)
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments"):
        tx.send(*range(20))
    with pytest.raises(TypeError, match="argument"):
        tx.send(b"", **{f"name{number}": number for number in range(20)})
    with pytest.raises(TypeError):
        rx.receive(1, 2, 3)
    with pytest.raises(TypeError):
        Sender.send(rx, b"another's")
    with pytest.raises(PayloadTooLarge, match="larger slots"):
        tx.send(bytes(65))
    with pytest.raises(PayloadError, match="Python objects"):
        tx.send(np.array([object()]))
    with pytest.raises(PayloadError, match="Python objects"):
        tx.try_send(np.array([(1, "a")], dtype=[("number", "i4"), ("thing", "O")]))
    with pytest.raises(ValueError, match="read-only"):
        rx.receive_into(b"fixed")
    with pytest.raises(ValueError, match="contiguous"):
        rx.receive_into(np.zeros((8, 8))[:, ::2])
    for _ in range(8):
        tx.send(b"fills")
    assert tx.try_send(b"no room") is False
    with pytest.raises(RingFull):
        tx.send(b"no room", timeout=0)
    with pytest.raises(PayloadTooLarge, match="stays in the ring"):
        rx.receive_into(bytearray(2))
    assert rx.receive() == b"fills"


def test_who_lost_his_place_is_told_and_a_closed_end_refuses(ring):
    tx, rx = ring.sender(), ring.receiver()
    ring.sender(take_over=True)
    ring.receiver(take_over=True)
    with pytest.raises(Fenced):
        tx.send(b"late")
    with pytest.raises(Fenced):
        rx.receive()
    tx.close()
    for call in (lambda: tx.send(b""), lambda: tx.try_send(b"")):
        with pytest.raises((ValueError, Fenced)):
            call()


def test_references_are_neither_lost_nor_kept(ends):
    tx, rx = ends
    message, array, into = b"m" * 50, np.arange(8), bytearray(64)
    calls = (
        lambda: tx.send(message), lambda: rx.receive(), lambda: tx.send(array), lambda: rx.receive_into(into),
        lambda: tx.try_send(memoryview(message)), lambda: rx.try_receive(), lambda: rx.try_receive(),
        lambda: tx.send(message, timeout=1), lambda: rx.receive(timeout=1),
    )  # fmt: skip
    watched = (message, array, into, None, True, tx, rx)

    def counts() -> list[int]:
        return [sys.getrefcount(thing) for thing in watched]

    for call in calls:
        call()
    before = counts()
    for _ in range(200):
        for call in calls:
            call()
    assert max(abs(after - was) for after, was in zip(counts(), before, strict=True)) < 20
    into.extend(b"not held by a forgotten buffer")


def test_a_method_keeps_its_end_alive_and_no_longer_than_it_lives(ring):
    tx = ring.sender()
    seen = weakref.ref(tx)
    send = tx.send
    del tx
    send(b"still there")
    gc.disable()
    try:
        del send
        assert seen() is None, "an end that nobody has is gone without the collector of cycles"
    finally:
        gc.enable()


def test_an_end_that_was_never_made_is_an_error_and_no_crash():
    with pytest.raises(SystemError):
        Sender.__new__(Sender).send(b"")


def test_without_knowledge_of_the_interpreter_all_is_done_in_python(tmp_path):
    program = f"""
from swarm_agents.shm import cpython
cpython.layout_known.cache_clear()
for name in ("ring_hand", "ring_ends"):
    module = __import__("swarm_agents.shm." + name, fromlist=["x"])
    module.layout_known = lambda: False
from swarm_agents.shm.ring import Ring
import inspect, numpy as np
ring = Ring.create({str(tmp_path / "plain")!r})
with ring.sender() as tx, ring.receiver() as rx:
    assert not inspect.isbuiltin(tx.send)
    tx.send(b"abc"); tx.send(np.arange(3, dtype=np.uint8)); tx.try_send(bytearray(b"d"))
    print(rx.receive(), rx.receive(), rx.try_receive())
ring.remove()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=110, env=os.environ
    )
    assert done.stdout.strip() == r"b'abc' b'\x00\x01\x02' b'd'", done.stderr
