"""The ring's protocol, one shared operation at a time: every schedule of its parties up to the stated bounds.

A message is two words, the second derived from the first, and copied word by word, so that a torn one is seen. In the
end whoever was killed has a successor, who finishes; then all that was committed must have been taken once, whole and
in its sender's order.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from support.stepper import BASE, PRIVATE, Machine, Party, Steps, explore, load_protocol

CELLS, BYTES = 4, 16
DATA = BASE + 4096
WORDS = BASE + 2048
COUNTERS = BASE + 8192
_MARK = 0x5DEECE66D


def load(*edits: tuple[str, str]) -> SimpleNamespace:
    protocol = load_protocol(edits, roots=("ring_hot", "ring_repair"), fixed=0)
    protocol.put.__globals__["prefetch_write"] = lambda address: None
    return protocol


P = load()


def word_by_word(steps: Steps) -> Steps:
    """The same operations, but that a copy is one operation a word."""
    answer: Any = None
    while True:
        try:
            op = steps.send(answer)
        except StopIteration as end:
            return end.value
        if op[0] == "copy":
            target, source, count = op[1:]
            for at in range(0, count, 8):
                value = yield "peek", source + at
                yield "poke", target + at, value
            answer = 0
        else:
            answer = yield op


class Ring:
    """A small ring, its parties' private memories, and what has become of each message."""

    def __init__(self, p: SimpleNamespace, *, many: bool = False, variable: bool = False, behind: int = 0) -> None:
        self.p, self.many, self.variable = p, many, variable
        words = {WORDS + cell * p.WORD_STRIDE: p.K_DATA for cell in range(CELLS)}
        words[BASE + p.HEAD_AT] = words[BASE + p.TAIL_AT] = CELLS
        self.machine = Machine(words)
        self.sent: dict[int, int] = {}  # value: what `put` answered
        self.begun: list[int] = []
        self.taken: list[int] = []
        self.torn = False
        for _ in range(behind):  # so that the parties run into the ring's end
            self.machine.run(self.send(self.sender(9), 7))
            self.machine.run(self.receive(self.receiver(8)))
        self.taken.clear()
        self.sent.clear()
        self.begun.clear()

    def _hand(self, number: int, **values: int) -> int:
        p, at = self.p, PRIVATE + number * (1 << 20)
        common = {
            "A_BASE": BASE, "A_MANY": int(self.many), "A_VARIABLE": int(self.variable), "A_CELLS": CELLS, "A_SHIFT": 2,
            "A_MOST": BYTES * (2 if self.variable else 1), "A_WORDS": WORDS, "A_DATA": DATA, "A_DATA_STRIDE": BYTES,
            "A_OUT": at + 4096,
        }  # fmt: skip
        for name, value in (common | values).items():
            self.machine.words[at + getattr(p, name)] = value
        return at

    def state_at(self, number: int) -> int:
        return BASE + self.p.STATES_AT + number * 8

    def sender(self, number: int, epoch: int = 1) -> int:
        """A hand for a new sender, as `Ring.sender` makes it for one whose predecessor is gone."""
        p, words = self.p, self.machine.words
        mine = p.S_ALIVE | epoch << 3
        hand = self._hand(
            number, A_STATE=self.state_at(number), A_MINE=mine, A_OWNER=number | epoch << 8,
            A_COUNTERS=COUNTERS + number * 128, A_HEAD=words[BASE + p.HEAD_AT] & p.POS_MASK,
        )  # fmt: skip
        words[self.state_at(number)] = mine
        if not self.many:
            self.machine.run(p.find_tail(hand))
        if self.variable and not self.many:
            self.shadow(hand)
        return hand

    def shadow(self, hand: int) -> None:
        """What a sender of variable frames remembers of each cell's word."""
        self.machine.words[hand + self.p.A_SHADOW] = hand + 8192
        for cell in range(CELLS):
            self.machine.words[hand + 8192 + cell * 8] = self.machine.words[WORDS + cell * self.p.WORD_STRIDE]

    def receiver(self, number: int, epoch: int = 0) -> int:
        head = self.machine.words[BASE + self.p.HEAD_AT]
        self.machine.words[BASE + self.p.HEAD_AT] = epoch << 52 | (head & self.p.POS_MASK)
        return self._hand(number, A_MINE=epoch << 52, A_POS=head & self.p.POS_MASK)

    def party(self, name: str, steps: Steps) -> Party:
        return Party(name, word_by_word(steps), self.machine)

    # -- what parties do

    def send(self, hand: int, *values: int, length: int = BYTES) -> Steps:
        source = hand + 16384
        for value in values:
            for at in range(0, length, 8):
                yield "poke", source + at, value + at * _MARK
            self.begun.append(value)
            while True:
                done = yield from self.p.put(hand, source, length)
                if done != self.p.ASK:
                    break
                yield "poke", hand + self.p.A_POLICY, self.p.STEP_OVER
            self.sent[value] = done
            if done != 1:
                return done
        return 1

    def receive(self, hand: int, most: int = 1, stuck: Callable[[], Steps] | None = None) -> Steps:
        """Takes up to so many messages; what it can't take yet it leaves."""
        p, out = self.p, hand + 16384
        for _ in range(most):
            got = yield from p.take(hand, out, 1 << 12)
            if got == p.STUCK and stuck is not None:
                yield from stuck()
                got = yield from p.take(hand, out, 1 << 12)
            if got < 0:
                return got
            words = []
            for at in range(0, got, 8):
                word = yield "peek", out + at
                words.append(word)
            value = words[0]
            self.torn = self.torn or words != [_signed(value + at * _MARK) for at in range(0, got, 8)]
            self.taken.append(value)
        return 1

    def drain(self, *, gone: Callable[[int], bool] = lambda number: True, hand: int | None = None) -> None:
        """A successor takes all there is."""
        p = self.p
        epoch = (self.machine.words[BASE + p.HEAD_AT] >> 52) + 1
        hand = self.receiver(15, epoch) if hand is None else hand
        for _ in range(4 * CELLS):
            got = self.machine.run(word_by_word(self.receive(hand)))
            if got == p.STUCK:
                word = self.machine.words[hand + p.A_OLD]
                self.machine.run(p.resolve(hand, int(gone((word >> 19) & p.NUMBER_MASK))))
            elif got < 0:
                assert got == p.EMPTY
                return
        raise AssertionError("the ring does not become empty")

    def check(self, *, lost: int = 0) -> None:
        """Committed is taken, once, in order, whole. `lost`: taken by one who was killed before he could say so."""
        assert not self.torn, "a torn message"
        committed = [value for value, done in self.sent.items() if done == 1]
        refused = {value for value, done in self.sent.items() if done != 1}
        assert len(set(self.taken)) == len(self.taken), f"twice: {self.taken}"
        assert set(self.taken) <= set(self.begun), f"nobody sent: {self.taken}"
        assert not refused & set(self.taken), f"refused, and taken: {refused} {self.taken}"
        missing = [value for value in committed if value not in self.taken]
        assert len(missing) <= lost, f"lost: {missing}"
        for tens in (0, 10, 20, 30):  # a sender's messages are numbered upwards
            mine = [value for value in self.taken if tens < value < tens + 10]
            assert mine == sorted(mine), f"out of order: {self.taken}"


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


# --- one sender ----------------------------------------------------------------------------------------------------


def sender_and_receiver(p: SimpleNamespace, mortal: str, *, variable: bool = False, behind: int = 2) -> Any:
    def scenario() -> Any:
        ring = Ring(p, variable=variable, behind=behind)
        length = 2 * BYTES if variable else BYTES
        sender = ring.party("sender", ring.send(ring.sender(0), 1, 2, 3, length=length))
        receiver = ring.party("receiver", ring.receive(ring.receiver(1), 3))

        def check() -> None:
            again = ring.send(ring.sender(0, epoch=2), 11, length=length)
            if ring.machine.run(again) != 1:  # full of what nobody has taken yet
                ring.drain()
                ring.machine.run(ring.send(ring.sender(0, epoch=3), 12, length=length))
            ring.drain()
            ring.check(lost=int(receiver.killed))
            # a message that was being committed when its sender was killed is there or is not; all before it are there
            assert ring.taken[-1] in (11, 12)

        return [sender, receiver], [mortal], check

    return scenario


@pytest.mark.parametrize("mortal", ["sender", "receiver"])
def test_one_sender_or_its_receiver_may_be_killed_anywhere(mortal: str) -> None:
    assert explore(sender_and_receiver(P, mortal), preemptions=2, kills=1) > 100


def test_one_sender_of_variable_frames_may_be_killed_anywhere_also_at_the_end_of_the_ring() -> None:
    schedules = explore(sender_and_receiver(P, "sender", variable=True, behind=3), preemptions=2, kills=1)
    assert schedules > 100


def test_stores_that_are_seen_late_tear_and_lose_nothing() -> None:
    assert explore(sender_and_receiver(P, "sender", behind=0), preemptions=2, relaxed=True) > 50


def a_full_ring(p: SimpleNamespace) -> Any:
    """The sender writes to the very cell that the receiver reads."""

    def scenario() -> Any:
        ring = Ring(p)
        ring.machine.run(ring.send(ring.sender(0), 1, 2, 3, 4))
        sender = ring.party("sender", ring.send(ring.sender(0, epoch=2), 11))
        receiver = ring.party("receiver", ring.receive(ring.receiver(1), 2))

        def check() -> None:
            ring.drain()
            ring.check()

        return [sender, receiver], [], check

    return scenario


def test_a_cell_is_written_again_only_after_it_was_read() -> None:
    assert explore(a_full_ring(P), preemptions=2) > 10


def take_over(ring: Ring, old: int, new: int, *values: int) -> Steps:
    """What `Ring.sender(take_over=True)` does while the old one's process lives."""
    p = ring.p
    yield "cas", ring.state_at(old), p.S_ALIVE | 1 << 3, p.S_FENCED | 1 << 3
    mine = p.S_ALIVE | 1 << 3
    hand = ring._hand(
        new, A_STATE=ring.state_at(new), A_MINE=mine, A_OWNER=new | 1 << 8, A_COUNTERS=COUNTERS + new * 128,
        A_HEAD=CELLS,
    )  # fmt: skip
    yield from p.settle(hand, 1)
    yield "cas", ring.state_at(old), p.S_FENCED | 1 << 3, p.S_SETTLED | 1 << 3
    yield from p.find_tail(hand)
    yield "store", ring.state_at(new), mine
    return (yield from ring.send(hand, *values))


def fenced_and_its_successor(p: SimpleNamespace, *, behind: int = 0, values: int = 3) -> Any:
    def scenario() -> Any:
        ring = Ring(p, behind=behind)
        old = ring.party("old", ring.send(ring.sender(0), 1, 2))
        new = ring.party("new", take_over(ring, 0, 1, *range(11, 11 + values)))
        receiver = ring.party("receiver", ring.receive(ring.receiver(2), 5))

        def check() -> None:
            ring.drain()
            ring.check()
            if new.value == 1:
                first = ring.taken.index(11)
                assert all(value > 10 for value in ring.taken[first:]), f"the fenced one sent on: {ring.taken}"

        return [old, new, receiver], [], check

    return scenario


def test_a_sender_that_lost_its_place_while_it_was_writing_harms_nothing_when_it_returns() -> None:
    assert explore(fenced_and_its_successor(P), preemptions=2) > 100


def test_a_sender_that_lost_its_place_before_a_full_ring_harms_nothing_when_it_returns() -> None:
    def scenario() -> Any:
        ring = Ring(P)
        ring.machine.run(ring.send(ring.sender(0), 31, 32, 33, 34))
        old = ring.party("old", ring.send(ring.sender(0), 1))
        new = ring.party("new", take_over(ring, 0, 1, 11, 12))
        receiver = ring.party("receiver", ring.receive(ring.receiver(2), 3))

        def check() -> None:
            ring.drain()
            ring.check()

        return [old, new, receiver], [], check

    assert explore(scenario, preemptions=2) > 100


def fenced_and_laps_of_its_successor(p: SimpleNamespace) -> Any:
    """The fenced one stands in the middle of its message while the successor goes round the ring."""

    def scenario() -> Any:
        ring = Ring(p)
        old = ring.party("old", ring.send(ring.sender(0), 1))
        receiver = ring.receiver(2)

        def goes_round() -> Steps:
            yield from take_over(ring, 0, 1)
            for value in range(11, 17):
                done = yield from ring.send(PRIVATE + (1 << 20), value)
                assert done == 1
                yield from ring.receive(receiver)
            return 1

        new = ring.party("new", goes_round())

        def check() -> None:
            ring.drain()
            ring.check()

        return [old, new], [], check

    return scenario


def test_a_sender_that_returns_after_its_successor_went_round_the_ring_harms_nothing() -> None:
    assert explore(fenced_and_laps_of_its_successor(P), preemptions=2) > 50


def test_the_cells_of_a_fenced_sender_are_passed_over_lap_after_lap_and_used_again_when_it_is_gone() -> None:
    ring = Ring(P)
    p = ring.p
    old = ring.sender(0)
    stalled = ring.party("old", ring.send(old, 1))
    while stalled.pending[0] != "poke" or stalled.pending[1] < DATA:
        stalled.step()
    receiver = ring.receiver(2)
    ring.machine.run(take_over(ring, 0, 1, 11))
    hand = PRIVATE + (1 << 20)
    for value in range(12, 30):
        assert ring.machine.run(ring.send(hand, value)) == 1
        ring.drain(hand=receiver)
    while stalled.step():
        pass
    assert stalled.value == p.FENCED
    assert ring.taken == list(range(11, 30))
    assert sum(ring.machine.words[WORDS + cell * p.WORD_STRIDE] & 7 == p.K_QUARANTINE for cell in range(CELLS)) == 1
    for value in range(30, 38):  # its process has ended
        while True:
            ring.machine.words[PRIVATE + (1 << 20) + 16384] = value
            ring.machine.words[PRIVATE + (1 << 20) + 16384 + 8] = _signed(value + 8 * _MARK)
            done = ring.machine.run(p.put(hand, hand + 16384, BYTES))
            if done != p.ASK:
                break
            ring.machine.words[hand + p.A_POLICY] = p.LIFT
        assert done == 1
        ring.drain(hand=receiver)
    assert ring.taken == list(range(11, 38))
    assert not any(ring.machine.words[WORDS + cell * p.WORD_STRIDE] & 7 == p.K_QUARANTINE for cell in range(CELLS))


# --- the receiver's place ------------------------------------------------------------------------------------------


def two_receivers(p: SimpleNamespace) -> Any:
    def scenario() -> Any:
        ring = Ring(p, behind=1)
        ring.machine.run(ring.send(ring.sender(0), 1, 2, 3))
        first = ring.party("first", ring.receive(ring.receiver(1), 3))

        def takes_over() -> Steps:
            head = yield "load", BASE + p.HEAD_AT
            while not (yield "cas", BASE + p.HEAD_AT, head, 1 << 52 | (head & p.POS_MASK)):
                head = yield "load", BASE + p.HEAD_AT
            hand = ring._hand(2, A_MINE=1 << 52, A_POS=head & p.POS_MASK)
            return (yield from ring.receive(hand, 3))

        second = ring.party("second", takes_over())
        more = ring.party("sender", ring.send(ring.sender(0, epoch=2), 4, 5))

        def check() -> None:
            ring.drain()
            ring.taken.sort()  # two parties took them, and noted it in any order
            ring.check()

        return [first, second, more], [], check

    return scenario


def test_a_message_goes_to_the_old_receiver_or_to_the_new_one() -> None:
    assert explore(two_receivers(P), preemptions=2) > 100


# --- many senders --------------------------------------------------------------------------------------------------


def two_senders(p: SimpleNamespace, mortal: list[str], *, variable: bool = False, behind: int = 2) -> Any:
    def scenario() -> Any:
        ring = Ring(p, many=True, variable=variable, behind=behind)
        length = 2 * BYTES if variable else BYTES
        a = ring.party("a", ring.send(ring.sender(0), 1, 2, length=length))
        b = ring.party("b", ring.send(ring.sender(1), 11, length=BYTES))
        hand = ring.receiver(2)
        parties = {0: a, 1: b}

        def check() -> None:
            ring.drain(gone=lambda number: parties[number].killed, hand=hand)
            ring.check()
            ring.machine.run(ring.send(ring.sender(3), 21, length=length))
            ring.drain(hand=hand)
            assert ring.taken[-1] == 21

        return [a, b], mortal, check

    return scenario


def test_many_senders_may_be_killed_anywhere() -> None:
    assert explore(two_senders(P, ["a", "b"]), preemptions=2, kills=1) > 100


def test_many_senders_of_variable_frames_may_be_killed_anywhere() -> None:
    assert explore(two_senders(P, ["a"], variable=True, behind=3), preemptions=2, kills=1) > 100


def fenced_while_it_holds_a_reservation(p: SimpleNamespace) -> Any:
    def scenario() -> Any:
        ring = Ring(p, many=True)
        a = ring.party("a", ring.send(ring.sender(0), 1, 2))
        hand = ring.receiver(2)
        b = ring.sender(1)

        def impatient() -> Steps:
            def step_in() -> Steps:
                word = yield "peek", hand + p.A_OLD
                if (word >> 19) & p.NUMBER_MASK == 0:
                    yield "cas", ring.state_at(0), p.S_ALIVE | 1 << 3, p.S_FENCED | 1 << 3
                    yield from p.resolve(hand, 0)

            yield from ring.receive(hand, 1, step_in)
            done = yield from ring.send(b, 11, 12, 13)
            yield from ring.receive(hand, 4, step_in)
            return done

        receiver = ring.party("receiver", impatient())

        def check() -> None:
            ring.drain(gone=lambda number: False, hand=hand)
            ring.check()

        return [a, receiver], [], check

    return scenario


def test_one_of_many_that_is_fenced_while_it_is_writing_harms_nothing_when_it_returns() -> None:
    assert explore(fenced_while_it_holds_a_reservation(P), preemptions=2) > 100


# --- sleeping ------------------------------------------------------------------------------------------------------


def a_receiver_that_sleeps(p: SimpleNamespace) -> Any:
    def scenario() -> Any:
        ring = Ring(p)
        hand = ring.receiver(1)

        def waits() -> Steps:
            got = yield from ring.receive(hand)
            while got == p.EMPTY:
                yield from p.wait_for_change(hand, 10**9)
                got = yield from ring.receive(hand)
            return got

        receiver = ring.party("receiver", waits())
        sender = ring.party("sender", ring.send(ring.sender(0), 1))

        def check() -> None:
            assert not receiver.asleep, "nobody woke it"
            assert ring.taken == [1]

        return [receiver, sender], [], check

    return scenario


def a_sender_that_sleeps(p: SimpleNamespace) -> Any:
    def scenario() -> Any:
        ring = Ring(p)
        hand = ring.sender(0)
        ring.machine.run(ring.send(hand, 1, 2, 3, 4))

        def waits() -> Steps:
            done = yield from ring.send(hand, 5)
            while done == p.FULL:
                yield from p.wait_for_room(hand, 10**9)
                done = yield from ring.send(hand, 5)
            return done

        sender = ring.party("sender", waits())
        receiver = ring.party("receiver", ring.receive(ring.receiver(1), 2))

        def check() -> None:
            assert not sender.asleep, "nobody woke it"
            assert sender.value == 1

        return [sender, receiver], [], check

    return scenario


def test_a_message_never_leaves_its_receiver_asleep() -> None:
    assert explore(a_receiver_that_sleeps(P), preemptions=3, relaxed=True) > 10


def test_room_never_leaves_a_sender_asleep() -> None:
    assert explore(a_sender_that_sleeps(P), preemptions=3, relaxed=True) > 10


# --- each of these tests can fail ----------------------------------------------------------------------------------

_FAULTS: dict[str, tuple[tuple[str, str], Callable[[SimpleNamespace], Any], dict[str, Any]]] = {
    "committed before it was written": (
        ("    copy(target, source, length)\n    return commit(hand, length)",
         "    done = commit(hand, length)\n    copy(target, source, length)\n    return done"),
        lambda p: sender_and_receiver(p, "none"), {"preemptions": 2},
    ),
    "the head moved before the message was read": (
        ("    copy(out, source, length)\n    return length if release(hand) == 1 else FENCED",
         "    done = release(hand)\n    copy(out, source, length)\n    return length if done == 1 else FENCED"),
        a_full_ring, {"preemptions": 2},
    ),
    "the head moved by a store": (
        ("    if not cas(base + HEAD_AT, mine | pos, mine | (pos + cells)):\n        return False\n",
         "    store(base + HEAD_AT, mine | (pos + cells))\n"),
        two_receivers, {"preemptions": 2},
    ),
    "committed by a store": (
        ("    if not cas(at, peek(hand + A_OLD), word):\n        return FENCED\n", "    store(at, word)\n"),
        fenced_and_its_successor, {"preemptions": 2},
    ),
    "no quarantine": (
        ("step_word(K_QUARANTINE, cells, lap)):\n            poke(hand + A_POS, pos + cells)\n",
         "step_word(K_SKIP, cells, lap)):\n            poke(hand + A_POS, pos + cells)\n"),
        fenced_and_laps_of_its_successor, {"preemptions": 2},
    ),
    "nobody looks at the reservations of the dead": (
        ("    return cas(peek(hand + A_WORD), word, step_word(",
         "    return False and cas(peek(hand + A_WORD), word, step_word("),
        lambda p: two_senders(p, ["a"]), {"preemptions": 1, "kills": 1},
    ),
    "the receiver looks no more before it sleeps": (
        ("    if load(at) == seen and load(base + HEAD_AT)", "    if load(base + HEAD_AT)"),
        a_receiver_that_sleeps, {"preemptions": 2},
    ),
    "a receiver's flag that is seen late": (
        ("    store(base + RX_PARKED_AT, 1)\n    fence()\n", "    store(base + RX_PARKED_AT, 1)\n"),
        a_receiver_that_sleeps, {"preemptions": 3, "relaxed": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    edit, scenario, bounds = _FAULTS[name]
    with pytest.raises(AssertionError):
        explore(scenario(load(edit)), **bounds)
