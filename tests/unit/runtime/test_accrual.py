"""The threshold that follows the node's jitter, in virtual time: who lives is left alone, who hangs is found."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from swarm_agents.config import Failover
from swarm_agents.runtime.accrual import CERTAINTY, SUSPICION, Accrual, Limits
from swarm_agents.runtime.watch import PATIENCE, Watch, judge
from swarm_agents.runtime.witness import Opinion

failover = Failover()


def taught(pauses: list[float], elapsed: float = 0.05) -> Accrual:
    accrual = Accrual()
    for pause in pauses:
        accrual.learn(pause, elapsed)
    return accrual


@given(st.lists(st.floats(0, 100), max_size=700), st.floats(0, 10))
def test_whatever_was_learned_the_thresholds_stay_within_the_settings(pauses: list[float], elapsed: float) -> None:
    limits = taught(pauses, elapsed).limits(failover)
    assert 3 * failover.heartbeat_interval <= limits.suspect <= failover.suspect_after
    assert failover.suspect_after <= limits.confirmed <= failover.dead_after == limits.dead


def test_until_enough_was_learned_the_settings_themselves_hold() -> None:
    assert taught([0.001] * 20).limits(failover) == Limits.of(failover)


def test_a_quiet_node_finds_a_hang_sooner_than_a_crowded_one() -> None:
    quiet, crowded = (taught([pause] * 300).limits(failover) for pause in (0.008, 0.2))
    assert quiet.suspect < crowded.suspect
    assert quiet.confirmed < failover.dead_after / 2
    assert crowded == Limits.of(failover)


def test_phi_is_the_number_of_nines_with_which_a_pause_is_that_short() -> None:
    chance = random.Random(4)
    accrual = taught([chance.expovariate(1 / 0.02) for _ in range(512)])
    beyond = accrual.silence_at(2.0)  # one in a hundred is longer
    share = sum(chance.expovariate(1 / 0.02) > beyond for _ in range(20_000)) / 20_000
    assert 0.001 < share < 0.02
    assert accrual.phi(beyond) == pytest.approx(2.0)
    assert SUSPICION < CERTAINTY


def test_one_long_pause_is_remembered_and_forgotten_by_halves() -> None:
    accrual = taught([0.005] * 512)
    calm = accrual.scale
    accrual.learn(0.5, 0.05)
    assert accrual.scale > 5 * calm
    for _ in range(12_000):  # ten minutes
        accrual.learn(0.005, 0.05)
    assert accrual.scale == pytest.approx(calm, rel=0.2)


@given(st.floats(0, 10), st.sampled_from(Opinion))
def test_a_longer_silence_is_never_judged_milder(silent: float, opinion: Opinion) -> None:
    limits = Limits(0.1, 0.3, 0.8)
    rank = [
        0 if v is None else 1 + v.dead for v in (judge(silent, limits, opinion), judge(silent + 0.1, limits, opinion))
    ]
    assert rank == sorted(rank)


def test_a_second_witness_decides_when_a_silence_is_a_death() -> None:
    limits = Limits(0.1, 0.3, 0.8)

    def dead_from(opinion: Opinion) -> float:
        silences = (step / 1000 for step in range(10_000))
        return next(s for s in silences if (verdict := judge(s, limits, opinion)) and verdict.dead)

    assert dead_from(Opinion.STOPPED) == pytest.approx(0.1)
    assert dead_from(Opinion.DYING) == pytest.approx(0.1)
    assert dead_from(Opinion.CONFIRMED) == pytest.approx(0.3)
    assert dead_from(Opinion.NONE) == pytest.approx(0.8)
    assert dead_from(Opinion.STARVED) == pytest.approx(0.8 * PATIENCE)


# -- a node in virtual time: members that beat with jitter, a guard that looks

Jitter = Callable[[random.Random, float], float]


def calm(chance: random.Random, now: float) -> float:
    return chance.expovariate(1 / 0.0005)


def overloaded(chance: random.Random, now: float) -> float:
    """Twice as many threads as cores: every beat waits its turn, some for several."""
    return chance.expovariate(1 / 0.012) + (chance.expovariate(1 / 0.06) if chance.random() < 0.01 else 0.0)


def bursts(chance: random.Random, now: float) -> float:
    """A crowd for ten seconds of each minute, which comes at once."""
    return overloaded(chance, now) if now % 60 < 10 else calm(chance, now)


def throttled(chance: random.Random, now: float) -> float:
    """A quota that is used up: once in a while the whole of a period's rest is waited for, or of two."""
    return chance.choice([0.0, 0.0, 0.0, 0.09, 0.18])


class Member:
    role, alive, pid = "compute", True, 0

    def __init__(self, index: int, beats: Iterator[float]) -> None:
        self.index, self.epoch, self.name = index, 1, f"risk-compute-{index}-0"
        self._beats = beats
        self._last = 0.0
        self._next = next(beats)
        self.heartbeat_age = 0.0

    def at(self, now: float) -> None:
        while self._next <= now:
            self._last, self._next = self._next, next(self._beats)
        self.heartbeat_age = now - self._last


def beats(jitter: Jitter, seed: int, until: float = float("inf")) -> Iterator[float]:
    chance, now = random.Random(seed), 0.0
    while now < until:
        now += failover.heartbeat_interval + jitter(chance, now)
        yield now
    yield float("inf")


def guarded(members: list[Member], seconds: float, *, confirmed: bool) -> list[tuple[float, int, float]]:
    """Looks as the guard does, until `seconds`: (when, who, how long silent) of each that was declared dead."""
    found: list[tuple[float, int, float]] = []
    accrual, now = Accrual(), 0.0
    watch = Watch(
        structlog.wrap_logger(structlog.testing.CapturingLogger()),
        lambda: accrual.limits(failover),
        lambda info, witness, silent: found.append((now, info.index, silent)),
        ask=lambda info, seen: Opinion.CONFIRMED if confirmed else Opinion.NONE,
        heard=lambda info, silent: accrual.learn(silent, 0.0),
    )
    dead: set[int] = set()
    while now < seconds:
        limits = accrual.limits(failover)
        pause = failover.heartbeat_interval if watch.uneasy else max(failover.heartbeat_interval, limits.suspect / 4)
        now += pause
        for member in members:
            member.at(now)
        dead = {index for _, index, _ in found}
        living = [member for member in members if member.index not in dead]
        if not watch.uneasy:
            heard = [m.heartbeat_age for m in living if m.heartbeat_age < limits.suspect]
            accrual.learn(max(heard, default=0.0), pause)
        watch.look(living, pause)
    return found


@pytest.fixture(autouse=True)
def _no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm_agents.runtime.watch._prove", lambda pid, name: None)


@pytest.mark.parametrize("jitter", [calm, overloaded, bursts, throttled])
@pytest.mark.parametrize("confirmed", [False, True])
def test_in_ten_minutes_of_any_load_nobody_who_lives_is_declared_dead(jitter: Jitter, confirmed: bool) -> None:
    members = [Member(index, beats(jitter, index)) for index in range(4)]
    assert guarded(members, 600.0, confirmed=confirmed) == []


@pytest.mark.parametrize(("jitter", "most"), [(calm, 0.55), (overloaded, 1.05), (bursts, 1.05), (throttled, 1.05)])
def test_one_who_hangs_is_found_in_the_same_load_and_nobody_else(jitter: Jitter, most: float) -> None:
    hangs_at = itertools.count(31)
    for seed in range(5):
        at = float(next(hangs_at))
        members = [Member(0, beats(jitter, seed, at)), *(Member(i, beats(jitter, 100 + seed + i)) for i in range(1, 4))]
        (death,) = guarded(members, 60.0, confirmed=True)
        assert death[1] == 0
        assert death[0] - at < most
