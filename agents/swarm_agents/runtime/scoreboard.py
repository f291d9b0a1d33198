"""What an agent tells its supervisor without saying a word: counters in memory that both have mapped.

The supervisor makes the page before it forks; the agent alone writes it, with plain stores of aligned 8-byte words, and
the supervisor reads it when somebody asks for metrics or status. So a task costs the agent a few additions, and an
agent that is killed takes no count with it: the next one goes on in the same page.

Invariants: one writer (the agent's main thread; the state aside, which the control thread may set too), words only grow
except state, running and since. Rejected: messages over the control channel (a killed agent loses its last ones, and
each costs a system call), and prometheus-client in the agent (its locks and labels cost several microseconds a task).
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterable
from enum import IntEnum

from swarm_agents.config import Priority

__all__ = ["BUCKETS", "RESULTS", "AgentState", "Scoreboard"]

#: How a task ended, as the label `result` of `swarm_tasks_total` says it.
RESULTS = ("ok", "error", "refused", "cancelled", "expired", "fenced", "handed_back", "overtaken")

#: Upper bounds of `swarm_task_seconds`, in seconds: a factor of about 3 from a microsecond to five minutes.
BUCKETS = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)

_BUCKETS_NS = tuple(round(bound * 1e9) for bound in BUCKETS)
_LANES = len(Priority)
_STATE, _RUNNING, _SINCE, _PROGRESS, _REJOINED = range(5)
_TASKS = 8
_HISTOGRAM = _TASKS + len(RESULTS) * _LANES
_PLACES = len(BUCKETS) + 1
_SUM = _HISTOGRAM + _PLACES * _LANES
_WORDS = _SUM + _LANES


class AgentState(IntEnum):
    """Where an agent is in its life; the names in lower case are what `/v1/status` says."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    DRAINED = 3
    STOPPED = 4
    #: It could begin at once, and another agent is at work in its place.
    WAITING = 5


class Scoreboard:
    """One page of counters, shared by a supervisor and the agent that it forks.

    Times are kept in nanoseconds of CLOCK_MONOTONIC, which is one clock for all processes of a machine.
    """

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, _WORDS * 8)).cast("Q")

    # -- written by the agent

    def set_state(self, state: AgentState) -> None:
        self._words[_STATE] = state

    def begin(self, now_ns: int) -> None:
        """A task is in hand."""
        words = self._words
        words[_SINCE] = now_ns
        words[_RUNNING] += 1

    def end(self, result: int, lane: int, elapsed_ns: int) -> None:
        """The task is no longer in hand; `result` is an index into `RESULTS`, `lane` a `Priority`'s."""
        words = self._words
        words[_TASKS + result * _LANES + lane] += 1
        words[_HISTOGRAM + lane * _PLACES + bisect_left(_BUCKETS_NS, elapsed_ns)] += 1
        words[_SUM + lane] += elapsed_ns
        words[_RUNNING] -= 1

    def made(self, calls: Iterable[tuple[int, int]], lane: int) -> None:
        """`end` of calls that were made as parts of a task, which itself is not counted: result and time of each."""
        counts: dict[int, int] = {}
        total = 0
        for result, elapsed_ns in calls:
            total += elapsed_ns
            at = _TASKS + result * _LANES + lane
            counts[at] = counts.get(at, 0) + 1
            at = _HISTOGRAM + lane * _PLACES + bisect_left(_BUCKETS_NS, elapsed_ns)
            counts[at] = counts.get(at, 0) + 1
        words = self._words
        for at, count in counts.items():
            words[at] += count
        words[_SUM + lane] += total

    def set_running(self, count: int) -> None:
        """For an agent that has many tasks in hand at once, such as a hub."""
        self._words[_RUNNING] = count

    def step(self) -> None:
        """The agent is alive and getting on, though it has ended no task."""
        self._words[_PROGRESS] += 1

    def rejoined(self) -> None:
        """The agent found itself fenced and joined again."""
        self._words[_REJOINED] += 1

    # -- by the supervisor, between two agents

    def restart(self) -> None:
        """Forgets what was true of the last agent only; the counters stay."""
        self._words[_STATE] = AgentState.STARTING
        self._words[_RUNNING] = 0
        self._words[_SINCE] = 0

    # -- read by the supervisor

    @property
    def state(self) -> AgentState:
        return AgentState(self._words[_STATE])

    @property
    def waits(self) -> bool:
        """Whether the agent could begin, and lets another one end first."""
        return self.state is AgentState.WAITING

    @property
    def running(self) -> int:
        return self._words[_RUNNING]

    @property
    def since_ns(self) -> int:
        """When the agent's present or last task was begun; 0 before the first."""
        return self._words[_SINCE]

    @property
    def progress(self) -> int:
        """Grows with every task that ends and every step."""
        return self._words[_PROGRESS] + sum(self._words[_TASKS:_HISTOGRAM])

    @property
    def rejoins(self) -> int:
        return self._words[_REJOINED]

    def tasks(self) -> dict[tuple[str, str], int]:
        """Tasks by (result, priority)."""
        return {
            (result, str(priority)): self._words[_TASKS + index * _LANES + priority.lane]
            for index, result in enumerate(RESULTS)
            for priority in Priority
        }

    def histogram(self, priority: Priority) -> tuple[list[int], float]:
        """Cumulative counts for `BUCKETS` and +Inf, and the sum in seconds, of one priority's tasks."""
        first = _HISTOGRAM + priority.lane * _PLACES
        total, counts = 0, []
        for count in self._words[first : first + _PLACES]:
            total += count
            counts.append(total)
        return counts, self._words[_SUM + priority.lane] * 1e-9
