"""The kernels that the agents of this benchmark load: `settings.runtime.kernel_modules` names this module."""

from __future__ import annotations

import os
import time

import loads
import numpy as np
from numba import njit

from swarm_agents.compute.registry import kernel

__all__ = ["began", "millisecond", "spin", "spun"]


@njit("int64(int64)", cache=True)
def spun(turns):  # type: ignore[no-untyped-def]
    """A chain of multiplications, each waiting for the one before: so much work, whatever the clock says meanwhile."""
    x = np.uint64(88172645463325252)
    for _ in range(turns):
        x = x * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return np.int64(x >> np.uint64(33))


@kernel("bench.spin")
def spin(turns: int) -> None:
    """Computes for about `turns` times two nanoseconds."""
    spun(turns)


@kernel("bench.spin_time")
def spin_time(turns: int) -> float:
    """Seconds of one such computation on this core: the median of many."""
    times = []
    for _ in range(300):
        begun = time.perf_counter_ns()
        spun(turns)
        times.append(time.perf_counter_ns() - begun)
    return sorted(times)[len(times) // 2] * 1e-9


@kernel("bench.began")
def began() -> list[float]:
    """When this was begun (monotonic seconds), and the agent's pid."""
    return [time.monotonic(), float(os.getpid())]


@kernel("bench.millisecond")
def millisecond(x: float) -> float:
    """A millisecond of NumPy."""
    return loads.millisecond(x)
