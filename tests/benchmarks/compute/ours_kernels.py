"""Our side of the rows about single kernels, called as an agent calls them, in a process of its own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transport"))

import loads
from pairs import cores, pin
from pods import use_cache

__all__ = ["asian", "chain", "triad"]


def triad(repeats: int = 8) -> dict[str, float]:
    """Bytes a second of the triad into an array that is there, as STREAM has it, one thread a core."""
    use_cache()
    import numpy as np

    from swarm_agents.compute import team
    from swarm_agents.compute.kernels.vector.streams import triad_into

    n = loads.stream_length()
    out, b, c = np.zeros(n), np.full(n, 2.0), np.full(n, 1.0)
    out[...] = 0.0
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        triad_into(out, b, c, 3.0)
        best = min(best, time.perf_counter() - began)
        assert out[0] == out[-1] == 5.0
    return {
        "rate": 24.0 * n / best, "threads": float(team.threads()), "array_bytes": 8.0 * n,
        "last_level_cache_bytes": float(loads.last_level_cache()),
    }  # fmt: skip


def chain(repeats: int = 8) -> dict[str, float]:
    """Seconds of the fused chain through its kernel, its answer's memory included: on one thread, and on one a core."""
    use_cache()
    import numpy as np

    from swarm_agents.compute import registry

    x, y = np.random.default_rng(1).normal(size=(2, loads.CHAIN))
    kernel = registry.get("vector.chain")
    options = {"a": 1.5, "b": -0.5, "c": 0.25}
    figures = {}
    for name, implementation in (("serial", "numba"), ("threads", "numba_threads")):
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            value = kernel.run((x, y), options, implementation=implementation)
            times.append(time.perf_counter() - began)
            del value
        figures[name] = min(times)
    return figures


def asian(repeats: int = 5) -> dict[str, float]:
    """Seconds of the Asian call on one core, through its kernel; its price."""
    pin(cores()[1])
    os.environ["NUMBA_NUM_THREADS"] = "1"
    use_cache()
    from swarm_agents.compute import registry

    kernel = registry.get("finance.monte_carlo_path")
    options = {"paths": loads.PATHS, "steps": loads.STEPS, "seed": 1}
    times, price = [], 0.0
    kernel.run(loads.MARKET, options, implementation="numba")
    for _ in range(repeats):
        began = time.perf_counter()
        price = kernel.run(loads.MARKET, options, implementation="numba")["price"]
        times.append(time.perf_counter() - began)
    return {"seconds": min(times), "price": price}


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
