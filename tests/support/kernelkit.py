"""What the tests over all kernels share: random calls, and how answers are compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from swarm_agents.compute import registry

__all__ = ["SAMPLED", "array_arguments", "assert_same", "draw"]

#: Kernels that make random calls of themselves.
SAMPLED = [name for name in registry.names() if registry.get(name).sample is not None]


def draw(name: str, seed: int) -> registry.Call:
    """A random call of a kernel."""
    sample = registry.get(name).sample
    assert sample is not None
    return sample(np.random.default_rng(seed))


def array_arguments(name: str, call: registry.Call) -> dict[str, np.ndarray]:
    """The arrays among a call's arguments, by their parameters' names."""
    parameters = registry.get(name).signature.parameters
    named = {p.name: value for p, value in zip(parameters, call.args, strict=False)} | call.kwargs
    return {key: value for key, value in named.items() if isinstance(value, np.ndarray)}


def assert_same(expected: Any, got: Any, tolerance: float, where: str = "value", scale: float = 0.0) -> None:
    """Equal to the last bit, or with a tolerance: relative to each number, and to the largest one of its array, or of
    the numbers of its dictionary: a price that is 0 may come out as a rounding error of what it was computed from."""
    if isinstance(expected, dict):
        assert expected.keys() == got.keys(), where
        scale = max((abs(v) for v in expected.values() if isinstance(v, float) and np.isfinite(v)), default=0.0)
        for key in expected:
            assert_same(expected[key], got[key], tolerance, f"{where}[{key!r}]", scale)
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(got), where
        for i, (one, other) in enumerate(zip(expected, got, strict=True)):
            assert_same(one, other, tolerance, f"{where}[{i}]")
    elif isinstance(expected, np.ndarray):
        assert isinstance(got, np.ndarray), where
        assert (expected.dtype, expected.shape) == (got.dtype, got.shape), where
        if tolerance and expected.dtype.kind in "fc":
            finite = np.abs(expected[np.isfinite(expected)])
            scale = float(finite.max(initial=0.0))
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale, err_msg=where)
        else:
            assert expected.tobytes() == got.tobytes(), where
    elif tolerance and isinstance(expected, float):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale, err_msg=where)
    else:
        assert type(expected) is type(got), where
        assert expected == got or (expected != expected and got != got), where
