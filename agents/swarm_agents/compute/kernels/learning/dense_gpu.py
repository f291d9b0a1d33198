"""Dense layers on a GPU: the weights stay there, rows travel in chunks while others are computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm_agents.compute import gpu
from swarm_agents.compute.kernels.learning.dense import Activation, dense

Floats = NDArray[np.float32]


@dense.implementation("cupy", warm=lambda: None, tolerance=1e-4, default=False, device=True)
def _(x: Floats, weights: Floats, bias: Floats, activation: Activation = "relu") -> Floats:
    def on_device(device: gpu.Device) -> Floats:
        matrix, shift = device.put(weights), device.put(bias)
        out = np.empty((len(x), weights.shape[1]), np.float32)
        device.over(
            [x],
            [out],
            lambda rows: [_activated(device, rows @ matrix + shift, activation)],
            per_row=4 * (x.shape[1] + 10 * weights.shape[1]),
        )
        return out

    def on_cpu() -> Floats:
        result: Floats = dense.implementations["numba"].function(x, weights, bias, activation)
        return result

    return gpu.offload(on_device, on_cpu)


def _activated(device: gpu.Device, z: Any, activation: Activation) -> Any:
    xp, special = device.xp, device.special
    match activation:
        case "relu":
            return xp.maximum(z, np.float32(0))
        case "sigmoid":
            return special.expit(z)
        case "tanh":
            return xp.tanh(z)
        case "gelu":
            return (0.5 * z * special.erfc(z.astype(np.float64) * -math.sqrt(0.5))).astype(np.float32)
        case "softmax":
            powers = xp.exp(z - z.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
    return z
