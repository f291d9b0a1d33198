"""The board's protocol, one shared operation at a time: every schedule of two or three parties up to stated bounds.

Whoever is stopped, overtaken or killed between any two operations: each task is answered exactly once and rightly,
none is committed by one from whom it was taken, and no slot, block or port is lost. `SWARM_STEPS=1` in the environment
explores one preemption more: minutes instead of seconds. And planted faults show that the schedules can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.boardcases import DEEPER
from support.boardcases_waits import CASES
from support.boardsteps import AGENT, CLIENT, OTHER, SIBLING, SmallBoard
from support.stepper import Steps, load_protocol

pytestmark = pytest.mark.timeout(120 if not DEEPER else 7200)
PROTOCOL = load_protocol(LANES=1)


@pytest.mark.parametrize("name", CASES)
def test_every_schedule_ends_well_when(name: str) -> None:
    assert CASES[name].explore(PROTOCOL) > 20


@settings(max_examples=100, deadline=None)
@given(
    schedule=st.lists(st.integers(0, 5), min_size=20, max_size=400),
    deaths=st.lists(st.integers(20, 300), max_size=2, unique=True),
)
def test_five_parties_in_any_order_with_up_to_two_deaths_lose_and_double_nothing(
    schedule: list[int], deaths: list[int]
) -> None:
    board = SmallBoard(PROTOCOL, slots=4)

    def client(member: int, port: int) -> Steps:
        for value in range(1, 5):
            value += 10 * member
            yield from board.submit(value, block=value % 3 == 0, member=member, port=port)
            yield from board.take(member=member, port=port)

    def monitor() -> Steps:
        for _ in range(3):
            yield from board.sweep()

    parties = [
        board.party("client", client(CLIENT, 0)),
        board.party("other", client(OTHER, 1)),
        board.party("agent", board.work(AGENT, 6)),
        board.party("sibling", board.work(SIBLING, 6)),
        board.party("monitor", monitor()),
    ]
    mortal = [parties[2], parties[4]]
    order = _rounds(schedule)
    steps = 0
    while any(party.runs for party in parties):
        parties[next(order) % len(parties)].step()
        steps += 1
        if steps in deaths and mortal[0].runs:
            mortal[0].kill()
            board.bury_killed(parties, agent=AGENT)
        elif steps in deaths and mortal[1].runs:
            mortal[1].kill()
    board.settle()
    board.check()


def _rounds(schedule: list[int]) -> Iterator[Any]:
    while True:
        yield from schedule
        yield from range(5)  # so that everybody comes to an end


#: What is wrong; the case whose schedules find it; texts of the sources, and what is planted in their place.
PLANTED: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "the hint is shown before the slot is ready": (
        "submit and claim",
        [
            (
                "    if not cas(state_at(base, slot), writing, slot_word(READY",
                "    store(queue + 64, tail + 1)\n    if not cas(state_at(base, slot), writing, slot_word(READY",
            ),
        ],
    ),
    "the slot is ready before its fields are written": (
        "submit in the arena and claim",
        [
            ("        poke(s + S_BLOCK, block)\n    store(base", "    store(base"),
            (
                "    count(base, member, C_SUBMITTED, 1)\n    wake_worker(base)\n",
                "    poke(s + S_BLOCK, block)\n    count(base, member, C_SUBMITTED, 1)\n    wake_worker(base)\n",
            ),
        ],
    ),
    "a claim is not looked at again after the fence": (
        "a claim meets its fence",
        [("    if is_fenced(base, member, epoch):\n        # Declared", "    if False:\n        # Declared")],
    ),
    "a claim is not compared": (
        "two agents claim",
        [
            (
                "    if not cas(state_at(base, slot), word, mine):\n        return 0\n",
                "    store(state_at(base, slot), mine)\n",
            )
        ],
    ),
    "a commit does not compare its epoch": (
        "an agent is fenced and goes on",
        [
            (
                "cas(state_at(base, slot), mine, done_word((mine",
                "cas(state_at(base, slot), load(state_at(base, slot)), done_word((mine",
            )
        ],
    ),
    "an epoch is raised before its claims are taken": (
        "a commit meets its fence",
        [
            (
                "member_word(M_FENCING, (word >> 3) & 7, epoch)",
                "member_word(M_FENCED, (word >> 3) & 7, (epoch + 1) & EPOCH_MASK)",
            )
        ],
    ),
    "a commit is begun by one who was declared dead": (
        "an agent is fenced and goes on",
        [("    if is_fenced(base, member, epoch):\n        return 0\n", "")],
    ),
    "one who was declared dead takes answers": (
        "a client is fenced while it is answered",
        [("    if is_fenced(base, peek(hand + N_MEMBER * 8), peek(hand + N_EPOCH * 8)):\n        return -3\n", "")],
    ),
    "the dead's tasks come back without a hint": (
        "submit and claim",
        [
            (
                "GEN_MASK)):\n        return 0\n    mark_retry(base, slot)\n    return 1",
                "GEN_MASK)):\n        return 0\n    return 1",
            ),
            ("                mark_retry(base, slot)\n    elif", "                pass\n    elif"),
        ],
    ),
    "an unbegun task that was handed back looks as if a queue held it": (
        "who claims what was handed back is killed",
        [("slot_word(READY, attempts, UNQUEUED, 0, (mine", "slot_word(READY, attempts, 0, 0, (mine")],
    ),
    "nobody looks for answers without a hint": (
        "the only one who declares a death is killed",
        [("            _remind(base, load(slot_at(base, slot) + S_PORT))", "            pass")],
    ),
    "a client is not told to look after a death": (
        "a client parks while its agent is declared dead",
        [
            ("            _remind(base, load(slot_at(base, slot) + S_PORT))", "            pass"),
            ("    _rescan_ports(base)\n    if fenced", "    if fenced"),
        ],
    ),
    "a fenced client's port is given away": (
        "a client is fenced and goes on",
        [("    if quietly != 0:\n        release_ports", "    if True:\n        release_ports")],
    ),
    "an answer is written over another one when the ring has come round": (
        "two agents answer one port",
        [("        if entry >> 32 == (lap - 1) & 0x7FFFFFFF and cas(", "        if cas(")],
    ),
    "a fenced writer's slot is given away": (
        "a fenced client goes on beside another",
        [("EPOCH_MASK) == 0:\n            release_slot", "EPOCH_MASK) != 2:\n            release_slot")],
    ),
    "a sweep frees a tail without looking at its head": (
        "blocks are freed during a sweep",
        [("            if same and whole in (B_HELD, B_PUBLISHED, B_SHARED):", "            if False:")],
    ),
    "a page is taken without comparing": (
        "two take and free blocks",
        [
            (
                "        if not cas(tags + at * 8, head, mine):\n            continue\n",
                "        store(tags + at * 8, mine)\n",
            )
        ],
    ),
    "an end of a task that waits is not compared": (
        "a cancel meets a claim",
        [
            (
                "    if not cas(state_at(base, slot), word, done_word((word",
                "    if not cas(state_at(base, slot), load(state_at(base, slot)), done_word((word",
            )
        ],
    ),
    "an agent does not look again before it sleeps": (
        "an agent parks while a task is submitted",
        [
            (
                "        seen = load(base + H_WORK * 8)\n        got = try_claim(",
                "        seen = load(base + H_WORK * 8)\n        False and try_claim(",
            )
        ],
    ),
    "no fence between a submission and the look for sleepers": (
        "an agent parks while a task is submitted",
        [("held + 1)\n    fence()\n", "held + 1)\n")],
    ),
    "no fence between a client's sign that it sleeps and its last look": (
        "a client parks while it is answered",
        [("        store(at + P_PARKED, 1)\n        fence()\n", "        store(at + P_PARKED, 1)\n")],
    ),
    "a declaration does not look at the epoch": (
        "a late declaration meets a new life",
        [
            (
                "        if word & 7 != M_ALIVE or (word >> 6) & EPOCH_MASK != epoch:\n            break\n",
                "        if word & 7 != M_ALIVE:\n            break\n",
            )
        ],
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_schedules_find_a_fault_that_was_planted(fault: str) -> None:
    case, edits = PLANTED[fault]
    with pytest.raises(Exception) as found:  # noqa: PT011 - whatever the fault makes of it
        CASES[case].explore(load_protocol(edits, LANES=1))
    assert any(note.startswith("schedule ") for note in found.value.__notes__)
