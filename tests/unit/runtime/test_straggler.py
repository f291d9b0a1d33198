"""Which tasks are run a second time: the late ones of known kernels, few, and none a third time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.runtime.straggler import FACTOR, Durations, Running, stragglers


def known(seconds: float = 0.1, count: int = 50) -> dict[str, Durations]:
    durations = Durations()
    for _ in range(count):
        durations.learn(seconds)
    return {"k": durations}


def test_a_task_far_beyond_what_its_kernel_takes_is_a_straggler() -> None:
    usual, late = Running((1, 1), "k", 0.15), Running((1, 2), "k", 0.25)
    assert stragglers([usual, late], known(), idle=1) == [late]


def test_of_a_kernel_that_is_hardly_known_nothing_is() -> None:
    assert stragglers([Running((1, 1), "k", 1e6)], known(count=5), idle=9) == []
    assert stragglers([Running((1, 1), "new", 1e6)], known(), idle=9) == []


def test_where_nobody_is_idle_nothing_is_run_twice() -> None:
    assert stragglers([Running((1, 1), "k", 1e6)], known(), idle=0) == []


def test_short_tasks_are_not_worth_a_second_run() -> None:
    assert stragglers([Running((1, 1), "k", 0.001)], known(1e-5), idle=1) == []


def test_a_kernel_that_has_become_slow_is_known_as_such() -> None:
    durations = known(0.01)["k"]
    for _ in range(300):
        durations.learn(1.0)
    assert durations.quantile(0.0) == 1.0


tasks = st.lists(
    st.builds(Running, st.tuples(st.integers(0, 9), st.integers(0, 99)), st.just("k"), st.floats(0, 10), st.booleans()),
    max_size=60,
)


@given(tasks, st.integers(0, 20))
def test_second_runs_are_few_and_of_those_that_are_latest(running: list[Running], idle: int) -> None:
    found = stragglers(running, known(), idle)
    assert len(found) <= idle
    assert len(found) + sum(each.twice for each in running) <= max(
        1, len(running) // 10, sum(each.twice for each in running)
    )
    assert not any(each.twice for each in found)
    assert all(each.ran >= FACTOR * 0.1 for each in found)
    left = [each.ran for each in running if each not in found and not each.twice]
    if found and left:
        assert min(each.ran for each in found) >= max((ran for ran in left), default=0.0)
