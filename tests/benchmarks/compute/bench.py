"""`make bench-compute`: kernels against C, NumPy and BLAS, agents against Ray and joblib, on the same cores.

The C programs are compiled by `gcc -O3 -march=native`, the triad with `-fopenmp`, the Monte Carlo with `-ffast-math`
and the widest vectors; ours is allowed to fuse products and sums, and nothing else of that. Where nothing else is said,
a figure of a kernel is the best of some repeats, as STREAM has it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from command import main  # noqa: E402
from harness import Better, Measure, Row  # noqa: E402

OUTPUT = HERE.parents[2] / "build" / "bench" / "compute.json"
DISTRIBUTIONS = ("numpy", "numba", "ray", "joblib")


def _ours(function: str, key: str = "", **options: object) -> Measure:
    file = "ours_kernels.py" if function in ("triad", "chain", "asian") else "ours_agents.py"
    return Measure(HERE / file, function, key, **options)  # type: ignore[arg-type]


def _peer(function: str, key: str = "", **options: object) -> Measure:
    return Measure(HERE / "peers.py", function, key, **options)  # type: ignore[arg-type]


ROWS: tuple[Row, ...] = (
    Row(
        "triad_vs_c_stream",
        "bytes a second of b + s·c, arrays of four last-level caches, against a STREAM triad in C on as many threads",
        "/s",
        Better.MORE,
        _ours("triad", "rate", limit=240),
        _peer("c_triad", limit=240),
        goal=0.95,
        also=("threads", "array_bytes", "last_level_cache_bytes"),
    ),
    Row(
        "fused_vs_numpy",
        "|(a·x + y)·b − c| of 10⁷ doubles, five operations in one pass on one thread, against NumPy",
        "s",
        Better.LESS,
        _ours("chain", "serial", limit=120),
        _peer("numpy_chain", limit=120),
        goal=2,
        also=("threads",),
    ),
    Row(
        "gemm_vs_openblas",
        "a product of 1500 x 1500 matrices through an agent of one core, against the direct call on that core",
        "s",
        Better.LESS,
        _ours("gemm", "agent", limit=300),
        _ours("gemm", "direct", limit=300),
        goal=0.98,
    ),
    Row(
        "montecarlo_vs_numpy",
        "20,000 antithetic paths of an Asian call over 252 days with a control, one core, against NumPy",
        "s",
        Better.LESS,
        _ours("asian", "seconds", limit=120),
        _peer("numpy_asian", "seconds", limit=240),
        goal=5,
        also=("price",),
    ),
    Row(
        "montecarlo_vs_c",
        "the same against the same algorithm in C with -ffast-math",
        "s",
        Better.LESS,
        _ours("asian", "seconds", limit=120),
        _peer("c_asian", "seconds", limit=120),
        goal=0.9,
        also=("price",),
    ),
    Row(
        "agent_ready_p99_s",
        "p99 from an agent's SIGKILL, so from before the supervisor's fork, to the first statement of its first task",
        "s",
        Better.SHARE,
        _ours("start", "p99", limit=300),
        goal=0.05,
        also=("p50",),
    ),
    Row(
        "agent_start_vs_ray_actor",
        "the median of the same against a Ray actor, from asking for it to its first answer",
        "s",
        Better.LESS,
        _ours("start", "p50", limit=300),
        _peer("ray_actor_start", limit=180),
        goal=10,
    ),
    Row(
        "efficiency_100us",
        "share of two cores' time that goes into calls of 100 µs by Swarm.map, the client being on the same two cores",
        "of two cores",
        Better.MORE,
        _ours("efficiency", "share", limit=300),
        goal=0.9,
        also=("cpu", "task_us", "alone"),
    ),
    Row(
        "sklearn_style_map_vs_joblib_loky",
        "10,000 calls of a millisecond of NumPy by Swarm.map on two agents, against joblib with two loky workers",
        "s",
        Better.LESS,
        _ours("map_milliseconds", limit=300),
        _peer("loky_map", limit=180),
        goal=1,
    ),
)

if __name__ == "__main__":
    sys.exit(main(ROWS, OUTPUT, distributions=DISTRIBUTIONS))
