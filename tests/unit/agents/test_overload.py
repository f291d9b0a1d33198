"""When a node refuses work, and when it takes it again: the controller alone, on a clock of the test's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.resource.overload import LONGEST_HOLD, MEMORY, OWN, TARGET, WINDOW, Change, Level, Overload

STEP = 0.1
QUIET = (0.0, 0.0, 0.0, 0.0)


class Run:
    """A controller that is looked at every 100 ms."""

    def __init__(self) -> None:
        self.overload, self.now, self.changes = Overload(), 100.0, list[tuple[float, Change]]()

    def go(self, seconds: float, *waits: float, workers: int = 1, memory: float = 0.0) -> Level:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            change = self.overload.look(self.now, waits or QUIET, workers, memory)
            if change is not None:
                self.changes.append((self.now, change))
        return self.overload.level


def test_a_burst_that_is_over_within_the_window_is_no_overload():
    run = Run()
    for _ in range(20):
        run.go(WINDOW - 2 * STEP, 0, 0, 5 * TARGET, 0)
        assert run.go(STEP) is Level.NORMAL


def test_work_that_stands_has_bulk_refused_and_the_change_says_which_work_it_was():
    run = Run()
    assert run.go(WINDOW + 3 * STEP, 0, 0, 1.5 * TARGET, 0) is Level.SHED_BULK
    ((_, change),) = run.changes
    assert change.before is Level.NORMAL
    assert "normal work" in change.cause
    assert "1.50 s" in change.cause


def test_normal_work_is_refused_only_after_bulk_and_only_for_the_sake_of_more_urgent_work():
    run = Run()
    assert run.go(5 * WINDOW, 0, 0, 2 * TARGET, 0) is Level.SHED_BULK
    assert run.go(WINDOW + 3 * STEP, 2 * TARGET, 0, 2 * TARGET, 0) is Level.SHED_NORMAL
    other = Run()
    other.go(WINDOW + 3 * STEP, 2 * TARGET, 0, 0, 0)
    other.go(WINDOW + 3 * STEP, 2 * TARGET, 0, 0, 0)
    assert [(c.before, c.level) for _, c in other.changes] == [(0, 1), (1, 2)]


@pytest.mark.parametrize("level", [Level.SHED_BULK, Level.SHED_NORMAL])
def test_a_batch_that_holds_up_nobody_else_may_wait_longer(level):
    own = len(QUIET) - level
    waits = [0.0] * 4
    waits[own] = 0.9 * OWN * TARGET
    run = Run()
    assert run.go(20 * WINDOW, *waits) < level
    waits[own] = 1.1 * OWN * TARGET
    assert run.go(20 * WINDOW, *waits) >= level


def test_a_node_on_which_everybody_waits_for_memory_refuses_work_whatever_its_queues_say():
    run = Run()
    assert run.go(30, memory=0.9 * MEMORY[Level.SHED_BULK]) is Level.NORMAL
    assert run.go(30, memory=1.1 * MEMORY[Level.SHED_BULK], workers=0) is Level.SHED_BULK
    assert run.go(30, memory=1.1 * MEMORY[Level.SHED_NORMAL]) is Level.SHED_NORMAL
    assert all("memory" in change.cause for _, change in run.changes)
    assert run.go(60) is Level.NORMAL


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -1.0, 1.5])
def test_a_share_of_waiting_for_memory_that_can_not_be_is_none(absurd):
    assert Run().go(10, memory=absurd) is Level.NORMAL


def test_it_recovers_by_itself_one_level_at_a_time():
    run = Run()
    run.go(10, 3 * TARGET, 0, 0, 0)
    assert run.overload.level is Level.SHED_NORMAL
    assert run.go(10 * WINDOW) is Level.NORMAL
    assert [c.level for _, c in run.changes] == [1, 2, 1, 0]


def test_waits_between_half_and_the_whole_target_change_nothing():
    run = Run()
    assert run.go(30, 0, 0, 0.75 * TARGET, 0) is Level.NORMAL
    run.go(3, 0, 0, 2 * TARGET, 0)
    assert run.go(60, 0, 0, 0.75 * TARGET, 0) is Level.SHED_BULK


def test_load_that_returns_whenever_the_door_opens_makes_it_swing_ever_more_rarely():
    run = Run()
    for _ in range(round(600 / STEP)):
        refused = run.overload.level > Level.NORMAL
        run.go(STEP, 0, 0, 0.0 if refused else 2 * TARGET, 0)
    lowered = [at for at, change in run.changes if change.level is Level.NORMAL]
    assert len(lowered) < 30
    assert lowered[-1] - lowered[-2] > 0.9 * LONGEST_HOLD


def test_without_agents_waiting_says_nothing_about_load():
    run = Run()
    assert run.go(30, 9, 9, 9, 99, workers=0) is Level.NORMAL
    run.go(3, 9, 9, 9, 99)
    assert run.go(30, 9, 9, 9, 99, workers=0) is Level.NORMAL


def test_what_was_not_looked_at_does_not_count_as_stood():
    overload = Overload()
    overload.look(10.0, (0, 0, 5.0, 0))
    assert overload.look(20.0, (0, 0, 5.0, 0)) is None
    assert overload.look(3.0, (0, 0, 5.0, 0)) is None, "nor with a clock that went back"


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_target_or_window_that_is_no_time_is_refused(bad):
    with pytest.raises(ValueError, match="above 0"):
        Overload(target=bad)
    with pytest.raises(ValueError, match="above 0"):
        Overload(window=bad)


_WAIT = st.one_of(st.floats(0, 100), st.sampled_from([math.nan, math.inf, -1.0]))


@given(st.lists(st.tuples(st.integers(1, 20), st.tuples(_WAIT, _WAIT, _WAIT, _WAIT)), max_size=30))
def test_whatever_comes_it_goes_one_level_at_a_time_says_why_and_ends_normal_when_all_is_quiet(story):
    run = Run()
    for steps, waits in story:
        run.go(steps * STEP, *waits)
        assert 0.25 <= run.overload.retry_after <= 2.0
    run.go(3 * LONGEST_HOLD + 3)
    assert run.overload.level is Level.NORMAL
    for _, change in run.changes:
        assert abs(change.level - change.before) == 1
        assert change.cause
