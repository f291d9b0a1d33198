"""Rings by their public face: what goes in comes out, once and in order, and every refusal says what to do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.ringkit import KINDS, make
from support.shm import eventually, forked
from swarm_agents.errors import (
    Fenced,
    PayloadError,
    PayloadTooLarge,
    RingFull,
    RingInUse,
)
from swarm_agents.shm import ring_probe
from swarm_agents.shm.ring import Receiver, Ring, Sender


@pytest.fixture(params=KINDS, ids=[f"{p}-{f}" for p, f in KINDS])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Ring, Sender, Receiver]:
    """A ring of each kind."""
    producers, frames = request.param
    return make(tmp_path, producers=producers, frames=frames)


def test_messages_come_out_as_they_went_in(ends: tuple[Ring, Sender, Receiver]) -> None:
    _, tx, rx = ends
    for length in [*range(65), *range(64, -1, -1)]:
        message = os.urandom(length)
        tx.send(message)
        assert rx.receive() == message
    assert rx.try_receive() is None


@pytest.mark.parametrize(
    "thing",
    [bytearray(b"loose"), memoryview(b"viewed"), np.arange(5, dtype=np.float32), np.arange(12).reshape(3, 4).T[:1]],
    ids=["bytearray", "memoryview", "array", "strided"],
)
def test_whatever_has_bytes_can_be_sent(tmp_path: Path, thing: Any) -> None:
    _, tx, rx = make(tmp_path)
    tx.send(thing)
    assert rx.receive() == (thing.tobytes() if isinstance(thing, np.ndarray) else bytes(thing))


def test_a_bytearray_that_was_cut_at_its_front_is_sent_from_where_it_begins(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path)
    loose = bytearray(b"0123456789")
    del loose[:4]
    tx.send(loose)
    assert rx.receive() == b"456789"


def test_python_objects_are_not_sent(tmp_path: Path) -> None:
    _, tx, _ = make(tmp_path)
    with pytest.raises(PayloadError, match="another process"):
        tx.send(np.array([object()]))
    with pytest.raises(PayloadError):
        tx.send_many(np.array([object()]))


def test_a_received_message_stays_what_it_was(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path)
    tx.send(b"a" * 64)
    first = rx.receive()
    tx.send(b"b" * 64)
    assert rx.receive() == b"b" * 64
    assert first == b"a" * 64


def test_a_full_ring_pushes_back(ends: tuple[Ring, Sender, Receiver]) -> None:
    _, tx, rx = ends
    sent = 0
    while tx.try_send(b"x"):
        sent += 1
    assert sent == 8
    with pytest.raises(RingFull, match="look whether a receiver lives"):
        tx.send(b"x", timeout=0.01)
    rx.receive()
    tx.send(b"y", timeout=0)
    assert [rx.try_receive() for _ in range(9)] == [b"x"] * 7 + [b"y", None]


def test_too_long_a_message_is_refused_with_advice(ends: tuple[Ring, Sender, Receiver]) -> None:
    ring, tx, rx = ends
    with pytest.raises(PayloadTooLarge, match=str(ring.shape.most_bytes)):
        tx.send(bytes(ring.shape.most_bytes + 1))
    tx.send(bytes(ring.shape.most_bytes))
    small = bytearray(3)
    with pytest.raises(PayloadTooLarge, match="stays in the ring"):
        rx.receive_into(small)
    assert rx.receive() == bytes(ring.shape.most_bytes)


def test_a_message_longer_than_a_page_comes_whole(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path, slots=1024, frames="variable")
    message = os.urandom(16_000)
    for _ in range(10):
        tx.send(message)
        assert rx.receive() == message


def test_rows_of_arrays_go_and_come_in_batches(ends: tuple[Ring, Sender, Receiver]) -> None:
    _, tx, rx = ends
    rows = np.arange(40, dtype=np.int64).reshape(20, 2)
    out = np.zeros((20, 2), np.int64)
    came = 0
    went = 0
    while came < 20:
        went += tx.send_many(rows[went:])
        came += rx.receive_many(out[came:])
    assert went == 20
    assert (out == rows).all()
    assert rx.receive_many(out) == 0


def test_elements_of_an_array_are_messages_and_shorter_ones_say_their_length(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path)
    assert tx.send_many(np.array([7, 8], np.int16)) == 2
    tx.send(b"three")
    out, lengths = np.full((4, 8), 255, np.uint8), np.zeros(4, np.int64)
    assert rx.receive_many(out, lengths=lengths) == 3
    assert lengths[:3].tolist() == [2, 2, 5]
    assert out[0].tolist() == [7, 0] + [255] * 6


def test_rows_that_do_not_lie_together_are_refused(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path)
    wide = np.zeros((4, 8), np.uint8)
    with pytest.raises(ValueError, match="contiguous"):
        tx.send_many(wide[:, ::2])
    wide.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        rx.receive_many(wide)
    with pytest.raises(ValueError, match="read-only"):
        rx.receive_into(b"123")


def test_a_loan_is_sent_at_its_end_and_dropped_by_an_exception(ends: tuple[Ring, Sender, Receiver]) -> None:
    _, tx, rx = ends
    with tx.loan(16) as view:
        np.frombuffer(view, np.float64)[:] = 1.5, 2.5
        with pytest.raises(ValueError, match="open"):
            tx.send(b"meanwhile")
    with pytest.raises(KeyError), tx.loan(4) as view:  # noqa: PT012 - the block is what is tested
        view[:] = b"half"
        raise KeyError
    tx.send(b"after")
    assert np.frombuffer(rx.receive() or b"", np.float64).tolist() == [1.5, 2.5]
    assert rx.receive() == b"after"


def test_a_view_takes_its_message_at_its_end_and_keeps_it_by_an_exception(
    ends: tuple[Ring, Sender, Receiver],
) -> None:
    _, tx, rx = ends
    tx.send(b"work")
    with pytest.raises(KeyError), rx.view() as view:  # noqa: PT012 - the block is what is tested
        assert view == b"work"
        raise KeyError
    with rx.view() as view:
        assert view is not None
        assert view.readonly
        with pytest.raises(ValueError, match="open"):
            rx.receive(0)
        assert bytes(view) == b"work"
    with rx.view(timeout=0) as view:
        assert view is None


def test_the_figures_of_a_ring_add_up(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    for _ in range(8):
        tx.send(b"x")
    assert not tx.try_send(b"x")
    rx.receive()
    stats = ring.stats()
    assert (stats.sent, stats.received, stats.depth) == (8, 1, 7)
    assert stats.full >= 1


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(st.tuples(st.sampled_from("srlvb"), st.integers(0, 128)), max_size=80),
)
def test_a_ring_is_a_bounded_queue(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str], steps: list[tuple[str, int]]
) -> None:
    """Any sequence of sends, loans, receipts, views and batches does as a deque does."""
    _, tx, rx = make(tmp_path_factory.mktemp("ring"), producers=kind[0], frames=kind[1])
    most = 128 if kind[1] == "variable" else 64
    model: deque[bytes] = deque()
    for number, (what, size) in enumerate(steps):
        message = bytes([number & 255]) * min(size, most)
        if what == "s":
            if tx.try_send(message):
                model.append(message)
            else:
                assert model
        elif what == "l":
            try:
                with tx.loan(len(message), timeout=0) as view:
                    view[:] = message
                model.append(message)
            except RingFull:
                assert model
        elif what == "b":
            rows = np.full((3, 5), number & 255, np.uint8)
            model.extend([rows[0].tobytes()] * tx.send_many(rows))
        elif what == "v":
            with rx.view(timeout=0) as view:
                assert (None if view is None else bytes(view)) == (model.popleft() if model else None)
        else:
            assert rx.try_receive() == (model.popleft() if model else None)
    while model:
        assert rx.try_receive() == model.popleft()
    assert rx.try_receive() is None
    tx.close()
    rx.close()


# --- seats -----------------------------------------------------------------------------------------------------------


def test_one_ring_has_one_receiver_and_one_sender_unless_made_for_many(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    with pytest.raises(RingInUse, match="take_over"):
        ring.sender()
    with pytest.raises(RingInUse, match="take_over"):
        ring.receiver()
    tx.close()
    rx.close()
    with pytest.raises(ValueError, match="closed"):
        tx.send(b"x")
    with pytest.raises(ValueError, match="closed"):
        rx.receive(0)
    with ring.sender() as again, ring.receiver() as other:
        again.send(b"x")
        assert other.receive() == b"x"


def test_many_senders_are_as_many_as_were_asked_for(tmp_path: Path) -> None:
    ring, first, rx = make(tmp_path, producers="many", max_senders=2)
    second = ring.sender()
    with pytest.raises(RingInUse, match="max_senders"):
        ring.sender()
    first.send(b"1")
    second.send(b"2")
    assert [rx.receive(), rx.receive()] == [b"1", b"2"]
    first.close()
    ring.sender().send(b"3")
    assert rx.receive() == b"3"


def test_whoever_lost_his_place_is_told_so_and_harms_nothing(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    tx.send(b"before")
    after = ring.sender(take_over=True)
    for attempt in (lambda: tx.send(b"late"), lambda: tx.try_send(b"late"), lambda: tx.send_many(np.zeros((1, 8)))):
        with pytest.raises(Fenced, match="taken this one's place"):
            attempt()
    after.send(b"after")
    other = ring.receiver(take_over=True)
    with pytest.raises(Fenced):
        rx.receive(0)
    with pytest.raises(Fenced):
        rx.receive()
    assert [other.receive(), other.receive(), other.receive(0)] == [b"before", b"after", None]


@pytest.mark.parametrize("frames", ["fixed", "variable"])
def test_a_loan_of_one_who_lost_his_place_is_void_and_tears_nothing(tmp_path: Path, frames: str) -> None:
    ring, tx, rx = make(tmp_path, frames=frames)
    with pytest.raises(Fenced), tx.loan(64) as view:  # noqa: PT012 - the block is what is tested
        after = ring.sender(take_over=True)
        for number in range(40):
            view[:] = b"\xff" * 64  # he writes on
            after.send(bytes([number]) * 64)
            assert rx.receive() == bytes([number]) * 64
    tx.close()  # its cells are used again from now on
    for number in range(40):
        after.send(bytes([number]) * 64)
        assert rx.receive() == bytes([number]) * 64


def test_a_view_of_one_who_lost_his_place_is_received_by_his_successor(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    tx.send(b"work")
    with pytest.raises(Fenced), rx.view() as view:  # noqa: PT012 - the block is what is tested
        assert view == b"work"
        other = ring.receiver(take_over=True)
    assert other.receive() == b"work"


def test_a_forked_child_does_not_go_on_with_its_parents_handles(tmp_path: Path) -> None:
    _ring, tx, rx = make(tmp_path)

    def child() -> None:
        with pytest.raises(ValueError, match="parent"):
            tx.send(b"from the child")
        with pytest.raises(ValueError, match="parent"):
            rx.receive(0)

    with forked(child) as process:
        assert process.wait() == 0
    tx.send(b"from the parent")
    assert rx.receive() == b"from the parent"


def test_a_paused_sender_of_many_holds_nobody_up_for_longer_than_the_ring_allows(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "ring", slots=8, producers="many", stall_seconds=0.05)
    rx = ring.receiver()

    def child() -> None:
        mine = ring.sender()
        try:
            with mine.loan(8) as view:
                view[:4] = b"half"
                os.kill(os.getpid(), signal.SIGSTOP)
        except Fenced:
            os._exit(7)

    with forked(child) as process:
        eventually(process.stopped)
        tx = ring.sender()
        for number in range(20):
            tx.send(bytes([number]))
            assert rx.receive(20) == bytes([number])
        process.signal(signal.SIGCONT)
        assert process.wait() == 7
    assert rx.receive(0) is None


def test_a_stopped_sender_that_returns_after_it_was_fenced_is_told_so(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "ring", slots=8)
    rx = ring.receiver()

    def child() -> None:
        mine = ring.sender()
        mine.send(b"first")
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            mine.send(b"late")
        except Fenced:
            os._exit(7)

    with forked(child) as process:
        eventually(process.stopped)
        tx = ring.sender(take_over=True)
        tx.send(b"second")
        process.signal(signal.SIGCONT)
        assert process.wait() == 7
    assert [rx.receive(), rx.receive(), rx.receive(0)] == [b"first", b"second", None]


# --- waiting -------------------------------------------------------------------------------------------------------


def test_a_parked_receiver_is_woken_by_a_message(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    got: list[bytes | None] = []
    thread = threading.Thread(target=lambda: got.append(rx.receive()))
    thread.start()
    eventually(lambda: ring.stats().receiver_parks > 0)
    tx.send(b"wake up")
    thread.join(10)
    assert got == [b"wake up"]


def test_a_parked_sender_is_woken_by_room(tmp_path: Path) -> None:
    ring, tx, rx = make(tmp_path)
    while tx.try_send(b"x"):
        pass
    thread = threading.Thread(target=tx.send, args=(b"last",))
    thread.start()
    eventually(lambda: ring.stats().sender_parks > 0)
    messages = [rx.receive() for _ in range(9)]
    thread.join(10)
    assert messages[-1] == b"last"


def test_a_receiver_that_waits_sees_signals(tmp_path: Path) -> None:
    _, _, rx = make(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(KeyboardInterrupt):
            rx.receive()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_idle_receiver_costs_next_to_nothing(tmp_path: Path) -> None:
    ring, _, rx = make(tmp_path)
    rx.receive(0.01)
    before = ring.stats().receiver_parks
    began = time.monotonic()
    rx.receive(0.5)
    slices = (time.monotonic() - began) / 0.05
    assert ring.stats().receiver_parks - before <= slices + 2  # it slept all the time, and was not woken for nothing


# --- the order of memory -------------------------------------------------------------------------------------------

LITMUS = int(os.environ.get("SWARM_LITMUS", "1000000"))


def test_a_million_messages_come_whole_and_in_order(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "ring", slots=64)

    def sends() -> None:
        message = np.zeros(512, np.int64)
        tx = ring.sender()
        if ring_probe.ring_sends(tx.at, message.ctypes.data, 64, 0, LITMUS) != LITMUS:
            os._exit(3)

    message = np.zeros(512, np.int64)
    rx = ring.receiver()
    ring_probe.ring_receives(rx.at, message.ctypes.data, 64, 0, 0)
    with forked(sends) as child:
        assert ring_probe.ring_receives(rx.at, message.ctypes.data, 64, 0, LITMUS) == 0
        assert child.wait() == 0


def test_a_torn_or_late_message_would_be_seen(tmp_path: Path) -> None:
    _, tx, rx = make(tmp_path)
    message = np.zeros(512, np.int64)
    ring_probe.ring_sends(tx.at, message.ctypes.data, 64, 0, 2)
    ring_probe.ring_sends(tx.at, message.ctypes.data, 64, 3, 1)
    with tx.loan(64) as view:
        view[:] = bytes(64)
    assert ring_probe.ring_receives(rx.at, message.ctypes.data, 64, 0, 4) == 2


def test_what_is_written_in_order_is_read_in_order(tmp_path: Path) -> None:
    area = _shared_area(tmp_path)
    ring_probe.passing_writes(area.ctypes.data, 0)
    ring_probe.passing_reads(area.ctypes.data, 0)
    with forked(lambda: ring_probe.passing_writes(area.ctypes.data, LITMUS)):
        assert ring_probe.passing_reads(area.ctypes.data, LITMUS) == 0


def test_of_two_who_write_and_look_one_sees_the_other(tmp_path: Path) -> None:
    count = 20_000
    area = _shared_area(tmp_path, 8 * count * 2 + 4096)
    at = area.ctypes.data
    seen = (at + 4096, at + 4096 + 8 * count)
    ring_probe.buffering(at, at + 128, seen[0], at + 256, at + 384, 1, 0)
    with forked(lambda: ring_probe.buffering(at + 128, at, seen[1], at + 384, at + 256, 1, count)) as child:
        ring_probe.buffering(at, at + 128, seen[0], at + 256, at + 384, 1, count)
        assert child.wait() == 0
    rounds = np.arange(1, count + 1)
    mine, other = area[4096:].view(np.int64)[: 2 * count].reshape(2, count)
    assert not ((mine < rounds) & (other < rounds)).any()


def _shared_area(path: Path, size: int = 4096) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.memmap(path / "area", np.uint8, "w+", shape=(size,))
