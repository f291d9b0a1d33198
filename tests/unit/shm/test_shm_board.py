"""The board with everybody in one process: what is submitted is answered, in the right order, by the right one."""

from __future__ import annotations

import struct
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.shm import make_board, make_port, make_worker, small
from swarm_agents import codec
from swarm_agents.config import Priority
from swarm_agents.errors import (
    DeadlineExceeded,
    KernelError,
    PayloadError,
    PayloadTooLarge,
    SwarmFull,
    TaskCancelled,
    to_wire,
)
from swarm_agents.shm import tasks
from swarm_agents.shm.board import Board, Port, Ticket, Worker
from swarm_agents.shm.layout import H_SLOTS_AT, S_CANCEL, SLOT_STRIDE


def fill(port: Port, *args: object) -> list[Ticket]:
    """Submits until the board pushes back."""
    tickets = []
    for _ in range(1000):
        try:
            tickets.append(port.submit("k", args))
        except SwarmFull:
            break
    return tickets


def test_a_task_comes_back_with_its_answer(board: Board, port: Port, worker: Worker) -> None:
    ticket = port.submit("core.echo", (1, "two", [3.5]), {"four": None})
    claim = worker.claim()
    assert claim is not None
    assert (claim.kernel, claim.args, claim.kwargs) == ("core.echo", (1, "two", [3.5]), {"four": None})
    assert (claim.attempt, claim.priority, claim.task_id) == (1, Priority.NORMAL, ticket.task_id)
    assert worker.commit(claim, {"sum": 3})
    [answer] = port.poll()
    assert (answer.ticket, answer.value, answer.error, answer.attempts) == (ticket, {"sum": 3}, None, 1)
    assert board.member_name(answer.agent) == "swarm-compute-0-a"
    assert answer.queued_s >= 0
    assert answer.run_s >= 0
    assert port.poll() == []
    assert port.pending == 0


@pytest.mark.parametrize("size", [0, 1, 30, 1_000, 40_000])
def test_arrays_of_any_size_travel_both_ways(port: Port, worker: Worker, size: int) -> None:
    x = np.arange(size, dtype=np.float64)
    port.submit("k", (x,), {"again": x.astype(np.int16)})
    claim = worker.claim()
    assert claim is not None
    np.testing.assert_array_equal(claim.args[0], x)
    np.testing.assert_array_equal(claim.kwargs["again"], x.astype(np.int16))
    assert worker.commit(claim, [claim.args[0] * 2, "and text"])
    [answer] = port.poll()
    np.testing.assert_array_equal(answer.value[0], 2 * x)
    assert answer.value[1] == "and text"


def test_arguments_are_read_where_they_lie_and_cannot_be_written(port: Port, worker: Worker) -> None:
    port.submit("k", (np.zeros(10_000),))
    claim = worker.claim()
    assert claim is not None
    assert not claim.args[0].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        claim.args[0][0] = 1
    assert claim.args[0].ctypes.data % 64 == 0


def test_an_error_comes_back_with_its_traceback(port: Port, worker: Worker) -> None:
    port.submit("core.fail", ("boom",))
    claim = worker.claim()
    assert claim is not None
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    assert worker.fail(claim, raised.value)
    [answer] = port.poll()
    assert isinstance(answer.error, KernelError)
    assert answer.error.remote_type == "ZeroDivisionError"
    assert "test_shm_board" in answer.error.remote_traceback


def test_the_more_urgent_lane_goes_first_whatever_came_before(port: Port, worker: Worker) -> None:
    for priority in (Priority.BULK, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL):
        for number in range(3):
            port.submit("k", (number,), priority=priority)
    order = []
    while (claim := worker.claim()) is not None:
        order.append((claim.priority, claim.args[0]))
        worker.commit(claim, None)
    assert order == [(priority, number) for priority in Priority for number in range(3)]


def test_clients_of_a_lane_take_turns_however_much_one_has_submitted(board: Board, worker: Worker) -> None:
    flood, quiet = make_port(board, "flood")[1], make_port(board, "quiet")[1]
    for number in range(30):
        flood.submit("flood", (number,))
    quiet.submit("quiet")
    names = []
    for _ in range(3):
        claim = worker.claim()
        assert claim is not None
        names.append(claim.kernel)
        worker.commit(claim, None)
    assert "quiet" in names[:2]


def test_a_client_that_fills_a_lane_leaves_room_for_others(board: Board, port: Port) -> None:
    other = make_port(board, "other")[1]
    fill(port)
    with pytest.raises(SwarmFull, match="normal lane"):
        port.submit("k")
    other.submit("k")
    port.submit("k", priority=Priority.CRITICAL)
    assert board.depths()["normal"] == 50  # three quarters of 64 and one, and the other's


def test_a_submit_with_a_timeout_waits_for_answers_and_keeps_them(port: Port, worker: Worker) -> None:
    tickets = fill(port)
    with pytest.raises(SwarmFull):
        port.submit("k", timeout=0.01)
    while (claim := worker.claim()) is not None:
        worker.commit(claim, 1)
    tickets.append(port.submit("k", timeout=5))
    assert port.pending == len(tickets)
    assert {answer.ticket for answer in port.poll(1000)} == set(tickets[:-1])


def test_a_full_arena_pushes_back_and_is_usable_again(board: Board, port: Port, worker: Worker) -> None:
    block = np.zeros(100_000, np.uint8)
    submitted = len(fill(port, block))
    assert 5 <= submitted < 11
    with pytest.raises(SwarmFull, match="arena"):
        port.submit("k", (block,))
    port.submit("small enough for the slot", priority=Priority.NORMAL)
    port.submit("k", (block,), priority=Priority.CRITICAL)  # the urgent have a reserve
    while (claim := worker.claim()) is not None:
        assert worker.commit(claim, None)
    assert len(port.poll(1000)) == submitted + 2
    assert board.stats().arena_used == 0
    port.submit("k", (block,))


def test_a_payload_larger_than_the_arena_is_refused_and_leaves_nothing(board: Board, port: Port) -> None:
    with pytest.raises(PayloadTooLarge, match="larger arena"):
        port.submit("k", (np.zeros(2 << 20, np.uint8),))
    assert board.stats().arena_used == 0
    assert board.depths() == dict.fromkeys(map(str, Priority), 0)


def test_a_result_larger_than_the_arena_leaves_the_claim_for_an_error(port: Port, worker: Worker) -> None:
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    with pytest.raises(PayloadTooLarge):
        worker.commit(claim, np.zeros(2 << 20, np.uint8))
    with pytest.raises(PayloadError):
        worker.commit(claim, object())
    assert worker.fail(claim, PayloadTooLarge("too large"))
    [answer] = port.poll()
    assert isinstance(answer.error, PayloadTooLarge)


def test_a_cancelled_task_is_answered_and_never_begun(port: Port, worker: Worker) -> None:
    first, second = port.submit("k"), port.submit("k")
    assert port.cancel(first)
    assert not port.cancel(first)
    claim = worker.claim()
    assert claim is not None
    assert claim.task_id == second.task_id
    assert worker.claim() is None
    assert not port.cancel(second)
    assert claim.cancelled()
    worker.commit(claim, None)
    answers = {answer.ticket: answer for answer in port.poll()}
    assert isinstance(answers[first].error, TaskCancelled)
    assert answers[second].error is None
    assert not port.cancel(second)


def test_who_slept_cancels_no_later_task_of_the_same_slot(board: Board, port: Port, worker: Worker) -> None:
    gone = port.submit("k")
    assert port.cancel(gone)
    assert len(port.poll()) == 1
    slots = {}
    while gone.slot not in slots:  # until the slot is another task's
        ticket = port.submit("k")
        slots[ticket.slot] = ticket
    base, gen = board.mapping.base, slots[gone.slot].gen
    assert not tasks.cancel(base, gone.slot, gone.gen), "what it names is over"
    claims = {}
    while (claim := worker.claim()) is not None:
        claims[claim.slot] = claim
    assert gone.slot in claims, "it was not answered as cancelled"
    # and one that has looked, slept, and only then writes
    words = board.words
    at = words[H_SLOTS_AT] + gone.slot * SLOT_STRIDE + S_CANCEL
    struct.pack_into("<q", board.mapping.view, at, gone.gen + 1)
    assert not claims[gone.slot].cancelled()
    assert not tasks.cancel(base, gone.slot, gen)
    assert claims[gone.slot].cancelled(), "its own submitter's wish counts"


def test_hints_of_cancelled_tasks_do_not_fill_the_queue_when_no_agent_is_there(port: Port) -> None:
    for _ in range(500):
        assert port.cancel(port.submit("k"))
        assert len(port.poll()) == 1


def test_a_deadline_is_kept_by_the_agent_that_looks_and_by_the_sweep(board: Board, port: Port, worker: Worker) -> None:
    port.submit("k", deadline=time.time() - 1)
    port.submit("k", deadline=time.time() + 100)
    assert (claim := worker.claim()) is not None
    assert claim.deadline is not None
    assert worker.claim() is None
    [answer] = port.poll()
    assert isinstance(answer.error, DeadlineExceeded)
    port.submit("k", deadline=time.time() - 1, priority=Priority.BULK)
    board.sweep()
    [answer] = port.poll()
    assert isinstance(answer.error, DeadlineExceeded)
    assert board.stats().totals["expired"] == 2


def test_an_answer_names_the_agent_of_another_node_that_computed_it(port: Port, worker: Worker) -> None:
    values = [None, 7, np.arange(5), np.arange(50_000), ValueError("no")]
    for value in values:
        port.submit("k")
        claim = worker.claim()
        assert claim is not None
        ok = not isinstance(value, ValueError)
        header, buffers = codec.encode(value) if ok else (msgspec.msgpack.encode(to_wire(value)), ())
        assert worker.commit_raw(claim, header, buffers, ok=ok, hops=1, agent="risk-compute-3-0", node="far")
    answers = port.poll()
    assert [answer.far for answer in answers] == [("risk-compute-3-0", "far")] * 5
    assert [answer.hops for answer in answers] == [1] * 5
    assert answers[0].value is None
    assert answers[1].value == 7
    np.testing.assert_array_equal(answers[3].value, values[3])
    assert isinstance(answers[4].error, KernelError)
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    worker.commit(claim, 1)
    assert port.poll()[0].far == ("", "")


def test_a_task_can_be_found_by_its_id_while_it_is_on_the_board(board: Board, port: Port, worker: Worker) -> None:
    task_id = (2**64 - 5, 2**63 + 1)
    assert board.find(task_id) is None
    ticket = port.submit("k", task_id=task_id)
    assert ticket.task_id == task_id
    assert board.find(task_id) == "ready"
    claim = worker.claim()
    assert claim is not None
    assert claim.task_id == task_id
    assert board.find(task_id) == "claimed"
    worker.commit(claim, None)
    assert board.find(task_id) == "done"
    port.poll()
    assert board.find(task_id) is None


def test_results_can_be_lent_instead_of_copied(board: Board, port: Port, worker: Worker) -> None:
    port.submit("k")
    claim = worker.claim()
    assert claim is not None
    worker.commit(claim, {"a": np.arange(5000), "b": np.ones(7000)})
    [answer] = port.poll(copy=False)
    a, b = answer.value["a"], answer.value["b"]
    del answer
    board.sweep()
    assert board.stats().arena_used > 0
    np.testing.assert_array_equal(a, np.arange(5000))
    del a
    assert b.sum() == 7000
    assert board.stats().arena_used > 0
    del b
    assert board.stats().arena_used == 0


def test_a_hub_passes_tasks_and_answers_on_as_they_are(board: Board, port: Port, worker: Worker) -> None:
    port.submit("k", (np.arange(100),), {"name": "x"})
    claim = worker.claim()
    assert claim is not None
    other = make_port(board, "hub")[1]
    other.submit_raw(claim.kernel, bytes(claim.header), claim.buffers, task_id=claim.task_id)
    again = worker.claim()
    assert again is not None
    np.testing.assert_array_equal(again.args[0], np.arange(100))
    worker.commit(again, {"y": np.arange(300.0)})
    [raw] = other.poll_raw()
    assert raw.ok
    assert worker.commit_raw(claim, raw.header, raw.buffers, ok=raw.ok, hops=raw.hops + 1, run_ns=5_000_000)
    [answer] = port.poll()
    np.testing.assert_array_equal(answer.value["y"], np.arange(300.0))
    assert answer.hops == 1
    assert answer.run_s >= 0.005


def test_a_worker_may_be_told_to_take_only_some_lanes(port: Port, worker: Worker) -> None:
    port.submit("urgent", priority=Priority.CRITICAL)
    port.submit("rest", priority=Priority.BULK)
    claim = worker.claim(lanes=(2, 3))
    assert claim is not None
    assert claim.kernel == "rest"
    assert worker.claim(0.01, lanes=(2, 3)) is None


def test_statistics_count_what_happened(board: Board, port: Port, worker: Worker) -> None:
    for number in range(10):
        port.submit("k", priority=Priority.HIGH)
        claim = worker.claim()
        assert claim is not None
        if number % 2:
            worker.commit(claim, None)
        else:
            worker.fail(claim, ValueError("no"))
    port.poll()
    stats = board.stats()
    assert {k: stats.totals[k] for k in ("submitted", "claimed", "committed", "failed", "answered")} == {
        "submitted": 10,
        "claimed": 10,
        "committed": 10,
        "failed": 5,
        "answered": 10,
    }
    for kind in ("queued", "run", "round_trip"):
        assert stats.latency[kind]["high"].total == 10
        assert stats.latency[kind]["bulk"].total == 0
    assert 0 < stats.latency["round_trip"]["high"].quantile(0.5) < 60
    [info] = [info for info in board.members() if info.role == "compute"]
    assert (info.done, info.running, info.alive) == (10, 0, True)


def test_gaps_between_answers_and_thousands_of_generations_lose_nothing(port: Port, worker: Worker) -> None:
    expected, got = [], []
    for number in range(3000):
        expected.append(number)
        port.submit("k", (number,))
        if number % 7 == 0:
            while (claim := worker.claim()) is not None:
                worker.commit(claim, claim.args[0])
            got += [answer.value for answer in port.poll(3 if number % 2 else 256)]
    while (claim := worker.claim()) is not None:
        worker.commit(claim, claim.args[0])
    while answers := port.poll():
        got += [answer.value for answer in answers]
    assert sorted(got) == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.sampled_from(["submit", "big", "claim", "commit", "fail", "back", "poll", "cancel", "die", "sweep"]),
        max_size=80,
    )
)
def test_whatever_happens_in_whatever_order_each_task_is_answered_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    board = make_board(tmp_path_factory.mktemp("b"), small(64, 256 << 10, 200))
    board.max_attempts = 100
    client, port = make_port(board)
    member, worker = make_worker(board, "agent-0")
    lives, open_, claims, answered = 0, {}, [], []
    for number, step in enumerate(steps):
        if step in ("submit", "big"):
            try:
                args = (number,) if step == "submit" else (number, np.full(3000, number))
                open_[port.submit("k", args, priority=list(Priority)[number % 4])] = number
            except SwarmFull:
                pass
        elif step == "claim":
            claim = worker.claim()
            if claim is not None:
                claims.append(claim)
        elif step in ("commit", "fail", "back") and claims:
            claim = claims.pop(number % len(claims))
            if step == "commit":
                assert worker.commit(claim, list(claim.args))
            elif step == "fail":
                assert worker.fail(claim, ValueError(str(claim.args[0])))
            else:
                assert worker.hand_back(claim)
        elif step == "poll":
            answered += port.poll(3)
        elif step == "cancel" and open_:
            port.cancel(list(open_)[number % len(open_)])
        elif step == "die" and lives < 20:
            assert board.declare_dead(member.index, member.epoch) == len(claims)
            for claim in claims:
                assert not worker.commit(claim, "late")
            claims.clear()
            lives += 1
            member, worker = make_worker(board, f"agent-{lives}")
        elif step == "sweep":
            assert board.sweep() == 0
    for claim in claims:
        answered += port.poll()  # results need room in the arena as arguments do
        assert worker.commit(claim, list(claim.args))
    while (claim := worker.claim()) is not None:
        answered += port.poll()
        assert worker.commit(claim, list(claim.args))
    while answers := port.poll():
        answered += answers
    assert sorted(id(a.ticket) for a in answered) == sorted(map(id, open_))
    for answer in answered:
        number = open_[answer.ticket]
        if answer.error is None:
            assert answer.value[0] == number
            assert all((array == number).all() for array in answer.value[1:])
        elif isinstance(answer.error, KernelError):
            assert str(number) in str(answer.error)
        else:
            assert isinstance(answer.error, TaskCancelled)
    assert board.stats().arena_used == 0
    board.leave(client)
    board.leave(member)
