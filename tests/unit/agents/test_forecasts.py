"""What the node will be like: better than as it is now where that can be had, and as it is now where it can't."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from swarm_agents.resource.foresight.forecast import HORIZONS, Forecast, Forecaster
from swarm_agents.resource.foresight.seconds import MOST, Seconds


def walk(values: NDArray[np.float64]) -> tuple[Forecaster, list[dict[int, Forecast]]]:
    """One series, second by second, and what was said at each."""
    forecaster = Forecaster(1)
    said = []
    for value in values:
        forecaster.step(np.array([value]))
        said.append(forecaster.forecast(0))
    return forecaster, said


def errors(values: NDArray[np.float64], said: list[dict[int, Forecast]], horizon: int) -> tuple[float, float]:
    """Mean absolute error in the second half, of the forecasts and of the last value."""
    at = range(len(values) // 2, len(values) - horizon)
    ours = np.mean([abs(said[i][horizon].value - values[i + horizon]) for i in at])
    return float(ours), float(np.mean([abs(values[i] - values[i + horizon]) for i in at]))


def test_noise_about_a_level_is_forecast_as_the_level() -> None:
    values = 0.5 + 0.1 * np.random.default_rng(1).standard_normal(600)
    said = walk(values)[1]
    for horizon in HORIZONS:
        ours, last = errors(values, said, horizon)
        assert last / ours > 1.3  # the best there is: the square root of two
        assert said[-1][horizon].method == "mixture"


def test_a_steady_climb_is_followed_to_where_it_leads() -> None:
    values = 40.0 + 0.05 * np.arange(600.0) + 0.05 * np.random.default_rng(2).standard_normal(600)
    ours, last = errors(values, walk(values)[1], 10)
    assert last / ours > 2.0


def test_a_random_walk_is_left_at_its_last_value() -> None:
    values = np.cumsum(np.random.default_rng(3).standard_normal(900))
    said = walk(values)[1]
    ours, last = errors(values, said, 10)
    assert ours < 1.1 * last
    assert sum(each[10].method == "last value" for each in said[450:]) > 300


def test_the_stated_error_is_the_error_that_is_made() -> None:
    values = 0.5 + 0.1 * np.random.default_rng(4).standard_normal(900)
    said = walk(values)[1]
    made, last = errors(values, said, 10)
    assert said[-1][10].error == pytest.approx(made, rel=0.2)
    assert said[-1][10].error_last == pytest.approx(last, rel=0.2)


@pytest.mark.parametrize("heavy", [False, True])
def test_nine_in_ten_come_true_within_the_interval(heavy: bool) -> None:
    chance = np.random.default_rng(5)
    noise = chance.standard_t(3, 1500) if heavy else chance.standard_normal(1500)
    values = 10.0 + noise
    said = walk(values)[1]
    within = np.mean([said[i][10].low <= values[i + 10] <= said[i][10].high for i in range(500, 1490)])
    assert 0.85 < within < 0.95


def test_what_does_not_change_is_forecast_without_error() -> None:
    said = walk(np.full(200, 7.0))[1]
    for each in said[-1].values():
        assert (each.value, each.low, each.high, each.error, each.method) == (7.0, 7.0, 7.0, 0.0, "last value")


def test_a_series_that_was_gone_for_long_begins_anew() -> None:
    chance = np.random.default_rng(6)
    values = np.concatenate([chance.normal(5, 1, 300), np.full(100, np.nan), chance.normal(500, 1, 100)])
    said = walk(values)[1]
    assert not said[390]
    assert math.isnan(said[400][10].error)
    assert said[-1][10].value == pytest.approx(500, abs=3)


def test_each_series_has_the_forecast_that_it_would_have_alone() -> None:
    chance = np.random.default_rng(7)
    both = np.stack([chance.normal(5, 1, 200), np.cumsum(chance.normal(0, 1, 200))], axis=1)
    together = Forecaster(2)
    for row in both:
        together.step(row)
    for place in (0, 1):
        alone = walk(both[:, place])[0].forecast(0)
        for horizon, found in together.forecast(place).items():
            assert found.method == alone[horizon].method
            assert (found.value, found.low, found.error) == pytest.approx(
                (alone[horizon].value, alone[horizon].low, alone[horizon].error), rel=1e-6
            )


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=True, allow_infinity=True, width=64), st.sampled_from([0.0, 1e99, -1e99, 1e-300])
        ),
        min_size=1,
        max_size=90,
    )
)
def test_whatever_comes_no_forecast_is_absurd(values: list[float]) -> None:
    forecaster, said = walk(np.array(values))
    for each in said:
        for forecast in each.values():
            assert math.isfinite(forecast.value)
            assert forecast.low <= forecast.value <= forecast.high
    for value in np.random.default_rng(8).normal(1.0, 0.1, 70):
        forecaster.step(np.array([value]))
    assert all(math.isfinite(each.value) for each in forecaster.forecast(0).values())


def test_samples_become_the_mean_of_their_second() -> None:
    seconds = Seconds(2)
    for at in range(10):
        assert seconds.add(100.0 + at / 10, {"a": float(at)} | ({"b": 3.0} if at == 4 else {})) == []
    (row,) = seconds.add(101.0, {})
    assert row.tolist() == [4.5, 3.0]


def test_a_gap_is_unknown_seconds_and_a_very_long_one_not_endless() -> None:
    seconds = Seconds(1)
    seconds.add(0.0, {"a": 1.0})
    rows = seconds.add(3.5, {"a": 2.0})
    assert rows[0].tolist() == [1.0]
    assert len(rows) == 3
    assert all(np.isnan(row[0]) for row in rows[1:])
    assert len(seconds.add(1e6, {})) == MOST + 1


def test_a_clock_that_is_set_back_or_is_no_number_begins_no_second() -> None:
    seconds = Seconds(1)
    seconds.add(50.0, {"a": 1.0})
    assert seconds.add(20.0, {"a": 3.0}) == []
    assert seconds.add(math.nan, {}) == []
    assert seconds.add(math.inf, {}) == []
    (row,) = seconds.add(21.0, {})
    assert row.tolist() == [2.0]


def test_names_beyond_the_places_are_left_out_and_counted() -> None:
    seconds = Seconds(2)
    seconds.add(0.0, {"a": 1.0, "b": 2.0, "c": 3.0, "d": math.nan, "e": math.inf})
    assert set(seconds.places) == {"a", "b"}
    assert seconds.refused == 1
