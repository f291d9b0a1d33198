"""The risk kernels against closed forms, definitions written out, and what must not matter to them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.risk.monte_carlo import BLOCK, merge
from swarm_agents.compute.kernels.risk.types import philox, revalue
from swarm_agents.errors import TaskCancelled

profits = hnp.arrays(np.float64, st.integers(1, 400), elements=st.floats(-100, 100, width=32))
levels = st.sampled_from([0.9, 0.95, 0.975, 0.99, 0.999])


def run(name: str, *args: Any, **kwargs: Any) -> Any:
    return registry.get(name)(*args, **kwargs)


def history(days: int = 400, factors: int = 3, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.eye(factors) + 0.4
    return 0.01 * rng.standard_t(6, (days, factors)) @ mix


# -- VaR and ES


@given(profits, levels)
def test_var_is_the_empirical_quantile_and_es_is_at_least_that(values: np.ndarray, level: float) -> None:
    tail = run("risk.loss_tail", values, level=level)
    losses = np.sort(-values)
    rank = math.ceil(round(len(values) * level, 9))
    assert tail["var"] == losses[rank - 1]
    assert tail["es"] >= tail["var"] - 1e-9 * abs(tail["var"])
    assert tail["es"] <= losses[-1] + 1e-9 * abs(losses[-1])


@given(profits, levels)
def test_es_is_the_mean_of_the_quantiles_beyond_the_level(values: np.ndarray, level: float) -> None:
    """Acerbi and Tasche's integral of the quantile function, which is a step function here."""
    losses, n = np.sort(-values), len(values)
    steps = np.arange(n + 1) / n
    width = np.clip(np.minimum(steps[1:], 1.0) - np.maximum(steps[:-1], level), 0, None)
    expected = float(np.sum(losses * width) / (1 - level))
    es = run("risk.loss_tail", values, level=level)["es"]
    assert es == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_var_and_es_of_a_hundred_known_losses() -> None:
    tail = run("risk.loss_tail", -np.arange(1.0, 101.0), level=0.95)
    assert (tail["var"], tail["es"]) == (95.0, 98.0)
    assert tail["worst"].tolist() == [100, 99, 98, 97, 96, 95]
    half = run("risk.loss_tail", -np.arange(1.0, 51.0), level=0.99)
    assert (half["var"], half["es"]) == (50.0, 50.0)


@given(st.integers(0, 2**32), levels)
def test_contributions_add_up_to_es_and_what_if_agrees_with_the_tail(seed: int, level: float) -> None:
    rng = np.random.default_rng(seed)
    moves, weights = 0.02 * rng.standard_t(4, (300, 4)), rng.normal(0, 1, 4)
    found = run("risk.what_if", moves, weights, level=level)
    tail = run("risk.loss_tail", revalue(moves, weights), level=level)
    assert found["contributions"].sum() == pytest.approx(found["es"], rel=1e-9)
    assert found["es"] == pytest.approx(tail["es"], rel=1e-12)
    assert found["var"] == pytest.approx(tail["var"], rel=1e-12)


def test_positions_are_valued_anew_and_not_linearised() -> None:
    moves = np.log(np.array([[1.1, 0.5], [0.9, 2.0]]))
    np.testing.assert_allclose(revalue(moves, np.array([100.0, -10.0])), [10 + 5, -10 - 10])


# -- volatility


def test_ewma_is_the_weighted_mean_of_squares() -> None:
    returns, decay = history(60, 2), 0.9
    sigma = run("risk.ewma_volatility", returns, decay=decay)
    assert sigma.shape == (61, 2)
    t = 60
    weights = (1 - decay) * decay ** np.arange(t)[::-1]
    expected = (weights[:, None] * returns**2).sum(axis=0) + decay**t * (returns**2).mean(axis=0)
    np.testing.assert_allclose(sigma[-1] ** 2, expected, rtol=1e-12)


def simulated_garch(days: int, alpha: float, beta: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    h, out = 1e-4, np.empty(days)
    for t in range(days):
        out[t] = math.sqrt(h) * rng.standard_normal()
        h = 1e-4 * (1 - alpha - beta) + alpha * out[t] ** 2 + beta * h
    return out


def test_the_garch_fit_finds_the_parameters_that_made_the_data() -> None:
    fit = run("risk.garch_fit", simulated_garch(8000, 0.08, 0.9, seed=3))
    assert fit["alpha"] == pytest.approx(0.08, abs=0.02)
    assert fit["beta"] == pytest.approx(0.90, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_a_grid_is_likelier_than_the_garch_fit(seed: int) -> None:
    from swarm_agents.compute.kernels.risk.volatility import NUMPY

    returns = simulated_garch(600, 0.05 + 0.05 * seed, 0.85, seed)
    fit = run("risk.garch_fit", returns)
    squares = returns**2
    mean = float(squares.mean())

    def likelihood(alpha: float, beta: float) -> float:
        cost = NUMPY.cost(squares, mean, mean * (1 - alpha - beta), alpha, beta)
        return -0.5 * (cost + len(returns) * math.log(2 * math.pi))

    assert fit["log_likelihood"] == pytest.approx(likelihood(fit["alpha"], fit["beta"]), abs=1e-6)
    grid = [(p * share, p * (1 - share)) for p in np.linspace(0.3, 0.999, 15) for share in np.linspace(0.01, 0.6, 15)]
    assert fit["log_likelihood"] > max(likelihood(a, b) for a, b in grid) - 0.05


def test_the_fit_does_not_depend_on_the_units() -> None:
    returns = simulated_garch(500, 0.1, 0.8, 9)
    one, thousand = run("risk.garch_fit", returns), run("risk.garch_fit", 1024 * returns)
    assert thousand["alpha"] == pytest.approx(one["alpha"], rel=1e-6)
    assert thousand["omega"] == pytest.approx(one["omega"] * 1024**2, rel=1e-6)


@pytest.mark.parametrize("name", ["risk.filtered_historical", "risk.monte_carlo"])
def test_a_factor_that_never_moved_is_named(name: str) -> None:
    returns = history()
    returns[:, 1] = 0.0
    with pytest.raises(ValueError, match="factor 1 did not move on any of 400 days"):
        run(name, returns, np.ones(3))
    with pytest.raises(ValueError, match="did not move"):
        run("risk.garch_fit", np.zeros(100))


# -- filtered historical simulation


@pytest.mark.parametrize("model", ["garch", "ewma"])
def test_each_scenario_is_a_days_shock_at_tomorrows_volatility(model: str) -> None:
    returns, weights = history(), np.array([1.0, -2.0, 0.5])
    found = run("risk.filtered_historical", returns, weights, model=model)
    omega, alpha, beta = found["parameters"].T
    h = np.mean(returns**2, axis=0)
    sigma = [np.sqrt(h)]
    for row in returns:
        h = omega + alpha * row**2 + beta * h
        sigma.append(np.sqrt(h))
    np.testing.assert_allclose(found["volatility"], sigma[-1], rtol=1e-10)
    np.testing.assert_allclose(found["moves"], returns / np.array(sigma[:-1]) * sigma[-1], rtol=1e-10)
    np.testing.assert_allclose(found["profits"], np.expm1(found["moves"]) @ weights, rtol=1e-10)
    tail = run("risk.loss_tail", found["profits"])
    assert (found["var"], found["es"]) == (tail["var"], tail["es"])


def test_risk_rises_when_markets_have_been_wild_lately() -> None:
    calm = history(800)
    wild = calm.copy()
    wild[-40:] *= 4
    weights = np.ones(3)
    for model in ("garch", "ewma"):
        before = run("risk.filtered_historical", calm, weights, model=model)["var"]
        assert run("risk.filtered_historical", wild, weights, model=model)["var"] > 1.5 * before


# -- Monte Carlo


@pytest.mark.parametrize(("paths", "chunks"), [(BLOCK, 5), (2 * BLOCK, 3)])
def test_chunks_in_any_order_are_one_long_run_to_the_last_bit(paths: int, chunks: int) -> None:
    returns, weights = history(), np.array([1.0, 0.5, -0.25])
    whole = run("risk.monte_carlo", returns, weights, paths=paths * chunks, seed=11)
    parts = [run("risk.monte_carlo", returns, weights, paths=paths, seed=11, chunk=c, tail=0.05) for c in range(chunks)]
    for merged in (merge(parts), merge(parts[::-1])):
        assert merged["var"] == whole["var"]
        assert merged["es"] == whole["es"]
        assert merged["counts"].tolist() == whole["counts"].tolist()
        assert merged["worst"][: len(whole["worst"])].tobytes() == whole["worst"].tobytes()


def test_chunks_that_kept_too_little_are_refused_rather_than_wrong() -> None:
    returns, weights = history(), np.ones(3)
    parts = [run("risk.monte_carlo", returns, weights, paths=1000, seed=1, chunk=c) for c in range(20)]
    with pytest.raises(ValueError, match="worst losses"):
        merge(parts, 0.9)


def test_another_seed_or_chunk_gives_other_paths() -> None:
    returns, weights = history(), np.ones(3)
    runs = [run("risk.monte_carlo", returns, weights, paths=2000, seed=s, chunk=c) for s, c in ((1, 0), (2, 0), (1, 1))]
    assert len({r["var"] for r in runs}) == 3
    again = run("risk.monte_carlo", returns, weights, paths=2000, seed=1)
    assert again["var"] == runs[0]["var"]


def test_normal_shocks_of_one_factor_give_the_normal_quantile() -> None:
    returns = history(500, 1)
    found = run("risk.monte_carlo", returns, [1.0], paths=400_000, seed=5, shocks="normal")
    sigma = run("risk.ewma_volatility", returns)[-1, 0]
    expected = -math.expm1(stats.norm.ppf(0.01) * sigma)
    # The standard error of a quantile: sqrt(p(1-p)/n) / density; five of them.
    error = math.sqrt(0.01 * 0.99 / 400_000) / (stats.norm.pdf(stats.norm.ppf(0.01)) / sigma)
    assert abs(found["var"] - expected) < 5 * error


def test_student_shocks_have_the_variance_asked_for_and_the_quantile_of_their_law() -> None:
    returns = history(500, 1)
    found = run("risk.monte_carlo", returns, [1.0], paths=400_000, seed=6, dof=4.0)
    sigma = run("risk.ewma_volatility", returns)[-1, 0]
    q = stats.t.ppf(0.01, 4.0) * math.sqrt(0.5)
    error = math.sqrt(0.01 * 0.99 / 400_000) / (stats.t.pdf(stats.t.ppf(0.01, 4.0), 4.0) / math.sqrt(0.5) / sigma)
    assert abs(found["var"] + math.expm1(q * sigma)) < 5 * error


def test_correlated_factors_move_together() -> None:
    rng = np.random.default_rng(8)
    common = rng.standard_normal(3000)
    returns = 0.01 * np.column_stack([common, common + 0.2 * rng.standard_normal(3000)])
    together = run("risk.monte_carlo", returns, [1.0, 1.0], paths=100_000, shocks="normal")["var"]
    against = run("risk.monte_carlo", returns, [1.0, -1.0], paths=100_000, shocks="normal")["var"]
    assert together > 5 * against


def test_a_factor_that_repeats_another_is_refused_with_a_reason() -> None:
    returns = history()
    returns[:, 2] = returns[:, 0]
    with pytest.raises(ValueError, match="combination of the others"):
        run("risk.monte_carlo", returns, np.ones(3))


def test_the_histogram_counts_every_path() -> None:
    found = run("risk.monte_carlo", history(), np.ones(3), paths=12_345, dof=2.1)
    assert found["counts"].sum() == 12_345
    assert len(found["edges"]) == len(found["counts"]) + 1


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("risk.monte_carlo", (history(), np.ones(3)), {"paths": 1 << 24}),
        ("risk.backtest_window", (history(3000), np.ones(3)), {"window": 500}),
        ("risk.bootstrap", (history()[:, 0],), {"resamples": 1_000_000}),
    ],
)
def test_long_kernels_end_when_they_are_cancelled(name: str, args: tuple, kwargs: dict) -> None:
    looks = iter([False, False, True])
    with pytest.raises(TaskCancelled):
        registry.get(name).run(args, kwargs, ctx=Context(lambda: next(looks)))


def test_pieces_of_random_numbers_do_not_repeat_each_other() -> None:
    pieces = [philox(3, stream, number).integers(0, 2**63, 64) for stream in (1, 2) for number in range(20)]
    assert len(np.unique(np.concatenate(pieces))) == 40 * 64


# -- bootstrap


def test_resamples_do_not_depend_on_how_they_are_cut() -> None:
    values = history(300)[:, 0]
    whole = run("risk.bootstrap", values, resamples=60, seed=2)
    parts = [run("risk.bootstrap", values, resamples=20, seed=2, chunk=c) for c in range(3)]
    for key in ("var", "es"):
        assert np.concatenate([p[key] for p in parts]).tobytes() == whole[key].tobytes()


def test_the_bootstrap_is_centred_on_the_sample() -> None:
    values = np.random.default_rng(1).standard_normal(4000)
    found = run("risk.bootstrap", values, resamples=300, level=0.95)
    assert float(np.mean(found["var"])) == pytest.approx(run("risk.loss_tail", values, level=0.95)["var"], abs=0.03)


# -- backtests


def test_a_forecast_knows_nothing_of_its_own_day_or_later() -> None:
    returns, weights = history(130, 2), np.array([1.0, 2.0])
    before = run("risk.backtest_window", returns, weights, window=120, level=0.95)
    later = returns.copy()
    later[125:] *= 10
    after = run("risk.backtest_window", later, weights, window=120, level=0.95)
    assert before["var"][:6].tobytes() == after["var"][:6].tobytes()
    assert before["var"][6] != after["var"][6]


def test_a_days_forecast_is_the_filtered_simulation_of_the_days_before() -> None:
    returns, weights = history(103, 2), np.array([1.0, 2.0])
    found = run("risk.backtest_window", returns, weights, window=100, level=0.95)
    for day in range(3):
        single = run("risk.filtered_historical", returns[day : day + 100], weights, level=0.95)
        assert (found["var"][day], found["es"][day]) == (single["var"], single["es"])
    np.testing.assert_allclose(found["profits"], np.expm1(returns[100:]) @ weights, rtol=1e-12)


@settings(max_examples=8, deadline=None)
@given(refit=st.integers(1, 4), cut=st.integers(1, 4))
def test_a_backtest_cut_between_two_fits_is_the_same_backtest(refit: int, cut: int) -> None:
    returns, weights, window = history(96, 1), np.ones(1), 80
    whole = run("risk.backtest_window", returns, weights, window=window, refit=refit, level=0.95)
    days, at = len(returns) - window, cut * refit
    pieces = [(0, at), (at, days)] if at < days else [(0, days)]
    parts = [
        run("risk.backtest_window", returns[a : b + window], weights, window=window, refit=refit, level=0.95)
        for a, b in pieces
    ]
    for key in ("profits", "var", "es"):
        assert np.concatenate([p[key] for p in parts]).tobytes() == whole[key].tobytes()


def test_a_window_longer_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 501 rows of returns, got 400"):
        run("risk.backtest_window", history(), np.ones(3), window=500)


def outcomes(hits: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Profits and a VaR of 1 such that day i is a breach where hits[i] is 1."""
    return np.where(np.array(hits) == 1, -2.0, 0.5), np.ones(len(hits))


@pytest.mark.parametrize(("breaches", "rejected"), [(0, True), (1, False), (6, False), (7, True), (9, True)])
def test_kupiec_rejects_where_his_table_does(breaches: int, rejected: bool) -> None:
    """255 days at 99 %: the model is kept for fewer than 7 breaches (Kupiec 1995, table 3), at a 5 % test level.

    No breach in 255 days has a ratio of 5.13, beyond the 3.84 of the chi-square law, too.
    """
    hits = [0] * 255
    for i in range(breaches):
        hits[10 + 20 * i] = 1
    found = run("risk.backtest", *outcomes(hits), level=0.99)
    assert (found["kupiec_p"] < 0.05) is rejected
    assert found["breaches"] == breaches


def test_the_likelihood_ratios_are_those_of_the_definitions() -> None:
    hits = [0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    found = run("risk.backtest", *outcomes(hits), level=0.9)
    x, n, p = 6, 20, 0.1
    kupiec = -2 * math.log(p**x * (1 - p) ** (n - x)) + 2 * math.log((x / n) ** x * (1 - x / n) ** (n - x))
    n00 = n01 = n10 = n11 = 0
    for a, b in itertools.pairwise(hits):
        n00, n01, n10, n11 = n00 + (not a and not b), n01 + (not a and b), n10 + (a and not b), n11 + (a and b)
    p01, p11, p2 = n01 / (n00 + n01), n11 / (n10 + n11), (n01 + n11) / (n - 1)
    apart = (1 - p01) ** n00 * p01**n01 * (1 - p11) ** n10 * p11**n11
    alike = (1 - p2) ** (n00 + n10) * p2 ** (n01 + n11)
    assert found["kupiec"] == pytest.approx(kupiec, rel=1e-12)
    assert found["independence"] == pytest.approx(2 * math.log(apart / alike), rel=1e-12)
    assert found["kupiec_p"] == pytest.approx(stats.chi2.sf(kupiec, 1), rel=1e-10)
    assert found["independence_p"] == pytest.approx(stats.chi2.sf(found["independence"], 1), rel=1e-10)
    assert found["conditional_p"] == pytest.approx(stats.chi2.sf(found["conditional"], 2), rel=1e-10)


def test_breaches_in_clusters_fail_independence_and_scattered_ones_do_not() -> None:
    scattered, clustered = [0] * 500, [0] * 500
    for i in range(10):
        scattered[25 + 47 * i] = clustered[200 + i] = 1
    assert run("risk.backtest", *outcomes(clustered), level=0.98)["independence_p"] < 1e-6
    assert run("risk.backtest", *outcomes(scattered), level=0.98)["independence_p"] > 0.1


def test_z2_is_near_0_for_the_true_es_and_negative_for_one_that_is_too_small() -> None:
    values = np.random.default_rng(4).standard_normal(50_000)
    var, es = np.full(50_000, stats.norm.ppf(0.975)), np.full(50_000, stats.norm.pdf(stats.norm.ppf(0.975)) / 0.025)
    assert abs(run("risk.backtest", values, var, es, level=0.975)["z2"]) < 0.1
    assert run("risk.backtest", values, var * 0.8, es * 0.8, level=0.975)["z2"] < -0.7
    with pytest.raises(ValueError, match="above 0"):
        run("risk.backtest", values, var, es * 0, level=0.975)


def test_the_clients_example_runs_in_seconds() -> None:
    found = run("risk.monte_carlo", history(2000, 4), np.full(4, 0.25), paths=1_000_000, seed=7)
    assert 0 < found["var"] < found["es"]
