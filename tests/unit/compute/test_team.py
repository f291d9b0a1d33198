"""The team: pieces on threads, results in order, errors not lost, and life after a fork."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
from numba.np.ufunc import parallel

from swarm_agents.compute import team


@pytest.fixture(autouse=True)
def _three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    monkeypatch.setattr(parallel, "_is_initialized", False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def test_results_come_in_the_order_of_the_work() -> None:
    assert team.run(lambda i: i * i, [(i,) for i in range(10)]) == [i * i for i in range(10)]


def test_as_many_threads_work_as_numba_was_told_to_use() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert len(team.run(lambda _: meeting.wait(), [(i,) for i in range(3)])) == 3


def test_no_more_threads_work_than_there_are_cpus_to_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    assert team.threads() == 1


def test_asking_for_the_number_starts_no_pool() -> None:
    team.run(lambda i: i, [(0,), (1,)])
    assert not parallel._is_initialized


def test_within_a_limit_fewer_threads_work() -> None:
    with team.limited(1):
        assert set(team.run(lambda _: threading.get_ident(), [(i,) for i in range(5)])) == {threading.get_ident()}
        assert team.pieces(100) == [(0, 100)]
    assert team.threads() == 3


def test_an_error_of_a_piece_is_raised_after_all_have_ended() -> None:
    ended = []

    def work(i: int) -> None:
        if i == 1:
            raise ValueError("piece 1")
        ended.append(i)

    with pytest.raises(ValueError, match="piece 1"):
        team.run(work, [(i,) for i in range(3)])
    assert sorted(ended) == [0, 2]


@pytest.mark.parametrize(("n", "least"), [(0, 1), (1, 1), (10, 4), (10, 100), (1000, 1), (7, 0)])
def test_pieces_cover_everything_once_and_are_not_too_short(n: int, least: int) -> None:
    found = team.pieces(n, least)
    assert [i for begin, end in found for i in range(begin, end)] == list(range(n))
    assert all(end - begin >= min(least, n) for begin, end in found)


def test_work_within_work_is_done_and_not_waited_for_ever() -> None:
    def outer(i: int) -> int:
        return sum(team.run(lambda j: i * j, [(j,) for j in range(4)]))

    assert team.run(outer, [(i,) for i in range(6)]) == [6 * i for i in range(6)]


def test_several_callers_at_once_each_get_their_own_results() -> None:
    def caller(k: int) -> list[int]:
        return [x for _ in range(20) for x in team.run(lambda i: 10 * k + i, [(i,) for i in range(4)])]

    with ThreadPoolExecutor(4) as callers:
        for k, found in enumerate(callers.map(caller, range(4))):
            assert found == [10 * k + i for i in range(4)] * 20


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    team.run(lambda i: i, [(0,), (1,)])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, bytes(team.run(lambda i: i + 1, [(0,), (1,), (2,)])))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"\x01\x02\x03"
    assert os.waitpid(child, 0)[1] == 0
