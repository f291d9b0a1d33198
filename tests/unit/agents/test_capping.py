"""A cap of watts or degrees, kept on models of machines; and what the agents and the board make of it."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.shm import make_board, make_worker
from swarm_agents.compute.pacing import LONGEST, Pacing
from swarm_agents.config import Sensing
from swarm_agents.resource.capping import LEAST, Capping
from swarm_agents.resource.caps import Caps
from swarm_agents.resource.desk import Desk
from swarm_agents.resource.sensing import Availability, Reading
from swarm_agents.shm.pace import read_pace, set_pace


class Machine:
    """Power follows the work; heat follows power with one time constant (a lumped RC model)."""

    def __init__(self, idle: float, work: float, kelvin_a_watt: float, tau: float, around: float = 25.0) -> None:
        self.idle, self.work, self.resistance, self.tau, self.around = idle, work, kelvin_a_watt, tau, around
        self.celsius = self.rest(0.0)

    def rest(self, share: float) -> float:
        """What its temperature comes to."""
        return self.around + self.resistance * (self.idle + share * self.work)

    def step(self, share: float) -> tuple[float, float]:
        watts = self.idle + share * self.work
        self.celsius += (self.around + self.resistance * watts - self.celsius) / self.tau
        return watts, self.celsius


def run(machine: Machine, seconds: int, watts: float = 0.0, heat: float = 0.0) -> list[tuple[float, float, float]]:
    """Share, watts and degrees each second, with as much work as there may be."""
    capping, found = Capping(), []
    for now in range(seconds):
        drawn, celsius = machine.step(capping.share)
        found.append((capping.share, drawn, celsius))
        capping.look(float(now), drawn, celsius, watts, heat)
    return found


_MACHINES = st.builds(
    Machine, st.floats(5, 100), st.floats(20, 400), st.floats(0.05, 0.5), st.floats(10, 120), st.floats(10, 35)
)


@settings(max_examples=25, deadline=None)
@given(_MACHINES, st.floats(0.2, 0.95))
def test_a_cap_of_watts_is_kept_and_not_more_than_needed_is_given_up(machine, share):
    cap = machine.idle + share * machine.work
    late = run(machine, 200, watts=cap)[100:]
    assert max(watts for _, watts, _ in late) <= 1.02 * cap
    assert max(watts for _, watts, _ in late) >= min(0.9 * cap, machine.idle + machine.work)


@settings(max_examples=25, deadline=None)
@given(_MACHINES, st.floats(0.2, 0.95))
def test_a_cap_of_degrees_is_kept_also_while_the_machine_warms_up(machine, share):
    cap = machine.rest(share)
    if cap - machine.rest(0.0) < 6.0:
        cap = machine.rest(0.0) + 6.0  # what a rest can't bring down is not to be kept
    found = run(machine, 600, heat=cap)
    # of a machine that warms up by many degrees in the second between two steps, a part of that is not to be helped
    assert max(celsius for _, _, celsius in found) <= cap + max(2.0, 0.04 * (machine.rest(1.0) - machine.rest(0.0)))
    late = [celsius for _, _, celsius in found[400:]]
    assert sum(late) / len(late) >= min(cap - 6.0, machine.rest(1.0) - 0.5)


def test_the_tighter_cap_decides_and_the_cause_says_which():
    machine = Machine(50, 200, 0.2, 30)
    capping = Capping()
    for now in range(300):
        watts, celsius = machine.step(capping.share)
        capping.look(float(now), watts, celsius, 240.0, 55.0)
    assert celsius < 56.0
    assert "the cap is 55" in capping.cause


def test_without_a_cap_or_without_its_sensor_nothing_is_held_back():
    capping = Capping()
    for now in range(100):
        capping.look(float(now), 500.0, 99.0, 0.0, 0.0)
        assert capping.share == 1.0
    for now in range(100, 200):
        capping.look(float(now), None, math.nan, 100.0, 50.0)
        assert (capping.share, capping.cause) == (1.0, "")


def test_a_cap_that_can_not_be_kept_leaves_some_work_and_one_that_is_lifted_gives_all_back():
    capping = Capping()
    for now in range(100):
        capping.look(float(now), 500.0, None, 10.0, 0.0)
    assert capping.share == LEAST
    capping.look(101.0, 500.0, None, 0.0, 0.0)
    assert capping.share == 1.0


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=60))
def test_absurd_readings_never_take_the_share_out_of_its_bounds(readings):
    capping = Capping()
    for now, (watts, celsius) in enumerate(readings):
        capping.look(float(now), watts, celsius, 100.0, 60.0)
        assert LEAST <= capping.share <= 1.0


def test_an_agent_rests_in_proportion_to_what_it_has_worked():
    pacing = Pacing(lambda: 0.25)
    pacing.worked(1_000, 1_000 + 10_000_000)
    assert pacing.until == 1_000 + 10_000_000 + 30_000_000
    pacing.worked(20_001_000, 21_001_000)  # critical work within the rest: what was left of it comes on top
    assert pacing.until == 21_001_000 + 3_000_000 + 20_000_000
    pacing.worked(0, 60 * 10**9)
    assert pacing.until == 60 * 10**9 + int(LONGEST * 1e9)


def test_an_agent_without_a_cap_never_rests_and_asks_seldom():
    asked = []
    pacing = Pacing(lambda: asked.append(1) or 1.0)
    for at in range(1000):
        pacing.worked(at * 1_000_000, at * 1_000_000 + 500_000)
    assert pacing.until == 0
    assert len(asked) == 10


def test_what_the_board_says_of_it_ends_by_itself(tmp_path):
    board = make_board(tmp_path)
    now = time.monotonic()
    assert read_pace(board.mapping) == 1.0
    set_pace(board.mapping, 0.5, 2.0, now)
    assert read_pace(board.mapping, now) == 0.5
    assert read_pace(board.mapping, now + 2.1) == 1.0
    set_pace(board.mapping, 1e-9, 2.0, now)
    assert 0 < read_pace(board.mapping, now) < 0.01
    for bad in (0.0, -1.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected"):
            set_pace(board.mapping, bad, 1.0)


def test_a_node_that_is_too_hot_works_less_says_so_and_tells_the_other_nodes(tmp_path):
    board = make_board(tmp_path)
    make_worker(board)
    desk = Desk(board, board.join("swarm-resource-0", "resource"))
    told: list[tuple[str, dict[str, str]]] = []
    sensing = [Sensing(heat_cap=60.0)]
    caps = Caps(board, lambda: sensing[0], lambda event, **fields: told.append((event, fields)))

    def at(celsius: float, seconds: int) -> None:
        reading = Reading(Availability.AVAILABLE, {"temperature_celsius": celsius})
        for _ in range(seconds):
            caps.look(at.now, {"temperature": reading})
            at.now += 1.0

    at.now = time.monotonic()
    try:
        at(50.0, 5)
        assert read_pace(board.mapping, at.now) == 1.0
        assert not told
        at(70.0, 20)
        assert read_pace(board.mapping, at.now) < 0.5
        desk._mean = 0.01
        desk._mean_at = math.inf
        assert desk.load().run_mean > 0.02
        assert [event for event, _ in told] == ["CapReached"]
        assert "the cap is 60" in told[0][1]["cause"]
        assert caps.report()["workShare"] < 0.5
        sensing[0] = Sensing()
        at(70.0, 2)
        assert read_pace(board.mapping, at.now) == 1.0
        assert [event for event, _ in told] == ["CapReached", "CapEased"]
        sensing[0] = Sensing(power_cap=100.0)
        at(70.0, 2)
        assert caps.report()["unseen"] == ["there is a cap, but no sensor of power"]
    finally:
        desk.close()
