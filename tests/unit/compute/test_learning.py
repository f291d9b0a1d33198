"""The kernels of machine learning against definitions written out, and where the plain formulas would break."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, special

from support.kernelkit import assert_same
from swarm_agents.compute import registry, team
from swarm_agents.compute.kernels.learning.dense import ACTIVATIONS
from swarm_agents.compute.kernels.learning.kmeans import next_centroids
from swarm_agents.errors import BadArguments

DENSE, KMEANS, LOGISTIC = (registry.get(f"learning.{name}") for name in ("dense", "kmeans_step", "logistic_gradient"))
both = pytest.mark.parametrize("implementation", ["numpy", "numba"])
each = pytest.mark.parametrize("implementation", ["numpy", "numba", "threads"])

# -- dense


def by_definition(z: float, activation: str) -> float:
    match activation:
        case "relu":
            return z if z > 0 else 0.0
        case "sigmoid":
            return 1 / (1 + math.exp(-z))
        case "tanh":
            return math.tanh(z)
        case "gelu":
            return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return z


@both
@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "softmax"])
def test_a_layer_is_the_activation_of_the_weighted_sum_and_bias(activation: str, implementation: str) -> None:
    x = np.array([[1.0, -2.0, 0.5], [0.0, 1.5, -1.0]], np.float32)
    weights = np.array([[0.5, -1.0], [0.25, 2.0], [-1.5, 0.125]], np.float32)
    bias = np.array([0.1, -0.2], np.float32)
    got = DENSE.run((x, weights, bias), {"activation": activation}, implementation=implementation)
    assert got.dtype == np.float32
    for i in range(2):
        for j in range(2):
            z = sum(float(x[i, k]) * float(weights[k, j]) for k in range(3)) + float(bias[j])
            assert got[i, j] == pytest.approx(by_definition(z, activation), rel=1e-5, abs=1e-7)


@both
def test_softmax_sums_to_one_and_overflows_for_no_input(implementation: str) -> None:
    x = np.array([[1000.0, 999.0, -1000.0], [-1e30, -1e30, -1e30]], np.float32)
    got = DENSE.run(
        (x, np.eye(3, dtype=np.float32), np.zeros(3, np.float32)),
        {"activation": "softmax"},
        implementation=implementation,
    )
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(got[0], special.softmax([1000.0, 999.0, -1000.0]), rtol=1e-5, atol=1e-30)


@both
def test_activations_saturate_without_overflow(implementation: str) -> None:
    x = np.array([[-1e4, 1e4, -120.0, 120.0]], np.float32)
    layer = (x, np.eye(4, dtype=np.float32), np.zeros(4, np.float32))
    for activation, expected in (("sigmoid", [0, 1, 0, 1]), ("tanh", [-1, 1, -1, 1]), ("gelu", [0, 1e4, 0, 120])):
        got = DENSE.run(layer, {"activation": activation}, implementation=implementation)
        np.testing.assert_allclose(got[0], expected, rtol=1e-6, atol=1e-30)


# -- k-means


@each
def test_a_step_sums_each_cluster_and_a_tie_goes_to_the_lower_centroid(implementation: str) -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 10.0], [0.5, 0.0]])
    centroids = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0], [99.0, 99.0]])
    got = KMEANS.run((points, centroids), implementation=implementation)
    assert got["labels"].tolist() == [0, 1, 2, 0]
    assert got["counts"].tolist() == [2, 1, 1, 0]
    assert got["sums"].tolist() == [[0.5, 0.0], [1.0, 0.0], [10.0, 10.0], [0.0, 0.0]]
    assert got["inertia"] == pytest.approx(0.25 + 2.0)


def test_steps_over_shards_lead_where_steps_over_all_points_lead() -> None:
    rng = np.random.default_rng(3)
    middles = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    points = np.concatenate([m + rng.normal(size=(300, 2)) for m in middles])
    rng.shuffle(points)
    whole = parts = points[[0, 1, 2]].copy()
    inertias = []
    for _ in range(25):
        whole, _ = next_centroids(whole, [KMEANS(points, whole)])
        parts, inertia = next_centroids(parts, [KMEANS(shard, parts) for shard in np.array_split(points, 7)])
        inertias.append(inertia)
    np.testing.assert_allclose(parts, whole, rtol=1e-9)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(inertias))
    order = np.argsort(parts @ [1.0, 2.0])
    np.testing.assert_allclose(parts[order], middles, atol=0.3)


def test_a_cluster_without_points_stays_where_it_is() -> None:
    far = np.array([[0.0], [50.0]])
    moved, _ = next_centroids(far, [KMEANS(np.array([[1.0], [3.0]]), far)])
    assert moved.tolist() == [[2.0], [50.0]]


@each
def test_clusters_far_from_the_origin_are_still_told_apart(implementation: str) -> None:
    """|x|² − 2x·c + |c|² has no digit left here."""
    offset = 1e9
    points = offset + np.array([[0.0], [1.0], [3.0], [4.0]])
    got = KMEANS.run((points, offset + np.array([[0.5], [3.5]])), implementation=implementation)
    assert got["labels"].tolist() == [0, 0, 1, 1]
    assert got["inertia"] == 1.0


# -- logistic regression


@each
def test_the_gradient_is_that_of_the_loss(implementation: str) -> None:
    rng = np.random.default_rng(4)
    features, labels, weights = rng.normal(size=(60, 3)), (rng.random(60) < 0.4).astype(float), rng.normal(size=3)

    def loss(at: np.ndarray) -> float:
        z = features @ at[:3] + at[3]
        return float(np.sum(np.log1p(np.exp(z)) - labels * z))

    got = LOGISTIC.run((features, labels, weights), {"bias": 0.3}, implementation=implementation)
    at = np.append(weights, 0.3)
    assert got["loss"] == pytest.approx(loss(at), rel=1e-12)
    assert got["count"] == 60
    numeric = optimize.approx_fprime(at, loss, 1e-6)
    np.testing.assert_allclose(np.append(got["gradient"], got["bias"]), numeric, rtol=1e-4, atol=1e-4)


@each
def test_sure_predictions_overflow_nothing(implementation: str) -> None:
    features, labels = np.array([[1e4], [-1e4], [1e4], [-1e4]]), np.array([1.0, 0.0, 0.0, 1.0])
    got = LOGISTIC.run((features, labels, np.ones(1)), implementation=implementation)
    assert got["loss"] == pytest.approx(2e4)
    assert got["gradient"].tolist() == [2e4]
    assert got["bias"] == 0.0


@pytest.mark.parametrize("bad", [-1.0, 1.0000001, 2.0])
def test_labels_that_are_no_probabilities_are_refused(bad: float) -> None:
    for implementation in LOGISTIC.implementations:
        with pytest.raises(BadArguments, match=r"'labels' must lie between 0 and 1: got .* at index 1"):
            LOGISTIC.run((np.ones((3, 2)), np.array([0.0, bad, 1.0]), np.ones(2)), implementation=implementation)


@pytest.mark.parametrize("name", ["learning.kmeans_step", "learning.logistic_gradient"])
def test_steps_on_several_threads_are_the_same_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "threads", lambda: 3)
    rng = np.random.default_rng(8)
    x, y, w = rng.normal(size=(30_001, 8)), rng.random(30_001), rng.normal(size=8)
    arguments = (x, rng.normal(size=(5, 8))) if name == "learning.kmeans_step" else (x, y, w, 0.5)
    kernel = registry.get(name)
    assert len(team.pieces(len(x), least=1 + 65536 // 8)) > 1
    one, other = (kernel.run(arguments, implementation=i) for i in ("numba", "threads"))
    assert_same(one, other, 1e-9)


def test_numbers_beyond_single_precision_are_refused_and_sums_beyond_it_are_infinite() -> None:
    """Without a warning, which would be a line in an agent's log for each task."""
    with pytest.raises(BadArguments, match=r"'x' must be .*: got inf at index \[0, 0\]"):
        DENSE(np.full((2, 2), 1e300), np.ones((2, 2)), np.zeros(2))
    for implementation in ("numpy", "numba"):
        for activation, expected in (("relu", np.inf), ("tanh", 1.0), ("sigmoid", 1.0), ("linear", np.inf)):
            layer = np.full((1, 2), 3e38, np.float32), np.ones((2, 1), np.float32), np.zeros(1, np.float32)
            got = DENSE.run(layer, {"activation": activation}, implementation=implementation)
            assert got[0, 0] == expected
