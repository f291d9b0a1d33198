"""Our side of the rows about one agent that dies or hangs with a task in hand.

Each function measures once and returns its figures; `python ours_kills.py NAME` prints them. A task is submitted by the
public client, it notes that it is begun, and 2 to 20 ms later its agent is killed (or stopped). What counts is the time
until the task notes that it is begun again. The next agent dies when all are there again and have ended a task each.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import quantile, summary
from marks import Marks
from scene import KERNEL, connection, crew, eventually, on_board, warm

__all__ = ["agent_replaced", "hang_to_resumed", "kill_to_resumed"]

#: A task that is never resumed is given up after this long (seconds).
_LIMIT = 20.0
#: What the task would take if nobody killed its agent (seconds).
_LONG = 10.0


def _deaths(agents: int, count: int, number: signal.Signals, seed: int) -> dict[str, float]:
    """Figures of the seconds from the signal until the task is begun again; and of what lies between."""
    rng, numbers = random.Random(seed), itertools.count(1)
    samples: list[float] = []
    detected: list[float] = []
    with crew(agents) as (here, _), tempfile.TemporaryDirectory() as folder:
        from swarm_agents.client import Swarm
        from swarm_agents.shm.board import Board

        marks, board = Marks(Path(folder) / "marks"), Board.attach(here.board)
        with Swarm.connect(connection([here], board=True)) as swarm:
            for _ in range(count):
                pids = _all_there(board, agents)
                warm(swarm, marks.path, pids, lambda: next(numbers))
                task = next(numbers)
                future = swarm.submit(KERNEL, str(marks.path), task, _LONG)
                victim = marks.wait(task, _LIMIT).pid
                time.sleep(rng.uniform(0.002, 0.02))
                began = time.monotonic()
                os.kill(victim, number)
                again = marks.wait(task, _LIMIT, but=victim)
                samples.append(again.at - began)
                record = max(board.stats().failovers, key=lambda record: record.number)
                detected.append(record.detected - began)
                if int(future.result(_LIMIT)[1]) != again.pid:
                    raise RuntimeError("the answer is not of the agent that resumed the task")
                eventually("the dead one is gone", lambda: victim not in on_board(board))  # noqa: B023
    return summary(samples) | {"detected_p50": quantile(detected, 0.5), "detected_p99": quantile(detected, 0.99)}


def _all_there(board: Any, agents: int) -> set[int]:
    def look() -> set[int]:
        pids = set(on_board(board))
        return pids if len(pids) == agents else set()

    return set(eventually("all agents on the board", look))


def kill_to_resumed(kills: int = 120, seed: int = 1) -> dict[str, float]:
    """SIGKILL of one of two agents of a node; its task goes on at the other."""
    return _deaths(2, kills, signal.SIGKILL, seed)


def hang_to_resumed(stops: int = 100, seed: int = 2) -> dict[str, float]:
    """SIGSTOP of one of two agents of a node; its task goes on at the other."""
    return _deaths(2, stops, signal.SIGSTOP, seed)


def agent_replaced(kills: int = 120, seed: int = 3) -> dict[str, float]:
    """SIGKILL of a node's only agent; its task goes on when the next one takes work, and not before."""
    return _deaths(1, kills, signal.SIGKILL, seed)


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
