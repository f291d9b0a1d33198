"""The stateful kernel of the checked workload, and the agents' side of the ledger. Imported by the agents.

`chaos.walk` goes through a linear congruential sequence step by step and keeps where it is by checkpoints. After n
steps the sequence is where a closed formula says (`after`), so a client knows the answer without taking the steps, and
a walk that resumed from a checkpoint of another task, or a torn one, ends elsewhere.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from swarm_agents.compute.context import Context
from swarm_agents.compute.registry import kernel
from swarm_agents.compute.signature import Between
from swarm_agents.shm.worker import Worker
from swarm_deploy.chaos import ledger

__all__ = ["after", "walk"]

# Knuth's MMIX constants, modulo 2^62 so that every value is a number that travels.
_A, _C, _M = 6364136223846793005, 1442695040888963407, 1 << 62
#: Steps between two looks, and the pause then: a walk takes time without taking a core.
_STRIDE, _PAUSE = 500, 0.01


def after(start: int, steps: int) -> int:
    """Where the sequence is after so many steps: x -> A x + C composed with itself, by repeated squaring."""
    a, c, total_a, total_c = _A, _C, 1, 0
    while steps:
        if steps & 1:
            total_a, total_c = total_a * a % _M, (total_c * a + c) % _M
        a, c = a * a % _M, (c * a + c) % _M
        steps >>= 1
    return (total_a * start + total_c) % _M


@kernel("chaos.walk")
def walk(
    start: Annotated[int, Between(0, _M - 1)], steps: Annotated[int, Between(1, 10**7)], *, ctx: Context
) -> dict[str, Any]:
    """Takes `steps` steps from `start`; returns where that led (`at`), and the step that it `resumed` from."""
    at, done, resumed = start, 0, 0
    match ctx.resume():
        case {"at": int() as at, "done": int() as done}:
            resumed = done
    while done < steps:
        for _ in range(min(_STRIDE, steps - done)):
            at = (_A * at + _C) % _M
            done += 1
        if ctx.due(0.05):
            ctx.checkpoint({"at": at, "done": done})
        else:
            ctx.check()
        time.sleep(_PAUSE)
    return {"at": at, "resumed": resumed}


ledger.install(Worker)
