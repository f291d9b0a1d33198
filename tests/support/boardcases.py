"""The meetings of two or three parties on a board that the stepper goes through, each with a check of the end.

A case makes a scenario for `explore` from a loaded protocol: the real one, or one with a planted fault. Its bounds say
how deep it is explored: up to how many preemptions, how many deaths, and whether stores may be seen late.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from support.boardsteps import AGENT, CLIENT, EPOCH, OTHER, SIBLING, SmallBoard, owner_of
from support.stepper import BASE, Party, Steps, explore

__all__ = ["CASES", "DEEPER", "KILL", "LATE", "PAUSE", "Bound", "Case", "Ready", "case"]

Ready = tuple[list[Party], list[str], Callable[[], None]]
#: More preemptions than the suite has time for, from the environment.
DEEPER = int(os.environ.get("SWARM_STEPS", "0"))


@dataclass(frozen=True)
class Bound:
    """How far a case is explored."""

    preemptions: int
    kills: int = 0
    relaxed: bool = False


@dataclass(frozen=True)
class Case:
    """A meeting of parties, and how far it is explored."""

    make: Callable[[SimpleNamespace], Ready]
    bounds: tuple[Bound, ...]

    def explore(self, protocol: SimpleNamespace) -> int:
        """Goes through all schedules within the bounds; how many."""
        return sum(
            explore(
                lambda: self.make(protocol),
                preemptions=bound.preemptions + DEEPER,
                kills=bound.kills,
                relaxed=bound.relaxed,
            )
            for bound in self.bounds
        )


CASES: dict[str, Case] = {}


def case(*bounds: Bound) -> Callable[[Callable[[SimpleNamespace], Ready]], Callable[[SimpleNamespace], Ready]]:
    def add(make: Callable[[SimpleNamespace], Ready]) -> Callable[[SimpleNamespace], Ready]:
        CASES[make.__name__.replace("_", " ")] = Case(make, bounds)
        return make

    return add


KILL = Bound(1, kills=1)
PAUSE = Bound(2)
LATE = Bound(1, relaxed=True)


@case(KILL, LATE)
def submit_and_claim(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    parties = [board.party("client", board.submit(1, 2)), board.party("agent", board.work(AGENT, 2))]

    def check() -> None:
        board.bury_killed(parties, agent=AGENT)
        board.settle()
        board.check()
        assert len(board.answers) == 2

    return parties, ["agent"], check


@case(KILL, LATE)
def submit_in_the_arena_and_claim(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    parties = [board.party("client", board.submit(1, block=True)), board.party("agent", board.work(AGENT, 1))]

    return parties, ["agent"], lambda: board.end(parties, agent=AGENT)


@case(KILL)
def a_client_is_killed(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)

    def client() -> Steps:
        yield from board.submit(1, block=True)
        yield from board.submit(2)
        yield from board.take()

    parties = [board.party("client", client()), board.party("agent", board.work(AGENT, 2))]

    def check() -> None:
        board.bury_killed(parties, client=CLIENT)
        board.settle()
        if not parties[0].killed:
            board.check()
        board.check_empty()

    return parties, ["client"], check


@case(PAUSE)
def two_agents_claim(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1, 2))
    parties = [board.party("agent", board.work(AGENT, 2)), board.party("sibling", board.work(SIBLING, 2))]

    return parties, ["agent"], lambda: board.end(parties, agent=AGENT)


@case(PAUSE, KILL)
def answers_are_taken_while_others_come(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1, 2))

    def client() -> Steps:
        yield from board.take()
        yield from board.submit(3)
        yield from board.take()

    parties = [board.party("agent", board.work(AGENT, 2)), board.party("client", client())]

    return parties, ["agent"], lambda: board.end(parties, agent=AGENT)


@case(PAUSE)
def two_agents_answer_one_port(p: SimpleNamespace) -> Ready:
    """A ring of answers that is so short that it comes round while one of them writes to it."""
    board = SmallBoard(p, slots=4, done_cap=2)
    board.run(board.submit(1, 2, 3, 4))
    slow = board.run(board.claim(AGENT))
    quick = [board.run(board.claim(SIBLING)) for _ in range(3)]

    def rest() -> Steps:
        for claim in quick[:2]:
            yield from board.commit(SIBLING, *claim)
        yield from board.take()
        yield from board.commit(SIBLING, *quick[2])

    parties = [board.party("slow", board.commit(AGENT, *slow)), board.party("rest", rest())]

    def check() -> None:
        board.run(board.take())
        assert not board.outstanding, f"answered, and the client was never told: {board.outstanding}"
        board.settle()
        board.check()

    return parties, [], check


@case(PAUSE)
def an_agent_is_fenced_and_goes_on(p: SimpleNamespace) -> Ready:
    """The stopped process: declared dead between any two of its steps, overtaken by everybody, and then running on."""
    board = SmallBoard(p)
    board.run(board.submit(1))

    def others() -> Steps:
        yield from board.declare(AGENT)
        yield from board.work(SIBLING, 1)
        yield from board.take()
        yield from board.submit(3)
        yield from board.work(SIBLING, 1)
        yield from board.take()

    parties = [board.party("stopped", board.work(AGENT, 1)), board.party("others", others())]

    def check() -> None:
        board.bury(AGENT)
        board.settle()
        board.check()

    return parties, [], check


@case(PAUSE, LATE)
def a_claim_meets_its_fence(p: SimpleNamespace) -> Ready:
    """Nobody sweeps again: who claims after the death was declared has to give the task back himself."""
    board = SmallBoard(p)
    board.run(board.submit(1))
    parties = [board.party("agent", board.claim(AGENT)), board.party("monitor", board.declare(AGENT))]

    def check() -> None:
        board.run(board.work(SIBLING, 1))
        board.run(board.take())
        assert board.answers == [(1, 1, SIBLING)], "claimed by the dead, and nobody looks for it"
        board.bury(AGENT)
        board.settle()
        board.check()

    return parties, [], check


@case(Bound(2, kills=1))
def a_commit_meets_its_fence(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))
    claim = board.run(board.claim(AGENT))
    parties = [
        board.party("agent", board.commit(AGENT, *claim)),
        board.party("monitor", board.declare(AGENT)),
    ]

    def check() -> None:
        board.bury(AGENT)
        board.settle()
        board.check()

    return parties, ["agent", "monitor"], check


@case(PAUSE)
def a_client_is_fenced_while_it_is_answered(p: SimpleNamespace) -> Ready:
    """What it takes, it takes before its epoch is over; what is answered after that is nobody's."""
    board = SmallBoard(p)
    board.run(board.submit(1, 2))
    claims = [board.run(board.claim(AGENT)) for _ in range(2)]
    board.run(board.commit(AGENT, *claims[0]))

    def others() -> Steps:
        yield from board.declare(CLIENT)
        yield from board.commit(AGENT, *claims[1])

    def client() -> Steps:
        yield from board.take()
        yield from board.take()

    parties = [board.party("client", client()), board.party("others", others())]

    def check() -> None:
        board.bury(CLIENT)
        board.outstanding.clear()
        board.run(board.sweep())
        board.check(lost=(1, 2))

    return parties, [], check


@case(KILL)
def a_client_is_fenced_and_goes_on(p: SimpleNamespace) -> Ready:
    """Another client takes a port as soon as it can, while the first one is in the midst of a submission."""
    board = SmallBoard(p, slots=4)
    board.machine.words[board.port_at(1)] = owner_of(AGENT)  # there is no other port

    def others() -> Steps:
        yield from board.declare(CLIENT)
        port = yield from p.take_port(BASE, owner_of(OTHER))
        if port >= 0:
            assert port == 0
            yield from board.submit(3, 4, member=OTHER)
            yield from board.work(SIBLING, 2)
            yield from board.take(member=OTHER)
        return port

    def client() -> Steps:
        yield from board.submit(1, 2)
        yield from board.take()

    parties = [board.party("client", client()), board.party("others", others())]

    def check() -> None:
        board.bury(CLIENT)
        if parties[1].value < 0 or parties[1].killed:
            board.run(board.sweep())
            assert board.run(p.take_port(BASE, owner_of(OTHER))) == 0, "the port is lost"
            board.run(board.submit(3, 4, member=OTHER))
        for key in [key for key, value in board.outstanding.items() if value in (1, 2)]:
            del board.outstanding[key]
        for value in (5, 6):
            assert board.run(board.submit(value, member=OTHER))
            for _ in range(4):
                board.run(board.work(SIBLING, 1))
            board.run(board.take(member=OTHER))
        board.run(board.sweep())
        board.check(lost=(1, 2))
        assert {value for value, _, _ in board.answers} >= {3, 4, 5, 6}

    return parties, ["client"], check


@case(KILL)
def a_fenced_client_goes_on_beside_another(p: SimpleNamespace) -> Ready:
    """There is one slot, and the one who is fenced may still write to it."""
    board = SmallBoard(p, slots=1)

    def others() -> Steps:
        yield from board.declare(CLIENT)
        yield from board.submit(3, member=OTHER, port=1)
        yield from board.work(SIBLING, 1)
        yield from board.take(member=OTHER, port=1)
        yield from board.submit(4, member=OTHER, port=1)

    parties = [board.party("client", board.submit(1)), board.party("others", others())]

    def check() -> None:
        board.bury(CLIENT)
        board.outstanding.pop((0, 0), None)
        board.settle()
        board.check(lost=(1,))
        assert board.run(board.submit(5, member=OTHER, port=1)), "the slot is lost"
        board.settle()
        board.check(lost=(1,))

    return parties, ["client"], check


@case(KILL)
def several_declare_a_death_and_are_killed(p: SimpleNamespace) -> Ready:
    return _declared(p, 2)


@case(KILL)
def the_only_one_who_declares_a_death_is_killed(p: SimpleNamespace) -> Ready:
    return _declared(p, 1)


def _declared(p: SimpleNamespace, monitors: int) -> Ready:
    """The agent has answered one task and died before it said so, and has another one in its hand."""
    board = SmallBoard(p)
    board.run(board.submit(1, 2))
    claims = [board.run(board.claim(AGENT)) for _ in range(2)]
    doomed = board.party("doomed", board.commit(AGENT, *claims[0]))
    while board.state(claims[0][0]) & 7 != p.DONE:
        doomed.step()
    doomed.kill()

    def monitor() -> Steps:
        yield from board.declare(AGENT)
        yield from p.sweep_blocks(BASE)

    parties = [board.party(name, monitor()) for name in ("first", "second")[:monitors]]

    def check() -> None:
        # Who looks sees a member that is dead: if that is done already, it is buried and not declared dead again.
        if not board.epoch_is_over(AGENT):
            board.run(board.declare(AGENT))
        board.run(p.bury(BASE, AGENT, EPOCH, 0))
        board.settle()
        board.check()

    return parties, ["first", "second"], check


@case(PAUSE, KILL)
def a_commit_meets_a_sweep(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))
    claim = board.run(board.claim(AGENT))
    parties = [board.party("agent", board.commit(AGENT, *claim)), board.party("sweeper", board.sweep())]

    def check() -> None:
        board.bury_killed(parties, agent=AGENT)
        board.settle()
        board.check()

    return parties, ["agent", "sweeper"], check


@case(PAUSE, KILL)
def a_cancel_meets_a_claim(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))

    def client() -> Steps:
        done = yield from p.cancel(BASE, 0, 0)
        yield from board.take()
        yield from board.submit(2)
        return done

    parties = [board.party("client", client()), board.party("agent", board.work(AGENT, 1))]

    def check() -> None:
        board.bury_killed(parties, agent=AGENT)
        board.settle()
        board.check()
        [first] = [(result, who) for value, result, who in board.answers if value == 1]
        assert first == (-1, p.R_CANCELLED) if parties[0].value else first[0] == 1

    return parties, ["agent"], check


@case(PAUSE, KILL)
def a_deadline_passes_while_it_is_claimed(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1, deadline=board.machine.now + 150))
    board.machine.now += 120
    parties = [board.party("agent", board.work(AGENT, 1)), board.party("sweeper", p.sweep_tasks(BASE))]

    def check() -> None:
        board.bury_killed(parties, agent=AGENT)
        board.settle()
        board.check()

    return parties, ["agent", "sweeper"], check


def _handed_back(p: SimpleNamespace, begun: int) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))

    def give_back() -> Steps:
        claim = yield from board.claim(AGENT)
        if claim is not None:
            yield from p.hand_back(BASE, claim[0], claim[1], 4 * begun)

    parties = [board.party("agent", give_back()), board.party("sibling", board.work(SIBLING, 2))]

    return parties, ["agent"], lambda: board.end(parties, agent=AGENT)


@case(PAUSE, KILL)
def a_begun_task_is_handed_back(p: SimpleNamespace) -> Ready:
    return _handed_back(p, 1)


@case(PAUSE, KILL)
def an_unbegun_task_is_handed_back(p: SimpleNamespace) -> Ready:
    return _handed_back(p, 0)


@case(KILL)
def who_claims_what_was_handed_back_is_killed(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))
    slot, mine, _ = board.run(board.claim(SIBLING))
    board.run(p.hand_back(BASE, slot, mine, 0))
    parties = [board.party("agent", board.work(AGENT, 1)), board.party("sweeper", board.sweep())]

    return parties, ["agent"], lambda: board.end(parties, agent=AGENT)


@case(PAUSE, KILL)
def an_answer_is_taken_during_a_sweep(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1, block=True))
    board.run(board.work(AGENT, 1))

    def client() -> Steps:
        yield from board.take()
        yield from board.submit(2)

    parties = [board.party("client", client()), board.party("sweeper", board.sweep())]

    def check() -> None:
        board.bury_killed(parties, client=CLIENT)
        board.settle()
        if not parties[0].killed:
            board.check()
        board.check_empty()

    return parties, ["client", "sweeper"], check
