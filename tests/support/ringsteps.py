"""A small ring in the stepper's memory, what its senders and receivers do on it, and what must be true in the end."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from support.stepper import BASE, PRIVATE, Machine, Party, Steps, load_protocol
from support.stepwise import signed

CELLS, BYTES = 4, 16
DATA = BASE + 4096
WORDS = BASE + 2048
COUNTERS = BASE + 8192
MARK = 0x5DEECE66D


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
                yield "poke", source + at, value + at * MARK
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
            self.torn = self.torn or words != [signed(value + at * MARK) for at in range(0, got, 8)]
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
