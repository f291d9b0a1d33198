"""One dense layer of a neural network: activation(x·W + b), in single precision, as inference is done.

The product is BLAS's in every implementation. What differs is the rest: NumPy walks over the whole result once for the
bias and several times for the activation, with temporaries of its size, while the compiled one does it in one pass, in
place. For layers that are thin (few inputs a neuron) that is most of the time.

Sources: D. Hendrycks and K. Gimpel, Gaussian error linear units, 2016 (arXiv:1606.08415): x·Φ(x), the exact form and
not its tanh approximation; softmax with its largest input subtracted, which overflows for no input (P. Blanchard,
D. Higham and N. Higham, Accurately computing the log-sum-exp and softmax functions, IMA J. Numer. Anal. 41 (2021)).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute.registry import Call, call, kernel
from swarm_agents.compute.signature import Dims, Finite

__all__ = ["ACTIVATIONS", "dense"]

Floats = NDArray[np.float32]
Activation = Literal["linear", "relu", "sigmoid", "tanh", "gelu", "softmax"]
#: In the order of the numbers by which the compiled code knows them.
ACTIVATIONS: tuple[Activation, ...] = ("linear", "relu", "sigmoid", "tanh", "gelu", "softmax")


@kernel("learning.dense")
def dense(
    x: Annotated[Floats, Dims("n", "inputs"), Finite()],
    weights: Annotated[Floats, Dims("inputs", "outputs"), Finite()],
    bias: Annotated[Floats, Dims("outputs"), Finite()],
    *,
    activation: Activation = "relu",
) -> Floats:
    """A dense layer's answers, float32 [n, outputs]: activation(x·weights + bias); softmax is over each row's outputs.

    Double precision that comes in is rounded to single. Sums that pass float32's range give infinities, and
    those NaN in softmax and gelu.
    """
    return _activated(_product(x, weights) + bias, activation)


def _product(x: Floats, weights: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        product: Floats = x @ weights
        return product


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _activated(z: Floats, activation: Activation) -> Floats:
    from scipy.special import erfc, expit

    match activation:
        case "relu":
            return np.maximum(z, np.float32(0))
        case "sigmoid":
            return np.asarray(expit(z), np.float32)
        case "tanh":
            return np.tanh(z)
        case "gelu":
            return np.asarray(0.5 * z * erfc(-z.astype(np.float64) * np.sqrt(0.5)), np.float32)
        case "softmax":
            powers = np.exp(z - z.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    return z


@dense.memory
def _(x: Floats, weights: Floats, **_: Any) -> float:
    return 32.0 * len(x) * int(weights.shape[1])  # the answer, and what is on the way to it, partly in double precision


@dense.samples
def _(rng: np.random.Generator) -> Call:
    n, inputs, outputs = (int(k) for k in rng.integers(1, 50, 3))
    return call(
        rng.normal(size=(n, inputs)).astype(np.float32),
        rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32),
        rng.normal(size=outputs).astype(np.float32),
        activation=ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))],
    )


@dense.work
def _(x: Floats, weights: Floats, **_: Any) -> float:
    return len(x) * weights.size


@dense.implementation("numba", tolerance=1e-5)
def _(x: Floats, weights: Floats, bias: Floats, activation: Activation = "relu") -> Floats:
    from swarm_agents.compute.kernels.learning import jit

    z = _product(x, weights)
    jit.activate(z, bias, ACTIVATIONS.index(activation))
    return z
