"""The chooser: work leaves a node only towards one where it is begun clearly sooner."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.resource.balance import HYSTERESIS, Candidate, choose, surplus, wait
from swarm_agents.wire.schema import Load


def make_load(workers=2, idle=0, waiting=0, room=1000, run_mean=0.01) -> Load:
    return Load(workers, idle, (0, 0, waiting, 0), room, run_mean)


def peer(key="b", **changes) -> Candidate:
    load = {name: changes.pop(name) for name in list(changes) if name in Load.__struct_fields__ or name == "waiting"}
    return Candidate(key=key, load=make_load(**load), **({"credit": 10, "rtt": 0.001} | changes))


def chosen(local, *peers, lane=2, size=0, run=None, seed=1):
    return choose(local, peers, lane=lane, size=size, run=run, rng=random.Random(seed))


def test_a_long_queue_here_and_an_idle_node_there_move_work():
    assert chosen(make_load(waiting=50), peer(idle=2)) == "b"


def test_a_node_without_workers_sends_everything_away():
    assert chosen(make_load(workers=0, waiting=1), peer(waiting=500)) == "b"


def test_nothing_goes_where_nobody_computes():
    assert chosen(make_load(workers=0, waiting=5), peer(workers=0)) is None


def test_equal_nodes_keep_their_work():
    assert chosen(make_load(waiting=20), peer(waiting=20)) is None


def test_a_payload_that_takes_longer_to_move_than_to_wait_stays():
    local = make_load(waiting=10)  # 50 ms of waiting
    assert chosen(local, peer(idle=2, rate=1e9), size=1 << 20) == "b"
    assert chosen(local, peer(idle=2, rate=1e9), size=1 << 30) is None


def test_a_queue_that_is_quickly_done_is_not_worth_the_round_trip():
    assert chosen(make_load(waiting=10, run_mean=1e-5), peer(idle=2, rtt=0.01)) is None
    assert chosen(make_load(waiting=10, run_mean=1.0), peer(idle=2, rtt=0.01)) == "b"


def test_how_long_a_queue_takes_is_measured_by_what_the_node_runs_and_not_by_the_one_task():
    slow_queue, quick_task = make_load(waiting=10, run_mean=1.0), 1e-4
    assert chosen(slow_queue, peer(idle=2, rtt=0.01), run=quick_task) == "b"


def test_what_is_dearer_to_carry_than_to_compute_stays_however_long_the_queue():
    """A megabyte takes 2 ms over this link, and a worker computes the task in 10 µs: no link drains that queue."""
    local = make_load(waiting=100_000, run_mean=1e-5)
    assert chosen(local, peer(idle=2, rate=5e8), size=1 << 20, run=1e-5) is None
    assert chosen(local, peer(idle=2, rate=5e8), size=1 << 20, run=2e-3) == "b"
    assert chosen(local, peer(idle=2, rate=5e8), size=100, run=1e-5) == "b"


def test_the_answers_way_back_costs_as_much_as_the_arguments_way_there():
    local = make_load(waiting=10)
    for size, answer in ((1 << 28, 0), (0, 1 << 28)):
        assert choose(local, [peer(idle=2)], lane=2, size=size, answer=answer, run=None, rng=random.Random(1)) is None
    assert choose(local, [peer(idle=2)], lane=2, size=99, answer=99.0, run=None, rng=random.Random(1)) == "b"


def test_what_is_on_the_link_already_has_to_leave_first():
    assert chosen(make_load(waiting=10), peer(idle=2, backlog=0.01)) == "b"
    assert chosen(make_load(waiting=10), peer(idle=2, backlog=1.0)) is None


def test_a_slower_link_keeps_more_at_home():
    sizes = [1 << n for n in range(10, 31)]
    moved = {
        rate: [size for size in sizes if chosen(make_load(waiting=40), peer(idle=2, rate=rate), size=size)]
        for rate in (1e7, 1e8, 1e9)
    }
    assert 0 < len(moved[1e7]) < len(moved[1e8]) < len(moved[1e9])
    assert moved[1e7] == sizes[: len(moved[1e7])], "the small ones go first"


def test_a_peer_without_credit_or_room_is_not_asked():
    assert chosen(make_load(waiting=50), peer(idle=2, credit=0)) is None
    assert chosen(make_load(waiting=50), peer(idle=2, room=0)) is None
    assert chosen(make_load(waiting=50), peer(idle=2, credit_bytes=10), size=11) is None


def test_what_was_sent_already_counts_as_the_peers_queue():
    assert chosen(make_load(waiting=50), peer(idle=2, underway=100)) is None


def test_of_two_candidates_the_better_is_taken():
    for seed in range(20):
        assert chosen(make_load(waiting=50), peer("busy", waiting=40), peer("idle", idle=2), seed=seed) == "idle"


def test_only_two_of_many_are_looked_at():
    peers = [peer(f"n{index}", waiting=index) for index in range(50)]
    picks = {chosen(make_load(workers=1, waiting=500), *peers, seed=seed) for seed in range(200)}
    assert len(picks) > 10, "everybody chose the same idle node"


def test_surplus_is_what_the_nodes_own_workers_do_not_take_at_once():
    assert surplus(make_load(idle=2, waiting=2), 2) == 0
    assert surplus(make_load(idle=1, waiting=5), 2) == 4
    assert surplus(make_load(workers=0, waiting=1), 2) == 1


def test_less_urgent_work_counts_neither_here_nor_there():
    busy_with_bulk = Load(2, 0, (0, 0, 0, 500), 1000, 0.01)
    assert chosen(make_load(waiting=20), peer(waiting=0), lane=2) == "b"
    assert surplus(busy_with_bulk, 2) == 0
    loaded = Candidate(key="b", load=busy_with_bulk, credit=10)
    assert chosen(make_load(waiting=20), loaded, lane=2) == "b"
    assert chosen(make_load(waiting=20), loaded, lane=3) is None


def test_a_node_that_refuses_a_lane_for_overload_is_sent_none_of_it_and_the_rest_all_the_same():
    for refuses in range(5):
        idle = Candidate(key="b", load=Load(2, 2, room=100, refuses=refuses), credit=10)
        for lane in range(4):
            depth = tuple(50 if each == lane else 0 for each in range(4))
            assert chosen(Load(2, 0, depth, 100, 0.01), idle, lane=lane) == ("b" if lane < refuses else None)


LOADS = st.builds(
    make_load,
    workers=st.integers(0, 8),
    idle=st.integers(0, 8),
    waiting=st.integers(0, 100),
    room=st.integers(0, 100),
    run_mean=st.floats(1e-6, 10),
)


@given(LOADS, LOADS, st.integers(0, 1 << 30), st.floats(0, 1))
def test_a_task_never_moves_for_less_than_the_hysteresis(local, load, size, rtt):
    candidate = Candidate(key="b", load=load, credit=1, rtt=rtt)
    if chosen(local, candidate, size=size, run=0.01) is None:
        return
    assert load.workers > 0
    if local.workers:
        there = wait(load, 2, 0, load.run_mean) + rtt + size / candidate.rate
        assert there < wait(local, 2, -1, local.run_mean) * (1 - HYSTERESIS)


@given(LOADS, LOADS)
def test_two_nodes_never_both_want_to_send_to_each_other(one, other):
    forth = chosen(one, Candidate(key="b", load=other, credit=9), run=0.01)
    back = chosen(other, Candidate(key="a", load=one, credit=9), run=0.01)
    assert not (forth and back)
