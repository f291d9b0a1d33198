"""Speculative execution: an idle agent runs a straggler of its node a second time, and whoever is first answers it.

An agent that has nothing to do looks every `_LOOK` seconds at what the others have in hand: siblings that a neighbour
or a throttled CPU has slowed down, and the hub, whose tasks run on other nodes. What has taken far longer than the
tasks of its kernel that this agent has ended itself is a straggler (`runtime.straggler`, with the settings' bounds),
and is run here from a copy of its arguments and, if it keeps checkpoints, from where it was. The commit decides
(`shm.second`). The slow one learns of it at its next `ctx.check()` or checkpoint, or by the refusal of its late answer;
a hub cancels the task on the other node.

A second run must not stand in the way of fresh work. It gives way at its kernel's next `ctx.check()` when tasks wait
that nobody takes; of a kernel that can't be interrupted one is begun only while yet another agent is idle.

Invariants: a task that may be begun only once is never run twice; a second run keeps no checkpoints, and its errors are
not the submitter's to hear: the first run goes on and has its own. Time that a task waits for its next attempt is no
delay.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client.metrics_core import Metric

from swarm_agents import chunks
from swarm_agents.compute import registry
from swarm_agents.config import Role
from swarm_agents.errors import DeadlineExceeded, Fenced, TaskCancelled
from swarm_agents.retry import KEYWORD, LONGEST_PAUSE, Retry, pause
from swarm_agents.runtime.exported import COMPUTE, SECOND_RUNS
from swarm_agents.runtime.straggler import Durations, Running, stragglers
from swarm_agents.shm.names import kernel_id
from swarm_agents.shm.places import is_fenced
from swarm_agents.shm.second import InHand, Second, begin_second, claimed, put_down, running_of, yield_second

if TYPE_CHECKING:
    from swarm_agents.compute.context import Context
    from swarm_agents.runtime.context import AgentContext
    from swarm_agents.shm.board import Member, Worker

__all__ = ["Reading", "Speculation"]

#: Seconds between two looks at what others have in hand.
_LOOK = 0.05
#: Kernels whose durations are remembered.
_MOST_KERNELS = 256
#: A second run gives way when tasks have waited for so long (seconds).
_GIVE_WAY = 0.005
_RESULTS = ("won", "lost", "failed", "yielded", "refused")
#: Seconds between two events of the same kind: what happens more often is counted only.
_TELL = 1.0


class Reading:
    """A task's checkpoints for its second run: where it was may be read, and nothing is kept."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def read(self, usable: Callable[[Any], bool] = lambda _: True) -> Any:
        kept = self._keeper.read(usable)
        if kept is not None:
            self._keeper.term = max(self._keeper.term, kept.term)  # what is to be forgotten when the task is answered
        return kept

    def write(self, value: Any, *, version: int = 0) -> bool:
        return False

    def done(self) -> None:
        self._keeper.done()

    def release(self) -> None:
        self._keeper.release()


class _Stop:
    """Whether a second run should end: the task is answered or cancelled, or the agent has something better to do."""

    def __init__(self, context: AgentContext, second: Second) -> None:
        self._context, self._second = context, second
        self._looked = self._waiting_since = 0.0
        self.gave_way = False

    def __call__(self) -> bool:
        if self._second.cancelled():
            return True
        now = time.monotonic()
        if now - self._looked >= _GIVE_WAY:
            self._looked = now
            if not self._context.may_claim:
                self.gave_way = True
            elif not any(self._context.board.depths().values()):
                self._waiting_since = 0.0
            elif not self._waiting_since:
                self._waiting_since = now
            else:
                self.gave_way = True
        return self.gave_way


class Speculation:
    """An agent's second runs: what is to be run twice, and what became of it."""

    def __init__(
        self,
        context: AgentContext,
        make_context: Callable[[Second, registry.Kernel, Callable[[], bool]], Context | None],
        clock: Callable[[], float] = time.monotonic,
        strategies: registry.Strategist | None = None,
    ) -> None:
        """`make_context` makes what the kernel may ask of its surroundings, given what says whether to stop; None for
        a kernel that asks nothing."""
        self._context = context
        self._make_context = make_context
        self._clock = clock
        self._strategies = strategies
        self._durations: dict[int, Durations] = {}
        #: When a claim was first seen, by its slot and state word.
        self._seen: dict[tuple[int, int], float] = {}
        #: When to look again, on CLOCK_MONOTONIC (ns), should there be nothing to claim.
        self.next_ns = 0
        self._told: dict[str, float] = {}
        #: How this agent's second runs ended.
        self.counts: Counter[str] = Counter()

    def learn(self, kernel_number: int, seconds: float) -> None:
        """A task of this agent has ended well after so long."""
        known = self._durations.get(kernel_number)
        if known is None:
            if len(self._durations) >= _MOST_KERNELS:
                self._durations.clear()
            known = self._durations[kernel_number] = Durations()
        known.learn(seconds)

    def look(self, worker: Worker) -> bool:
        """Runs the worst straggler of the node a second time, if there is one; False: there is none."""
        self.next_ns = int((self._clock() + _LOOK) * 1e9)
        failover = self._context.settings.failover
        member = self._context.member
        board = self._context.board
        if member is None or not failover.straggler_share or board.max_attempts < 2 or not self._durations:
            return False
        tasks = claimed(board, member.index)
        running = self._watch(tasks)
        late = stragglers(
            running.values(),
            {str(number): known for number, known in self._durations.items()},
            1,
            factor=failover.straggler_factor,
            share=failover.straggler_share,
            least=failover.straggler_least,
        )
        if not late:
            return False
        by_id = {task.task_id: task for task in tasks}
        return self._run(worker, by_id[late[0].task], late[0].ran)

    def _watch(self, tasks: list[InHand]) -> dict[tuple[int, int], Running]:
        """How long each has been in hand, as far as this agent has seen."""
        now = self._clock()
        seen = {key: self._seen.get(key, now) for key in ((task.slot, task.word) for task in tasks)}
        self._seen = seen
        running = {}
        for task in tasks:
            since = task.since_ns * 1e-9 if task.since_ns else seen[task.slot, task.word]
            ran = now - since - self._waits(task)
            running[task.task_id] = Running(task.task_id, str(task.kernel_number), ran, task.twice)
        return running

    def _waits(self, task: InHand) -> float:
        """Seconds that whoever has it in hand may wait before beginning it again."""
        if task.attempt < 2:
            return 0.0
        for name in registry.names():
            if kernel_id(name) == task.kernel_number:
                retry = registry.get(name).retry
                return pause(retry.backoff, task.attempt) if retry is not None else 0.0
        return LONGEST_PAUSE

    def _run(self, worker: Worker, task: InHand, ran: float) -> bool:
        context, board = self._context, self._context.board
        member, scores = context.member, context.scoreboard
        assert member is not None
        before = running_of(board, member)
        second = begin_second(board, member, task)
        if second is None:
            return False
        scores.begin(second.claimed_ns)
        result = "failed"
        try:
            result = self._compute(worker, member, second, task, ran)
        finally:
            self.counts[result] += 1
            scores.set_running(scores.running - 1)
            if not is_fenced(board.mapping.base, member.index, member.epoch):
                put_down(board, member, before)
        if result == "won":
            self._tell("TaskOvertaken", second, task, ran=round((time.monotonic_ns() - second.claimed_ns) * 1e-9, 4))
        return True

    def _compute(self, worker: Worker, member: Member, second: Second, task: InHand, ran: float) -> str:
        """Computes and commits; how it ended."""
        context, board = self._context, self._context.board
        ctx, won, stop = None, False, None
        try:
            kernel = registry.get(second.kernel, context.settings.runtime.kernels)
            args, kwargs = second.arguments()
            if not _may_run_twice(kernel, kwargs):
                return "refused"
            stop = _Stop(context, second)
            ctx = self._make_context(second, kernel, stop)
            if ctx is None and not self._others_idle(member):
                yield_second(board.mapping.base, task.slot, task.word)
                return "yielded"
            self._tell("TaskRunTwice", second, task, ran=round(ran, 4))
            kwargs = {name: each for name, each in kwargs.items() if name != KEYWORD}
            value = kernel.run(args, kwargs, ctx=ctx, strategies=self._strategies)
            if is_fenced(board.mapping.base, member.index, member.epoch):
                raise Fenced(f"{member.name} was declared dead while it ran a task a second time")
            won = worker.commit(second, value)
            return "won" if won else "lost"
        except (TaskCancelled, DeadlineExceeded):
            if stop is not None and stop.gave_way:
                yield_second(board.mapping.base, task.slot, task.word)
                return "yielded"
            return "lost"
        except Fenced:
            raise
        except BaseException as error:
            context.log.info(
                "a second run failed, the first one goes on",
                task=_name(second),
                kernel=second.kernel,
                error=f"{type(error).__name__}: {error}",
            )
            return "failed"
        finally:
            _put_away(ctx, won)

    def _others_idle(self, member: Member) -> bool:
        return any(
            info.alive and info.role == Role.COMPUTE and not info.running and info.index != member.index
            for info in self._context.board.members()
        )

    def _tell(self, event: str, second: Second, task: InHand, **fields: Any) -> None:
        now = self._clock()
        if now - self._told.get(event, float("-inf")) >= _TELL:
            self._told[event] = now
            slow = self._context.board.member_name(task.owner)
            self._context.tell(
                event, task=_name(second), kernel=second.kernel, slow=slow, slow_epoch=task.epoch, **fields
            )

    def metrics(self) -> Metric:
        """How second runs ended."""
        return COMPUTE["swarm_second_runs"].counter(*(((result,), self.counts[result]) for result in SECOND_RUNS))


def _may_run_twice(kernel: registry.Kernel, kwargs: dict[str, Any]) -> bool:
    """Whether neither the kernel nor the submitter wants it begun only once, or later than its agent may; a chunk of
    calls is over before a second run of it would be."""
    if chunks.KEYWORD in kwargs:
        return False
    retry = kernel.retry
    asked = kwargs.get(KEYWORD)
    if asked is not None:
        said = msgspec.convert(asked, Retry)
        if said.backoff and said.backoff > ((retry.backoff if retry is not None else None) or 0.0):
            return False
        retry = said.over(retry)
    return retry is None or retry.attempts != 1


def _put_away(ctx: Context | None, won: bool) -> None:
    """The checkpoints go when this run has answered the task, else they are left to the first one."""
    keeper = ctx.keeper if ctx is not None else None
    if keeper is not None:
        with contextlib.suppress(OSError):
            if won:
                keeper.done()
            else:
                keeper.release()


def _name(second: Second) -> str:
    high, low = second.task_id
    return f"{high:016x}{low:016x}"
