"""The kernels that the agents of these benchmarks load: `settings.runtime.kernel_modules` names this module."""

from __future__ import annotations

from marks import work

from swarm_agents.compute.registry import kernel

__all__ = ["bench_work"]


@kernel("bench.work")
def bench_work(path: str, task: int, seconds: float, again: float = 0.0) -> list[float]:
    """`marks.work` as a task of the swarm."""
    return work(path, task, seconds, again)
