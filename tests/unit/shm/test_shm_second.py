"""A claimed task is run a second time by another member: one answer counts, whoever is first and whoever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.shm import make_board, make_port, make_worker
from swarm_agents.shm.board import Board
from swarm_agents.shm.second import begin_second, claimed, put_down, running_of, yield_second


class Scene:
    """A board with a client, a slow agent that has claimed something, and an idle one."""

    def __init__(self, directory: Path) -> None:
        self.board: Board = make_board(directory)
        self.client, self.port = make_port(self.board)
        self.slow, self.slow_worker = make_worker(self.board, "slow")
        self.idle, self.idle_worker = make_worker(self.board, "idle")

    def claim(self, *args: Any) -> Any:
        self.port.submit("core.echo", args)
        return self.slow_worker.claim(0.0)

    def second(self) -> Any:
        (task,) = claimed(self.board, self.idle.index)
        return begin_second(self.board, self.idle, task)

    def answers(self) -> list[Any]:
        self.port.wait(0.0)
        return list(self.port.poll(16))

    def close(self) -> None:
        for member in (self.idle, self.slow, self.client):
            self.board.leave(member)


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_the_second_run_answers_first_and_the_first_one_is_refused(scene: Scene) -> None:
    claim = scene.claim(7, np.arange(3.0))
    second = scene.second()
    args, kwargs = second.arguments()
    assert (second.kernel, args[0], list(args[1]), kwargs) == ("core.echo", 7, [0.0, 1.0, 2.0], {})
    assert (second.task_id, second.attempt) == (claim.task_id, 1)
    assert not claim.cancelled()
    assert scene.idle_worker.commit(second, "second")
    assert claim.cancelled(), "the slow one learns of it"
    assert not scene.slow_worker.commit(claim, "first")
    (answer,) = scene.answers()
    assert (answer.value, answer.attempts, answer.agent) == ("second", 1, scene.idle.index)
    assert scene.answers() == []


def test_the_first_run_answers_first_and_the_second_one_is_void(scene: Scene) -> None:
    for _ in range(8):  # more often than the arena could hold a result that was thrown away and not freed
        claim = scene.claim()
        second = scene.second()
        assert scene.slow_worker.commit(claim, "first")
        assert second.cancelled()
        assert not scene.idle_worker.commit(second, np.zeros(50_000))
        assert [answer.value for answer in scene.answers()] == ["first"]


def test_nobody_runs_a_claim_a_third_time_until_the_second_runner_has_given_it_up(scene: Scene) -> None:
    scene.claim()
    assert scene.second() is not None
    (task,) = claimed(scene.board, scene.idle.index)
    assert task.twice
    third, _ = make_worker(scene.board, "third")
    assert begin_second(scene.board, third, task) is None
    assert yield_second(scene.board.mapping.base, task.slot, task.word) == 1
    assert begin_second(scene.board, third, task) is not None
    scene.board.leave(third)


def test_a_claim_that_is_over_is_not_run_twice(scene: Scene) -> None:
    claim = scene.claim()
    (task,) = claimed(scene.board, scene.idle.index)
    assert scene.slow_worker.commit(claim, None)
    assert begin_second(scene.board, scene.idle, task) is None
    assert claimed(scene.board) == []


def test_when_the_first_agent_dies_meanwhile_the_task_is_claimed_again_and_the_second_run_is_void(scene: Scene) -> None:
    scene.claim()
    second = scene.second()
    assert scene.board.declare_dead(scene.slow.index, scene.slow.epoch) == 1
    assert second.cancelled()
    assert not scene.idle_worker.commit(second, "second")
    again = scene.idle_worker.claim(0.0)
    assert again.attempt == 2
    assert scene.idle_worker.commit(again, "again")
    assert [(answer.value, answer.attempts) for answer in scene.answers()] == [("again", 2)]


def test_the_mark_of_an_earlier_claim_means_nothing_for_the_next(scene: Scene) -> None:
    claim = scene.claim()
    assert scene.second() is not None
    assert scene.slow_worker.hand_back(claim)
    again = scene.slow_worker.claim(0.0)
    assert again.slot == claim.slot
    (task,) = claimed(scene.board, scene.idle.index)
    assert not task.twice
    assert begin_second(scene.board, scene.idle, task) is not None


def test_a_fenced_member_marks_nothing(scene: Scene) -> None:
    scene.claim()
    (task,) = claimed(scene.board, scene.idle.index)
    scene.board.declare_dead(scene.idle.index, scene.idle.epoch)
    assert begin_second(scene.board, scene.idle, task) is None
    (task,) = claimed(scene.board, scene.idle.index)
    assert not task.twice


def test_the_arguments_of_a_second_run_are_its_own_when_the_task_is_over(scene: Scene) -> None:
    sent = np.arange(40_000.0)
    claim = scene.claim(sent)
    (array,), _ = scene.second().arguments()
    assert scene.slow_worker.commit(claim, None)
    scene.answers()
    for _ in range(4):  # the room in the arena is another task's now
        scene.slow_worker.commit(scene.claim(np.full(40_000, -1.0)), None)
        scene.answers()
    assert np.array_equal(array, sent)


def test_shared_arrays_are_copied_for_a_second_run(scene: Scene) -> None:
    arena = scene.board.arena(scene.client)
    shared = arena.empty((100, 20))
    shared[:] = np.arange(2000.0).reshape(100, 20)
    claim = scene.claim(shared, shared[::2, 3])
    (whole, part), _ = scene.second().arguments()
    assert scene.slow_worker.commit(claim, None)
    scene.answers()
    expected = np.arange(2000.0).reshape(100, 20)
    assert not np.shares_memory(whole, shared)
    assert np.array_equal(whole, expected)
    assert np.array_equal(part, expected[::2, 3])
    assert not whole.flags.writeable


def test_a_members_record_shows_its_second_run_and_when_it_is_over(scene: Scene) -> None:
    scene.claim()
    before = running_of(scene.board, scene.idle)
    assert scene.second() is not None

    def running() -> int:
        return next(info.running for info in scene.board.members() if info.name == "idle")

    assert (before, running()) == (0, 1)
    put_down(scene.board, scene.idle, before)
    assert running() == 0


def test_how_long_a_task_is_in_hand_is_known_of_what_was_claimed_last(scene: Scene) -> None:
    first, second = scene.claim(1), scene.claim(2)
    found = {task.slot: task for task in claimed(scene.board)}
    assert found[first.slot].since_ns == 0, "it was not the last: whoever looks notes when he saw it first"
    assert found[second.slot].since_ns == second.claimed_ns
    assert [found[c.slot].task_id for c in (first, second)] == [first.task_id, second.task_id]
    assert {(task.owner, task.epoch, task.attempt) for task in found.values()} == {
        (scene.slow.index, scene.slow.epoch, 1)
    }
