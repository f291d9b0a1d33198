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

from support.ringsteps import BYTES, CELLS, COUNTERS, DATA, MARK, WORDS, P, Ring, load
from support.stepper import BASE, PRIVATE, Steps, explore
from support.stepwise import signed

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
            ring.machine.words[PRIVATE + (1 << 20) + 16384 + 8] = signed(value + 8 * MARK)
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
