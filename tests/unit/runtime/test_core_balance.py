"""Cores that are stolen from, throttled or hot are left, for as long as that is sensible."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.runtime.corebalance import LEAST_AWAY, Core, CoreBalance, Move, cost

WELL = Core()
STOLEN = Core(steal=0.6)


def run(
    balance: CoreBalance, start: float, seconds: float, cpus: range, cores: dict[int, Core], busy: int = 1
) -> list[tuple[float, Move]]:
    """Looks each half second, as the supervisor does; returns the moves with their times."""
    return [
        (start + step / 2, move)
        for step in range(int(2 * seconds))
        for move in balance.plan(start + step / 2, cpus, cores, busy)
    ]


def test_a_core_that_is_stolen_from_is_left_and_says_why() -> None:
    balance = CoreBalance()
    moves = run(balance, 0, 5, range(2), {0: STOLEN, 1: WELL})
    assert [(move.core, move.leave) for _, move in moves] == [(0, True)]
    assert "60% stolen" in moves[0][1].reason
    assert balance.avoided == (0,)
    assert balance.allowed(range(2)) == (1,)


def test_throttled_and_hot_cores_are_left_too() -> None:
    for bad in (Core(throttles=1), Core(celsius=99, limit=100), Core(celsius=500, limit=100)):
        balance = CoreBalance()
        run(balance, 0, 5, range(3), {0: WELL, 1: bad, 2: WELL})
        assert balance.avoided == (1,), bad


def test_what_is_over_in_a_moment_moves_nothing() -> None:
    balance = CoreBalance()
    run(balance, 0, 5, range(2), {0: WELL, 1: WELL})
    assert not balance.plan(5.0, range(2), {0: Core(steal=1.0), 1: WELL}, 1)
    assert not run(balance, 5.5, 10, range(2), {0: WELL, 1: WELL})


def test_figures_between_the_marks_move_nothing_back_and_forth() -> None:
    balance = CoreBalance()
    moves: list[Move] = []
    for step in range(1200):
        steal = 0.32 if step % 2 else 0.2
        moves += balance.plan(step / 2, range(2), {0: Core(steal=steal), 1: WELL}, 1)
    assert len(moves) <= 1


def test_a_core_that_only_looks_well_while_nobody_runs_there_is_tried_ever_more_rarely() -> None:
    balance = CoreBalance()
    back = []
    for step in range(2400):
        bad = 0 not in balance.avoided  # steal shows only while somebody runs there
        for move in balance.plan(step / 2, range(2), {0: STOLEN if bad else WELL, 1: WELL}, 1):
            if not move.leave:
                back.append(step / 2)
    gaps = [later - sooner for sooner, later in itertools.pairwise(back)]
    assert back[0] >= LEAST_AWAY
    assert gaps == sorted(gaps)
    assert gaps[-1] > 3 * gaps[0]
    assert len(back) < 8


def test_a_core_that_has_recovered_is_used_again() -> None:
    balance = CoreBalance()
    run(balance, 0, 5, range(2), {0: STOLEN, 1: WELL})
    moves = run(balance, 5, 60, range(2), {0: WELL, 1: WELL})
    assert [(move.core, move.leave) for _, move in moves] == [(0, False)]
    assert balance.avoided == ()


def test_no_core_is_left_that_a_busy_thread_needs() -> None:
    balance = CoreBalance()
    assert not run(balance, 0, 10, range(2), {0: STOLEN, 1: WELL}, busy=2)


def test_a_core_that_was_left_is_taken_again_at_once_when_it_is_needed() -> None:
    balance = CoreBalance()
    run(balance, 0, 5, range(2), {0: STOLEN, 1: WELL})
    (move,) = balance.plan(5.0, range(2), {0: STOLEN, 1: WELL}, 2)
    assert (move.core, move.leave) == (0, False)


def test_where_all_cores_are_alike_bad_none_is_left() -> None:
    assert not run(CoreBalance(), 0, 10, range(4), dict.fromkeys(range(4), STOLEN))


def test_with_one_core_nothing_happens() -> None:
    balance = CoreBalance()
    assert not run(balance, 0, 10, range(1), {0: Core(steal=1.0, throttles=9)})
    assert balance.allowed([0]) == (0,)


def test_a_core_that_leaves_the_cpuset_is_forgotten() -> None:
    balance = CoreBalance()
    run(balance, 0, 5, range(2), {0: STOLEN, 1: WELL})
    balance.plan(5.0, [1, 2], {}, 1)
    assert balance.avoided == ()
    assert balance.allowed([0]) == (0,)


def test_absurd_figures_cost_nothing_or_all_and_never_more() -> None:
    for value in (math.nan, math.inf, -math.inf, -5.0, 1e300):
        found, _ = cost(Core(value, value, value, value))
        assert 0.0 <= found <= 1.0


_FIGURE = st.floats(allow_nan=True, allow_infinity=True)
_CORE = st.builds(Core, _FIGURE, _FIGURE, st.none() | _FIGURE, st.none() | _FIGURE)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),
            st.sets(st.integers(0, 5), min_size=1),
            st.dictionaries(st.integers(0, 7), _CORE),
            st.integers(-1, 9),
        ),
        max_size=30,
    )
)
def test_whatever_is_read_the_agent_stays_on_a_part_of_its_cpuset(
    steps: list[tuple[float, set[int], dict[int, Core], int]],
) -> None:
    balance, now = CoreBalance(), 0.0
    for passed, cpus, cores, busy in steps:
        now += passed
        balance.plan(now, cpus, cores, busy)
        left = balance.allowed(cpus)
        assert left
        assert set(left) <= cpus
        assert set(balance.avoided) <= cpus
        assert len(left) >= min(max(busy, 1), len(cpus))
