"""The peers of `make bench-compute`: C compiled by gcc, NumPy alone, Ray, joblib's loky."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "transport"))

import loads
from pairs import cores, pin

__all__ = ["c_asian", "c_triad", "loky_map", "numpy_asian", "numpy_chain", "ray_actor_start"]

HERE = Path(__file__).resolve().parent


def _run(source: str, flags: list[str], *words: object, environ: dict[str, str] | None = None) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program"
        subprocess.run(["gcc", "-O3", "-march=native", "-o", str(program), str(HERE / source), *flags], check=True)
        done = subprocess.run(
            [str(program), *map(str, words)],
            check=True, capture_output=True, text=True, env=os.environ | (environ or {}),
        )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def c_triad(repeats: int = 8) -> float:
    """Bytes a second of the C triad, one thread a core."""
    threads = len(os.sched_getaffinity(0))
    places = {"OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "true"}
    (rate,) = _run("triad.c", ["-fopenmp"], loads.stream_length(), repeats, environ=places)
    return rate


def c_asian(repeats: int = 5) -> dict[str, float]:
    """Seconds of the Asian call in C on one core; its price, so that ours can be held against it."""
    pin(cores()[1])
    flags = ["-ffast-math", "-lm"]
    if platform.machine() == "x86_64":
        flags.append("-mprefer-vector-width=512")  # as ours is; without AVX-512 it changes nothing
    seconds, price, stderr = _run("asian.c", flags, loads.PATHS, loads.STEPS, repeats)
    return {"seconds": seconds, "price": price, "stderr": stderr}


def numpy_asian(repeats: int = 2) -> dict[str, float]:
    """Seconds of the Asian call in NumPy on one core: the kernel's reference, 64 blocks of paths at once."""
    pin(cores()[1])
    from swarm_agents.compute import registry

    kernel = registry.get("finance.monte_carlo_path")
    options = {"paths": loads.PATHS, "steps": loads.STEPS, "seed": 1}
    times, price = [], 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        price = kernel.run(loads.MARKET, options, implementation="numpy")["price"]
        times.append(time.perf_counter() - began)
    return {"seconds": min(times), "price": price}


def numpy_chain(repeats: int = 8) -> float:
    """Seconds of |(a·x + y)·b − c| as one writes it in NumPy."""
    import numpy as np

    x, y = np.random.default_rng(1).normal(size=(2, loads.CHAIN))
    a, b, c = 1.5, -0.5, 0.25
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        value = np.abs((a * x + y) * b - c)
        times.append(time.perf_counter() - began)
        del value
    return min(times)


def ray_actor_start(count: int = 8) -> float:
    """Seconds from asking for an actor to its first answer, in a cluster that is up: the median."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, _temp_dir=folder
        )

        @ray.remote
        class Actor:
            def noop(self) -> None:
                return None

        times = []
        for _ in range(count):
            began = time.monotonic()
            actor = Actor.remote()
            ray.get(actor.noop.remote())
            times.append(time.monotonic() - began)
            ray.kill(actor)
        ray.shutdown()
    return sorted(times)[len(times) // 2]


def loky_map(calls: int = loads.CALLS) -> float:
    """Seconds of `Parallel(n_jobs=2)` over the calls, its workers warm; batches as joblib finds best."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=2, backend="loky") as pool:
        pool(delayed(loads.millisecond)(float(i)) for i in range(200))
        began = time.perf_counter()
        pool(delayed(loads.millisecond)(float(i)) for i in range(calls))
        return time.perf_counter() - began


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
