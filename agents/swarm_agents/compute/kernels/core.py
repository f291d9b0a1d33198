"""Kernels that compute nothing: for tests, benchmarks and for trying a swarm out."""

from __future__ import annotations

import time
from typing import Annotated, Any

from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import kernel
from swarm_agents.compute.signature import Between

__all__ = ["echo", "fail", "noop", "simulate", "sleep", "spin"]

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


@kernel("core.simulate")
def simulate(
    seconds: Seconds,
    *,
    kept: Annotated[int, Between(0, 1 << 30)] = 1 << 20,
    every: Seconds = 0.1,
    ctx: Context,
) -> dict[str, Any]:
    """Keeps a core busy as a long simulation does, and goes on from its last checkpoint when it is begun again.

    It has a state of `kept` bytes, which it checkpoints `every` so many seconds (0: never).
    Returns `rounds` of work and `seconds` over all attempts, the `checkpoints` of the last one and the seconds they
    took (`keeping`), and in how many `attempts` it was done.
    """
    import hashlib

    import numpy as np

    block, state = bytes(1 << 16), np.zeros(max(kept // 8, 1))
    rounds, before, count, attempts = 0, 0.0, 0, 1
    match ctx.resume():
        case {"rounds": int() as rounds, "seconds": float() as before, "attempts": int() as past, "state": found}:
            attempts = past + 1
            state[: len(found)] = found[: len(state)]
    begun = time.monotonic()
    while (spent := before + time.monotonic() - begun) < seconds:
        hashlib.sha256(block).digest()
        state[rounds % len(state)] += 1.0
        rounds += 1
        if every and ctx.due(every):
            ctx.checkpoint({"rounds": rounds, "seconds": spent, "attempts": attempts, "state": state})
            count += 1
        elif not rounds % 64:
            ctx.check()
    return {"rounds": rounds, "seconds": spent, "checkpoints": count, "keeping": ctx.spent, "attempts": attempts}


@kernel("core.fail")
def fail(message: str = "asked to fail") -> None:
    """Raises `RuntimeError(message)`."""
    raise RuntimeError(message)
