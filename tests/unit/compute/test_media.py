"""The kernels of streams and media against SciPy, pandas-like definitions, and samples on which naive formulas fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import fft, signal

from swarm_agents.compute import registry, team
from swarm_agents.errors import BadArguments

FIR, WINDOW, DCT = (registry.get(f"media.{name}") for name in ("fir_bank", "window_stats", "dct8"))
each = pytest.mark.parametrize("implementation", ["numpy", "numba", "threads"])


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "threads", lambda: 3)


# -- FIR


@each
def test_each_filter_gives_what_lfilter_gives(implementation: str) -> None:
    rng = np.random.default_rng(1)
    x, taps = rng.normal(size=200_001), rng.normal(size=(3, 17))
    got = FIR.run((x, taps), implementation=implementation)
    assert got.shape == (3, x.size)
    for b in range(3):
        np.testing.assert_allclose(got[b], signal.lfilter(taps[b], 1.0, x), rtol=1e-12, atol=1e-12)


@each
def test_an_impulse_answers_with_the_taps(implementation: str) -> None:
    x = np.zeros(6)
    x[2] = 1.0
    got = FIR.run((x, np.array([[1.0, 2.0, 3.0]])), implementation=implementation)
    assert got.tolist() == [[0.0, 0.0, 1.0, 2.0, 3.0, 0.0]]


@each
def test_a_stream_in_pieces_is_the_stream(implementation: str) -> None:
    rng = np.random.default_rng(2)
    x, taps = rng.normal(size=900), rng.normal(size=(2, 50))
    whole = FIR(x, taps)
    done, parts = 0, []
    for size in (1, 10, 200, 89, 600):
        parts.append(FIR.run((x[done : done + size], taps), {"history": x[:done]}, implementation=implementation))
        done += size
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@each
def test_filters_may_be_longer_than_the_signal(implementation: str) -> None:
    got = FIR.run((np.array([1.0, 1.0]), np.arange(1.0, 101.0)[None]), implementation=implementation)
    assert got.tolist() == [[1.0, 3.0]]


# -- sliding windows


@each
@pytest.mark.parametrize("window", [1, 2, 3, 7, 99, 100])
def test_windows_have_the_statistics_of_their_samples(window: int, implementation: str) -> None:
    x = np.random.default_rng(window).normal(5, 2, 100)
    got = WINDOW.run((x,), {"window": window}, implementation=implementation)
    for i in range(101 - window):
        part = x[i : i + window].tolist()
        mean = math.fsum(part) / window
        assert got["mean"][i] == pytest.approx(mean, rel=1e-13)
        assert got["variance"][i] == pytest.approx(math.fsum((v - mean) ** 2 for v in part) / window, abs=1e-13)
        assert (got["minimum"][i], got["maximum"][i]) == (min(part), max(part))


@each
def test_a_spike_leaves_no_trace_once_it_has_left_the_window(implementation: str) -> None:
    """Adding and subtracting would lose all digits of what comes after."""
    x = np.tile([1.0, 2.0], 500)
    x[100] = 1e16
    got = WINDOW.run((x,), {"window": 10}, implementation=implementation)
    np.testing.assert_allclose(got["mean"][101:], 1.5, rtol=1e-14)
    np.testing.assert_allclose(got["variance"][101:], 0.25, rtol=1e-13)


@each
def test_a_large_offset_does_not_drown_the_variance(implementation: str) -> None:
    x = 1e9 + np.tile([0.0, 1.0, 2.0, 3.0], 300)
    got = WINDOW.run((x,), {"window": 4, "ddof": 1}, implementation=implementation)
    np.testing.assert_allclose(got["variance"], 5.0 / 3.0, rtol=1e-6)
    assert (got["variance"] > 0).all()


@each
def test_long_signals_agree_at_the_seams_of_blocks_and_threads(implementation: str) -> None:
    x = np.random.default_rng(3).normal(size=150_000).cumsum()
    got = WINDOW.run((x,), {"window": 1000}, implementation=implementation)
    means = np.convolve(x, np.full(1000, 1e-3), "valid")
    np.testing.assert_allclose(got["mean"], means, rtol=1e-9, atol=1e-9 * np.abs(x).max())
    for i in (0, 999, 1000, 1001, 49_666, 49_667, 99_334, 149_000):
        assert got["maximum"][i] == x[i : i + 1000].max()
        assert got["variance"][i] == pytest.approx(x[i : i + 1000].var(), rel=1e-10)


@each
def test_windows_that_do_not_fit_are_refused(implementation: str) -> None:
    with pytest.raises(BadArguments, match="'window' must be at most the number of samples, 3: got 4"):
        WINDOW.run((np.ones(3),), {"window": 4}, implementation=implementation)
    with pytest.raises(BadArguments, match="'ddof' must be below the window"):
        WINDOW.run((np.ones(3),), {"window": 1, "ddof": 1}, implementation=implementation)
    with pytest.raises(BadArguments, match="'window' must be int from 1"):
        WINDOW.run((np.ones(3),), {"window": 0}, implementation=implementation)


# -- DCT


@each
@pytest.mark.parametrize("inverse", [False, True])
def test_each_block_is_transformed_as_scipy_does(inverse: bool, implementation: str) -> None:
    image = np.random.default_rng(6).normal(0, 60, (320, 264))
    got = DCT.run((image,), {"inverse": inverse}, implementation=implementation)
    transform = fft.idctn if inverse else fft.dctn
    for top in range(0, 320, 8):
        for left in range(0, 264, 8):
            block = slice(top, top + 8), slice(left, left + 8)
            np.testing.assert_allclose(got[block], transform(image[block], norm="ortho"), atol=1e-11)


@each
def test_the_inverse_brings_the_image_back_and_a_flat_block_has_one_coefficient(implementation: str) -> None:
    image = np.full((16, 8), 10.0)
    image[8:] = np.random.default_rng(7).integers(0, 256, (8, 8))
    there = DCT.run((image,), implementation=implementation)
    assert there[0, 0] == pytest.approx(80.0)
    np.testing.assert_allclose(there[:8].ravel()[1:], 0.0, atol=1e-12)
    back = DCT.run((there,), {"inverse": True}, implementation=implementation)
    np.testing.assert_allclose(back, image, atol=1e-11)


@pytest.mark.parametrize("shape", [(8, 9), (7, 8), (4, 4)])
def test_images_that_are_not_made_of_blocks_are_refused(shape: tuple[int, int]) -> None:
    for implementation in DCT.implementations:
        with pytest.raises(BadArguments, match="multiples of 8"):
            DCT.run((np.ones(shape),), implementation=implementation)
