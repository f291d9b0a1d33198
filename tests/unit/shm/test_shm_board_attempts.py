"""The board when somebody dies, is declared dead or hands a task back: who does it then, how often, and who is told."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from support.shm import make_port, make_worker
from swarm_agents.errors import (
    Fenced,
    TaskLost,
)
from swarm_agents.shm.board import Board, Port, Worker
from swarm_agents.shm.layout import ATTEMPTS_MASK, GEN_AT, H_STATES_AT, READY, UNQUEUED, slot_word


def test_a_task_that_was_handed_back_is_claimed_by_another_and_counts_no_attempt_unless_begun(
    board: Board, port: Port, worker: Worker
) -> None:
    other = make_worker(board, "other")[1]
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    assert worker.hand_back(claim, begun=False)
    assert not worker.commit(claim, "late")
    claim = other.claim()
    assert claim is not None
    assert claim.attempt == 1
    assert other.hand_back(claim)
    claim = worker.claim()
    assert claim is not None
    assert claim.attempt == 2
    assert worker.commit(claim, "in time")
    [answer] = port.poll()
    assert (answer.value, answer.attempts) == ("in time", 2)


def test_a_task_that_is_handed_back_again_and_again_is_given_up_and_its_count_never_wraps(
    board: Board, port: Port, worker: Worker
) -> None:
    board.max_attempts = 3
    port.submit("k")
    for attempt in (1, 2, 3):
        claim = worker.claim()
        assert claim is not None
        assert claim.attempt == attempt
        assert worker.hand_back(claim)
    assert worker.claim() is None
    [answer] = port.poll()
    assert isinstance(answer.error, TaskLost)
    assert "begun 3 times" in str(answer.error)
    assert board.stats().totals["lost"] == 1
    # A kernel's own number of attempts holds beside the board's, and neither goes beyond what a slot can count.
    ticket = port.submit("k")
    for attempt in range(1, 101):
        claim = worker.claim()
        assert claim is not None
        assert (claim.attempt, claim.task_id) == (attempt, ticket.task_id)
        assert worker.hand_back(claim, attempts=1000)
    [answer] = port.poll()
    assert isinstance(answer.error, TaskLost)
    assert answer.attempts == 100


def test_a_count_of_attempts_that_is_at_its_end_stays_there(board: Board, port: Port, worker: Worker) -> None:
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    words, view = board.words, board.mapping.view
    full = slot_word(READY, ATTEMPTS_MASK, UNQUEUED, 0, claim._mine >> GEN_AT)
    struct.pack_into("<q", view, words[H_STATES_AT] + claim.slot * 8, full)  # as no release of today leaves it
    board.sweep()
    claim = worker.claim()
    assert claim is not None
    assert claim.attempt == ATTEMPTS_MASK
    assert worker.commit(claim, "answered")
    assert [answer.value for answer in port.poll()] == ["answered"]


def test_who_was_declared_dead_takes_no_answers(board: Board, worker: Worker) -> None:
    member, port = make_port(board, "hub")
    port.submit("k")
    port.submit("k")
    for _ in range(2):
        claim = worker.claim()
        assert claim is not None
        port.wait(1)
        board.declare_dead(member.index, member.epoch)
        worker.commit(claim, "for nobody")
        with pytest.raises(Fenced, match="join again"):
            port.poll()
        with pytest.raises(Fenced, match="join again"):
            port.poll_raw()
        if (late := worker.claim()) is None:
            break
        assert late.cancelled()


def test_what_was_taken_before_a_declaration_is_still_given_out(board: Board, worker: Worker) -> None:
    member, port = make_port(board, "hub")
    for number in range(3):
        port.submit("k", (number,))
        claim = worker.claim()
        assert claim is not None
        worker.commit(claim, number)
    assert [answer.value for answer in port.poll(1)] == [0]
    with port._lock:
        port._ready.extend(port._take(1, True))
    board.declare_dead(member.index, member.epoch)
    assert [answer.value for answer in port.poll()] == [1]
    with pytest.raises(Fenced):
        port.poll()


def test_a_dead_agents_task_is_done_by_its_sibling_and_its_late_answer_is_refused(board: Board, port: Port) -> None:
    member, worker = make_worker(board, "first")
    _, sibling = make_worker(board, "second")
    port.submit("k", (np.arange(1000),))
    claim = worker.claim()
    assert claim is not None
    assert board.declare_dead(member.index, member.epoch) == 1
    assert board.declare_dead(member.index, member.epoch) == 0
    taken = sibling.claim()
    assert taken is not None
    assert (taken.task_id, taken.attempt) == (claim.task_id, 2)
    assert claim.cancelled()
    assert not worker.commit(claim, "late, small")
    assert not worker.commit(claim, np.zeros(5000))
    assert sibling.commit(taken, "right")
    assert not worker.commit(claim, "very late")
    with pytest.raises(Fenced):
        worker.claim()
    with pytest.raises(Fenced):
        board.heartbeat(member)
    with pytest.raises(Fenced):
        board.port(member).submit("k")
    answers = port.poll()
    assert [answer.value for answer in answers] == ["right"]
    board.sweep()
    assert board.stats().arena_used == 0
    [failover] = board.stats().failovers
    assert (failover.name, failover.tasks) == ("first", 1)
    assert failover.resumed is not None
    assert failover.detected <= failover.fenced <= failover.requeued <= failover.resumed


def test_a_task_that_kills_every_agent_is_given_up(board: Board, port: Port) -> None:
    board.max_attempts = 3
    port.submit("poison")
    for number in range(3):
        member, worker = make_worker(board, f"agent-{number}")
        assert worker.claim() is not None
        board.declare_dead(member.index, member.epoch)
    assert make_worker(board, "last")[1].claim() is None
    [answer] = port.poll()
    assert isinstance(answer.error, TaskLost)
    assert "poison" in str(answer.error)
    assert answer.attempts == 3


def test_a_client_that_is_gone_leaves_nothing_on_the_board(board: Board, worker: Worker) -> None:
    member, port = make_port(board, "short-lived")
    for _ in range(5):
        port.submit("k", (np.zeros(5000),))
    claim = worker.claim()
    assert claim is not None
    board.leave(member)
    assert claim.cancelled()
    assert worker.claim() is None
    assert worker.commit(claim, np.zeros(5000))  # nobody will read it
    board.sweep()
    stats = board.stats()
    assert stats.arena_used == 0
    assert all(not any(states.values()) for states in stats.depth.values())
