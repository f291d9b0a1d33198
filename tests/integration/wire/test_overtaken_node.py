"""A task that a slow node has begun is run a second time at home: the first answer counts, the other is void."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from support.wirekit import eventually
from swarm_agents.client import Swarm
from swarm_agents.shm.second import begin_second, claimed


class Gate:
    """A kernel of a slow node: it runs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, value: int) -> int:
        self.entered.release()
        assert self.open.wait(20)
        return value


@pytest.fixture
def away(make_node: Any, serve: Any) -> Any:
    """A task of the home node that another node has begun and does not end; and an idle agent at home."""
    home, other, gate = make_node("a"), make_node("b"), Gate()
    other.worker("risk-compute-1-1", kernels={"test.gate": gate})
    hubs = serve(home, other)
    with Swarm.connect(home.url) as swarm:
        future = swarm.submit("test.gate", 1)
        assert gate.entered.acquire(timeout=10)
        member = home.join("risk-compute-0-1", "compute")
        (task,) = claimed(home.board, member.index)
        second = begin_second(home.board, member, task)
        assert second is not None
        assert second.arguments() == ((1,), {})
        yield home, hubs, gate, future, home.board.worker(member), second
        gate.open.set()


def test_the_home_nodes_answer_counts_when_it_comes_first_and_the_far_one_is_cancelled(away: Any) -> None:
    home, (first, far), gate, future, worker, second = away
    assert worker.commit(second, 101)
    assert future.result(10) == 101
    eventually(lambda: first.hub.in_hand == 0)
    eventually(lambda: far.call(lambda: far.hub.sessions.unanswered) == 0)
    gate.open.set()
    assert home.board.stats().totals["committed"] == 1
    assert first.hub.counts["forwarded_answered"] == 0


def test_the_far_nodes_answer_counts_when_it_comes_first_and_the_second_run_is_void(away: Any) -> None:
    home, (first, _), gate, future, worker, second = away
    gate.open.set()
    assert future.result(10) == 1
    assert second.cancelled()
    assert not worker.commit(second, 101)
    assert home.board.stats().totals["committed"] == 1
    assert first.hub.counts["forwarded_answered"] == 1
