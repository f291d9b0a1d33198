"""The learner against machines whose costs are known: what it loses to the best fixed choice, and when it notices."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm_agents.compute.learner import HOPELESS, WARMUPS, Figure, Learner, merged, size_class

ARMS = ("parallel", "simd", "numpy")


class Machine:
    """Seconds of a call: a fixed part and one by work, with noise, and now and then an interrupted call."""

    def __init__(self, costs, seed=0, noise=0.05):
        self.costs, self.rng, self.noise = costs, random.Random(seed), noise

    def mean(self, arm, work):
        fixed, each = self.costs[arm]
        return fixed + each * work

    def run(self, arm, work):
        slower = 20.0 if self.rng.random() < 0.01 else 1.0
        return self.mean(arm, work) * self.rng.lognormvariate(0.0, self.noise) * slower


def drive(learner, machine, works, arms=ARMS):
    """Runs the calls; returns how often each arm ran and the mean seconds of what was chosen."""
    ran, total = Counter(), 0.0
    for work in works:
        choice = learner.choose("k", work, arms)
        ran[choice.arm] += 1
        total += machine.mean(choice.arm, work)
        if choice.measure:
            learner.observe("k", work, choice.arm, machine.run(choice.arm, work))
    return ran, total


def measured_calls(learner, machine, calls):
    """How many of so many calls the learner asks to measure."""
    measured = 0
    for _ in range(calls):
        choice = learner.choose("k", 64.0, ARMS)
        if choice.measure:
            measured += 1
            learner.observe("k", 64.0, choice.arm, machine.run(choice.arm, 64.0))
    return measured


costs = st.fixed_dictionaries(
    {arm: st.tuples(st.floats(1e-6, 1e-4), st.floats(1e-9, 1e-7)) for arm in ARMS},
)


@settings(max_examples=40, deadline=None)
@given(costs, st.integers(0, 1000))
def test_what_learning_loses_to_the_best_choice_of_each_size_is_a_few_trials_and_a_small_share(costs, seed):
    machine = Machine(costs, seed)
    sizes = (100.0, 3_000.0, 100_000.0)
    works = [random.Random(seed + i).choice(sizes) for i in range(3000)]
    _, total = drive(Learner(), machine, works)
    best = sum(min(machine.mean(arm, work) for arm in ARMS) for work in works)
    first = 4 * sum(machine.mean(arm, work) for arm in ARMS for work in sizes)
    assert total <= 1.12 * best + first


def test_a_mix_whose_best_arm_changes_with_the_size_is_learned_better_than_any_one_arm():
    machine = Machine({"parallel": (5e-5, 1e-9), "simd": (5e-6, 2e-9), "numpy": (1e-6, 1e-8)})
    works = [random.Random(i).choice((50.0, 20_000.0, 5e6)) for i in range(3000)]
    _, total = drive(Learner(), machine, works)
    best = sum(min(machine.mean(arm, work) for arm in ARMS) for work in works)
    assert best / total >= 0.95


def test_an_arm_that_was_many_times_slower_is_not_tried_again_in_its_class():
    machine = Machine({"parallel": (1e-3, 0.0), "simd": (1e-3, 0.0), "numpy": (1e-3 * HOPELESS * 10, 0.0)})
    ran, _ = drive(Learner(), machine, [64.0] * 5000)
    assert ran["numpy"] <= 4


def test_an_arm_whose_only_measurement_was_disturbed_gets_another_when_it_costs_little():
    learner, machine = Learner(), Machine({"parallel": (1e-3, 0.0), "simd": (2e-4, 0.0), "numpy": (2e-3, 0.0)})
    drive(learner, machine, [64.0] * 3, arms=("parallel",))
    learner.observe("k", 64.0, "simd", 1e-3)
    learner.observe("k", 64.0, "simd", 1e-2)
    drive(learner, machine, [64.0] * 2000)
    assert learner.best("k", 64.0) == "simd"


def test_a_hopeless_arm_does_not_keep_every_call_measured():
    learner, machine = Learner(), Machine({"parallel": (1e-3, 0.0), "simd": (1e-6, 0.0), "numpy": (1e-3, 0.0)})
    drive(learner, machine, [64.0] * 200)
    assert measured_calls(learner, machine, 2000) <= 100


def test_a_neighbouring_class_keeps_a_hopeless_arm_from_being_tried_at_all():
    machine = Machine({"parallel": (0.0, 1e-8), "simd": (0.0, 1e-8), "numpy": (0.0, 1e-6)})
    learner = Learner()
    drive(learner, machine, [1000.0] * 50)
    ran, _ = drive(learner, machine, [2100.0] * 50)
    assert ran["numpy"] == 0


def test_the_first_call_of_an_arm_is_not_counted():
    learner = Learner()
    for _ in range(WARMUPS):
        learner.observe("k", 1.0, "simd", 5.0)
    assert learner.learned() == {}
    learner.observe("k", 1.0, "simd", 1e-3)
    assert learner.best("k", 1.0) == "simd"


@pytest.mark.parametrize("seed", range(5))
def test_when_the_best_arm_becomes_slower_another_takes_its_place(seed):
    machine = Machine({"parallel": (1e-3, 0.0), "simd": (1.5e-3, 0.0), "numpy": (3e-3, 0.0)}, seed)
    learner = Learner()
    ran, _ = drive(learner, machine, [64.0] * 500)
    assert ran["parallel"] > 450
    machine.costs = {**machine.costs, "parallel": (4e-3, 0.0)}
    drive(learner, machine, [64.0] * 60)
    assert learner.drifts >= 1
    ran, _ = drive(learner, machine, [64.0] * 200)
    assert ran["simd"] > 180


def test_noise_and_interrupted_calls_alone_do_not_look_like_drift():
    learner = Learner()
    drive(learner, Machine(dict.fromkeys(ARMS, (0.001, 0.0)), noise=0.1), [64.0] * 3000)
    assert learner.drifts <= 3


def test_calls_of_a_microsecond_are_mostly_not_measured():
    learner, machine = Learner(), Machine(dict.fromkeys(ARMS, (1e-06, 0.0)))
    drive(learner, machine, [64.0] * 200)
    assert 0 < measured_calls(learner, machine, 5000) < 250


def test_a_learner_that_starts_from_anothers_figures_tries_no_slow_arm():
    machine = Machine({"parallel": (5e-3, 0.0), "simd": (1e-3, 0.0), "numpy": (9e-3, 0.0)})
    first, second = Learner(), Learner()
    drive(first, machine, [64.0] * 100)
    second.start_from(first.learned())
    ran, _ = drive(second, machine, [64.0] * 15)
    assert ran == {"simd": 15}


def test_an_arm_that_is_not_offered_is_not_chosen_even_where_it_is_the_best():
    learner, machine = Learner(), Machine(dict.fromkeys(ARMS, (1e-06, 0.0)))
    drive(learner, machine, [64.0] * 200)
    assert {learner.choose("k", 64.0, ("numpy",)).arm for _ in range(20)} == {"numpy"}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_teaches_nothing(seconds):
    learner = Learner()
    for _ in range(5):
        learner.observe("k", 1.0, "simd", seconds)
    assert learner.learned() == {}


def test_no_arm_at_all_is_an_error_that_names_the_kernel():
    with pytest.raises(ValueError, match=r"kernel k\.x has no implementation"):
        Learner().choose("k.x", 1.0, ())


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_has_a_size_class(work):
    assert -1100 < size_class(work) < 1100


figures = st.builds(Figure, st.floats(-40, 10), st.floats(0, 3), st.integers(1, 32))
records = st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(ARMS)), figures)


@given(records, records)
def test_merging_does_not_ask_for_an_order_and_changes_nothing_with_itself(one, other):
    assert merged(one, other) == merged(other, one)
    assert merged(one, one) == one
    assert merged(one, other).keys() == one.keys() | other.keys()
