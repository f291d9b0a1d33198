"""More meetings for `boardcases`: who takes blocks, waits, joins or takes a port beside somebody else."""

from __future__ import annotations

from types import SimpleNamespace

from support.boardcases import CASES, KILL, LATE, PAUSE, Bound, Ready, case
from support.boardsteps import AGENT, CLIENT, EPOCH, OTHER, SIBLING, SmallBoard, owner_of
from support.stepper import BASE, Steps

__all__ = ["CASES"]


def _use_block(board: SmallBoard, member: int, size: int, *, keep: bool) -> Steps:
    """Takes a block, writes its number on every page of it, and finds it there again."""
    p = board.p
    block = yield from p.alloc(BASE, size, member, EPOCH, 256, 0, board.scratch(member))
    if block < 0:
        return
    at = BASE + (yield from p.block_address(BASE, block))
    for page in range(0, size, 4096):
        yield "store", at + page, member
    for page in range(0, size, 4096):
        assert (yield "load", at + page) == member, "two members have one page"
    if not keep:
        assert (yield from p.free_block(BASE, block, member, EPOCH))


@case(PAUSE, KILL)
def two_take_and_free_blocks(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)

    def first() -> Steps:
        yield from _use_block(board, AGENT, 9000, keep=False)
        yield from _use_block(board, AGENT, 5000, keep=True)

    parties = [
        board.party("agent", first()),
        board.party("sibling", _use_block(board, SIBLING, 7000, keep=True)),
    ]

    def check() -> None:
        board.bury(AGENT, SIBLING)
        board.run(p.sweep_blocks(BASE))
        board.check_empty()

    return parties, ["agent", "sibling"], check


@case(PAUSE, KILL)
def blocks_are_freed_during_a_sweep(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(_use_block(board, CLIENT, 4000, keep=True))
    board.run(_use_block(board, AGENT, 8000, keep=True))
    board.bury(CLIENT)  # so there is something to sweep
    mine = [at for at, value in board.machine.words.items() if value == AGENT and at % 4096 == 0]

    def second() -> Steps:
        yield from _use_block(board, SIBLING, 6000, keep=False)
        yield from _use_block(board, SIBLING, 3000, keep=False)
        yield from _use_block(board, SIBLING, 3000, keep=False)

    parties = [board.party("sweeper", p.sweep_blocks(BASE)), board.party("sibling", second())]

    def check() -> None:
        assert [board.machine.words[at] for at in mine] == [AGENT, AGENT], "somebody wrote over what is held"
        board.bury(AGENT, SIBLING)
        board.run(p.sweep_blocks(BASE))
        board.check_empty()

    return parties, ["sweeper", "sibling"], check


@case(LATE)
def an_agent_parks_while_a_task_is_submitted(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))  # so that the port shows that it has something, and has to show nothing new
    board.run(board.work(SIBLING, 1))

    parties = [
        board.party("agent", board.work(AGENT, 1, wait=True)),
        board.party("client", board.submit(2)),
    ]

    def check() -> None:
        assert not parties[0].asleep, "sleeps beside a task that waits"
        board.settle()
        board.check()

    return parties, [], check


@case(Bound(0, relaxed=True), Bound(1))
def two_agents_park_while_tasks_are_submitted(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    parties = [
        board.party("agent", board.work(AGENT, 1, wait=True)),
        board.party("sibling", board.work(SIBLING, 1, wait=True)),
        board.party("client", board.submit(1, 2)),
    ]

    def check() -> None:
        assert not any(party.asleep for party in parties), "sleeps beside a task that waits"
        board.settle()
        board.check()

    return parties, [], check


@case(LATE)
def a_client_parks_while_it_is_answered(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    board.run(board.submit(1))

    def client() -> Steps:
        got = yield from p.poll_wait(BASE, 0, 0, 1 << 60, board.scratch(CLIENT))
        assert got == 1
        yield from board.take()

    parties = [board.party("client", client()), board.party("agent", board.work(AGENT, 1))]

    def check() -> None:
        assert not parties[0].asleep, "sleeps beside its answer"
        board.settle()
        board.check()

    return parties, [], check


@case(LATE)
def a_client_parks_while_its_agent_is_declared_dead(p: SimpleNamespace) -> Ready:
    """The agent committed and was killed before it said so."""
    board = SmallBoard(p)
    board.run(board.submit(1))
    doomed = board.party("doomed", board.work(AGENT, 1))
    while board.state(0) & 7 != p.DONE:
        doomed.step()
    doomed.kill()

    def client() -> Steps:
        got = yield from p.poll_wait(BASE, 0, 0, 1 << 60, board.scratch(CLIENT))
        assert got == 1
        yield from board.take()

    parties = [board.party("client", client()), board.party("monitor", board.declare(AGENT))]

    def check() -> None:
        assert not parties[0].asleep, "sleeps beside its answer"
        board.bury(AGENT)
        board.settle()
        board.check()

    return parties, [], check


@case(PAUSE)
def a_late_declaration_meets_a_new_life(p: SimpleNamespace) -> Ready:
    """Somebody's declaration of an old epoch comes when the member has joined again."""
    board = SmallBoard(p)

    def again() -> Steps:
        yield from board.declare(AGENT)
        buried = yield from p.bury(BASE, AGENT, EPOCH, 0)
        if buried:  # under the directory's lock, as `Board.join` writes it
            yield "store", board.member_at(AGENT), p.M_ALIVE | (1 << 3) | ((EPOCH + 2) << 6)
        return buried

    def late() -> Steps:
        yield from board.declare(AGENT)
        yield from p.bury(BASE, AGENT, EPOCH, 0)

    parties = [board.party("again", again()), board.party("late", late())]

    def check() -> None:
        word = board.machine.words[board.member_at(AGENT)]
        if parties[0].value:
            assert word & 7 == p.M_ALIVE, "the new life was ended by the old one's death"
            assert (word >> 6) & p.EPOCH_MASK == EPOCH + 2
        else:
            assert word & 7 == p.M_GONE
        board.settle()
        board.check()

    return parties, [], check


@case(Bound(3))
def two_clients_take_a_port(p: SimpleNamespace) -> Ready:
    board = SmallBoard(p)
    for port in range(2):
        board.machine.words[board.port_at(port)] = 0
    parties = [
        board.party("client", p.take_port(BASE, owner_of(CLIENT))),
        board.party("other", p.take_port(BASE, owner_of(OTHER))),
    ]

    def check() -> None:
        assert sorted(party.value for party in parties) == [0, 1]

    return parties, [], check
