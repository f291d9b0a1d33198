"""`priority_p99`: does a critical task pass everything else?

A client asks for one critical no-op after the other and takes the p99 of the round trip: first on an idle node, then
while a second client keeps the other three lanes full of no-ops. There is one agent, on the second core.

The flood is submitted by compiled code, so that one core is enough to keep up with the agent. With a third core it has
that one to itself. With two it shares the first with the client that measures, at the kernel's lowest policy
(SCHED_IDLE), and fills the lanes up in the pauses that the client makes between bursts of round trips, the same on the
idle node. The board is large, so that the backlog lasts through a burst, in which the agent passes it now and then a
no-op further: `backlog` is the least share of a client's places in a lane that was seen taken at a burst's end.
Rejected: a pause after every round trip, which measures how cold the caches are that two clients share.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pairs import cores, partner, pin
from pods import node, use_cache

from swarm_agents.config import Transport

__all__ = ["priority"]

_KERNEL = "core.noop"
_LANES = 3
_SLOTS = 1 << 16
_BURST, _PAUSE = 500, 0.01
#: How long the flood rests when everything is full.
_REST = 200e-6


def _flood(directory: Path, core: int) -> None:
    """Keeps all lanes but the critical one full; ends when it is killed."""
    pin(core)
    if core == cores()[0]:
        with suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    use_cache()
    from numba import njit

    from swarm_agents import codec
    from swarm_agents.shm import frame, hot
    from swarm_agents.shm.board import Board
    from swarm_agents.shm.names import kernel_id

    send, take, most = hot.send, hot.take, hot.TAKE_MOST

    @njit
    def fill(hand: int, kernel: int, number: int, payload: int, length: int, records: int) -> int:
        """Takes what has been answered and submits until every lane says that it is full; the next task's number."""
        for _ in range(1024):
            before = number
            for lane in range(1, _LANES + 1):
                while send(hand, lane, kernel, 1, number, 0, 0, payload, length, -1) >= 0:
                    number += 1
            if take(hand, most, records) <= 0 and number == before:
                break
        return number

    board = Board.attach(directory)
    member = board.join("flood", "client")
    port = board.port(member)
    name = _KERNEL.encode()
    text = frame.lay_out(name, codec.encode(((), {}))[0], ()).as_bytes()
    number = 1
    while True:
        number = fill(port._hand_at, kernel_id(_KERNEL), number, frame.address_of(text), len(text), port._records_at)
        board.heartbeat(member)
        time.sleep(_REST)


def _burst(swarm: Any) -> list[float]:
    """Round trips of critical tasks, one after the other."""
    times = []
    for _ in range(_BURST):
        began = time.perf_counter()
        swarm.submit(_KERNEL, priority="critical").result()
        times.append(time.perf_counter() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def priority(bursts: int = 100) -> dict[str, float]:
    """p99 in seconds: `full` and `idle`; the medians too; and the `backlog`."""
    allowed = sorted(os.sched_getaffinity(0))
    with node(Transport(task_slots=_SLOTS)) as here:
        here.start("compute").ready()
        pin(cores()[0])
        from swarm_agents.client import Swarm
        from swarm_agents.shm.board import Board

        board = Board.attach(here.board)
        places = _SLOTS // 4 // 2  # one client may have half of a lane

        def filled() -> float:
            return min(list(board.depths().values())[1:]) / places

        with Swarm.connect(here.url) as swarm:
            idle, full, backlog = [], [], 1.0
            for _ in range(bursts):
                idle += _burst(swarm)
                time.sleep(_PAUSE)
            with partner(_flood, here.board, allowed[2] if len(allowed) > 2 else allowed[0]) as flood:
                until = time.monotonic() + 60
                while filled() < 0.95:
                    if time.monotonic() > until:
                        raise TimeoutError(f"the lanes did not fill: {board.depths()}")
                    time.sleep(_PAUSE)
                for _ in range(bursts):
                    full += _burst(swarm)
                    backlog = min(backlog, filled())
                    time.sleep(_PAUSE)
                flood.kill()
            return {
                "full": _p99(full),
                "idle": _p99(idle),
                "full_median": statistics.median(full),
                "idle_median": statistics.median(idle),
                "backlog": backlog,
            }


if __name__ == "__main__":
    print(priority(*map(int, sys.argv[1:])))
