"""The page of counters that an agent shares with its supervisor."""

import os

from swarm_agents.config import Priority
from swarm_agents.runtime.scoreboard import BUCKETS, RESULTS, AgentState, Scoreboard


def test_what_a_child_counts_is_read_by_its_parent_though_it_was_killed() -> None:
    board = Scoreboard()
    pid = os.fork()
    if pid == 0:
        board.set_state(AgentState.READY)
        board.begin(123)
        board.end(RESULTS.index("ok"), Priority.HIGH.lane, 2_000_000)
        board.begin(456)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert board.state is AgentState.READY
    assert board.tasks()["ok", "high"] == 1
    assert (board.running, board.since_ns) == (1, 456)
    board.restart()
    assert (board.running, board.state) == (0, AgentState.STARTING)
    assert board.tasks()["ok", "high"] == 1


def test_the_histogram_is_cumulative_and_its_sum_is_in_seconds() -> None:
    board = Scoreboard()
    for nanoseconds in (500, 2_000_000, 10**12):
        board.begin(0)
        board.end(0, Priority.BULK.lane, nanoseconds)
    counts, total = board.histogram(Priority.BULK)
    assert counts[0] == 1
    assert counts[BUCKETS.index(3e-3)] == 2
    assert counts[-2:] == [2, 3]
    assert total == 1000.0020005
    assert board.histogram(Priority.CRITICAL) == ([0] * (len(BUCKETS) + 1), 0.0)


def test_an_observation_on_a_bound_belongs_to_the_bucket_below_it() -> None:
    board = Scoreboard()
    board.begin(0)
    board.end(0, 0, 10**9)
    assert board.histogram(Priority.CRITICAL)[0][BUCKETS.index(1.0)] == 1


def test_calls_that_were_parts_of_one_task_are_counted_one_by_one() -> None:
    alone, together = Scoreboard(), Scoreboard()
    calls = [(0, 10_000), (0, 20_000), (1, 10_000), (2, 7_000_000)]
    for result, elapsed in calls:
        alone.begin(0)
        alone.end(result, Priority.HIGH.lane, elapsed)
    together.begin(0)
    together.made(calls, Priority.HIGH.lane)
    together.set_running(0)
    assert together.tasks() == alone.tasks()
    assert together.histogram(Priority.HIGH) == alone.histogram(Priority.HIGH)
    assert together.progress == alone.progress
