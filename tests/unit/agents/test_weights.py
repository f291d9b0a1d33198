"""How much of its cores' time a node's agents get, from what the sensors say; and that other nodes are told."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.shm import make_board, make_worker
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.sensing import Availability, Reading
from swarm_agents.resource.weights import LEAST, Weight, Weights
from swarm_agents.shm.pace import read_weight, set_weight

STEP = 0.1


def readings(
    busy: float = 1.0, steal: float = 0.0, hertz: float = 3e9, throttles: float = 0.0, memory: float = 0.0
) -> dict[str, Reading]:
    at = Availability.AVAILABLE
    return {
        "cpu": Reading(at, {"cpu_busy_ratio": busy, "cpu_steal_ratio": steal}),
        "frequency": Reading(at, {"cpu_frequency_hertz": hertz}),
        "throttling": Reading(at, {"thermal_throttles": throttles}),
        "pressure": Reading(at, {}, "", {"pressure_full_ratio": {"memory": memory}}),
    }


class Run:
    """A weight that is looked at every 100 ms."""

    def __init__(self) -> None:
        self.weight, self.now = Weight(), 100.0

    def go(self, seconds: float, found: dict[str, Reading]) -> float:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.weight.look(self.now, found)
        return self.weight.share


def test_a_node_that_nothing_is_taken_from_weighs_one():
    run = Run()
    assert run.go(10, readings()) == 1.0
    assert run.weight.cause == ""


def test_what_the_hypervisor_takes_is_seen_within_seconds_and_forgotten_as_soon():
    run = Run()
    assert run.go(5, readings(steal=0.4)) == pytest.approx(0.6, abs=0.01)
    assert "hypervisor" in run.weight.cause
    assert run.go(5, readings()) > 0.98
    assert run.weight.cause == ""


def test_steal_counts_as_a_share_of_the_time_in_which_there_was_something_to_run():
    assert Run().go(5, readings(busy=0.5, steal=0.25)) == pytest.approx(0.5, abs=0.01)


def test_an_idle_node_keeps_what_was_known_of_it():
    run = Run()
    run.go(5, readings(steal=0.4))
    assert run.go(5, readings(busy=0.01, steal=0.0)) == pytest.approx(0.6, abs=0.01)


def test_a_low_frequency_takes_something_off_only_while_the_cpus_are_throttled():
    run = Run()
    run.go(1, readings(hertz=3e9))
    assert run.go(5, readings(hertz=1e9)) == 1.0, "a governor's choice is no loss"
    for count in range(1, 6):
        run.go(1, readings(hertz=1.5e9, throttles=count))
    assert run.weight.share == pytest.approx(0.5, abs=0.02)
    assert "heat" in run.weight.cause
    assert run.go(10, readings(hertz=1.5e9, throttles=5)) > 0.98


def test_waiting_for_memory_takes_off_and_all_is_multiplied():
    assert Run().go(8, readings(steal=0.5, memory=0.5)) == pytest.approx(0.25, abs=0.01)


def test_what_is_not_shown_takes_nothing_off():
    assert Run().go(5, {}) == 1.0
    gone = {name: Reading(Availability.UNAVAILABLE, reason="no") for name in readings()}
    assert Run().go(5, gone) == 1.0


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 5), max_size=20))
def test_whatever_the_sensors_say_it_is_a_share(said: list[Any]):
    run = Run()
    for values in said:
        assert LEAST <= run.go(STEP, readings(*values)) <= 1.0


def test_it_ends_by_itself_on_the_board(tmp_path):
    board, now = make_board(tmp_path), time.monotonic()
    assert read_weight(board.mapping) == 1.0
    set_weight(board.mapping, 0.5, 2.0, now)
    assert read_weight(board.mapping, now) == 0.5
    assert read_weight(board.mapping, now + 2.1) == 1.0
    for bad in (0.0, -1.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected"):
            set_weight(board.mapping, bad, 1.0)


def test_a_slowed_node_says_so_and_other_nodes_hear_that_work_takes_longer_there(tmp_path):
    board = make_board(tmp_path)
    make_worker(board)
    desk = Desk(board, board.join("swarm-resource-0", "resource"))
    told: list[tuple[str, dict[str, Any]]] = []
    weights, now = Weights(board, lambda event, **fields: told.append((event, fields))), time.monotonic()
    desk._mean, desk._mean_at = 0.01, math.inf
    try:
        for _ in range(50):
            weights.look(now, readings(steal=0.5))
        assert not told, "time has to pass"
        for tick in range(50):
            weights.look(now + tick * STEP, readings(steal=0.5))
        set_weight(board.mapping, weights.weight.share, 60.0)
        assert desk.load().run_mean == pytest.approx(0.02, rel=0.05)
        assert [event for event, _ in told] == ["NodeSlowed"]
        assert "50%" in told[0][1]["cause"]
        for tick in range(50, 100):
            weights.look(now + tick * STEP, readings())
        assert read_weight(board.mapping, now + 10.0) == 1.0
        assert desk.load().run_mean == 0.01
        assert [event for event, _ in told] == ["NodeSlowed", "NodeRecovered"]
    finally:
        desk.close()
