"""What is lost and what is doubled when agents are killed a thousand times under a stream of tasks.

Two agents, eight tasks in flight, each of 2 to 12 ms. One of the agents, either, is killed at a random instant, again
and again, as soon as its successor is there. Nothing is believed to the client: answers are counted as the board hands
them out, executions by the records that tasks write, and commits by the board's own counters.

- lost: tasks without an answer, with an error for an answer, or with an answer that no execution gave.
- doubled: answers beyond a task's first, and commits that counted beyond the number of tasks.

That a task is begun twice is no fault: that is what a failover is. How many were is among the figures.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from marks import Marks
from scene import KERNEL, crew, eventually, on_board

__all__ = ["kills"]

_IN_FLIGHT = 8
_LIMIT = 60.0


def kills(count: int = 1000, seed: int = 4) -> dict[str, float]:
    """`lost` and `doubled` over so many kills, and how much work went on meanwhile."""
    rng, numbers = random.Random(seed), itertools.count(1)
    answers: Counter[int] = Counter()
    errors: Counter[int] = Counter()
    executions: set[tuple[int, int]] = set()
    claimed: dict[int, tuple[int, int]] = {}
    with crew(2) as (here, _), tempfile.TemporaryDirectory() as folder:
        from swarm_agents.shm.board import Board

        marks, board = Marks(Path(folder) / "marks"), Board.attach(here.board)
        member = board.join("lossless", "client")
        port, underway, began = board.port(member), {}, time.monotonic()

        def take() -> None:
            for answer in port.poll():
                task = underway.pop(answer.ticket.task_id, 0) or _task_of(answer)
                answers[task] += 1
                if answer.error is not None:
                    errors[task] += 1
                else:
                    claimed[task] = int(answer.value[0]), int(answer.value[1])

        def go_on(seconds: float, most: int = _IN_FLIGHT) -> None:
            """Keeps so many tasks in flight, for so long."""
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                while len(underway) < most:
                    task, length = next(numbers), rng.uniform(0.002, 0.012)
                    ticket = port.submit(KERNEL, (str(marks.path), task, length, length), {}, timeout=_LIMIT)
                    underway[ticket.task_id] = task
                port.wait(min(left, 0.05))
                take()

        killed = 0
        for _ in range(count):
            pids: dict[int, str] = {}
            until = time.monotonic() + _LIMIT
            while len(pids) < 2:
                if time.monotonic() > until:
                    raise TimeoutError(f"after {killed} kills no two agents were there for {_LIMIT:g} s")
                go_on(0.005)
                pids = on_board(board)
            go_on(rng.uniform(0.0, 0.05))
            victim = rng.choice(sorted(pids))
            os.kill(victim, signal.SIGKILL)
            killed += 1
            eventually("the dead one is gone", lambda: victim not in on_board(board))  # noqa: B023
        seconds, until = time.monotonic() - began, time.monotonic() + _LIMIT
        while underway and time.monotonic() < until:
            go_on(0.05, most=0)
        go_on(0.5, most=0)  # would there be more than one answer of any?
        executions.update((mark.task, mark.pid) for mark in marks.all())
        totals = board.stats().totals
        board.leave(member)
    submitted = next(numbers) - 1
    unanswered = submitted - len(answers)
    invented = sum((task, pid) not in executions for task, (_, pid) in claimed.items())
    again = sum(count - 1 for count in Counter(task for task, _ in executions).values())
    return {
        "lost": float(unanswered + sum(errors.values()) + invented),
        "doubled": float(sum(count - 1 for count in answers.values()) + max(totals["committed"] - submitted, 0)),
        "kills": float(killed),
        "tasks": float(submitted),
        "begun_again": float(again),
        "late_commits_refused": float(totals["fenced"]),
        "tasks_per_s": submitted / seconds,
    }


def _task_of(answer: object) -> int:
    """The task of an answer that nobody waited for."""
    value = getattr(answer, "value", None)
    return int(value[0]) if isinstance(value, list) else -1


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*map(int, sys.argv[2:])))
