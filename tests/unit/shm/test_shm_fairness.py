"""Who gets a lane's slots and who is served first: clients beside one that floods, critical work beside backlogs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from support.shm import make_board, make_port, make_worker, small
from swarm_agents.config import Priority
from swarm_agents.errors import SwarmFull
from swarm_agents.shm.board import Board, Geometry, Port, Worker

LANE = 64  # slots of a lane of `small()`


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return make_board(tmp_path, small(max_members=64))


@pytest.fixture
def worker(board: Board) -> Worker:
    return make_worker(board)[1]


def flood(port: Port, priority: Priority = Priority.NORMAL) -> int:
    """Submits until there is no room; how many."""
    count = 0
    while True:
        try:
            port.submit("flood", (count,), priority=priority)
        except SwarmFull:
            return count
        count += 1


def flood_together(ports: list[Port], priority: Priority = Priority.NORMAL) -> list[int]:
    """All submit in turn until nobody finds room; how many each."""
    counts = [0] * len(ports)
    left = set(range(len(ports)))
    while left:
        for number in sorted(left):
            try:
                ports[number].submit("flood", priority=priority)
                counts[number] += 1
            except SwarmFull:
                left.discard(number)
    return counts


def serve(worker: Worker) -> str:
    claim = worker.claim()
    assert claim is not None
    kernel = claim.kernel
    worker.commit(claim, None)
    return kernel


def test_one_client_alone_may_fill_three_quarters_of_a_lane(board: Board) -> None:
    assert flood(make_port(board)[1]) == LANE * 3 // 4 + 1


@pytest.mark.parametrize("clients", [2, 3, 5])
def test_clients_that_flood_a_lane_together_get_equal_shares_and_leave_room(board: Board, clients: int) -> None:
    ports = [make_port(board, f"client-{n}")[1] for n in range(clients)]
    counts = flood_together(ports)
    assert max(counts) - min(counts) <= 1, counts
    newcomer = make_port(board, "newcomer")[1]
    for _ in range(LANE // (3 * clients + 1) // 2):  # it, too, leaves some
        newcomer.submit("quiet")


def test_room_that_answers_make_goes_to_the_quiet_one_too(board: Board, worker: Worker) -> None:
    """The flooder takes every answer at once and submits again: the quiet one finds room whenever it comes."""
    loud, quiet = make_port(board, "loud")[1], make_port(board, "quiet")[1]
    for _ in range(200):
        flood(loud)
        quiet.submit("quiet")
        while serve(worker) != "quiet":
            pass
        loud.poll()
        assert len(quiet.poll()) == 1


@pytest.mark.parametrize("priority", Priority)
def test_a_client_waits_for_one_task_of_each_other_client_and_no_more(
    board: Board, worker: Worker, priority: Priority
) -> None:
    flood_together([make_port(board, f"loud-{number}")[1] for number in range(4)], priority)
    quiet = make_port(board, "quiet")[1]
    for _ in range(8):
        quiet.submit("quiet", priority=priority)
        before = 0
        while serve(worker) != "quiet":
            before += 1
        assert before <= 4
        quiet.poll()


def test_critical_work_passes_a_full_backlog_in_every_other_lane(board: Board, worker: Worker) -> None:
    loud, urgent = make_port(board, "loud")[1], make_port(board, "urgent")[1]
    for priority in (Priority.HIGH, Priority.NORMAL, Priority.BULK):
        assert flood(loud, priority) > LANE // 2
    for _ in range(30):
        urgent.submit("urgent", priority=Priority.CRITICAL)
        assert serve(worker) == "urgent"
        serve(worker)  # one of the backlog goes on between


def test_critical_work_passes_a_backlog_that_was_claimed_and_not_begun(board: Board, worker: Worker) -> None:
    """A hub holds claims that it means to carry away; it may also give them all back: nothing of it goes first."""
    hub = make_worker(board, "hub")[1]
    loud, urgent = make_port(board, "loud")[1], make_port(board, "urgent")[1]
    flood(loud, Priority.BULK)
    held = [claim for _ in range(20) if (claim := hub.claim(lanes=(3, 3))) is not None]
    assert len(held) == 20
    urgent.submit("urgent", priority=Priority.CRITICAL)
    assert serve(worker) == "urgent"
    for claim in held:
        assert hub.hand_back(claim, begun=False)
    urgent.submit("urgent", priority=Priority.CRITICAL)
    assert serve(worker) == "urgent"
    assert serve(worker) == "flood"


def test_critical_work_finds_slots_and_memory_when_every_other_lane_is_full(tmp_path: Path) -> None:
    board = make_board(tmp_path, Geometry(256, 1 << 20, 16))
    worker = make_worker(board)[1]
    loud, urgent = make_port(board, "loud")[1], make_port(board, "urgent")[1]
    block = np.zeros(30_000, np.uint8)
    with contextlib.suppress(SwarmFull):
        while True:
            loud.submit("flood", (block,), priority=Priority.BULK)
    urgent.submit("urgent", (block,), priority=Priority.CRITICAL)
    assert serve(worker) == "urgent"
