"""The compute agent's loop: claim a task from the node's board, run its kernel, commit the answer, again.

It serves the roles compute and standby; a standby is the same agent that may not claim while `context.active` is false.

Invariants:
- A task ends in exactly one of: committed, failed, handed back, or void because the agent was fenced. The board answers
  by itself what was cancelled, has expired or has killed too many agents; such tasks are never claimed.
- Whatever a kernel raises, `SystemExit` included, is the submitter's to hear, with its traceback; the agent goes on.
- Nothing but the main thread runs kernels (Numba's `workqueue` layer wants that), and no lock or log line is on the way
  of a task that goes well: it costs a lookup, a clock reading and a few additions.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import TYPE_CHECKING, ClassVar

from swarm_agents.compute import registry
from swarm_agents.compute.context import Context
from swarm_agents.config import Identity, Role, Settings
from swarm_agents.errors import DeadlineExceeded, SwarmError, SwarmFull, TaskCancelled
from swarm_agents.runtime.agent import AgentBase
from swarm_agents.runtime.context import AgentContext
from swarm_agents.runtime.scoreboard import RESULTS

if TYPE_CHECKING:
    from swarm_agents.shm.board import Claim, Worker

__all__ = ["ComputeAgent"]

#: How long the agent waits for a task before it looks at what is asked of it (seconds).
_LOOK = 0.05
_OK, _ERROR, _REFUSED, _CANCELLED, _EXPIRED, _FENCED, _HANDED_BACK = range(len(RESULTS))


class ComputeAgent(AgentBase):
    """Runs registered kernels for whoever submits to the node's board."""

    roles: ClassVar[tuple[Role, ...]] = (Role.COMPUTE, Role.STANDBY)

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        self._changed = threading.Event()
        #: Those that are allowed, by the number that stands for the name on the board.
        self._kernels: dict[int, registry.Kernel] = {}
        self._worker: Worker | None = None
        self._claim: Claim | None = None
        #: Counts the looks at what is asked of the agent.
        self._looks = 0

    @classmethod
    def prepare(cls, identity: Identity, settings: Settings) -> None:
        """Imports the kernels and compiles them or loads them from the JIT cache."""
        registry.load(settings.runtime.kernel_modules)
        registry.warm(settings.runtime.kernels)

    def start(self) -> None:
        self.context.on_wake(self._changed.set)

    def settings_changed(self, old: Settings, new: Settings) -> None:
        registry.load(new.runtime.kernel_modules)
        self._kernels = {}  # what is allowed may have changed

    def run(self) -> None:
        context = self.context
        assert context.member is not None
        worker = self._worker = context.board.worker(context.member)
        while True:
            self._looks += 1
            if not context.may_claim:
                if context.leaving:
                    return
                context.report_idle()
                self._changed.wait(_LOOK)
                self._changed.clear()
                continue
            claim = worker.claim(_LOOK)
            if claim is not None:
                self._claim = claim
                self._work(worker, claim)
                self._claim = claim = None

    def drain(self) -> None:
        """Returns when the agent will claim nothing more: it has looked, or is at a task and will look after that."""
        seen, until = self._looks, time.monotonic() + 4 * _LOOK
        while self._looks == seen and self._claim is None and time.monotonic() < until:
            time.sleep(_LOOK / 25)

    def abandon(self) -> None:
        """Hands the task back that is still running; its kernel is cut off when the process ends."""
        claim, worker = self._claim, self._worker
        if claim is not None and worker is not None:
            worker.hand_back(claim, begun=False)  # being stopped is not the task's fault
            self.context.log.info("handed back", task=_name(claim), kernel=claim.kernel)

    # -- one task

    def _work(self, worker: Worker, claim: Claim) -> None:
        scores = self.context.scoreboard
        begun = claim.claimed_ns
        scores.begin(begun)
        result = _FENCED
        try:
            result = self._answer(worker, claim)
        finally:
            scores.end(result, claim.lane, time.monotonic_ns() - begun)
        if result == _FENCED:
            self.context.log.warning("a late answer was refused: the task is another agent's now", task=_name(claim))

    def _answer(self, worker: Worker, claim: Claim) -> int:
        """Computes and commits; returns the index of the result."""
        try:
            kernel = self._kernels.get(claim.kernel_number)
            if kernel is None:
                kernel = registry.get(claim.kernel, self.context.settings.runtime.kernels)
                self._kernels[claim.kernel_number] = kernel
            args, kwargs = claim.arguments()
        except SwarmError as error:
            return self._fail(worker, claim, error, _REFUSED)
        try:
            value = kernel.run(args, kwargs, ctx=Context(claim.cancelled) if kernel.signature.takes_context else None)
        except TaskCancelled as error:
            return self._fail(worker, claim, error, _CANCELLED)
        except DeadlineExceeded as error:
            return self._fail(worker, claim, error, _EXPIRED)
        except BaseException as error:
            result = _REFUSED if isinstance(error, SwarmError) else _ERROR
            return self._fail(worker, claim, error, result)
        try:
            return _OK if worker.commit(claim, value) else _FENCED
        except SwarmError as error:  # the answer can't travel: an object without encoding, or larger than the arena
            return self._fail(worker, claim, error, _ERROR)

    def _fail(self, worker: Worker, claim: Claim, error: BaseException, result: int) -> int:
        text = ""
        if not isinstance(error, SwarmError):
            self.context.log.warning("a kernel raised", task=_name(claim), kernel=claim.kernel, exc_info=error)
            text = _kernels_traceback(error)
        try:
            return result if worker.fail(claim, error, text) else _FENCED
        except SwarmFull:
            # Not even room for an error: another agent, or this one, later.
            return _HANDED_BACK if worker.hand_back(claim) else _FENCED


def _kernels_traceback(error: BaseException) -> str:
    """The traceback from the kernel's own first frame on: how the agent got there is of no use to who submitted."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in (__name__, registry.__name__):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))


def _name(claim: Claim) -> str:
    high, low = claim.task_id
    return f"{high:016x}{low:016x}"
