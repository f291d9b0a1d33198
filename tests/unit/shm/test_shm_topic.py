"""Topics: readers see whole values, in order, know what they missed, and hold nobody up; writers may die anywhere."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.shm import eventually, forked
from support.stepper import BASE, PRIVATE, Machine, Party, Steps, explore, load_protocol
from swarm_agents.errors import Fenced, PayloadTooLarge, RingInUse, RingMismatch
from swarm_agents.shm.ring import Ring
from swarm_agents.shm.topic import Reader, Topic, Writer

_MARK = 0x5DEECE66D


def make(path: Path, **options: int) -> tuple[Topic, Writer, Reader]:
    """A small topic, its writer, and a reader that opened it."""
    topic = Topic.create(path / "topic", **({"slots": 8, "slot_bytes": 64} | options))
    return topic, topic.writer(), Topic.open(path / "topic").reader()


def test_a_reader_sees_the_last_value_and_each_one_in_order(tmp_path: Path) -> None:
    topic, writer, reader = make(tmp_path)
    assert reader.last() is None
    assert reader.next(0) is None
    for number in range(5):
        writer.publish(bytes([number]) * number)
    writer.publish(np.arange(3, dtype=np.int32))
    assert np.frombuffer(reader.last() or b"", np.int32).tolist() == [0, 1, 2]
    assert [reader.next(0) for _ in range(5)] == [bytes([number]) * number for number in range(5)]
    assert len(reader.next(0) or b"") == 12
    assert (reader.next(0), reader.missed, topic.published) == (None, 0, 6)


def test_a_reader_that_lags_learns_how_many_it_missed(tmp_path: Path) -> None:
    _, writer, reader = make(tmp_path)
    for number in range(20):
        writer.publish(bytes([number]))
    seen = []
    while (value := reader.next(0)) is not None:
        seen.append(value[0])
    assert seen == list(range(20 - len(seen), 20))
    assert len(seen) == 7  # all slots but the one that may be written to
    assert reader.missed == 13


def test_a_late_reader_begins_with_what_is_new_or_with_the_oldest(tmp_path: Path) -> None:
    topic, writer, _ = make(tmp_path)
    for number in range(3):
        writer.publish(bytes([number]))
    oldest, new = topic.reader("oldest"), topic.reader()
    assert [oldest.next(0) for _ in range(4)] == [b"\0", b"\1", b"\2", None]
    assert new.next(0) is None
    assert new.last() == b"\2"


def test_a_loan_is_published_at_its_end_and_dropped_by_an_exception(tmp_path: Path) -> None:
    _, writer, reader = make(tmp_path)
    with writer.loan(3) as view:
        view[:] = b"one"
    with pytest.raises(KeyError), writer.loan(3) as view:  # noqa: PT012 - the block is what is tested
        view[:] = b"bad"
        raise KeyError
    assert reader.last() == b"one"
    writer.publish(b"two")
    assert [reader.next(0), reader.next(0), reader.next(0)] == [b"one", b"two", None]


def test_a_parked_reader_is_woken_by_a_value(tmp_path: Path) -> None:
    topic, writer, reader = make(tmp_path)
    got: list[bytes | None] = []
    thread = threading.Thread(target=lambda: got.append(reader.next()))
    thread.start()
    eventually(lambda: int.from_bytes(topic.view[384:392], "little"))
    writer.publish(b"wake up")
    thread.join(10)
    assert got == [b"wake up"]


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path) -> None:
    topic, writer, _ = make(tmp_path)
    with pytest.raises(PayloadTooLarge, match="64"):
        writer.publish(bytes(65))
    with pytest.raises(RingInUse, match="take_over"):
        topic.writer()
    with pytest.raises(RingMismatch, match="no ring"):
        Ring.open(topic.path)
    with pytest.raises(ValueError, match="power of two"):
        Topic.create(tmp_path / "other", slots=5)


def test_a_writer_that_lost_its_place_is_told_so_and_tears_nothing(tmp_path: Path) -> None:
    topic, writer, reader = make(tmp_path)
    writer.publish(b"before")
    with pytest.raises(Fenced), writer.loan(8) as view:  # noqa: PT012 - the block is what is tested
        after = topic.writer(take_over=True)
        for number in range(40):
            view[:] = b"\xff" * 8  # it writes on
            after.publish(bytes([number]) * 8)
            assert reader.last() == bytes([number]) * 8
    with pytest.raises(Fenced):
        writer.publish(b"late")
    writer.close()
    for number in range(40):
        after.publish(bytes([number]) * 8)
        assert reader.last() == bytes([number]) * 8


def test_a_killed_writer_leaves_the_last_whole_value(tmp_path: Path) -> None:
    topic, warm, reader = make(tmp_path, slots=4, slot_bytes=512)
    words = np.arange(64, dtype=np.int64) * _MARK
    warm.publish(words)
    warm.close()
    rng = random.Random(5)

    def writes() -> None:
        writer = topic.writer()
        number = topic.published
        while True:
            writer.publish(words ^ number)
            number += 1

    for _ in range(60):
        before = topic.published
        with forked(writes) as child:
            eventually(lambda before=before: topic.published > before)
            for _ in range(rng.randrange(2000)):
                _whole(reader.last())
            child.kill()
        value = reader.last()
        _whole(value)
        assert reader.last() == value


def _whole(raw: bytes | None) -> None:
    found = np.frombuffer(raw or b"", np.int64)
    assert len(found) == 64
    assert (found == np.arange(64, dtype=np.int64) * _MARK ^ found[0]).all(), "torn"


def test_readers_of_a_busy_writer_see_whole_values_in_order(tmp_path: Path) -> None:
    topic, warm, reader = make(tmp_path, slots=4, slot_bytes=512)
    words = np.arange(64, dtype=np.int64) * _MARK
    warm.publish(words)
    warm.close()
    reader.next(0)
    count = 30_000

    def writes() -> None:
        with topic.writer() as writer:
            for number in range(1, count + 1):
                writer.publish(words ^ number)

    with forked(writes) as child:
        seen, last = 0, 0
        while last < count:
            value = reader.next(20)
            _whole(value)
            number = int(np.frombuffer(value or b"", np.int64)[0])
            assert number > last
            seen, last = seen + 1, number
        assert child.wait() == 0
    assert seen + reader.missed == count


# --- step by step ----------------------------------------------------------------------------------------------------

SLOTS, STRIDE, AREA = 4, 64, BASE + 4096


def load(*edits: tuple[str, str]) -> SimpleNamespace:
    return load_protocol(edits, roots=("topic_words",), fixed=0)


class Steady:
    """A small topic in the stepper's memory."""

    def __init__(self, p: SimpleNamespace, published: int) -> None:
        self.p = p
        self.machine = Machine({BASE + p.LAST_AT: SLOTS - 1})
        self.read: list[tuple[int, int]] = []
        writer = self.hand(9)
        for value in range(1, published + 1):
            self.machine.run(self.publish(writer, value))

    def hand(self, number: int, epoch: int = 0, lift: int = 1) -> int:
        p, at = self.p, PRIVATE + number * (1 << 20)
        for name, value in (
            ("B_BASE", BASE), ("B_SLOTS", SLOTS), ("B_STRIDE", STRIDE), ("B_SLOTS_AT", AREA), ("B_MOST", 16),
            ("B_MINE", epoch << 52), ("B_LIFT", lift), ("B_POS", SLOTS - 1),
        ):  # fmt: skip
            self.machine.words[at + getattr(p, name)] = value
        return at

    def publish(self, hand: int, *values: int) -> Steps:
        for value in values:
            target = yield from self.p.open_slot(hand)
            if target < 0:
                return target
            yield "poke", target, value
            yield "poke", target + 8, value * _MARK
            done = yield from self.p.close_slot(hand, 16)
            if done != 1:
                return done
        return 1

    def reads(self, hand: int, times: int) -> Steps:
        for _ in range(times):
            got = yield from self.p.read_last(hand, hand + 4096)
            assert got == 16, "nothing to read"
            first = yield "peek", hand + 4096
            second = yield "peek", hand + 4096 + 8
            self.read.append((first, second))
        return 1

    def check(self) -> None:
        for first, second in self.read:
            assert second == first * _MARK, f"torn: {first}"


def word_by_word(steps: Steps) -> Steps:
    answer: Any = None
    while True:
        try:
            op = steps.send(answer)
        except StopIteration as end:
            return end.value
        if op[0] == "copy":
            for at in range(0, op[3], 8):
                value = yield "peek", op[2] + at
                yield "poke", op[1] + at, value
            answer = 0
        else:
            answer = yield op


def writer_and_reader(p: SimpleNamespace) -> Any:
    def scenario() -> Any:
        topic = Steady(p, 3)
        writer = Party("writer", topic.publish(topic.hand(0), 11, 12, 13, 14, 15), topic.machine)
        reader = Party("reader", word_by_word(topic.reads(topic.hand(1), 1)), topic.machine)

        def check() -> None:
            topic.machine.run(topic.reads(topic.hand(2), 1))  # whatever happened, a whole value is there
            topic.machine.run(topic.publish(topic.hand(0), 21))
            topic.machine.run(topic.reads(topic.hand(2), 1))
            topic.check()
            assert topic.read[-1][0] == 21

        return [writer, reader], ["writer"], check

    return scenario


def old_and_new_writer(p: SimpleNamespace, lift: int = 0) -> Any:
    def scenario() -> Any:
        topic = Steady(p, 2)
        old = Party("old", topic.publish(topic.hand(0, lift=lift), 11, 12), topic.machine)
        hand = topic.hand(1, epoch=1, lift=0)

        def takes_over() -> Steps:
            last = yield "load", BASE + p.LAST_AT
            while not (yield "cas", BASE + p.LAST_AT, last, 1 << 52 | (last & p.LAST_MASK)):
                last = yield "load", BASE + p.LAST_AT
            yield from p.settle_writer(hand, 1)
            for value in range(21, 26):
                done = yield from topic.publish(hand, value)
                assert done == 1
                yield from topic.reads(topic.hand(2), 1)
                assert topic.read[-1][0] == value
            return 1

        new = Party("new", takes_over(), topic.machine)

        def check() -> None:
            topic.machine.run(topic.reads(topic.hand(3), 1))
            topic.check()
            assert topic.read[-1][0] == 25

        return [old, new], [], check

    return scenario


def test_a_reader_never_sees_a_torn_value_and_a_killed_writer_leaves_one_whole() -> None:
    p = load()
    assert explore(writer_and_reader(p), preemptions=2, kills=1) > 50
    assert explore(writer_and_reader(p), preemptions=2, relaxed=True) > 50


def test_a_writer_that_lost_its_place_harms_nothing_when_it_returns() -> None:
    for lift in (0, 1):  # it passes over closed slots, or uses them again
        assert explore(old_and_new_writer(load(), lift), preemptions=2) > 50


@pytest.mark.parametrize(
    ("edit", "scenario"),
    [
        (("    return length if load(at) == word else OVERTAKEN", "    return length"), writer_and_reader),
        (("        if cas(at, word, V_CLOSED | epoch << 3):\n", "        if True:\n"), old_and_new_writer),
        (("            if load(base + LAST_AT) != last or not cas(at, word,", "            if not cas(at, word,"),
         old_and_new_writer),
    ],
    ids=["no second look", "nothing closed", "no look after the word"],
)  # fmt: skip
def test_a_planted_fault_is_found(edit: tuple[str, str], scenario: Any) -> None:
    with pytest.raises(AssertionError):
        explore(scenario(load(edit)), preemptions=2)


def test_a_topics_file_is_its_owners_alone(tmp_path: Path) -> None:
    topic, _, _ = make(tmp_path)
    assert os.stat(topic.path).st_mode & 0o777 == 0o600
    topic.remove()
    assert list(tmp_path.iterdir()) == []
