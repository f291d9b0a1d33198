"""How many agents: the decision's properties on any readings, and what it makes of simulated loads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.autoscalekit import BOUNDS, Swarm, sample
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.autoscale import (
    AT_MAX,
    AT_MIN,
    NO_DATA,
    SCALED_IN,
    SCALED_OUT,
    SCHEDULED,
    History,
    Policy,
    duration_text,
    policy_of,
    recommend,
)
from swarm_operator.loads import NodeLoad, Sample, quantile, sample_of
from swarm_operator.queueing import agents_for, coming_rate, present_rate, service_time
from swarm_operator.schedule import Raised

QUIET = Policy(0, 20, window=60.0)


def exponential(mean):
    return lambda rng: rng.expovariate(1 / mean)


def fixed(seconds):
    return lambda rng: seconds


def constant(rate):
    return lambda now: rate


buckets = st.lists(st.tuples(st.sampled_from(BOUNDS), st.integers(1, 500)), max_size=4).map(tuple)
readings = st.builds(
    Sample,
    at=st.just(0.0),
    seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    arrivals=st.integers(0, 5000),
    completed=st.integers(0, 5000),
    runs=st.integers(0, 5000),
    run_seconds=st.floats(0, 5000),
    begun=buckets,
    ages=buckets,
    busy=st.integers(0, 50),
    running=st.integers(0, 100),
    ready=st.integers(0, 50),
    usual_run=st.floats(0, 100),
)


@st.composite
def policies(draw):
    low = draw(st.integers(0, 30))
    return Policy(
        low,
        draw(st.integers(max(low, 1), 60)),
        target=draw(st.sampled_from([1e-4, 0.05, 2.0, 600.0])),
        window=draw(st.sampled_from([1.0, 20.0, 120.0])),
        max_step=draw(st.integers(1, 40)),
        forecast=draw(st.booleans()),
    )


@given(
    policies(),
    st.lists(
        st.tuples(
            st.none() | readings,
            st.sampled_from([0.2, 1.0, 1.0, 4.0, 40.0]),
            st.none() | st.integers(0, 60),
            st.booleans(),
            st.none() | st.integers(0, 99),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_read_the_count_stays_in_its_bounds_and_nothing_leaves_before_a_whole_window(
    policy, steps, replicas
):
    history, now, whole, told = History(), 1000.0, None, []
    for reading, pause, floor, silent, meddled in steps:
        now += pause
        replicas = replicas if meddled is None else meddled
        given_ = None if reading is None else Sample(**{**reading.__dict__, "at": now})
        if given_ is None or silent or (told and now - told[-1] > 15.0):
            whole = None
        if given_ is not None and not silent and whole is None:
            whole = now
        told += [now] if given_ is not None else []
        raised = None if floor is None else Raised(floor, "a test")
        history, decision = recommend(
            history, given_, policy, replicas=replicas, now=now, raised=raised, missing="node-a" if silent else ""
        )
        low = max(policy.min, min(floor or 0, policy.max))
        assert low <= decision.desired <= policy.max
        assert len(history.samples) <= 241
        counts = [count for _, count in history.enough]
        assert counts == sorted(set(counts), reverse=True)
        if decision.desired < min(replicas, policy.max):
            assert whole is not None
            assert now - whole >= policy.window - 1e-3
        if decision.desired > max(replicas, low):
            assert decision.desired <= (given_ or history.samples[-1]).ready + policy.max_step
        replicas = decision.desired


@pytest.mark.parametrize(
    ("rate", "run"), [(1000, 0.001), (200, 0.01), (50, 0.1), (5, 0.5), (1.25, 2.0), (20, 1.0), (0.2, 5.0)]
)
@pytest.mark.parametrize("seed", [3, 4])
def test_a_constant_but_noisy_load_does_not_make_the_count_flap(rate, run, seed):
    policy = Policy(1, 60)
    swarm = Swarm(policy, constant(rate), exponential(run), replicas=2, seed=seed).go(900)
    moves = [(at, b - a) for at, (a, b) in enumerate(zip(swarm.counts, swarm.counts[1:], strict=False)) if a != b]
    for at, change in moves:
        if change < 0:
            assert not any(at - policy.window < when < at and by > 0 for when, by in moves)
    assert swarm.turns() <= 900 / policy.window
    assert swarm.late(300, 2 * policy.target) < 0.1
    assert swarm.counts[-1] <= 2.5 * rate * run + 5


@pytest.mark.parametrize("tasks", [1, 3])
def test_a_program_that_keeps_some_long_tasks_running_gets_an_agent_for_each_and_no_more(tasks):
    history, now, replicas, ready = History(), 0.0, 1, 1
    counts = []
    for _ in range(300):
        now += 1.0
        running = min(tasks, ready)
        # each ends after two seconds, and the next one of its kind is there at once
        done = running // 2 if now % 2 else running - running // 2
        waits = [2.0 if tasks > ready else 0.0] * done
        reading = sample(now, waits, [1.0] * (tasks - running), arrivals=done, completed=done, runs=done)
        reading = Sample(
            **{**reading.__dict__, "run_seconds": 2.0 * done, "busy": running, "running": running, "ready": ready}
        )
        history, decision = recommend(history, reading, Policy(1, 20, window=60.0), replicas=replicas, now=now)
        ready, replicas = replicas if now % 5 == 0 else ready, decision.desired
        counts.append(replicas)
    assert max(counts) == counts[-1] == tasks


def test_long_tasks_that_wait_get_an_agent_each():
    swarm = Swarm(Policy(1, 50), constant(0), fixed(30.0)).go(3)
    swarm.submit(20)
    swarm.go(40)
    assert swarm.counts[-1] == 20
    assert swarm.turns() == 0


def test_a_pile_of_short_tasks_gets_as_many_agents_as_work_it_off_in_a_second():
    swarm = Swarm(Policy(1, 50), constant(0), fixed(0.01), start=3.0).go(3)
    swarm.submit(2000)
    swarm.go(2)
    assert 10 <= max(swarm.counts) <= 25


def test_agents_that_are_on_their_way_are_not_asked_for_again_while_the_queue_grows():
    swarm = Swarm(Policy(1, 500), constant(300), fixed(0.01), start=40.0, replicas=1).go(45)
    first = next(count for count in swarm.counts if count > 1)
    enough = agents_for(300, 0.01, 0.05)
    assert len(swarm.queue) > 5000  # they have waited for all that time
    assert max(swarm.counts[:40]) <= max(first, enough) + 2


@given(
    tasks=st.integers(10, 3000),
    run=st.floats(0.002, 0.9),
    start=st.floats(5.0, 25.0),
    more=st.integers(0, 20),
)
@settings(max_examples=25, deadline=None)
def test_what_is_asked_for_once_is_not_asked_for_again_before_it_is_there(tasks, run, start, more):
    swarm = Swarm(Policy(1, 5000), constant(0), fixed(run), start=start)
    for _ in range(3):
        swarm.submit(1)  # so that it is known how long a task runs
        swarm.step()
    swarm.submit(tasks)
    while swarm.counts[-1] == 1 and swarm.queue:
        swarm.step()
    first = swarm.counts[-1]
    # what comes meanwhile counts by its rate, which a jump shows at once; what has gathered does not count again
    most = max(first, agents_for((tasks + more) / 1.0 if more else tasks / 4, run, 0.05, 5000))
    while first > 1 and swarm.ready == 1:
        swarm.submit(more)
        swarm.step()
        assert swarm.counts[-1] <= most


def test_agents_that_never_come_are_not_asked_for_again():
    swarm = Swarm(Policy(1, 500), constant(300), fixed(0.01), start=1e9, replicas=1).go(120)
    assert max(swarm.counts) <= agents_for(300, 0.01, 0.05) + 6


def test_at_most_max_step_agents_are_on_their_way():
    swarm = Swarm(Policy(1, 60, max_step=4), constant(0), fixed(60.0), start=3.0).go(3)
    swarm.submit(30)
    for _ in range(60):
        swarm.step()
        assert swarm.replicas <= swarm.ready_counts[-1] + 4
    assert swarm.counts[-1] == 30


def test_a_task_wakes_a_swarm_that_has_no_agent_and_a_quiet_window_sends_the_last_one_home():
    swarm = Swarm(QUIET, constant(0), fixed(1.0), replicas=0).go(100)
    assert swarm.counts[-1] == 0
    assert swarm.decisions[-1].reason == AT_MIN
    swarm.submit(1)
    decision = swarm.step()
    assert (decision.desired, decision.reason) == (1, SCALED_OUT)
    assert "no compute agent is there" in decision.message
    swarm.go(60)
    assert swarm.counts[-1] == 1
    swarm.go(60)
    assert swarm.counts[-1] == 0


def test_a_swarm_with_a_task_now_and_then_is_not_sent_to_zero():
    swarm = Swarm(QUIET, lambda now: 1.0 if now % 40 < 2 else 0.0, fixed(0.01), seed=8).go(400)
    assert min(swarm.counts) == 1


def test_agents_with_tasks_in_hand_are_not_too_many():
    swarm = Swarm(QUIET, constant(0), fixed(300.0)).go(2)
    swarm.submit(6)
    swarm.go(250)
    assert swarm.counts[-1] == 6


def test_bursts_are_answered_by_more_agents_each_time_until_they_wait_no_longer_and_then_kept():
    swarm = Swarm(Policy(1, 50), constant(0), fixed(0.001), start=3.0)
    for _ in range(30):
        swarm.submit(1000)
        swarm.go(10)
    assert 15 <= swarm.counts[-1] <= 25
    assert swarm.turns() <= 1
    assert swarm.late(200, 0.1) == 0


def test_waits_while_agents_idle_call_for_no_agent():
    history, now = History(), 0.0
    for _ in range(60):
        now += 1.0
        # twenty tasks of 10 us, each begun after 80 ms: whatever that is, it is not a lack of agents
        reading = sample(now, [0.08] * 20, arrivals=20, completed=20, runs=20, run_seconds=2e-4, ready=4)
        history, decision = recommend(history, reading, Policy(1, 50), replicas=4, now=now)
        assert decision.desired == 4


def test_one_late_task_among_many_calls_for_no_agent():
    history, now = History(), 0.0
    for at in range(60):
        now += 1.0
        waits = [0.0] * 30 + [0.4] * (at % 10 == 0)
        reading = sample(now, waits, arrivals=30, completed=30, runs=30, run_seconds=6.0, busy=3, running=3, ready=8)
        history, decision = recommend(history, reading, Policy(1, 50), replicas=8, now=now)
        assert decision.desired == 8


def test_a_load_that_grows_steadily_is_answered_before_tasks_wait():
    def late(forecast):
        policy = Policy(2, 60, forecast=forecast)
        found = 0.0
        for seed in (1, 2, 3):
            swarm = Swarm(policy, lambda now: 5 + now, exponential(0.1), replicas=2, start=10.0, seed=seed).go(200)
            found += swarm.late(20, policy.target)
        return found / 3

    ahead, behind = late(True), late(False)
    assert ahead < 0.7 * behind
    assert ahead < 0.05


def test_after_a_gap_in_the_readings_a_whole_window_is_watched_again():
    swarm = Swarm(QUIET, constant(0), fixed(1.0), replicas=5, deaf=lambda now: 50 <= now < 52).go(105)
    assert swarm.counts[-1] == 5
    swarm.go(10)
    assert swarm.counts[-1] == 0


def test_while_a_node_is_not_heard_nothing_leaves():
    swarm = Swarm(QUIET, constant(0), fixed(1.0), replicas=5, deaf=lambda now: now > 10).go(200)
    assert set(swarm.counts) == {5}
    assert swarm.decisions[-1].reason == NO_DATA
    assert "node-a" in swarm.decisions[-1].message


def test_a_new_table_begins_its_window_anew():
    swarm = Swarm(QUIET, constant(0), fixed(1.0), replicas=5).go(55)
    swarm.history = History()  # the operator was started again
    swarm.go(58)
    assert swarm.counts[-1] == 5
    swarm.go(4)
    assert swarm.counts[-1] == 0


def test_a_count_that_a_person_raised_stands_for_a_window_and_one_that_is_too_low_is_put_right_at_once():
    swarm = Swarm(Policy(1, 20, window=60.0), constant(0), fixed(500.0)).go(70)
    assert swarm.counts[-1] == 1
    swarm.replicas = swarm.ready = 7
    swarm.go(55)
    assert swarm.counts[-1] == 7
    swarm.go(10)
    assert swarm.counts[-1] == 1
    swarm.submit(6)
    swarm.go(30)
    assert swarm.counts[-1] == 6
    swarm.replicas = 2
    swarm.ready = 2
    swarm.running = swarm.running[:2]
    swarm.submit(4)
    swarm.go(3)
    assert swarm.counts[-1] == 6


def test_a_count_outside_the_bounds_is_brought_within_them_without_a_reading():
    _, low = recommend(History(), None, Policy(3, 9), replicas=1, now=10.0)
    assert (low.desired, low.reason) == (3, SCALED_OUT)
    assert "compute.min is 3" in low.message
    _, high = recommend(History(), None, Policy(3, 9), replicas=12, now=10.0)
    assert (high.desired, high.reason) == (9, SCALED_IN)
    assert "compute.max is 9" in high.message


def test_at_the_upper_bound_it_says_how_many_are_missing():
    swarm = Swarm(Policy(1, 5), constant(0), fixed(40.0)).go(2)
    swarm.submit(30)
    swarm.go(60)
    told = [decision for decision in swarm.decisions if decision.reason == AT_MAX]
    assert told
    assert "compute.max is 5" in told[-1].message
    assert "waited longer than 50ms" in told[-1].message


def test_a_schedule_raises_the_lower_bound_while_it_lasts_and_never_beyond_the_upper_one():
    def raised(now):
        return Raised(99 if now > 100 else 6, "'0 8 * * *' Etc/UTC asks for it") if now > 30 else None

    swarm = Swarm(QUIET, constant(0), fixed(1.0), replicas=1, raised=raised).go(30)
    swarm.go(65)
    assert swarm.counts[-1] == 6
    assert swarm.decisions[-1].reason == SCHEDULED
    assert "0 8 * * *" in swarm.decisions[-1].message
    swarm.go(10)
    assert swarm.counts[-1] == 20


def test_numbers_are_told_with_the_decision():
    swarm = Swarm(Policy(1, 20), constant(50), fixed(0.02), replicas=4).go(40)
    told = swarm.decisions[-1]
    assert told.arrivals == pytest.approx(50, rel=0.3)
    assert told.completions == pytest.approx(50, rel=0.3)
    assert told.service == pytest.approx(0.02, rel=0.01)
    assert 0 <= told.queue_time < 0.05


def test_the_formula_gives_the_counts_of_the_tables():
    # C(10, 8) = 0.4092 of the tasks wait; of them e^(-2 t / s) longer than t
    late = 0.4092
    assert agents_for(8.0, 1.0, 0.0) > 10
    assert agents_for(8.0, 1.0, math.log(late / 0.05) / 2 + 0.01) == 10
    assert agents_for(8.0, 1.0, math.log(late / 0.05) / 2 - 0.01) == 11
    assert agents_for(0.0, 1.0, 0.05) == 0
    assert agents_for(1e9, 1.0, 0.05, most=70) == 70


@given(st.floats(0.01, 500), st.floats(1e-4, 20), st.sampled_from([1e-4, 0.05, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_higher_load_never_needs_fewer_agents_and_an_agent_is_never_used_beyond_its_time(rate, run, target):
    count = agents_for(rate, run, target, 20000)
    assert count > rate * run
    assert agents_for(rate * 1.3, run, target, 20000) >= count
    assert agents_for(rate, run, target * 4, 20000) <= count


def test_a_jump_is_believed_at_once_and_is_no_trend():
    jump = [sample(float(at), arrivals=100 if at >= 25 else 10) for at in range(30)]
    assert present_rate(jump) == pytest.approx(100)
    for begin in range(3, 30):
        assert coming_rate([sample(float(at), arrivals=100 if at >= begin else 10) for at in range(30)], 10.0) == 0
    ramp = [sample(float(at), arrivals=20 + 3 * at) for at in range(30)]
    assert coming_rate(ramp, 10.0) == pytest.approx(20 + 3 * 39, rel=0.02)
    assert coming_rate([sample(float(at), arrivals=110 - 3 * at) for at in range(30)], 10.0) == 0


def test_noise_is_no_trend():
    import random

    rng = random.Random(5)
    seen = 0
    for _ in range(300):
        noise = [sample(float(at), arrivals=sum(rng.random() < 0.2 for _ in range(100))) for at in range(30)]
        seen += coming_rate(noise, 10.0) > 0
    assert seen <= 6


def test_tasks_that_have_not_ended_count_by_how_long_they_were_seen_to_run():
    hours = [sample(float(at), running=4, busy=4, ready=4) for at in range(30)]
    assert service_time(hours) == pytest.approx(29.0)
    assert service_time([sample(1.0, usual_run=0.3)]) == 0.3
    assert service_time([]) == 0.0


def load(node, time, **fields):
    return NodeLoad(node, "b1", time, **fields)


def test_what_was_carried_to_another_node_is_counted_once():
    before = {"a": load("a", 1.0), "b": load("b", 50.0)}
    after = {
        # ten came to a, four of them were computed by b and noted by both
        "a": load("a", 2.0, runs=10, run_seconds=1.0, queued=((0.0, 10),)),
        "b": load("b", 51.0, runs=4, run_seconds=0.4, forwarded=4, queued=((0.0, 4),)),
    }
    found = sample_of(before, after, 9.0, 3)
    assert (found.arrivals, found.completed, found.runs) == (10, 10, 14)
    assert found.run_seconds / found.runs == pytest.approx(0.1)


def test_tasks_that_wait_or_run_have_come_and_those_of_a_new_board_are_not_rated():
    before = {"a": load("a", 1.0, waiting=2, running=1, ages=((0.0, 2),), runs=7)}
    after = {
        "a": load("a", 2.0, waiting=5, running=2, ages=((0.01, 5),), runs=10),
        "new": load("new", 7.0, waiting=3, ages=((0.01, 3),), runs=100),
    }
    found = sample_of(before, after, 9.0, 3)
    assert (found.arrivals, found.completed, found.waiting) == (7, 3, 8)
    again = sample_of({"a": NodeLoad("a", "b0", 1.0, runs=3)}, after, 9.0, 3)
    assert (again.arrivals, again.seconds) == (0, 0.0)


def test_quantiles_are_lower_bounds_of_buckets():
    assert quantile([], 0.95) == 0.0
    assert quantile([(0.1, 94), (0.2, 5), (0.4, 1)], 0.95) == 0.2
    assert quantile([(0.1, 1), (0.1, 1), (0.3, 38)], 0.05) == 0.1


def test_only_a_spec_with_both_bounds_is_autoscaled():
    assert policy_of(SwarmSpec()) is None
    assert policy_of(SwarmSpec.model_validate({"compute": {"min": 0, "max": 4}})) == Policy(0, 4)
    spec = {"compute": {"min": 1, "max": 4}, "autoscaling": {"targetQueueTime": "1s", "scaleInWindow": "10s"}}
    assert policy_of(SwarmSpec.model_validate(spec)) == Policy(1, 4, 1.0, 10.0)


def test_durations_read_as_in_the_spec():
    assert [duration_text(x) for x in (0.05, 120.0, 7200.0, 1.5, 0.0001)] == ["50ms", "2m", "2h", "1.5s", "100us"]
