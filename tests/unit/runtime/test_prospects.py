"""What an agent expects of itself: certain of what comes, silent about what only looks like it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Settings
from swarm_agents.runtime.events import TOLD, Events
from swarm_agents.runtime.outlook import LIKELY, Outlook, read_memory
from swarm_agents.runtime.prospects import HORIZON, Forecast, Prospects

GIB, MIB = float(1 << 30), float(1 << 20)


def with_memory(
    start: float, per_second: float, noise: float = 0.0, seconds: int = 120, limit: float = GIB
) -> Forecast:
    chance, prospects = random.Random(1), Prospects()
    for at in range(0, seconds, 2):
        prospects.memory(float(at), start + per_second * at + chance.gauss(0.0, noise), limit)
    return prospects.forecast(float(seconds), 0.8)


def test_nothing_seen_is_nothing_expected() -> None:
    assert Prospects().forecast(0.0, 0.8) == Forecast(0.0, ())


def test_a_leak_that_fills_the_limit_within_the_horizon_is_nearly_certain() -> None:
    found = with_memory(0.7 * GIB, 1.5 * MIB, noise=2 * MIB)
    assert found.probability > 0.95
    (reason,) = found.reasons
    assert "of its limit, growing by 1.5" in reason


def test_a_leak_that_takes_hours_is_not_told_yet() -> None:
    assert with_memory(0.3 * GIB, 0.02 * MIB, noise=MIB) == Forecast()


def test_memory_that_is_nearly_full_and_stays_so_is_no_danger() -> None:
    assert with_memory(0.96 * GIB, 0.0, noise=MIB).probability < 0.3
    assert with_memory(0.96 * GIB, 0.0) == Forecast()


def test_a_leak_right_at_the_edge_of_the_horizon_is_a_toss_up() -> None:
    per_second = 0.3 * GIB / (HORIZON + 120)
    assert 0.2 < with_memory(0.7 * GIB, per_second, noise=0.1 * MIB).probability < 0.8


def test_memory_that_is_given_back_is_no_danger() -> None:
    assert with_memory(0.9 * GIB, -3 * MIB) == Forecast()


def test_a_short_history_says_nothing() -> None:
    assert with_memory(0.9 * GIB, 5 * MIB, seconds=28) == Forecast()


def test_a_container_that_was_resized_begins_anew() -> None:
    prospects = Prospects()
    for at in range(0, 120, 2):
        prospects.memory(float(at), 0.7 * GIB + at * 1.5 * MIB, GIB)
    prospects.memory(120.0, 0.9 * GIB, 4 * GIB)
    assert prospects.forecast(120.0, 0.8) == Forecast()


def test_deaths_come_again_and_are_forgotten() -> None:
    prospects = Prospects()
    seen = []
    for number in range(6):
        prospects.died(10.0 * number)
        seen.append(prospects.forecast(10.0 * number, 0.8).probability)
    assert seen == sorted(seen)
    assert seen[0] < LIKELY < seen[1]
    assert seen[3] < 0.9 < seen[4]
    assert "died 6 times" in prospects.forecast(60.0, 0.8).reasons[0]
    assert prospects.forecast(60.0 + 2 * HORIZON, 0.8) == Forecast()


@pytest.mark.parametrize(
    ("mean", "low", "high"), [(0.01, 0.0, 0.0), (0.1, 0.0, 0.01), (0.45, 0.3, 0.9), (1.0, 0.99, 1.0)]
)
def test_an_agent_that_is_held_up_for_ever_longer_is_declared_dead_one_day(
    mean: float, low: float, high: float
) -> None:
    prospects = Prospects()
    for at in range(60):  # evenly spread over the quantiles of such pauses
        prospects.silence(-mean * math.log(1 - (at + 0.5) / 60))
    assert low <= prospects.forecast(0.0, 0.8).probability <= high


def test_reasons_are_held_for_independent_and_the_likeliest_comes_first() -> None:
    prospects = Prospects()
    for at in range(0, 120, 2):
        prospects.memory(float(at), 0.7 * GIB + at * 1.5 * MIB, GIB)
    alone = prospects.forecast(120.0, 0.8).probability
    both = Prospects()
    both.died(0.0)
    for at in range(0, 120, 2):
        both.memory(float(at), 0.7 * GIB + at * 1.5 * MIB, GIB)
    found = both.forecast(120.0, 0.8)
    assert found.probability >= alone
    assert ["memory" in reason for reason in found.reasons] == [True, False]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("memory"), st.floats(0, 1e13), st.floats(1, 1e13)),
            st.tuples(st.just("silence"), st.floats(0, 1e6), st.just(0.0)),
            st.tuples(st.just("died"), st.just(0.0), st.just(0.0)),
        ),
        max_size=150,
    ),
    st.floats(1e-3, 300),
)
def test_whatever_is_seen_gives_a_probability(seen: list[tuple[str, float, float]], dead_after: float) -> None:
    prospects, now = Prospects(), 0.0
    for what, value, limit in seen:
        now += 2.0
        if what == "memory":
            prospects.memory(now, value, limit)
        elif what == "silence":
            prospects.silence(value)
        else:
            prospects.died(now)
    found = prospects.forecast(now, dead_after)
    assert 0.0 <= found.probability <= 1.0
    assert bool(found.reasons) == (found.probability > 0.0)


# What watches.


def cgroup(root: Path, current: float, limit: str = str(1 << 30), inactive: int = 0) -> None:
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{int(current)}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


def test_memory_is_what_can_not_be_given_back_and_unknown_where_there_is_no_limit(tmp_path: Path) -> None:
    assert read_memory(tmp_path) is None
    cgroup(tmp_path, 900 * MIB, inactive=int(300 * MIB))
    assert read_memory(tmp_path) == (600 * MIB, GIB)
    cgroup(tmp_path, 900 * MIB, limit="max")
    assert read_memory(tmp_path) is None
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("nonsense")
    assert read_memory(tmp_path) is None


def supervisor() -> Any:
    settings = Settings(swarm="risk", namespace="default", uid="u")
    restarts = SimpleNamespace(total=0)
    events = Events(structlog.get_logger())
    return SimpleNamespace(restarts=restarts, settings=settings, events=events, agent=None, board=None)


def test_an_agent_that_keeps_dying_says_so_once_and_again_when_it_has_calmed_down_between() -> None:
    owner = supervisor()
    outlook = Outlook(owner)
    assert outlook.report() == {"failing": {"probability": 0.0, "reasons": []}}
    for at in range(10):
        owner.restarts.total = at
        outlook.look(float(at))
    told = [event for event in owner.events.recent() if event["event"] == "FailurePredicted"]
    assert [round(event["probability"], 2) for event in told] == [0.63]
    assert told[0]["why"].startswith("its process died 2 times")
    assert outlook.report()["failing"]["probability"] > 0.9
    outlook.look(2000.0)
    assert outlook.report()["failing"]["probability"] == 0.0
    owner.restarts.total += 3
    outlook.look(2001.0)
    assert sum(event["event"] == "FailurePredicted" for event in owner.events.recent()) == 2
    assert "FailurePredicted" in TOLD


def test_memory_is_watched_in_a_container_of_its_own_only(tmp_path: Path) -> None:
    for contained in (True, False):
        outlook = Outlook(supervisor(), tmp_path, contained=contained)
        for at in range(0, 120, 2):
            cgroup(tmp_path, 0.7 * GIB + at * 1.5 * MIB)
            outlook.look(float(at))
        assert (outlook.forecast.probability > 0.9) == contained
