"""What foretells that an agent will fail within a minute, and what only looks like it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.faultscores import PLAIN, by_hazards, by_thresholds, choose, score
from support.faulttraces import held_out, make, training
from swarm_agents.resource.foresight.climb import Climb
from swarm_agents.resource.foresight.hazards import Hazards, Signs, Verdict

GIB = float(1 << 30)


def looked(signs: Callable[[int], Signs], seconds: int, siblings: float | None = None) -> Verdict:
    """The verdict after so many seconds."""
    hazards, verdict = Hazards(), Verdict()
    for at in range(seconds):
        verdict = hazards.look(float(at), signs(at), siblings)
    return verdict


def climbed(values: Iterator[float], limit: float) -> float:
    climb = Climb()
    for at, value in enumerate(values):
        climb.add(float(at), value)
    return climb.exceeds(limit, 60.0)


def test_an_agent_of_which_nothing_is_seen_is_not_expected_to_fail() -> None:
    verdict = looked(lambda at: Signs(), 100)
    assert (verdict.probability, verdict.reasons) == (0.0, ())


def test_memory_that_is_full_in_half_a_minute_is_told_with_the_reason() -> None:
    verdict = looked(lambda at: Signs(memory=(0.2 + 0.007 * at) * GIB, memory_limit=GIB), 100)
    assert verdict.probability > 0.7
    assert "memory 89 % of what it may have" in verdict.reasons[0]


def test_memory_that_has_jumped_and_stays_is_no_reason() -> None:
    verdict = looked(lambda at: Signs(memory=(0.2 if at < 80 else 0.85) * GIB, memory_limit=GIB), 120)
    assert verdict.probability < 0.05


def test_heat_that_levels_out_below_the_limit_is_no_reason_and_above_it_is_one() -> None:
    def towards(end: float) -> Verdict:
        return looked(lambda at: Signs(heat=end - (end - 40.0) * math.exp(-at / 40.0), heat_limit=100.0), 75)

    assert towards(88.0).probability < 0.1
    assert towards(125.0).probability > 0.5


def test_a_climb_within_the_noise_is_no_climb() -> None:
    chance = random.Random(1)
    assert climbed((50.0 + chance.gauss(0.0, 8.0) for _ in range(200)), 100.0) < 0.2


def test_where_it_came_back_from_before_it_is_believed_less() -> None:
    ramp = [30.0 + at for at in range(60)]
    alone = climbed(iter([30.0] * 60 + ramp), 100.0)
    again = climbed(iter(ramp + [90.0 - at for at in range(60)] + ramp), 100.0)
    assert again < 0.6 * alone


def test_a_task_that_takes_long_and_computes_is_no_reason_but_one_that_hangs_is() -> None:
    def cpu_after(idle: float) -> Verdict:
        def signs(at: int) -> Signs:
            held = at - 60.0 if at > 60 else 0.1
            cpu = idle if at > 60 else 0.9
            return Signs(running=1, held=held, cpu=cpu, done=10.0 * min(at, 60), failed=0.0, busy_seconds=9.0)

        return looked(signs, 100)

    assert cpu_after(0.95).probability < 0.05
    assert cpu_after(0.0).probability > 0.8


def test_errors_are_the_agents_only_where_its_siblings_have_none() -> None:
    def signs(at: int) -> Signs:
        return Signs(done=10.0 * at, failed=0.0 if at < 60 else 8.0 * (at - 60), busy_seconds=0.1 * at)

    assert looked(signs, 90, siblings=0.0).probability > 0.6
    assert looked(signs, 90, siblings=0.8).probability < 0.05
    assert looked(signs, 90, siblings=None).probability < 0.4


def test_heartbeats_that_come_as_they_should_are_no_reason_whatever_the_load() -> None:
    chance = random.Random(2)
    hazards = Hazards()
    worst = max(hazards.look(at, Signs(age=chance.expovariate(1 / 0.12))).probability for at in range(1800))
    assert worst < 0.3


def test_a_silence_that_goes_on_is_certain_before_it_is_the_end() -> None:
    hazards = Hazards(dead_after=0.8)
    for at in range(60):
        hazards.look(float(at), Signs(age=0.05))
    assert hazards.look(62.6, Signs(age=2.6)).probability > 0.9


def test_one_death_is_an_accident_and_three_are_a_habit() -> None:
    assert looked(lambda at: Signs(deaths=int(at >= 30)), 40).probability < 0.35
    assert looked(lambda at: Signs(deaths=at // 20), 70).probability > 0.9
    assert looked(lambda at: Signs(deaths=min(at // 20, 3)), 300).probability == 0.0


def test_deaths_from_before_it_was_looked_at_are_not_news() -> None:
    assert looked(lambda at: Signs(deaths=40), 30).probability == 0.0


def test_cpu_time_that_others_take_more_and_more_is_a_reason() -> None:
    verdict = looked(lambda at: Signs(stolen=max(0.0, 0.01 * (at - 40))), 120)
    assert verdict.probability > 0.5
    assert "others'" in verdict.reasons[0]
    assert looked(lambda at: Signs(stolen=0.3), 120).probability < 0.05


def test_a_disk_that_gets_slower_and_slower_is_a_reason_and_one_slow_operation_is_none() -> None:
    assert looked(lambda at: Signs(disk=0.005 * (1.1 ** max(0, at - 60))), 110).probability > 0.5
    assert looked(lambda at: Signs(disk=2.0 if at == 100 else 0.005), 102).probability < 0.45


WHATEVER = st.one_of(
    st.none(), st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -1.0, 1e-300, 1e308, math.nan])
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            WHATEVER, st.lists(WHATEVER, min_size=13, max_size=13), st.integers(-5, 1 << 62), st.integers(-5, 1 << 62)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_whatever_is_seen_the_verdict_is_a_probability(
    looks: list[tuple[float | None, list[float | None], int, int]],
) -> None:
    hazards = Hazards()
    for at, (now, values, running, deaths) in enumerate(looks):
        age, held, *rest = values
        signs = Signs(age, running, 0.0 if held is None else held, *rest, deaths=deaths)
        verdict = hazards.look(float(at) if now is None else now, signs, values[3])
        assert 0.0 <= verdict.probability <= 1.0
        assert all(0.0 <= p <= 1.0 for p in verdict.by_sign.values())


def test_the_same_seed_makes_the_same_trace() -> None:
    assert make("leak", 4) == make("leak", 4)
    assert make("leak", 4) != make("leak", 5)


def test_more_failures_are_foretold_than_by_the_best_plain_thresholds_and_no_more_falsely() -> None:
    chosen = choose(training(2), tuple(PLAIN))
    traces = held_out(2)
    ours, plain = score(traces, by_hazards(0.75)), score(traces, by_thresholds(chosen))
    assert ours.f1 > 1.25 * plain.f1
    assert ours.false <= 1
    assert ours.lead > 15.0


@pytest.mark.parametrize("kind", ["idle", "full", "clients", "long"])
def test_agents_that_are_well_are_left_alone(kind: str) -> None:
    for seed in (101, 103):
        assert by_hazards(0.75)(make(kind, seed)) is None
