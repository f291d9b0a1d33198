"""Shared arrays and their leases, one shared operation at a time: every schedule up to the stated bounds, with kills.

Whoever holds an array must find his own data in it, whatever the others do; and when all have let go or were buried,
every page and every lease is free. Members 0, 1 and 2; an array is known by the number that stands in its first word.
With SWARM_STEPS=1 in the environment there is one preemption more: minutes instead of seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from support.stepper import BASE, PRIVATE, Machine, Party, Steps, board_memory, explore, load_protocol

PAGES, EPOCH = 3, 5
CLIENT, AGENT, SIBLING = 0, 1, 2
OWNER = (CLIENT + 1) | (EPOCH << 16)
OURS, THEIRS = 111, 222
DEEPER = int(os.environ.get("SWARM_STEPS", "0"))
p: SimpleNamespace = load_protocol(LANES=1, _SWEEP_ARRAYS=2)


class Arena:
    """A very small board, and what its members do."""

    def __init__(self, leases: int = 3) -> None:
        memory = board_memory(p, slots=1, cells=2, pages=PAGES)
        memory[BASE + p.H_LEASES * 8] = leases
        memory[BASE + p.H_LEASES_AT * 8] = 1 << 19
        self.machine = Machine(memory)
        words = self.machine.words
        for member in range(3):
            at = BASE + words[BASE + p.H_MEMBERS_AT * 8] + member * p.MEMBER_STRIDE
            words[at] = p.M_ALIVE | (1 << 3) | (EPOCH << 6)
            words[self.scratch(member) + p.X_RETRIES * 8] = -1
            words[self.scratch(member) + p.X_LEASE_ROTOR * 8] = member % leases
        words[BASE + words[BASE + p.H_PORTS_AT * 8] + p.P_OWNER] = OWNER
        #: What went wrong on the way.
        self.wrong: list[str] = []

    def scratch(self, member: int) -> int:
        return PRIVATE + member * (1 << 20)

    def party(self, name: str, steps: Steps) -> Party:
        return Party(name, steps, self.machine)

    def run(self, steps: Steps) -> Any:
        return self.machine.run(steps)

    # -- what members do

    def address(self, name: int) -> Steps:
        at = yield from p.block_address(BASE, name & p.NAME_BLOCK_MASK)
        return BASE + at

    def make(self, member: int, value: int) -> Steps:
        """Makes an array; its name and lease."""
        out = self.scratch(member) + (1 << 18)
        name = yield from p.make_array(BASE, 64, member, EPOCH, 256, self.scratch(member), out)
        if name < 0:
            return None
        at = yield from self.address(name)
        yield "poke", at, value
        return name, (yield "peek", out)

    def look(self, member: int, name: int, value: int, what: str) -> Steps:
        """What a holder sees."""
        at = yield from self.address(name)
        found = yield "load", at
        there = yield from p.reach(BASE, name, 0, 64)
        if found != value or there != 1:
            self.wrong.append(f"{what} of member {member}: {found}, {there}")

    def keep(self, member: int, name: int, value: int) -> Steps:
        """Takes a lease on an array that may be gone, looks at it, and lets it go."""
        lease = yield from p.hold(BASE, name, 0, member, EPOCH, self.scratch(member))
        if lease < 0:
            return lease
        yield from self.look(member, name, value, "kept")
        yield from p.drop(BASE, lease, member, EPOCH)
        return 1

    def make_and_let_go(self, member: int, value: int) -> Steps:
        made = yield from self.make(member, value)
        if made is not None:
            yield from self.look(member, made[0], value, "made")
            yield from p.drop(BASE, made[1], member, EPOCH)

    def bind(self, member: int, *names: int) -> None:
        words, scratch = self.machine.words, self.scratch(member)
        for index, name in enumerate(names):
            words[scratch + (p.X_REFS_AT + index) * 8] = name
        words[scratch + p.X_REFS * 8] = len(names)

    def submit(self, *names: int) -> Steps:
        self.bind(CLIENT, *names)
        payload = self.scratch(CLIENT) + (1 << 16)
        ticket = yield from p.submit(
            BASE, 0, OWNER, CLIENT, EPOCH, 0, 77, 1, 1, 0, 0, payload, 8, -1, self.scratch(CLIENT)
        )
        self.bind(CLIENT)
        return ticket if ticket < 0 else ticket & 0xFFFFFF

    def claim(self, member: int) -> Steps:
        got = yield from p.try_claim(BASE, member, EPOCH, 0, 0, self.scratch(member))
        if got != 1:
            return None
        out = self.scratch(member) + p.X_OUT * 8
        slot = yield "peek", out
        mine = yield "peek", out + 8
        return slot, mine

    def commit(self, member: int, slot: int, mine: int, *names: int) -> Steps:
        self.bind(member, *names)
        result = self.scratch(member) + (1 << 16)
        done = yield from p.commit_small(
            BASE, slot, mine, result, 8, member, EPOCH, 0, 0, 0, 0, 0, self.scratch(member)
        )
        self.bind(member)
        return done

    def sweep(self, member: int) -> Steps:
        yield from p.sweep_leases(BASE, self.scratch(member) + (1 << 17))
        yield from p.sweep_blocks(BASE)

    # -- how it ends

    def bury(self, member: int) -> None:
        self.run(p.declare_dead(BASE, member, EPOCH, 0))
        self.run(p.bury(BASE, member, EPOCH, 0))

    def kinds(self, table: int, count: int, stride: int = 8) -> list[int]:
        words = self.machine.words
        at = BASE + words[BASE + table * 8]
        return [words.get(at + i * stride, 0) & p.TAG_KIND_MASK for i in range(words[BASE + count * 8])]

    def check(self, *, swept: bool) -> None:
        assert not self.wrong, self.wrong
        if swept:
            self.run(self.sweep(SIBLING))
        assert not any(self.kinds(p.H_LEASES_AT, p.H_LEASES, p.LEASE_STRIDE)), "leases leaked"
        assert not any(self.kinds(p.H_PAGE_TAGS_AT, p.H_PAGES)), "pages leaked"
        assert not any(self.kinds(p.H_CELL_TAGS_AT, p.H_CELLS)), "cells leaked"


def test_making_an_array_may_be_cut_short_anywhere() -> None:
    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena()
        maker = arena.party("maker", arena.make_and_let_go(CLIENT, OURS))

        def check() -> None:
            if maker.killed:
                arena.bury(CLIENT)
            arena.check(swept=maker.killed)

        return [maker, arena.party("sweeper", arena.sweep(SIBLING))], ["maker"], check

    assert explore(scenario, preemptions=2 + DEEPER, kills=1) > 500


def test_who_keeps_an_array_while_its_holder_lets_go_finds_it_or_is_told_that_it_is_gone() -> None:
    outcomes = set()

    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena()
        name, lease = arena.run(arena.make(CLIENT, OURS))
        holder = arena.party("holder", p.drop(BASE, lease, CLIENT, EPOCH))
        keeper = arena.party("keeper", arena.keep(AGENT, name, OURS))
        other = arena.party("other", arena.make_and_let_go(SIBLING, THEIRS))

        def check() -> None:
            outcomes.add(keeper.value)
            for party, member in ((holder, CLIENT), (keeper, AGENT)):
                if party.killed:
                    arena.bury(member)
            arena.check(swept=holder.killed or keeper.killed)

        return [holder, keeper, other], ["holder", "keeper"], check

    assert explore(scenario, preemptions=1 + DEEPER, kills=1) > 200
    assert outcomes >= {1, p.STALE}


def test_two_who_let_go_at_once_free_the_array_once_and_at_once() -> None:
    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena()
        name, lease = arena.run(arena.make(CLIENT, OURS))
        second = arena.run(p.hold(BASE, name, 0, AGENT, EPOCH, arena.scratch(AGENT)))
        parties = [
            arena.party("first", p.drop(BASE, lease, CLIENT, EPOCH)),
            arena.party("second", p.drop(BASE, second, AGENT, EPOCH)),
        ]

        def check() -> None:
            for party, member in zip(parties, (CLIENT, AGENT), strict=True):
                if party.killed:
                    arena.bury(member)
            arena.check(swept=any(party.killed for party in parties))

        return parties, ["first", "second"], check

    assert explore(scenario, preemptions=4 + DEEPER, kills=1) > 300


def test_sweeps_beside_those_who_keep_and_let_go_take_nothing_away_from_them() -> None:
    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena()
        name, lease = arena.run(arena.make(CLIENT, OURS))

        def pass_on() -> Steps:
            """Keeps it, and only then lets go of the lease that it was had by."""
            second = yield from p.hold(BASE, name, 0, CLIENT, EPOCH, arena.scratch(CLIENT))
            yield from p.drop(BASE, lease, CLIENT, EPOCH)
            yield from arena.look(CLIENT, name, OURS, "passed on")
            yield from p.drop(BASE, second, CLIENT, EPOCH)

        holder = arena.party("holder", pass_on())
        sweeper = arena.party("sweeper", arena.sweep(SIBLING))

        def check() -> None:
            if holder.killed:
                arena.bury(CLIENT)
            arena.check(swept=True)

        return [holder, sweeper], ["holder", "sweeper"], check

    assert explore(scenario, preemptions=2 + DEEPER, kills=1) > 500


def test_a_reference_that_moves_during_a_look_for_it_is_not_missed() -> None:
    """Whoever lets the last known lease go looks for others, while one moves from behind the look to before it."""

    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena()
        words = arena.machine.words
        words[arena.scratch(CLIENT) + p.X_LEASE_ROTOR * 8] = 1
        name, lease = arena.run(arena.make(CLIENT, OURS))
        words[arena.scratch(AGENT) + p.X_LEASE_ROTOR * 8] = 2
        first = arena.run(p.hold(BASE, name, 0, AGENT, EPOCH, arena.scratch(AGENT)))
        words[arena.scratch(AGENT) + p.X_LEASE_ROTOR * 8] = 0
        assert (lease, first) == (1, 2)
        tag = arena.run(p.tag_address(BASE, name & p.NAME_BLOCK_MASK))
        words[tag] -= 16  # the hint says too little, as after kills: every one who lets go looks

        def move() -> Steps:
            second = yield from p.hold(BASE, name, 0, AGENT, EPOCH, arena.scratch(AGENT))
            yield from p.drop(BASE, first, AGENT, EPOCH)
            yield from arena.look(AGENT, name, OURS, "moved")
            yield from p.drop(BASE, second, AGENT, EPOCH)

        mover, holder = arena.party("mover", move()), arena.party("holder", p.drop(BASE, lease, CLIENT, EPOCH))
        return [mover, holder], [], lambda: arena.check(swept=False)

    assert explore(scenario, preemptions=3 + DEEPER) > 1000


def test_a_task_and_its_result_keep_their_arrays_whoever_is_killed() -> None:
    """The client passes an array on, lets go of it and takes the result, which is that array and another one."""
    ends = set()

    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena(6)
        name, lease = arena.run(arena.make(CLIENT, OURS))
        made: list[int] = []

        def client() -> Steps:
            slot = yield from arena.submit(name)
            yield from p.drop(BASE, lease, CLIENT, EPOCH)
            return slot

        def agent() -> Steps:
            claim = yield from arena.claim(AGENT)
            if claim is None:
                return
            yield from arena.look(AGENT, name, OURS, "argument")
            new = yield from arena.make(AGENT, THEIRS)
            made.append(new[0])
            yield from arena.commit(AGENT, *claim, name, new[0])
            yield from p.drop(BASE, new[1], AGENT, EPOCH)

        parties = [arena.party("client", client()), arena.party("agent", agent())]

        def check() -> None:
            state = BASE + arena.machine.words[BASE + p.H_STATES_AT * 8]
            if parties[1].killed:
                arena.bury(AGENT)
            if parties[0].killed:
                arena.bury(CLIENT)
                arena.run(p.sweep_tasks(BASE))
            else:
                again = arena.run(arena.claim(SIBLING))
                if again is not None:
                    arena.run(arena.look(SIBLING, name, OURS, "argument of a second attempt"))
                    arena.run(arena.commit(SIBLING, *again, name))
                word = arena.machine.words[state]
                assert word & 7 == p.DONE
                taken = [name, *made] if again is None else [name]
                kept = [arena.run(p.hold(BASE, n, 0, CLIENT, EPOCH, arena.scratch(CLIENT))) for n in taken]
                assert min(kept) >= 0
                assert arena.run(p.finish(BASE, 0, word, CLIENT, 0, arena.scratch(CLIENT))) == 1
                for each, value in zip(taken, (OURS, THEIRS), strict=False):
                    arena.run(arena.look(CLIENT, each, value, "result"))
                for each in kept:
                    arena.run(p.drop(BASE, each, CLIENT, EPOCH))
            killed = any(party.killed for party in parties)
            ends.add((killed, len(made)))
            arena.check(swept=killed)

        return parties, ["client", "agent"], check

    assert explore(scenario, preemptions=1 + DEEPER, kills=1) > 300
    assert ends >= {(False, 1), (True, 0), (True, 1)}


def test_an_agent_that_is_fenced_anywhere_and_goes_on_disturbs_no_array() -> None:
    def scenario() -> tuple[list[Party], list[str], Callable[[], None]]:
        arena = Arena(6)
        name, lease = arena.run(arena.make(CLIENT, OURS))
        arena.run(arena.submit(name))

        def agent() -> Steps:
            claim = yield from arena.claim(AGENT)
            if claim is not None:
                yield from arena.commit(AGENT, *claim, name)

        def others() -> Steps:
            """The agent is taken for dead; another one computes, the client takes the answer and all is used anew."""
            yield from p.declare_dead(BASE, AGENT, EPOCH, 0)
            claim = yield from arena.claim(SIBLING)
            if claim is not None:
                yield from arena.commit(SIBLING, *claim, name)
            state = BASE + arena.machine.words[BASE + p.H_STATES_AT * 8]
            word = yield "load", state
            if word & 7 == p.DONE:
                yield from p.finish(BASE, 0, word, CLIENT, 0, arena.scratch(CLIENT))
            yield from arena.sweep(SIBLING)
            yield from arena.look(CLIENT, name, OURS, "held all the while")
            yield from p.drop(BASE, lease, CLIENT, EPOCH)
            yield from arena.make_and_let_go(SIBLING, THEIRS)

        parties = [arena.party("agent", agent()), arena.party("others", others())]

        def check() -> None:
            arena.bury(AGENT)
            state = BASE + arena.machine.words[BASE + p.H_STATES_AT * 8]
            word = arena.machine.words[state]
            if word & 7 == p.READY:
                claim = arena.run(arena.claim(SIBLING))
                if claim is not None:
                    arena.run(arena.commit(SIBLING, *claim))
                word = arena.machine.words[state]
            if word & 7 == p.DONE:
                arena.run(p.finish(BASE, 0, word, CLIENT, 0, arena.scratch(CLIENT)))
            arena.check(swept=True)

        return parties, [], check

    assert explore(scenario, preemptions=2 + DEEPER) > 500


EXPLORATIONS: tuple[Callable[[], None], ...] = (
    test_a_reference_that_moves_during_a_look_for_it_is_not_missed,
    test_who_keeps_an_array_while_its_holder_lets_go_finds_it_or_is_told_that_it_is_gone,
    test_making_an_array_may_be_cut_short_anywhere,
    test_two_who_let_go_at_once_free_the_array_once_and_at_once,
    test_a_task_and_its_result_keep_their_arrays_whoever_is_killed,
    test_an_agent_that_is_fenced_anywhere_and_goes_on_disturbs_no_array,
)

PLANTED = {
    "a new lease does not change the tag": (
        "        change = ((tag >> TAG_CHANGE_AT) + 1) & TAG_CHANGE_MASK",
        "        change = (tag >> TAG_CHANGE_AT) & TAG_CHANGE_MASK",
    ),
    "the tag is read again after the look": (
        "        elif free_run(base, name & NAME_BLOCK_MASK, tag):",
        "        elif free_run(base, name & NAME_BLOCK_MASK, load(address)):",
    ),
    "a lease is counted before it is in place": (
        "    lease = _place(base, name | (next_lease << NAME_NEXT_AT), member, epoch, scratch)\n"
        "    if lease < 0 or _count_up(base, name):\n",
        "    counted = _count_up(base, name)\n"
        "    lease = _place(base, name | (next_lease << NAME_NEXT_AT), member, epoch, scratch)\n"
        "    if lease < 0 or counted:\n",
    ),
    "an array is shared before its first lease is in place": (
        "    lease = _place(base, name, member, epoch, scratch)\n    if lease < 0:\n",
        "    cas(address, tag, B_SHARED | (1 << 3) | (gen << TAG_GEN_AT))\n"
        "    lease = _place(base, name, member, epoch, scratch)\n    if lease < 0:\n",
    ),
    "a name is not looked at with its generation": (
        "    same = (tag >> TAG_GEN_AT) & TAG_GEN_MASK == (name >> NAME_GEN_AT) & TAG_GEN_MASK\n",
        "    same = True\n",
    ),
    "leases are not ended with their task": ("    if leases != 0:\n        end_leases(base, leases, slot, gen)\n", ""),
    "who lets go does not look": ("        elif _is_named(base, name):", "        elif False:"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_schedules_find_a_fault_in_the_leases(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "p", load_protocol(PLANTED[fault], LANES=1, _SWEEP_ARRAYS=2))
    assert any(_finds(exploration) for exploration in EXPLORATIONS), f"nobody noticed that {fault}"


def _finds(exploration: Callable[[], None]) -> bool:
    try:
        exploration()
    except Exception as error:
        return bool(getattr(error, "__notes__", None))  # the schedule that ended in it
    return False
