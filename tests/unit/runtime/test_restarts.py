"""The policy of restarts, as a table of lives."""

from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.runtime.restarts import GIVE_UP, Restarts

lives = st.tuples(st.floats(0, 100), st.booleans())


def test_the_first_death_is_followed_by_a_fork_at_once() -> None:
    assert Restarts().died(served=0.0, worked=False).pause == 0


def test_fruitless_deaths_make_the_pause_grow_and_in_the_end_the_pod_fails() -> None:
    restarts, pauses = Restarts(), []
    while not restarts.hopeless:
        restarts = restarts.died(served=0.1, worked=False)
        pauses.append(restarts.pause)
    assert len(pauses) == GIVE_UP
    assert pauses == sorted(pauses)
    assert 5 < sum(pauses) < 120


@given(st.lists(lives))
def test_an_agent_that_worked_or_served_long_is_always_replaced_at_once(history: list[tuple[float, bool]]) -> None:
    restarts = Restarts()
    for served, worked in history:
        restarts = restarts.died(served=served, worked=worked)
    after = restarts.died(served=0.0, worked=True)
    assert after.pause == 0
    assert not after.hopeless
    assert after.total == len(history) + 1


@given(st.integers(0, GIVE_UP - 1))
def test_a_thousand_kills_of_working_agents_never_make_a_pod_give_up(before: int) -> None:
    restarts = Restarts(fruitless=before)
    for _ in range(1000):
        restarts = restarts.died(served=0.01, worked=True)
    assert not restarts.hopeless


def test_a_hub_that_is_killed_every_few_seconds_is_brought_back_at_once_each_time() -> None:
    # it ends no tasks, so that only the time for which it was there speaks for it
    restarts = Restarts()
    for _ in range(10 * GIVE_UP):
        restarts = restarts.died(served=1.5, worked=False)
        assert restarts.pause == 0
    assert not restarts.hopeless
