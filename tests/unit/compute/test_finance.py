"""Finance: prices that textbooks print, identities that hold for any price, and closed forms for simulated ones."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.compute.kernels.finance.closed import european, geometric_asian
from swarm_agents.compute.kernels.finance.paths import merge
from swarm_agents.errors import BadArguments, TaskCancelled

BLACK_SCHOLES = registry.get("finance.black_scholes")
PATHS = registry.get("finance.monte_carlo_path")
VAR_ES = registry.get("finance.var_es")
IMPLEMENTATIONS = list(BLACK_SCHOLES.implementations)


def priced(*market: float, implementation: str = "numba", **options: Any) -> dict[str, float]:
    columns = [np.array([x], float) for x in market]
    found = BLACK_SCHOLES.run(columns, options, implementation=implementation)
    return {name: float(column[0]) for name, column in found.items()}


# -- Black-Scholes


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_hulls_example_of_a_call_and_a_put(implementation: str) -> None:
    """Hull, chapter "The Black-Scholes-Merton model": spot 42, strike 40, 10 %, 20 %, six months: 4.76 and 0.81."""
    market = 42, 40, 0.5, 0.1, 0.2
    assert round(priced(*market, implementation=implementation)["price"], 2) == 4.76
    assert round(priced(*market, option="put", implementation=implementation)["price"], 2) == 0.81


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_hulls_example_of_greeks(implementation: str) -> None:
    """Hull, chapter "The Greek letters": spot 49, strike 50, 5 %, 20 %, 20 weeks."""
    got = priced(49, 50, 20 / 52, 0.05, 0.2, implementation=implementation)
    rounded = {"price": 2.40, "delta": 0.522, "gamma": 0.066, "vega": 12.1, "theta": -4.31, "rho": 8.91}
    digits = {"price": 2, "delta": 3, "gamma": 3, "vega": 1, "theta": 2, "rho": 2}
    assert {name: round(got[name], digits[name]) for name in rounded} == rounded


@pytest.mark.parametrize("option", ["call", "put"])
def test_greeks_are_the_prices_derivatives(option: str) -> None:
    market, q = np.array([103.0, 97.0, 0.7, 0.04, 0.3]), 0.02
    at = priced(*market, option=option, dividend=q)
    for name, place, sign in (("delta", 0, 1), ("vega", 4, 1), ("rho", 3, 1), ("theta", 2, -1)):
        step = 1e-5 * market[place]
        up, down = market.copy(), market.copy()
        up[place] += step
        down[place] -= step
        slope = (
            priced(*up, option=option, dividend=q)["price"] - priced(*down, option=option, dividend=q)["price"]
        ) / (2 * step)
        assert at[name] == pytest.approx(sign * slope, rel=1e-5), name
        if name == "delta":
            bend = priced(*up, option=option, dividend=q)[name] - priced(*down, option=option, dividend=q)[name]
            assert at["gamma"] == pytest.approx(bend / (2 * step), rel=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_call_less_a_put_is_the_forward(implementation: str) -> None:
    rng = np.random.default_rng(3)
    n, q = 1000, 0.03
    s, k, t, r, v = (rng.uniform(*b, n) for b in ((1, 200), (1, 200), (0, 5), (-0.02, 0.2), (0, 1)))
    t[::17], v[::13] = 0.0, 0.0
    call, put = (
        BLACK_SCHOLES.run((s, k, t, r, v), {"option": o, "dividend": q}, implementation=implementation)
        for o in ("call", "put")
    )
    np.testing.assert_allclose(call["price"] - put["price"], s * np.exp(-q * t) - k * np.exp(-r * t), atol=1e-11)
    np.testing.assert_allclose(call["delta"] - put["delta"], np.exp(-q * t), atol=1e-14)
    np.testing.assert_allclose(call["gamma"], put["gamma"], atol=1e-14)
    np.testing.assert_allclose(call["vega"], put["vega"], atol=1e-12)
    assert (call["price"] >= -1e-12).all()
    assert (put["price"] >= -1e-12).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("maturity", "sigma"), [(0.0, 0.3), (2.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize(("spot", "delta"), [(120.0, 1.0), (60.0, 0.0)])
def test_without_deviation_an_option_is_worth_what_the_forward_leaves(
    implementation: str, maturity: float, sigma: float, spot: float, delta: float
) -> None:
    got = priced(spot, 100, maturity, 0.05, sigma, implementation=implementation)
    discounted = 100 * math.exp(-0.05 * maturity)
    assert got["price"] == pytest.approx(max(spot - discounted, 0), abs=1e-12)
    assert got["delta"] == delta
    assert (got["gamma"], got["vega"]) == (0.0, 0.0)
    assert got["theta"] == pytest.approx(-0.05 * discounted * delta)
    assert got["rho"] == pytest.approx(maturity * discounted * delta)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_an_expired_option_exactly_at_the_money_is_worth_nothing_and_half_held(implementation: str) -> None:
    got = priced(100, 100, 0, 0.05, 0.2, implementation=implementation)
    assert all(math.isfinite(value) for value in got.values())
    assert (got["price"], got["delta"], got["gamma"]) == (0.0, 0.5, 0.0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_numbers_that_no_market_has_are_refused_with_their_place(implementation: str, place: int) -> None:
    for bad in (-20.0, 1e101):
        columns = [np.full(5, x) for x in (100.0, 100.0, 1.0, 0.05, 0.2)]
        columns[place][3] = bad
        with pytest.raises(BadArguments, match=rf"must lie from .*got {re.escape(str(bad))} at index 3"):
            BLACK_SCHOLES.run(columns, {}, implementation=implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_discounts_beyond_the_range_of_numbers_are_refused(implementation: str) -> None:
    columns = [np.full(5, x) for x in (100.0, 100.0, 1.0, 0.05, 0.2)]
    columns[2][1], columns[3][4] = 900.0, 5.0
    BLACK_SCHOLES.run(columns, {}, implementation=implementation)
    columns[2][4] = 900.0
    with pytest.raises(BadArguments, match=r"rate·maturity .* within ±400, got more at index 4"):
        BLACK_SCHOLES.run(columns, {}, implementation=implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_extreme_markets_give_finite_prices_within_their_bounds(implementation: str) -> None:
    s, k, t, v = (x.ravel() for x in np.meshgrid([1e-6, 1.0, 1e9], [1e-6, 1.0, 1e9], [1e-9, 1, 80], [1e-8, 0.3, 4]))
    r = np.full(len(s), 0.05)
    got = BLACK_SCHOLES.run((s, k, t, r, v), {}, implementation=implementation)
    assert all(np.isfinite(column).all() for column in got.values())
    assert (got["price"] <= s * (1 + 1e-12)).all()
    assert (got["price"] >= np.maximum(s - k * np.exp(-r * t), 0) - 1e-9 * s).all()


# -- Monte Carlo


def simulated(*market: float, implementation: str = "numba", **options: Any) -> dict[str, Any]:
    return PATHS.run(market, options, implementation=implementation)


def test_with_one_step_an_asian_option_is_the_european_one_and_the_control_leaves_no_error() -> None:
    got = simulated(100, 105, 0.5, 0.03, 0.25, steps=1, paths=5000, dividend=0.01)
    assert got["price"] == pytest.approx(european(100, 105, 0.5, 0.03, 0.25, 0.01, 1.0), rel=1e-9)
    assert got["stderr"] < 1e-6
    assert got["beta"] == pytest.approx(1.0, abs=1e-9)


def moment_matched(spot: float, strike: float, t: float, r: float, v: float, n: int) -> float:
    """An Asian call as if the average were lognormal with its own first two moments (Hull, "Exotic options")."""
    times = t * np.arange(1, n + 1) / n
    first = spot * np.exp(r * times).mean()
    pairs = np.exp(r * (times[:, None] + times) + v * v * np.minimum(times[:, None], times))
    deviation = math.sqrt(math.log(spot * spot * pairs.mean() / first**2))
    d1 = math.log(first / strike) / deviation + deviation / 2
    return float(math.exp(-r * t) * (first * ndtr(d1) - strike * ndtr(d1 - deviation)))


@pytest.mark.parametrize(("steps", "printed"), [(12, 6.00), (52, 5.70), (250, 5.63)])
def test_hulls_asian_call(steps: int, printed: float) -> None:
    """Hull, chapter "Exotic options": spot and strike 50, 10 %, 40 %, a year, averaged over so many days. The printed
    prices are those of a lognormal average, which for this volatility is known to be high by about a hundredth."""
    assert round(moment_matched(50, 50, 1, 0.1, 0.4, steps), 2) == printed
    got = simulated(50, 50, 1, 0.1, 0.4, steps=steps, paths=20_000, seed=1)
    assert 0.985 * printed < got["price"] < printed
    assert got["stderr"] < got["plain_stderr"] / 10
    assert abs(got["price"] - got["plain"]) < 4 * got["plain_stderr"]


@pytest.mark.parametrize(("strike", "sigma", "expected"), [(100, 0.1, 4.9151), (105, 0.2, 4.2966), (95, 0.3, 11.6559)])
def test_asian_calls_tend_to_the_continuous_averages_price(strike: float, sigma: float, expected: float) -> None:
    """J. Vecer, A new PDE approach for pricing arithmetic average Asian options, J. Comp. Finance 4(4) (2001): spot
    100, 9 %, a year. The error of n periods is of order 1/n, so that two numbers of periods extrapolate it away."""
    coarse, fine = (simulated(100, strike, 1, 0.09, sigma, steps=n, paths=60_000) for n in (20, 40))
    tolerance = 4 * (2 * fine["stderr"] + coarse["stderr"]) + 0.002
    assert abs(2 * fine["price"] - coarse["price"] - expected) < tolerance < 0.05


def test_the_geometric_control_is_what_the_simulation_finds() -> None:
    """Kemna and Vorst's price against the mean of the control itself, which the moments hold."""
    got = simulated(100, 95, 2, 0.04, 0.3, steps=10, paths=100_000, option="put", dividend=0.02)
    n = got["paths"] // 2
    c, cc = got["moments"][1] / n, got["moments"][3] / n
    assert got["control"] == pytest.approx(geometric_asian(100, 95, 2, 0.04, 0.3, 0.02, -1.0, 10))
    assert abs(c) < 4 * math.sqrt((cc - c * c) / n)


def closed_barrier(spot: float, strike: float, t: float, r: float, v: float, h: float) -> float:
    """A down-and-in call with the barrier below the strike, watched continuously (Hull, "Exotic options")."""
    power = (r + 0.5 * v * v) / (v * v)
    y = math.log(h * h / (spot * strike)) / (v * math.sqrt(t)) + power * v * math.sqrt(t)
    return float(
        spot * (h / spot) ** (2 * power) * ndtr(y)
        - strike * math.exp(-r * t) * (h / spot) ** (2 * power - 2) * ndtr(y - v * math.sqrt(t))
    )


def test_a_continuously_watched_barrier_has_its_closed_form() -> None:
    expected = closed_barrier(100, 105, 1, 0.05, 0.3, 92)
    got = simulated(
        100, 105, 1, 0.05, 0.3, kind="down-and-in", barrier=92, monitoring="continuous", steps=200, paths=100_000
    )
    assert abs(got["price"] - expected) < 4 * got["stderr"] + 0.01
    watched_daily = simulated(100, 105, 1, 0.05, 0.3, kind="down-and-in", barrier=92, steps=20, paths=100_000)
    assert watched_daily["price"] < expected - 10 * watched_daily["stderr"]


@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("option", ["call", "put"])
def test_knocked_in_and_knocked_out_together_are_the_plain_option(side: str, option: str) -> None:
    barrier = 120.0 if side == "up" else 85.0
    both = [
        simulated(100, 98, 1, 0.02, 0.3, kind=f"{side}-and-{way}", barrier=barrier, option=option, paths=3000, steps=17)
        for way in ("in", "out")
    ]
    assert sum(b["price"] for b in both) == pytest.approx(both[0]["control"], rel=1e-9)
    assert sum(b["beta"] for b in both) == pytest.approx(1.0)


def test_a_barrier_out_of_reach_leaves_the_plain_option() -> None:
    got = simulated(100, 100, 1, 0.05, 0.2, kind="up-and-out", barrier=1e6, paths=1000, steps=5)
    assert got["price"] == pytest.approx(european(100, 100, 1, 0.05, 0.2, 0.0, 1.0), rel=1e-9)


@pytest.mark.parametrize("kind", ["asian", "up-and-out"])
def test_threads_and_restarts_change_no_bit(kind: str) -> None:
    market = 100, 100, 1, 0.05, 0.2
    options = {"kind": kind, "barrier": None if kind == "asian" else 130.0, "paths": 40_001, "steps": 7, "seed": 5}
    one, many = (simulated(*market, implementation=i, **options) for i in ("numba", "numba_threads"))
    assert one["moments"].tobytes() == many["moments"].tobytes()
    assert one["paths"] == 40_002

    class Kept:
        value: Any = None

        def read(self, usable: Any = None) -> Any:
            return self if self.value is not None else None

        def write(self, value: Any, *, version: int = 0) -> bool:
            self.value = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in value.items()}
            return True

    kept, looks = Kept(), iter([False, True])
    dying = Context(lambda: next(looks), keep=lambda: kept, interval=0.0)
    with pytest.raises(TaskCancelled):
        PATHS.run(market, options, ctx=dying)
    assert kept.value["blocks"] == 64
    again = PATHS.run(market, options, ctx=Context(keep=lambda: kept))
    assert again["moments"].tobytes() == one["moments"].tobytes()


def test_a_control_that_no_path_comes_near_is_left_alone() -> None:
    """So volatile that the control's price lies in paths too rare to be drawn: its variance there is rounding."""
    market = 1196824370.8622456, 32396103.42604368, 62.27349369966103, -0.19904653535659378, 1.7464094244004418
    options = {"kind": "down-and-in", "barrier": 957459496.6897964, "steps": 10, "paths": 2096, "seed": 4387951066273}
    for implementation in ("numpy", "numba"):
        got = simulated(*market, implementation=implementation, **options)
        assert got["beta"] == 0.0
        assert got["price"] == got["plain"]


def test_long_paths_are_looked_after_more_often_and_stay_the_same() -> None:
    looks: list[bool] = []
    options = {"paths": 8192, "steps": 20_000}
    got = PATHS.run((100, 100, 1, 0.05, 0.2), options, ctx=Context(lambda: bool(looks.append(True))))
    assert len(looks) == 4
    assert got["price"] == pytest.approx(simulated(100, 100, 1, 0.05, 0.2, paths=8192, steps=100)["price"], rel=0.01)


def test_chunks_merge_to_the_figures_of_one_long_run() -> None:
    market = 100, 100, 1, 0.05, 0.2
    whole = simulated(*market, paths=8192, steps=6, seed=9)
    chunks = [simulated(*market, paths=2048, steps=6, seed=9, chunk=i) for i in range(4)]
    merged = merge(chunks)
    assert merged["paths"] == 8192
    assert merged["price"] == pytest.approx(whole["price"], rel=1e-12)
    assert merged["stderr"] == pytest.approx(whole["stderr"], rel=1e-9)
    assert chunks[0]["price"] != chunks[1]["price"]
    with pytest.raises(ValueError, match="one option"):
        merge([chunks[0], simulated(90, 100, 1, 0.05, 0.2, paths=512, steps=6)])
    with pytest.raises(ValueError, match="at least one"):
        merge([])


def test_standard_errors_are_those_that_repetition_shows() -> None:
    prices, errors = zip(
        *((r["price"], r["stderr"]) for r in (simulated(100, 100, 1, 0.05, 0.3, steps=12, paths=1024, seed=s)
                                               for s in range(100))), strict=True
    )  # fmt: skip
    assert 0.75 < np.std(prices) / np.mean(errors) < 1.35


@pytest.mark.parametrize(
    ("kind", "barrier", "words"),
    [
        ("up-and-out", None, "needs a barrier above the spot"),
        ("up-and-in", 90.0, "needs a barrier above the spot"),
        ("down-and-out", 100.0, "needs a barrier below the spot"),
        ("asian", 120.0, "has no barrier"),
    ],
)
def test_barriers_in_the_wrong_place_are_refused(kind: str, barrier: float | None, words: str) -> None:
    with pytest.raises(BadArguments, match=words):
        simulated(100, 100, 1, 0.05, 0.2, kind=kind, barrier=barrier)


@pytest.mark.parametrize(
    "market",
    [(0, 100, 1, 0.05, 0.2), (100, -1, 1, 0.05, 0.2), (100, 100, 0, 0.05, 0.2), (100, 100, 1, math.nan, 0.2),
     (100, 100, 1, 0.05, 0.0), (100, 100, 1, 0.05, math.inf), (math.inf, 100, 1, 0.05, 0.2)],
)  # fmt: skip
def test_markets_that_cannot_be_are_refused(market: tuple[float, ...]) -> None:
    with pytest.raises(BadArguments, match="must be float from"):
        simulated(*market)


# -- VaR and ES


def test_historical_figures_are_those_of_the_risk_kernel() -> None:
    profits = np.random.default_rng(1).standard_t(4, 1500)
    tail = registry.get("risk.loss_tail")(profits, level=0.975)
    got = VAR_ES(profits, level=0.975)
    assert (got["var"], got["es"]) == (tail["var"], tail["es"])


def test_normal_figures_are_the_textbooks() -> None:
    """McNeil, Frey and Embrechts, example 2.14: VaR and ES of losses with mean μ and deviation σ."""
    profits = np.array([-1.0, 1.0] * 50) + 0.25
    got = VAR_ES(profits, method="normal", level=0.95)
    z = stats.norm.ppf(0.95)
    assert got["var"] == pytest.approx(z - 0.25)
    assert got["es"] == pytest.approx(stats.norm.pdf(z) / 0.05 - 0.25)
    assert got["dof"] is None


@pytest.mark.parametrize("implementation", ["numpy", "numba"])
def test_students_figures_are_the_distributions_integrals(implementation: str) -> None:
    profits = np.random.default_rng(2).standard_t(8, 4000)
    got = VAR_ES.run((profits,), {"method": "t", "level": 0.99}, implementation=implementation)
    scale = got["std"] * math.sqrt((got["dof"] - 2) / got["dof"])
    loss = stats.t(got["dof"], -got["mean"], scale)
    assert got["var"] == pytest.approx(loss.ppf(0.99))
    assert got["es"] == pytest.approx(loss.expect(lb=loss.ppf(0.99)) / 0.01, rel=1e-6)


@pytest.mark.parametrize("method", ["historical", "normal", "t"])
def test_profits_that_do_not_vary_are_their_own_risk(method: str) -> None:
    got = VAR_ES(np.full(10, 2.5), method=method)
    assert (got["var"], got["es"]) == pytest.approx((-2.5, -2.5), rel=1e-12)


@pytest.mark.parametrize("implementation", ["numpy", "numba"])
@pytest.mark.parametrize("size", [1e-305, 1e-200, 1e200, 1e300])
def test_the_unit_of_money_does_not_matter(implementation: str, size: float) -> None:
    profits = np.random.default_rng(2).standard_t(6, 800)
    one, other = (VAR_ES.run((profits * unit,), {"method": "t"}, implementation=implementation) for unit in (1.0, size))
    assert other["var"] == pytest.approx(one["var"] * size, rel=1e-6)
    if size > 1e-300:
        assert other["dof"] == pytest.approx(one["dof"], rel=1e-6)


def test_an_option_that_pays_on_no_path_is_worth_nothing_by_every_implementation() -> None:
    """A factor made of rounding errors alone adds the control's price, or does not."""
    kernel = registry.get("finance.monte_carlo_path")
    market = 119.08679103777767, 88.448080105814, 0.38850945792155334, 0.049836698410987194, 0.13545333235813237
    options = {"kind": "down-and-out", "option": "put", "barrier": 93.5222735353969, "dividend": 0.002014074718617337}
    options |= {"steps": 22, "paths": 2672, "seed": 1119071503648439534, "chunk": 187141}
    for implementation in kernel.implementations:
        got = kernel.run(market, options, implementation=implementation)
        assert abs(got["price"]) < 1e-12
        assert got["beta"] == 0.0
