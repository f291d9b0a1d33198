"""Rings whose senders and receivers are killed by SIGKILL at random instants, hundreds of times a second.

`SWARM_RING_KILLS` says how many in all: the default is what a test run has time for, 10,000 take some minutes.

A killed sender's messages are numbered, and each word of them is derived from sender and number. It notes in shared
memory how many `send` has returned for, so what arrives must be numbers 0, 1, 2 ... without a gap, and at least as many
as were noted. A killed receiver notes each message after it took it: at most the one that it took last is missing, and
none is there twice.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from swarm_agents.shm.ring import Ring, Sender

KILLS = int(os.environ.get("SWARM_RING_KILLS", "720"))
WORDS = 6
_MARK = 0x5DEECE66D
_COUNT = 1 << 20


class Notes:
    """Words that parent and children share: what each has done."""

    def __init__(self, words: int) -> None:
        self.words = np.frombuffer(mmap.mmap(-1, words * 8), np.int64)


@contextmanager
def killed(function: Callable[[], object], delay: float, started: Callable[[], bool]) -> Iterator[None]:
    """Runs a function in a forked child, and kills it some time after it has started; the block runs meanwhile."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    try:
        until = time.monotonic() + 20
        while not started() and time.monotonic() < until:
            pass
        assert started(), "the child did not come up"
        until = time.perf_counter() + delay
        while time.perf_counter() < until:
            pass
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def message(sender: int, number: int) -> np.ndarray:
    words = np.arange(WORDS, dtype=np.int64) * _MARK
    return words ^ (sender << 32 | number)


def read(raw: bytes) -> tuple[int, int]:
    """Whose message it is and which; fails if it is torn."""
    words = np.frombuffer(raw, np.int64)
    base = int(words[0])
    assert len(words) >= WORDS
    assert (words[:WORDS] == np.arange(WORDS, dtype=np.int64) * _MARK ^ base).all(), f"torn: {words}"
    return base >> 32, base & 0xFFFFFFFF


def sends(ring: Ring, who: int, notes: Notes, how: int) -> None:
    """Sends for ever, in one of the ways there are."""
    tx = ring.sender()
    words = np.arange(WORDS, dtype=np.int64) * _MARK
    block = np.empty((4, WORDS), np.int64)
    number = 0
    notes.words[2] = 1
    while True:
        if how == 0:
            tx.send(words ^ (who << 32 | number))
            number += 1
        elif how == 1:
            with tx.loan(WORDS * 8) as view:
                np.frombuffer(view, np.int64)[:] = words ^ (who << 32 | number)
            number += 1
        else:
            for row in range(4):
                block[row] = words ^ (who << 32 | number + row)
            number += tx.send_many(block, None if number % 2 else 0.001)
        notes.words[0] = number


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("frames", ["fixed", "variable"])
@pytest.mark.parametrize("producers", ["one", "many"])
def test_killed_senders_lose_tear_and_double_nothing(tmp_path: Path, producers: str, frames: str) -> None:
    ring = Ring.create(tmp_path / "ring", slots=32, slot_bytes=64, producers=producers, frames=frames, max_senders=8)  # type: ignore[arg-type]
    rx = ring.receiver()
    notes = Notes(8)
    rng = random.Random(producers + frames)
    tx = ring.sender()  # compiles what the children need
    tx.send(message(0, 0))
    with tx.loan(WORDS * 8) as view:
        np.frombuffer(view, np.int64)[:] = message(0, 1)
    tx.send_many(message(0, 2).reshape(1, -1))
    tx.close()
    assert [read(rx.receive() or b"") for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
    got = 0
    for who in range(1, KILLS // 6 + 1):
        notes.words[:] = 0
        numbers: list[int] = []
        how = rng.randrange(3)

        def take(who: int, numbers: list[int]) -> bool:
            raw = rx.try_receive()
            if raw is None:
                return False
            sender, number = read(raw)
            assert sender == who
            numbers.append(number)
            return True

        with killed(
            lambda who=who, how=how: sends(ring, who, notes, how), rng.random() * 3e-4, lambda: notes.words[2] == 1
        ):
            for _ in range(rng.randrange(40)):
                take(who, numbers)
        while take(who, numbers):
            pass
        sent = int(notes.words[0])
        assert numbers == list(range(len(numbers))), "lost, doubled or out of order"
        assert len(numbers) >= sent, f"{sent} were sent, {len(numbers)} came"
        assert len(numbers) <= sent + 4
        got += len(numbers)
    assert got > 0
    with ring.sender() as tx:  # nobody is held up by the dead
        for number in range(100):
            tx.send(message(7, number), timeout=10)
            assert read(rx.receive(10) or b"") == (7, number)


def receives(ring: Ring, notes: Notes, seen: Notes, how: int) -> None:
    """Receives for ever, and notes what came."""
    rx = ring.receiver()
    out = np.zeros((1, WORDS), np.int64)
    buffer = bytearray(WORDS * 8)
    notes.words[2] = 1
    while True:
        if how == 0:
            _, number = read(rx.receive() or b"")
        elif how == 1:
            rx.receive_into(buffer)
            _, number = read(bytes(buffer))
        elif how == 2:
            if rx.receive_many(out, None) == 0:
                continue
            _, number = read(out.tobytes())
        else:
            with rx.view() as view:
                assert view is not None
                _, number = read(bytes(view))
                seen.words[number] += 1  # worked on before it is taken: may come again, is never lost
            continue
        seen.words[number] += 1


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", [0, 1, 2, 3], ids=["receive", "receive_into", "receive_many", "view"])
def test_killed_receivers_lose_nothing_and_are_given_nothing_twice(tmp_path: Path, how: int) -> None:
    ring = Ring.create(tmp_path / "ring", slots=32, slot_bytes=64)
    tx = ring.sender()
    notes, seen = Notes(8), Notes(_COUNT)
    rng = random.Random(how)
    number = 0

    def feed(most: int) -> None:
        nonlocal number
        for _ in range(most):
            if not tx.try_send(message(1, number)):
                return
            number += 1

    rx = ring.receiver()
    feed(4)
    rx.receive()
    rx.receive_into(bytearray(64))
    rx.receive_many(np.zeros((1, WORDS), np.int64))
    with rx.view():
        pass
    seen.words[:4] = 1
    rx.close()
    kills = KILLS // 12
    for _ in range(kills):
        notes.words[:] = 0
        feed(rng.randrange(32))
        with killed(lambda: receives(ring, notes, seen, how), rng.random() * 2e-4, lambda: notes.words[2] == 1):
            feed(rng.randrange(32))
    with ring.receiver() as last:
        while (raw := last.try_receive()) is not None:
            seen.words[read(raw)[1]] += 1
    counts = seen.words[:number]
    missing, doubled = int((counts == 0).sum()), int((counts > 1).sum())
    assert number > kills
    if how == 3:
        assert missing == 0
        assert doubled <= kills
    else:
        assert doubled == 0
        assert missing <= kills  # each was killed at most once between taking and noting


def test_senders_of_many_are_killed_while_others_send(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "ring", slots=64, slot_bytes=64, producers="many", max_senders=16)
    rx = ring.receiver()
    notes = Notes(8)
    rng = random.Random(3)
    steady: Sender = ring.sender()
    steady.send(message(0, 0))
    assert read(rx.receive() or b"") == (0, 0)
    numbers: dict[int, list[int]] = {0: [0]}
    next_number = 1
    for who in range(1, max(KILLS // 60, 10)):
        notes.words[:] = 0
        with killed(lambda who=who: sends(ring, who, notes, 0), rng.random() * 3e-4, lambda: notes.words[2] == 1):
            for _ in range(rng.randrange(30)):
                if steady.try_send(message(0, next_number)):
                    next_number += 1
                raw = rx.try_receive()
                if raw is not None:
                    sender, number = read(raw)
                    numbers.setdefault(sender, []).append(number)
        while (raw := rx.try_receive()) is not None:
            sender, number = read(raw)
            numbers.setdefault(sender, []).append(number)
        assert len(numbers.get(who, [])) >= int(notes.words[0])
    for sender, seen in numbers.items():
        assert seen == list(range(len(seen))), f"sender {sender}"
    assert len(numbers[0]) == next_number
