"""When a standby takes part."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Role
from swarm_agents.runtime.standby import place, wanted


@dataclass
class Info:
    name: str
    role: Role
    alive: bool = True


def compute(ordinal: int, incarnation: int = 0, *, alive: bool = True) -> Info:
    return Info(f"risk-compute-{ordinal}-{incarnation}", Role.COMPUTE, alive)


def standby(ordinal: int, *, alive: bool = True) -> Info:
    return Info(f"risk-standby-{ordinal}-0", Role.STANDBY, alive)


def test_a_standby_waits_while_every_compute_agent_lives() -> None:
    assert not wanted([compute(0), compute(1), standby(0)], "risk-standby-0-0")


def test_a_standby_waits_on_a_board_where_no_compute_agent_has_ever_been() -> None:
    assert not wanted([standby(0)], "risk-standby-0-0")


def test_a_standby_takes_part_when_a_compute_agent_is_dead() -> None:
    assert wanted([compute(0), compute(1, alive=False), standby(0)], "risk-standby-0-0")


def test_a_standby_steps_back_when_the_place_is_filled_by_the_same_pod_or_a_new_one() -> None:
    for successor in (compute(1), compute(1, 1)):
        assert not wanted([compute(0), compute(1, alive=False), successor, standby(0)], "risk-standby-0-0")


def test_the_death_of_a_hub_or_of_another_standby_is_no_empty_place() -> None:
    hub = Info("risk-resource-0-0", Role.RESOURCE, alive=False)
    assert not wanted([compute(0), hub, standby(0), standby(1, alive=False)], "risk-standby-0-0")


def test_a_dead_standby_fills_no_place() -> None:
    members = [compute(0, alive=False), standby(0, alive=False), standby(1)]
    assert wanted(members, "risk-standby-1-0")


@given(st.integers(0, 5), st.integers(0, 5), st.randoms())
def test_as_many_standbys_take_part_as_places_are_empty(dead: int, standbys: int, random: object) -> None:
    members = [compute(n, alive=False) for n in range(dead)] + [compute(9)] + [standby(n) for n in range(standbys)]
    random.shuffle(members)  # type: ignore[attr-defined]
    active = sum(wanted(members, f"risk-standby-{n}-0") for n in range(standbys))
    assert active == min(dead, standbys)


def test_a_place_is_the_same_for_all_incarnations() -> None:
    assert place("my-swarm-compute-3-0") == place("my-swarm-compute-3-x7k") != place("my-swarm-compute-4-0")
