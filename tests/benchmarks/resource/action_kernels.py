"""The kernels that the agents of the rows of action load: `settings.runtime.kernel_modules` names this module."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from swarm_agents.compute.registry import kernel

__all__ = ["bench_spin", "bench_uneven"]

#: The slow agent takes so many times as long.
SLOWED = 4.0


@kernel("bench.spin")
def bench_spin(seconds: float) -> int:
    """Keeps a core busy for so many seconds; the agent's process."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return os.getpid()


@kernel("bench.uneven")
def bench_uneven(folder: str, seconds: float) -> int:
    """Takes so many seconds, and `SLOWED` times as long in the agent that asked first in this folder."""
    mark = Path(folder) / "slow"
    with contextlib.suppress(FileExistsError), mark.open("x") as file:
        file.write(str(os.getpid()))
    own = str(os.getpid())
    # Who made it may not have written it yet.
    while not (slow := mark.read_text()):
        time.sleep(1e-4)
    time.sleep(seconds * (SLOWED if slow == own else 1.0))
    return os.getpid()
