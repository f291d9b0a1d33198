"""The compute agent's loop: claim a task from the node's board, run its kernel, commit the answer, again.

It serves the roles compute and standby; a standby is the same agent that may not claim while `context.active` is false.

Invariants:
- A task ends in exactly one of: committed, failed, handed back, or void because the agent was fenced or another one's
  second run of it was faster (see `speculation`). The board answers by itself what was cancelled, has expired or has
  killed too many agents; such tasks are never claimed.
- Whatever a kernel raises, `SystemExit` included, is the submitter's to hear, with its traceback; the agent goes on.
- Which implementation of a kernel runs is learned (`strategies`), unless there is but one.
- Nothing but the main thread runs kernels (Numba's `workqueue` layer wants that), and no lock or log line is on the way
  of a task that goes well: it costs a lookup, a clock reading and a few additions.
- What is to be known of retries is looked at only for a task that has been begun before, or says something of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from swarm_agents import chunks
from swarm_agents.compute import chunked, gpu, registry
from swarm_agents.compute.context import Context
from swarm_agents.compute.limits import bounded
from swarm_agents.compute.pacing import STEP, URGENT, Pacing
from swarm_agents.compute.retries import Waiting
from swarm_agents.compute.speculation import Reading, Speculation
from swarm_agents.compute.strategies import Strategies, file_name, hardware
from swarm_agents.config import Identity, Role, Settings
from swarm_agents.errors import BadArguments, DeadlineExceeded, SwarmError, SwarmFull, TaskCancelled, TaskLost, to_wire
from swarm_agents.exported import exposition
from swarm_agents.retry import KEYWORD, Retry, pause
from swarm_agents.runtime import logs
from swarm_agents.runtime.agent import AgentBase
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.exported import COMPUTE
from swarm_agents.runtime.scoreboard import RESULTS
from swarm_agents.runtime.store import task_key
from swarm_agents.shm.pace import read_pace

if TYPE_CHECKING:
    from swarm_agents.shm.board import Claim, Worker

__all__ = ["ComputeAgent"]

#: How long the agent waits for a task before it looks at what is asked of it (seconds).
_LOOK = 0.05
_OK, _ERROR, _REFUSED, _CANCELLED, _EXPIRED, _FENCED, _HANDED_BACK, _OVERTAKEN = range(len(RESULTS))
#: Not a result: the task stays in hand, to be begun later; it was a chunk of calls, each of which has been counted.
_LATER, _CHUNK = -1, -2


def _tell(fault: object) -> None:
    logs.get_logger().warning(str(fault))


class ComputeAgent(AgentBase):
    """Runs registered kernels for whoever submits to the node's board."""

    roles: ClassVar[tuple[Role, ...]] = (Role.COMPUTE, Role.STANDBY)

    class State(msgspec.Struct):
        """What the agent's place remembers."""

        version: ClassVar[int] = 1
        #: How often it was filled.
        lives: int = 0
        #: Unix seconds at which it was filled first.
        since: float = 0.0

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        self._changed = threading.Event()
        #: Those that are allowed, by the number that stands for the name on the board.
        self._kernels: dict[int, registry.Kernel] = {}
        self._worker: Worker | None = None
        self._claim: Claim | None = None
        #: The context of the task in hand, if its kernel takes one.
        self._ctx: Context | None = None
        self._waiting = Waiting(self._give_back)
        self._strategies = Strategies(
            [root / file_name() for root in _roots(context)], key=hardware(), warn=context.log.warning
        )
        self._speculation = Speculation(context, self._context_for_second, strategies=self._strategies)
        self._pacing = Pacing(lambda: read_pace(context.board.mapping))
        #: When the last task ended, or there was none (CLOCK_MONOTONIC ns): a clock that costs nothing.
        self._now_ns = 0
        #: Counts the looks at what is asked of the agent.
        self._looks = 0

    @classmethod
    def prepare(cls, identity: Identity, settings: Settings) -> None:
        """Imports the kernels and compiles them or loads them from the JIT cache."""
        registry.load(settings.runtime.kernel_modules, broken=_tell)
        registry.warm(settings.runtime.kernels, broken=_tell)

    def start(self) -> None:
        identity, runtime = self.context.identity, self.context.settings.runtime
        gpu.configure(share=runtime.gpu_memory, ordinal=identity.ordinal)
        self.context.on_wake(self._changed.set)
        figures = self._strategies.load()
        if figures:
            self.context.log.info("starts from what agents of this hardware have learned", figures=figures)
        self.state.lives += 1
        self.state.since = self.state.since or time.time()
        self.save_state()

    def settings_changed(self, old: Settings, new: Settings) -> None:
        registry.load(new.runtime.kernel_modules, broken=_tell)
        self._kernels = {}  # what is allowed may have changed

    def run(self) -> None:
        context = self.context
        assert context.member is not None
        worker = self._worker = context.board.worker(context.member)
        waiting, speculation = self._waiting, self._speculation
        waiting.give_up(hand_back=False)  # what the epoch before had in hand
        while True:
            self._looks += 1
            if not context.may_claim:
                waiting.give_up(hand_back=True)
                if context.leaving:
                    return
                context.report_idle()
                self._changed.wait(_LOOK)
                self._changed.clear()
                continue
            due = waiting.take() if waiting else None
            if due is None and self._now_ns < self._pacing.until:
                claim = worker.claim(0.0, lanes=URGENT)
                if claim is None:
                    time.sleep(STEP)
            elif due is None and self._now_ns >= speculation.next_ns:
                claim = worker.claim(0.0)
                if claim is None and (waiting or not speculation.look(worker)):
                    claim = worker.claim(waiting.patience(_LOOK) if waiting else _LOOK)
            else:
                claim = due or worker.claim(waiting.patience(_LOOK) if waiting else _LOOK)
            if claim is not None:
                self._claim = claim
                begun = self._now_ns if due is not None else claim.claimed_ns
                self._work(worker, claim, waited=due is not None)
                self._pacing.worked(begun, self._now_ns)
                self._claim = claim = None
            else:
                self._now_ns = time.monotonic_ns()
            if self._now_ns >= self._strategies.due_ns:
                self._strategies.tend(self._now_ns)

    def drain(self) -> None:
        """Returns when the agent will claim nothing more: it has looked, or is at a task and will look after that."""
        seen, until = self._looks, time.monotonic() + 4 * _LOOK
        while self._looks == seen and self._claim is None and time.monotonic() < until:
            time.sleep(_LOOK / 25)

    def abandon(self) -> None:
        """Hands the task back that is still running; its kernel is cut off when the process ends."""
        claim, worker = self._claim, self._worker
        self._waiting.give_up(hand_back=True)
        if claim is not None and worker is not None:
            worker.hand_back(claim, begun=False)  # being stopped is not the task's fault
            self.context.log.info("handed back", task=_name(claim), kernel=claim.kernel)

    def metrics(self) -> bytes:
        lives = COMPUTE["swarm_agent_lives"].gauge(((), self.state.lives))
        return exposition(*self.context.store.metrics(), self._speculation.metrics(), lives)

    def put_state_away(self) -> None:
        super().put_state_away()
        with contextlib.suppress(RuntimeError):  # a kernel that was waited for in vain has ended just now, and taught
            self._strategies.share()

    def close(self) -> None:
        self.context.store.close()

    # -- one task

    def _work(self, worker: Worker, claim: Claim, *, waited: bool = False) -> None:
        scores = self.context.scoreboard
        begun = time.monotonic_ns() if waited else claim.claimed_ns
        scores.begin(begun)
        result = _FENCED
        try:
            result = self._answer(worker, claim, waited)
            if result == _FENCED and self.context.holds_place:
                result = _OVERTAKEN
        finally:
            if self._ctx is not None:
                self._put_away(result)
            if result == _LATER:
                scores.set_running(scores.running - 1)
            elif result == _CHUNK:
                self._now_ns = time.monotonic_ns()
                scores.set_running(scores.running - 1)
            else:
                self._now_ns = time.monotonic_ns()
                elapsed = self._now_ns - begun
                scores.end(result, claim.lane, elapsed)
                if result == _OK:
                    self._speculation.learn(claim.kernel_number, elapsed * 1e-9)
        if result == _FENCED:
            self.context.log.warning("a late answer was refused: the task is another agent's now", task=_name(claim))
        elif result == _OVERTAKEN:
            self.context.log.info("a second run of the task was faster: this one's answer is void", task=_name(claim))

    def _answer(self, worker: Worker, claim: Claim, waited: bool) -> int:
        """Computes and commits; returns the index of the result."""
        try:
            kernel = self._kernels.get(claim.kernel_number)
            if kernel is None:
                kernel = registry.get(claim.kernel, self.context.settings.runtime.kernels)
                self._kernels[claim.kernel_number] = kernel
            args, kwargs = claim.arguments()
            retry = kernel.retry
            if kwargs and KEYWORD in kwargs:
                retry, kwargs = _asked(kwargs, retry)
            if kwargs and chunks.KEYWORD in kwargs:
                return self._answer_chunk(worker, claim, kernel, chunks.calls_of(kwargs))
        except SwarmError as error:
            return self._fail(worker, claim, error, _REFUSED)
        if claim.attempt > 1 or kernel.deadline is not None:
            result = self._begin_again(worker, claim, kernel, retry, waited)
            if result is not None:
                return result
        ctx = self._ctx = self._context_for(claim, kernel) if kernel.signature.takes_context else None
        try:
            if kernel.bounds is None:
                value = kernel.run(args, kwargs, ctx=ctx, strategies=self._strategies)
            else:
                with bounded(kernel.bounds, _left(claim, kernel)):
                    value = kernel.run(args, kwargs, ctx=ctx, strategies=self._strategies)
        except TaskCancelled as error:
            return self._fail(worker, claim, error, _CANCELLED)
        except DeadlineExceeded as error:
            return self._fail(worker, claim, error, _EXPIRED)
        except BaseException as error:
            if retry is not None and retry.again_after(error):
                return self._try_again(worker, claim, error, retry)
            result = _REFUSED if isinstance(error, SwarmError) else _ERROR
            return self._fail(worker, claim, error, result)
        try:
            return _OK if worker.commit(claim, value) else _FENCED
        except SwarmError as error:  # the answer can't travel: an object without encoding, or larger than the arena
            return self._fail(worker, claim, error, _ERROR)

    def _answer_chunk(self, worker: Worker, claim: Claim, kernel: registry.Kernel, calls: list[Sequence[Any]]) -> int:
        """`_answer` for calls that travel together; see `chunks`."""
        made = chunked.Made()
        if claim.attempt == 1 and chunked.may_be_chunked(kernel):
            made = chunked.make(
                lambda args: kernel.run(args, {}, strategies=self._strategies),
                calls,
                begun=claim.claimed_ns,
                unwanted=claim.cancelled,
                to_wire=lambda error: to_wire(error, self._told(claim, error)),
            )
        try:
            if not worker.commit(claim, made.answer):
                return _FENCED
        except SwarmError as error:  # one of the values can't travel, or all together: who sent them learns which
            return self._fail(worker, claim, error, _ERROR)
        ended = ((_OK if e is None else _REFUSED if isinstance(e, SwarmError) else _ERROR, ns) for e, ns in made.ended)
        self.context.scoreboard.made(ended, claim.lane)
        return _CHUNK

    def _told(self, claim: Claim, error: BaseException) -> str:
        """Logs what a kernel raised; the traceback that its submitter gets."""
        if isinstance(error, SwarmError):
            return ""
        self.context.log.warning("a kernel raised", task=_name(claim), kernel=claim.kernel, exc_info=error)
        return _kernels_traceback(error)

    def _fail(self, worker: Worker, claim: Claim, error: BaseException, result: int) -> int:
        text = self._told(claim, error)
        try:
            return result if worker.fail(claim, error, text) else _FENCED
        except SwarmFull:
            # Not even room for an error: another agent, or this one, later.
            return _HANDED_BACK if worker.hand_back(claim) else _FENCED

    # -- checkpoints

    def _context_for(self, claim: Claim, kernel: registry.Kernel) -> Context:
        """What the kernel may ask of its surroundings."""
        return Context(
            claim.cancelled,
            keep=lambda: self.context.store.keeper(
                task_key(claim.task_id, claim.kernel), lambda: not claim.cancelled(), fresh=claim.attempt > 1
            ),
            deadline=_deadline(claim, kernel),
            interval=self.context.settings.checkpoints.interval,
            attempt=claim.attempt,
            memory=self._worker.array if self._worker is not None else None,
        )

    def _context_for_second(self, claim: Claim, kernel: registry.Kernel, stop: Callable[[], bool]) -> Context | None:
        """The same for another agent's task that is run a second time here."""
        if not kernel.signature.takes_context:
            return None
        store, key = self.context.store, task_key(claim.task_id, claim.kernel)
        return Context(
            stop,
            keep=lambda: Reading(store.keeper(key, lambda: False)),
            deadline=_deadline(claim, kernel),
            interval=self.context.settings.checkpoints.interval,
            attempt=claim.attempt,
            memory=self._worker.array if self._worker is not None else None,
        )

    def _put_away(self, result: int) -> None:
        """The task has ended, or is another's: its checkpoints go, or are left to that one."""
        ctx, self._ctx = self._ctx, None
        keeper = ctx.keeper if ctx is not None else None
        if keeper is None:
            return
        try:
            if result in (_FENCED, _HANDED_BACK, _OVERTAKEN):
                keeper.release()
            else:
                keeper.done()
        except OSError as error:
            self.context.log.warning("a checkpoint could not be put away", reason=str(error))

    # -- retries

    def _begin_again(
        self, worker: Worker, claim: Claim, kernel: registry.Kernel, retry: Retry | None, waited: bool
    ) -> int | None:
        """Whether a task that was begun before is begun once more, and when: its result if not, None if it is now."""
        deadline = _deadline(claim, kernel)
        if deadline is not None and time.monotonic() > deadline:
            text = f"the deadline of {kernel.name} passed before it was begun"
            return self._fail(worker, claim, DeadlineExceeded(text), _EXPIRED)
        if claim.attempt == 1:
            return None
        if claim.cancelled():
            error = TaskCancelled(f"{kernel.name} was cancelled before it was begun again")
            return self._fail(worker, claim, error, _CANCELLED)
        if retry is None:
            return None
        most = retry.attempts
        if most is not None and claim.attempt > most:
            text = f"its agents died over {most} attempts, and {kernel.name} has no more"
            self._set_aside(claim, most, text)
            return self._fail(worker, claim, TaskLost(f"{text}: look in the agents' logs for what kills them"), _ERROR)
        seconds = 0.0 if waited else pause(retry.backoff, claim.attempt)
        return _LATER if seconds and self._waiting.add(claim, seconds) else None

    def _try_again(self, worker: Worker, claim: Claim, error: BaseException, retry: Retry) -> int:
        """After an error that may not come again."""
        most = self.context.board.max_attempts if retry.attempts is None else retry.attempts
        if claim.attempt >= most:
            self._set_aside(claim, claim.attempt, f"its last attempt ended with {type(error).__name__}: {error}")
            return self._fail(worker, claim, error, _ERROR)
        self.context.log.info(
            "a kernel raised, the task is begun again",
            task=_name(claim),
            kernel=claim.kernel,
            attempt=claim.attempt,
            attempts=most,
            error=f"{type(error).__name__}: {error}",
        )
        return _HANDED_BACK if worker.hand_back(claim, attempts=most) else _FENCED

    def _set_aside(self, claim: Claim, attempts: int, reason: str) -> None:
        from swarm_agents.runtime.inputs import describe
        from swarm_agents.runtime.ledger import note_set_aside

        inputs = describe(*claim.arguments())
        note_set_aside(self.context.board.directory, _name(claim), claim.kernel, attempts, reason, inputs)
        self.context.log.error(
            "a task is set aside", task=_name(claim), kernel=claim.kernel, reason=reason, inputs=inputs
        )

    def _give_back(self, claim: Claim) -> None:
        if self._worker is not None:
            self._worker.hand_back(claim, begun=False)


def _roots(context: AgentContext) -> list[Path]:
    """Where what was learned is kept: beside the node's board, in the pod, and on the volume if there is one."""
    identity = context.identity
    return [context.board.directory, identity.cache_dir, *([identity.state_dir] if identity.state_dir else [])]


def _asked(kwargs: dict[str, Any], default: Retry | None) -> tuple[Retry, dict[str, Any]]:
    """What the submitter says of retries, over what the kernel says; and the arguments without it.

    Raises:
        BadArguments: it can't be read.
    """
    try:
        asked = msgspec.convert(kwargs[KEYWORD], Retry)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadArguments(f"retry can't be read: {error}") from error
    return asked.over(default), {name: value for name, value in kwargs.items() if name != KEYWORD}


def _deadline(claim: Claim, kernel: registry.Kernel) -> float | None:
    """The nearer of the task's deadline and its kernel's, on the monotonic clock."""
    ends = []
    if claim.deadline is not None:
        ends.append(time.monotonic() + claim.deadline - time.time())
    if kernel.deadline is not None:
        ends.append((claim.claimed_ns - claim.queued_ns) * 1e-9 + kernel.deadline)
    if kernel.bounds is not None and kernel.bounds.seconds is not None:
        ends.append(time.monotonic() + kernel.bounds.seconds)
    return min(ends, default=None)


def _left(claim: Claim, kernel: registry.Kernel) -> float | None:
    """Seconds until `_deadline`."""
    deadline = _deadline(claim, kernel)
    return None if deadline is None else deadline - time.monotonic()


def _kernels_traceback(error: BaseException) -> str:
    """The traceback from the kernel's own first frame on: how the agent got there is of no use to who submitted."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in (__name__, registry.__name__):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def _name(claim: Claim) -> str:
    high, low = claim.task_id
    return f"{high:016x}{low:016x}"
