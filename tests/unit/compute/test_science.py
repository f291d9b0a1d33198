"""Science: conserved quantities, analytic solutions, exact sums, and SciPy's answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from support.kernelkit import assert_same
from swarm_agents.compute import registry, team
from swarm_agents.compute.context import Context
from swarm_agents.errors import BadArguments, PayloadTooLarge, TaskCancelled

NBODY = registry.get("science.nbody")
HEAT = registry.get("science.heat2d")
CONVOLVE = registry.get("science.convolve")
SPMV = registry.get("science.spmv")
REDUCE = registry.get("science.reduce")
SCAN = registry.get("science.scan")


def each(kernel: registry.Kernel) -> Any:
    return pytest.mark.parametrize("implementation", list(kernel.implementations))


class Kept:
    """Where a task's checkpoints lie, in memory."""

    value: Any = None

    def read(self, usable: Any = None) -> Any:
        return self if self.value is not None else None

    def write(self, value: Any, *, version: int = 0) -> bool:
        self.value = {k: np.copy(v) if isinstance(v, np.ndarray) else v for k, v in value.items()}
        return True


def interrupted(kernel: registry.Kernel, implementation: str, looks: int, *args: Any, **kwargs: Any) -> Any:
    """The answer of a task that died after so many looks at its context, and was begun again."""
    kept, left = Kept(), iter([False] * looks + [True])
    dying = Context(lambda: next(left), keep=lambda: kept, interval=0.0)
    with pytest.raises(TaskCancelled):
        kernel.run(args, kwargs, ctx=dying, implementation=implementation)
    assert kept.value is not None
    return kernel.run(args, kwargs, ctx=Context(keep=lambda: kept), implementation=implementation)


# -- bodies


@each(NBODY)
def test_a_single_body_flies_straight_on_and_leaves_its_arguments_alone(implementation: str) -> None:
    here, speed = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, -1.0]])
    for array in (here, speed):
        array.flags.writeable = False  # as it is in the node's shared memory
    there = NBODY.run(
        (here, speed, np.ones(1)), {"dt": 0.5, "steps": 2, "softening": 0.1}, implementation=implementation
    )
    assert there["positions"].tolist() == [[2.0, 2.0, 2.0]]
    assert here.tolist() == [[1.0, 2.0, 3.0]]


@each(NBODY)
def test_two_bodies_on_a_circle_come_back_after_a_period(implementation: str) -> None:
    """Masses 1 and 1 at distance 2 circle each other with speed ½ in the time 4π (G = 1)."""
    x = np.array([[1.0, 0, 0], [-1, 0, 0]])
    v = np.array([[0, 0.5, 0], [0, -0.5, 0]])
    options = {"dt": 4 * math.pi / 2000, "steps": 2000, "energy_tolerance": 1e-6}
    got = NBODY.run((x, v, np.ones(2)), options, implementation=implementation)
    np.testing.assert_allclose(got["positions"], x, atol=2e-4)
    np.testing.assert_allclose(got["velocities"], v, atol=2e-4)
    assert got["energy"][0] == pytest.approx(0.25 - 0.5)


@pytest.fixture(scope="module")
def cluster() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(6)
    return rng.normal(0, 1, (200, 3)), rng.normal(0, 0.4, (200, 3)), rng.uniform(0.5, 1.5, 200) / 200


@each(NBODY)
def test_energy_momentum_and_angular_momentum_are_kept(implementation: str, cluster: tuple[np.ndarray, ...]) -> None:
    x, v, m = cluster
    got = NBODY.run(cluster, {"dt": 0.005, "steps": 60, "softening": 0.1}, implementation=implementation)
    before, after = got["energy"]
    assert abs(after / before - 1) < 1e-5
    momentum = m @ got["velocities"] - m @ v
    spin = m @ np.cross(got["positions"], got["velocities"]) - m @ np.cross(x, v)
    assert np.abs(momentum).max() < 1e-14
    assert np.abs(spin).max() < 1e-14
    assert np.abs(got["positions"] - x).max() > 0.1  # something moved


def test_the_energys_error_falls_with_the_square_of_the_step(cluster: tuple[np.ndarray, ...]) -> None:
    errors = []
    for n in (20, 40):
        before, after = NBODY(*cluster, dt=0.4 / n, steps=n, softening=0.2)["energy"]
        errors.append(abs(after - before))
    assert 3 < errors[0] / errors[1] < 5


def test_time_can_be_turned_back(cluster: tuple[np.ndarray, ...]) -> None:
    x, v, m = cluster
    there = NBODY(x, v, m, dt=0.01, steps=30, softening=0.1)
    back = NBODY(there["positions"], there["velocities"], m, dt=-0.01, steps=30, softening=0.1)
    np.testing.assert_allclose(back["positions"], x, atol=1e-11)


@each(NBODY)
def test_bodies_in_one_place_and_single_bodies_stay_finite(implementation: str) -> None:
    x = np.zeros((3, 3))
    got = NBODY.run((x, x, np.ones(3)), {"dt": 1.0, "steps": 3}, implementation=implementation)
    assert (got["positions"] == 0).all()
    one = NBODY.run((x[:1], x[:1] + 2.0, np.ones(1)), {"dt": 0.5, "steps": 4}, implementation=implementation)
    np.testing.assert_allclose(one["positions"], [[4.0, 4.0, 4.0]])


def test_an_energy_that_drifts_is_told_and_negative_masses_are_refused(cluster: tuple[np.ndarray, ...]) -> None:
    x, v, m = cluster
    with pytest.raises(ValueError, match="take a smaller dt"):
        NBODY(x, v, m, dt=5.0, steps=5, energy_tolerance=1e-3)
    with pytest.raises(BadArguments, match="masses must be 0 or above"):
        NBODY(x, v, -m, dt=0.1)


def test_an_interrupted_simulation_goes_on_where_it_was(cluster: tuple[np.ndarray, ...]) -> None:
    options: dict[str, Any] = {"dt": 0.01, "steps": 9, "softening": 0.1}
    whole = NBODY.run(cluster, options, implementation="numba")
    again = interrupted(NBODY, "numba", 5, *cluster, **options)
    assert_same(whole["positions"], again["positions"], 0.0)


@each(NBODY)
def test_many_bodies_are_looked_after_while_a_step_runs(
    implementation: str, cluster: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm_agents.compute.kernels.science.nbody._LOOK", 200 * 64)
    options: dict[str, Any] = {"dt": 0.01, "steps": 1, "softening": 0.1}
    looks: list[bool] = []
    got = NBODY.run(cluster, options, implementation=implementation, ctx=Context(lambda: bool(looks.append(True))))
    assert len(looks) == 9  # four for each of two computations of the forces, and one after the step
    assert_same(NBODY.run(cluster, options, implementation="numpy")["positions"], got["positions"], 1e-9)


@each(NBODY)
def test_numbers_beyond_the_range_of_doubles_become_infinite_without_a_warning(implementation: str) -> None:
    x = np.array([[1e308, 0, 0], [-1e308, 0, 0]])
    got = NBODY.run((x, x, np.ones(2)), {"dt": 1e10, "steps": 2}, implementation=implementation)
    assert not np.isfinite(got["positions"]).all()


# -- heat


def mode(rows: int, columns: int) -> np.ndarray:
    """The slowest mode between fixed walls at 0."""
    y, x = np.arange(rows)[:, None], np.arange(columns)
    return np.sin(np.pi * y / (rows - 1)) * np.sin(np.pi * x / (columns - 1))


@each(HEAT)
def test_a_mode_decays_by_the_schemes_own_factor_and_nearly_by_the_equations(implementation: str) -> None:
    rows, columns, dt, dx, alpha, steps = 65, 129, 0.0002, 1 / 64, 0.25, 300
    u = mode(rows, columns)
    options = {"steps": steps, "dt": dt, "dx": dx, "diffusivity": alpha}
    got = HEAT.run((u,), options, implementation=implementation)
    rate = alpha * dt / dx**2
    factor = 1 - 4 * rate * (math.sin(math.pi / 2 / (rows - 1)) ** 2 + math.sin(math.pi / 2 / (columns - 1)) ** 2)
    np.testing.assert_allclose(got, u * factor**steps, atol=1e-13)
    # walls at a distance of 1 and 2: ∂u/∂t = −α·π²·(1 + ¼)·u
    exact = math.exp(-alpha * math.pi**2 * 1.25 * dt * steps)
    assert got.max() / u.max() == pytest.approx(exact, rel=1e-3)


@each(HEAT)
def test_on_a_torus_heat_is_kept_and_waves_decay(implementation: str) -> None:
    rng = np.random.default_rng(2)
    u = rng.uniform(0, 1, (70, 300))
    options = {"steps": 21, "dt": 0.25, "boundary": "periodic"}
    got = HEAT.run((u,), options, implementation=implementation)
    assert got.sum() == pytest.approx(u.sum(), rel=1e-13)
    assert u.min() <= got.min() <= got.max() <= u.max()
    wave = np.cos(2 * np.pi * 3 * np.arange(300) / 300) + np.zeros((70, 1))
    got = HEAT.run((wave,), options, implementation=implementation)
    np.testing.assert_allclose(got, wave * (1 - math.sin(3 * math.pi / 300) ** 2) ** 21, atol=1e-13)


@each(HEAT)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (64, 256), (65, 257), (200, 3)])
@pytest.mark.parametrize("boundary", ["fixed", "periodic"])
def test_every_shape_of_grid_is_computed_to_the_same_bits(
    implementation: str, shape: tuple[int, int], boundary: str
) -> None:
    u = np.random.default_rng(5).normal(0, 1, shape)
    options = {"steps": 17, "dt": 0.2, "boundary": boundary}
    got = HEAT.run((u,), options, implementation=implementation)
    assert_same(HEAT.run((u,), options, implementation="numpy"), got, 0.0)
    if boundary == "fixed":
        assert (got[0] == u[0]).all()
        assert (got[:, -1] == u[:, -1]).all()


def test_an_unstable_step_is_refused_and_the_largest_stable_one_told() -> None:
    with pytest.raises(BadArguments, match=r"stable up to dt 0\.005, got 0\.01"):
        HEAT(np.ones((4, 4)), steps=1, dt=0.01, dx=0.1, diffusivity=0.5)
    HEAT(np.ones((4, 4)), steps=1, dt=0.25)


@each(HEAT)
def test_interrupted_heat_goes_on_where_it_was(implementation: str) -> None:
    u = np.random.default_rng(5).normal(0, 1, (20, 30))
    whole = HEAT(u, steps=30, dt=0.2)
    assert_same(whole, interrupted(HEAT, implementation, 2, u, steps=30, dt=0.2), 0.0)


@pytest.mark.parametrize(
    ("kernel", "args", "kwargs"),
    [(HEAT, (np.ones((9, 9)),), {"steps": 30, "dt": 0.2}), (NBODY, (np.eye(3), np.eye(3), np.ones(3)), {"dt": 0.1})],
)
def test_a_state_too_large_for_a_checkpoint_is_not_kept_and_the_task_goes_on(
    kernel: registry.Kernel, args: Any, kwargs: Any
) -> None:
    tried = []

    class Small(Kept):
        def write(self, value: Any, *, version: int = 0) -> bool:
            tried.append(value)
            raise PayloadTooLarge("larger than a checkpoint may be")

    got = kernel.run(args, kwargs, ctx=Context(keep=Small, interval=0.0))
    assert_same(kernel.run(args, kwargs), got, 0.0)
    assert tried


# -- convolution


@each(CONVOLVE)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 3), (3, 5), (4, 4), (20_000, 1), (20_000, 700), (100, 9001)])
def test_a_convolution_is_the_direct_sum(implementation: str, mode: str, n: int, m: int) -> None:
    rng = np.random.default_rng(n + m)
    a, b = rng.normal(0, 1, n), rng.normal(0, 1, m)
    got = CONVOLVE.run((a, b), {"mode": mode}, implementation=implementation)
    assert_same(np.convolve(a, b, mode), got, 1e-11)


@each(CONVOLVE)
def test_a_convolution_obeys_parseval_and_shifts_by_an_impulse(implementation: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 1000), rng.normal(0, 1, 200)
    got = CONVOLVE.run((a, b), {}, implementation=implementation)
    spectrum = np.fft.fft(a, 1199) * np.fft.fft(b, 1199)
    assert (got**2).sum() == pytest.approx((np.abs(spectrum) ** 2).sum() / 1199)
    assert got.sum() == pytest.approx(a.sum() * b.sum())
    impulse = np.zeros(200)
    impulse[150] = 1.0
    shifted = CONVOLVE.run((a, impulse), {}, implementation=implementation)
    np.testing.assert_allclose(shifted[150:1150], a, atol=1e-12)


# -- sparse matrices


@each(SPMV)
def test_a_sparse_product_is_scipys(implementation: str) -> None:
    rng = np.random.default_rng(8)
    matrix = sparse.random_array((500, 300), density=0.03, rng=rng, format="csr")
    x = rng.normal(0, 1, 300)
    got = SPMV.run((matrix.data, matrix.indices, matrix.indptr, x), {}, implementation=implementation)
    np.testing.assert_allclose(got, matrix @ x, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(got, matrix.toarray() @ x, rtol=1e-12, atol=1e-14)


@each(SPMV)
def test_long_rows_are_shared_among_threads_without_a_row_lost(implementation: str) -> None:
    """One row that holds nearly all values, empty ones, and an empty one at the end."""
    counts = np.array([0, 3, 150_000, 0, 2, 0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    rng = np.random.default_rng(3)
    data, indices, x = rng.normal(0, 1, 150_005), rng.integers(0, 50, 150_005), rng.normal(0, 1, 50)
    got = SPMV.run((data, indices, indptr, x), {}, implementation=implementation)
    assert_same(SPMV.run((data, indices, indptr, x), {}, implementation="numpy"), got, 0.0)
    assert (got[[0, 3, 5]] == 0).all()


@each(SPMV)
@pytest.mark.parametrize(
    ("indices", "indptr", "words"),
    [
        ([0, 3, 1], [0, 1, 3], r"lie from 0 to 2, the last column: got 3 at index 1"),
        ([0, 1, -1], [0, 1, 3], r"lie from 0 to 2, the last column: got -1 at index 2"),
        ([2**62, 1, 0], [0, 1, 3], "at index 0"),
        ([0, 1, 2], [1, 2, 3], "begin with 0 and end with 3"),
        ([0, 1, 2], [0, 1, 2], "begin with 0 and end with 3"),
        ([0, 1, 2], [0, 2**62, 3], "not decrease: got 4611686018427387904 and then 3 at row 1"),
        ([0, 1, 2], [0, -5, 3], "not decrease: got 0 and then -5 at row 0"),
    ],
)
def test_indices_that_lead_outside_are_refused_and_never_read(
    implementation: str, indices: list[int], indptr: list[int], words: str
) -> None:
    with pytest.raises(BadArguments, match=words):
        SPMV.run((np.ones(3), np.array(indices), np.array(indptr), np.ones(3)), {}, implementation=implementation)


# -- sums


@each(REDUCE)
def test_a_sum_keeps_what_plain_addition_loses(implementation: str) -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([[1e16], rng.uniform(0, 1, 100_000), [-1e16]])
    exact = math.fsum(values)
    got = REDUCE.run((values,), {}, implementation=implementation)
    assert got == pytest.approx(exact, rel=1e-15)
    assert abs(float(np.cumsum(values)[-1]) - exact) > 1.0
    tenths = np.full(1_000_001, 0.1)
    assert REDUCE.run((tenths,), {}, implementation=implementation) == math.fsum(tenths)


@each(REDUCE)
@pytest.mark.parametrize("n", [1, 31, 32, 33, 32_767, 32_768, 32_769, 100_003])
def test_extremes_are_found_wherever_they_lie(implementation: str, n: int) -> None:
    rng = np.random.default_rng(n)
    for place in {0, n // 2, n - 1}:
        values = rng.normal(0, 1, n)
        values[place] = 99.0
        assert REDUCE.run((values,), {"op": "max"}, implementation=implementation) == 99.0
        assert REDUCE.run((-values,), {"op": "min"}, implementation=implementation) == -99.0
        values[place] = np.nan
        assert all(math.isnan(REDUCE.run((values,), {"op": op}, implementation=implementation))
                   for op in ("sum", "min", "max"))  # fmt: skip


@each(REDUCE)
@pytest.mark.parametrize(
    ("values", "expected"),
    [([], 0.0), ([np.inf, 1.0], np.inf), ([np.inf, -np.inf], np.nan), ([1e308] * 3, np.inf), ([-np.inf], -np.inf)],
)
def test_sums_beyond_numbers_are_what_addition_makes_of_them(
    implementation: str, values: list[float], expected: float
) -> None:
    got = REDUCE.run((np.array(values, float),), {}, implementation=implementation)
    assert got == expected or (math.isnan(got) and math.isnan(expected))


@each(REDUCE)
def test_nothing_has_no_extreme(implementation: str) -> None:
    with pytest.raises(ValueError, match="an empty array has no min"):
        REDUCE.run((np.empty(0),), {"op": "min"}, implementation=implementation)


@each(SCAN)
@pytest.mark.parametrize("n", [0, 1, 32_767, 32_768, 32_769, 200_001])
def test_prefix_sums_of_whole_numbers_are_exact(implementation: str, n: int) -> None:
    values = np.random.default_rng(n).integers(-1000, 1000, n).astype(float)
    expected = np.cumsum(values)
    assert_same(expected, SCAN.run((values,), {}, implementation=implementation), 0.0)
    exclusive = SCAN.run((values,), {"exclusive": True}, implementation=implementation)
    np.testing.assert_array_equal(exclusive, expected - values)


@pytest.mark.parametrize(("kernel", "name"), [(REDUCE, "values"), (SCAN, "values")])
def test_the_number_of_threads_changes_no_bit(kernel: registry.Kernel, name: str) -> None:
    values = np.random.default_rng(1).normal(0, 1, 300_000)
    many = kernel.run((values,), {}, implementation="numba_threads")
    with team.limited(1):
        one = kernel.run((values,), {}, implementation="numba_threads")
    assert_same(many, one, 0.0)
