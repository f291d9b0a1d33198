"""A very small board in the stepper's memory, what its members do on it, and what must be true in the end.

Members 0 and 3 are clients (ports 0 and 1), 1 and 2 compute. Every argument and result carries its number three times,
so that a torn one is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from support.stepper import BASE, PRIVATE, Machine, Party, Steps, board_memory

__all__ = ["AGENT", "CLIENT", "EPOCH", "OTHER", "SIBLING", "SmallBoard", "owner_of"]

CLIENT, AGENT, SIBLING, OTHER = range(4)
EPOCH = 5
_WORDS = 3  # of an argument or result
_FOREVER = 1 << 60


def owner_of(member: int, epoch: int = EPOCH) -> int:
    """What a port says of its owner."""
    return (member + 1) | (epoch << 16)


class SmallBoard:
    """One lane of few slots, few blocks, and a record of all that was submitted, committed and answered."""

    def __init__(self, protocol: SimpleNamespace, *, slots: int = 2, done_cap: int = 4, cells: int = 4) -> None:
        self.p = protocol
        memory = board_memory(protocol, slots=slots, cells=cells)
        memory[BASE + protocol.H_DONE_CAP * 8] = done_cap
        self.machine = Machine(memory)
        self.slots = slots
        words = self.machine.words
        for member in range(4):
            words[self.member_at(member)] = protocol.M_ALIVE | (1 << 3) | (EPOCH << 6)
            words[self.scratch(member) + protocol.X_RETRIES * 8] = -1
            words[self.scratch(member) + protocol.X_CELL_ROTOR * 8] = member
        for port, member in enumerate((CLIENT, OTHER)):
            words[self.port_at(port) + protocol.P_OWNER] = owner_of(member)
        #: By port and slot, the value that was submitted.
        self.outstanding: dict[tuple[int, int], int] = {}
        self.gens: dict[tuple[int, int], int] = {}
        #: (value, result or -1, who computed it or the reason)
        self.answers: list[tuple[int, int, int]] = []
        self.submitted: list[int] = []
        self.committed: list[tuple[int, int]] = []

    # -- where things are

    def member_at(self, member: int) -> int:
        return int(BASE + self.machine.words[BASE + self.p.H_MEMBERS_AT * 8] + member * self.p.MEMBER_STRIDE)

    def port_at(self, port: int) -> int:
        words = self.machine.words
        return int(BASE + words[BASE + self.p.H_PORTS_AT * 8] + port * words[BASE + self.p.H_PORT_STRIDE * 8])

    def state_at(self, slot: int) -> int:
        return int(BASE + self.machine.words[BASE + self.p.H_STATES_AT * 8] + slot * 8)

    def state(self, slot: int) -> int:
        return int(self.machine.words.get(self.state_at(slot), 0))

    def tags(self) -> list[int]:
        """The kinds of all blocks."""
        words = self.machine.words
        kinds: list[int] = []
        for table, count in ((self.p.H_CELL_TAGS_AT, self.p.H_CELLS), (self.p.H_PAGE_TAGS_AT, self.p.H_PAGES)):
            at = BASE + words[BASE + table * 8]
            kinds += [words.get(at + i * 8, 0) & self.p.TAG_KIND_MASK for i in range(words[BASE + count * 8])]
        return kinds

    def scratch(self, member: int) -> int:
        return PRIVATE + member * (1 << 20)

    def fenced(self, member: int) -> bool:
        word = self.machine.words[self.member_at(member)]
        return bool(word & 7 != self.p.M_ALIVE or (word >> 6) & self.p.EPOCH_MASK != EPOCH)

    def epoch_is_over(self, member: int) -> bool:
        """Whether its epoch has been raised: it was declared dead, and that is done."""
        return bool((self.machine.words[self.member_at(member)] >> 6) & self.p.EPOCH_MASK != EPOCH)

    def party(self, name: str, steps: Steps) -> Party:
        return Party(name, steps, self.machine)

    def run(self, steps: Steps) -> Any:
        return self.machine.run(steps)

    # -- what parties do

    def submit(
        self, *values: int, block: bool = False, member: int = CLIENT, port: int = 0, deadline: int = 0
    ) -> Steps:
        """Submits values; those that found room are in `submitted`."""
        p, scratch = self.p, self.scratch(member)
        for value in values:
            payload = scratch + (1 << 16)
            number = -1
            for word in range(_WORDS):
                self.machine.words[payload + word * 8] = value
            if block:
                number = yield from p.alloc(BASE, 5000, member, EPOCH, 256, 0, scratch)
                if number < 0:
                    return False
                at = yield from p.block_address(BASE, number)
                for word in range(_WORDS):
                    yield "poke", BASE + at + word * 2048, value
            ticket = yield from p.submit(
                BASE, port, owner_of(member), member, EPOCH, 0, 77, 1, value, deadline, 0, payload, _WORDS * 8, number,
                scratch,
            )  # fmt: skip
            if ticket < 0:
                if number >= 0:
                    yield from p.free_block(BASE, number, member, EPOCH)
                return False
            slot, gen = ticket & 0xFFFFFF, ticket >> 24
            self.outstanding[port, slot] = value
            self.gens[port, slot] = gen
            self.submitted.append(value)
        return True

    def claim(self, member: int, *, wait: bool = False) -> Steps:
        """Claims a task: its slot, state word and argument, or None."""
        p, scratch = self.p, self.scratch(member)
        if wait:
            got = yield from p.claim_wait(BASE, member, EPOCH, 0, p.LANES - 1, 0, _FOREVER, scratch)
        else:
            got = yield from p.try_claim(BASE, member, EPOCH, 0, 0, scratch)
        if got != 1:
            return None
        out = scratch + p.X_OUT * 8
        slot = self.machine.words[out]
        mine = self.machine.words[out + 8]
        block = self.machine.words[out + 24 + p.S_BLOCK]
        if block < p.NO_BLOCK:
            at = BASE + (yield from p.block_address(BASE, block))
            step = 2048
        else:
            at = (yield from p.slot_at(BASE, slot)) + p.S_INLINE
            step = 8
        values = []
        for word in range(_WORDS):
            values.append((yield "load", at + word * step))
        assert len(set(values)) == 1 or self.fenced(member), f"a torn argument: {values}"
        return slot, mine, values[0]

    def commit(self, member: int, slot: int, mine: int, value: int) -> Steps:
        """Answers with 100 times the argument, and the member."""
        p, scratch = self.p, self.scratch(member)
        result = scratch + (1 << 16)
        for word in range(_WORDS):
            self.machine.words[result + word * 8] = value * 100 + member
        too_late, fenced = self.state(slot) != mine, self.fenced(member)
        done = yield from self._watched(
            p.commit_small(BASE, slot, mine, result, _WORDS * 8, member, EPOCH, 0, 0, 0, 0, 0, scratch), slot, member
        )
        if done == 1:
            assert not too_late, "committed what had been taken away"
            assert not fenced, "began to commit after it was declared dead"
            self.committed.append((value, member))
        return done

    def _watched(self, steps: Steps, slot: int, member: int) -> Steps:
        """Goes through a commit's steps, and looks at the one that counts: in which epoch it is made."""
        answer = None
        while True:
            try:
                op = steps.send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            answer = yield op
            if op[0] == "cas" and op[1] == self.state_at(slot) and answer:
                assert not self.epoch_is_over(member), "committed under an epoch that is over"

    def work(self, member: int, times: int, *, wait: bool = False) -> Steps:
        """Claims and answers, some times."""
        for _ in range(times):
            claim = yield from self.claim(member, wait=wait)
            if claim is not None:
                yield from self.commit(member, *claim)

    def take(self, *, member: int = CLIENT, port: int = 0) -> Steps:
        """Takes all answers that are hinted at, or looks for them when it has to, as `Inbox` does."""
        p, words = self.p, self.machine.words
        hand, out = self.scratch(member) + (1 << 18), self.scratch(member) + (1 << 17)
        for index, value in enumerate((BASE, port, owner_of(member), member, EPOCH, self.scratch(member))):
            words[hand + index * 8] = value
        raised = self.epoch_is_over(member)
        found = yield from p.take(hand, 8, out)
        assert found <= 0 or not raised, "an answer was taken under an epoch that is over"
        if found == -1:
            for at_port, slot in list(self.outstanding):
                if at_port == port and (yield from p.take_slot(hand, slot, self.gens[port, slot], out)):
                    self._taken(port, out)
        for index in range(max(found, 0)):
            self._taken(port, out + index * p.TAKE_STRIDE)

    def _taken(self, port: int, record: int) -> None:
        """Notes an answer that was taken, by its record."""
        p, words = self.p, self.machine.words
        slot, word, kind = (words[record + index * 8] for index in (p.T_SLOT, p.T_WORD, p.T_KIND))
        if (word >> p.GEN_AT) & p.GEN_MASK != self.gens.get((port, slot)):
            return
        value = self.outstanding.pop((port, slot), None)
        if value is None:
            return
        if kind == p.T_REASON:
            self.answers.append((value, -1, (word >> p.OWNER_AT) & p.BLOCK_MASK))
            return
        results = [words[record + p.T_PAYLOAD + index * 8] for index in range(_WORDS)]
        assert len(set(results)) == 1, f"a torn result: {results}"
        self.answers.append((value, results[0] // 100, results[0] % 100))

    def sweep(self) -> Steps:
        """What the node's guard does now and then."""
        yield from self.p.sweep_tasks(BASE)
        yield from self.p.sweep_blocks(BASE)

    def declare(self, member: int) -> Steps:
        """Fences a member that has shown no life."""
        yield from self.p.declare_dead(BASE, member, EPOCH, 0)

    # -- how it ends

    def bury(self, *members: int) -> None:
        """Their processes are gone, and somebody has noticed."""
        for member in members:
            self.run(self.p.declare_dead(BASE, member, EPOCH, 0))
            self.run(self.p.bury(BASE, member, EPOCH, 0))

    def bury_killed(self, parties: Iterable[Party], **members: int) -> None:
        self.bury(*(members[party.name] for party in parties if party.killed and party.name in members))

    def settle(self) -> None:
        """Somebody sweeps, a living agent does the rest of the work, and every living client takes its answers."""
        self.run(self.sweep())
        for _ in range(self.slots + 2):
            self.run(self.work(SIBLING, 1))
        self.run(self.sweep())
        for port, member in enumerate((CLIENT, OTHER)):
            if not self.fenced(member):
                self.run(self.take(member=member, port=port))
        self.run(self.sweep())

    def end(self, parties: Iterable[Party], **members: int) -> None:
        """The killed are declared dead, the living do the rest, and everything is as it should be."""
        self.bury_killed(parties, **members)
        self.settle()
        self.check()

    def check(self, *, lost: Iterable[int] = ()) -> None:
        """Each task was answered once, with its own result, committed once at most, and nothing is left.

        `lost` are those of clients that are gone.
        """
        gone = set(lost)
        left = {value for value in self.outstanding.values() if value not in gone}
        assert not left, f"lost: {left}"
        values = sorted(value for value, _, _ in self.answers)
        assert [v for v in values if v not in gone] == sorted(v for v in self.submitted if v not in gone)
        for value, result, _ in self.answers:
            assert result in (value, -1), "somebody else's result"
        committed = [value for value, _ in self.committed]
        assert len(committed) == len(set(committed)), f"committed twice: {self.committed}"
        self.check_empty()

    def check_empty(self) -> None:
        """No slot, no bit of a free slot, no block is lost."""
        assert [self.state(slot) & 7 for slot in range(self.slots)] == [self.p.FREE] * self.slots
        assert not any(self.tags()), f"blocks leaked: {self.tags()}"
        words = self.machine.words
        free = BASE + words[BASE + self.p.H_LANES_AT * 8] + self.p.L_MAPS + 2 * 8
        assert words[free] == (1 << self.slots) - 1, "slots leaked"
