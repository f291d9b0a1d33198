"""From which size on a GPU pays: `python -m swarm_agents.compute.crossover` measures it, transfers included.

For each kernel that has a CuPy implementation and each of some sizes, the median time of a call on the device and of
the fastest implementation on this process's cores, after a call of each that does not count (it compiles). The size
where the device is faster from then on is the crossover. Where there is no device it says why, and measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from swarm_agents.compute import gpu, registry
from swarm_agents.compute.registry import Call, call

__all__ = ["Measured", "crossover", "main", "measure"]


class Measured(NamedTuple):
    """Seconds of one call of a size."""

    kernel: str
    size: int
    device: float
    cpu: float
    #: Which implementation was the fastest on the CPU.
    by: str


def _options(n: int) -> Call:
    rng = np.random.default_rng(1)
    ranges = ((50, 150), (50, 150), (0.1, 3), (0.0, 0.1), (0.1, 0.6))
    return call(*(rng.uniform(low, high, n) for low, high in ranges))


def _paths(n: int) -> Call:
    return call(100.0, 100.0, 1.0, 0.03, 0.2, paths=n, steps=64)


def _bodies(n: int) -> Call:
    rng = np.random.default_rng(1)
    return call(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), np.ones(n), dt=1e-3, softening=0.1)


def _layer(n: int) -> Call:
    rng = np.random.default_rng(1)
    shapes = ((n, 512), (512, 512), (512,))
    return call(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), activation="gelu")


#: A call of each size, and the sizes: options, paths, bodies, rows.
_CASES: dict[str, tuple[Callable[[int], Call], tuple[int, ...]]] = {
    "finance.black_scholes": (_options, (1_000, 10_000, 100_000, 1_000_000, 10_000_000)),
    "finance.monte_carlo_path": (_paths, (1_000, 10_000, 100_000, 1_000_000)),
    "science.nbody": (_bodies, (100, 300, 1_000, 3_000, 10_000)),
    "learning.dense": (_layer, (10, 100, 1_000, 10_000, 100_000)),
}


def measure(largest: int = 1 << 62, repeats: int = 5) -> Iterator[Measured]:
    """Times of each kernel at each size up to the largest one."""
    for name, (make, sizes) in _CASES.items():
        kernel = registry.get(name)
        for size in (s for s in sizes if s <= largest):
            bound = make(size)
            seconds = {
                each: _median(partial(kernel.run, *bound, implementation=each), repeats)
                for each in kernel.implementations
                if each != registry.REFERENCE
            }
            device = seconds.pop("cupy")
            by = min(seconds, key=lambda each: seconds[each])
            yield Measured(name, size, device, seconds[by], by)


def crossover(measured: Iterable[Measured]) -> dict[str, int | None]:
    """The size of each kernel from which on the device was faster at all sizes; None where it was not at the last."""
    found: dict[str, int | None] = {}
    for each in sorted(measured):
        if each.device >= each.cpu:
            found[each.kernel] = None
        elif found.setdefault(each.kernel, each.size) is None:
            found[each.kernel] = each.size
    return found


def _median(run: Callable[[], object], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> int:
    """Prints the table and the crossovers; 1 where there is no device."""
    found = gpu.device()
    if found is None:
        print(f"no GPU: {gpu.why_not()}", file=sys.stderr)
        return 1
    rows = []
    print(f"{found.name}\n{'kernel':28}{'size':>12}{'device':>12}{'CPU':>12}  by")
    for row in measure():
        rows.append(row)
        print(f"{row.kernel:28}{row.size:12d}{row.device * 1e3:9.3f} ms{row.cpu * 1e3:9.3f} ms  {row.by}", flush=True)
    for kernel, size in crossover(rows).items():
        print(f"{kernel}: " + (f"the device is faster from {size} on" if size else "the CPU is faster"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
