"""Kernels that compute nothing: for tests, benchmarks and for trying a swarm out."""

from __future__ import annotations

import time
from typing import Annotated, Any

from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import kernel
from swarm_agents.compute.signature import Between

__all__ = ["echo", "fail", "noop", "sleep", "spin"]

Seconds = Annotated[float, Between(0, 86_400)]

#: How often a waiting kernel looks whether it was cancelled (seconds).
_LOOK = 0.005


@kernel("core.noop")
def noop() -> None:
    """Does nothing: what a task costs by itself."""


@kernel("core.echo")
def echo(value: Any = None) -> Any:
    """Returns its argument, whatever can travel."""
    return value


@kernel("core.sleep")
def sleep(seconds: Seconds, *, ctx: Context) -> float:
    """Sleeps without using a core; ends early with `TaskCancelled` when cancelled. Returns the seconds slept."""
    begun = time.monotonic()
    while (left := begun + seconds - time.monotonic()) > 0:
        ctx.check()
        time.sleep(min(left, _LOOK))
    return time.monotonic() - begun


@kernel("core.spin")
def spin(seconds: Seconds, *, ctx: Context) -> int:
    """Keeps a core busy without holding the GIL, so that heartbeats go on; returns how many hash rounds it did.

    Ends early with `TaskCancelled` when cancelled.
    """
    import hashlib

    # 64 KiB: some 30 µs a round, and hashlib lets go of the GIL from 2 KiB on.
    block, rounds = bytes(1 << 16), 0
    end = time.monotonic() + seconds
    look = 0.0
    while (now := time.monotonic()) < end:
        if now >= look:
            ctx.check()
            look = now + _LOOK
        hashlib.sha256(block).digest()
        rounds += 1
    return rounds


@kernel("core.fail")
def fail(message: str = "asked to fail") -> None:
    """Raises `RuntimeError(message)`."""
    raise RuntimeError(message)
