"""A task as the client sees it: what was asked (`Request`), how it went (`TaskInfo`), and the future of its answer.

The request is kept until the answer has come, because a connection that breaks is answered by asking again, elsewhere,
under the same id. Therefore an array that was submitted must not be changed before its future is done.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from swarm_agents.config import Priority

if TYPE_CHECKING:
    from swarm_agents.client.session import Session

__all__ = ["Request", "SwarmFuture", "TaskId", "TaskInfo"]

TaskId = tuple[int, int]


class Request(Struct, frozen=True, eq=False, gc=False):
    """All that is needed to submit a task, once or again."""

    task: TaskId
    kernel: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    priority: Priority
    #: Unix time, seconds; None: whenever.
    deadline: float | None


class TaskInfo(Struct, frozen=True, gc=False):
    """How a task went."""

    #: Pod of the agent that computed it.
    agent: str = ""
    #: How often it was begun: more than 1 after an agent died over it.
    attempts: int = 1
    #: Seconds between its submission and its beginning on the board that computed it.
    queued: float = 0.0
    #: Seconds that the kernel ran.
    run: float = 0.0
    #: Nodes that it passed on its way to the one that computed it.
    hops: int = 0


_PENDING, _FINISHED = "PENDING", "FINISHED"  # as `concurrent.futures` has them
_making = threading.Lock()


class SwarmFuture(Future[Any]):
    """A `concurrent.futures.Future` that cancels in the swarm, and knows how its task went.

    The condition that others wait on is made when somebody asks for it. Who waits for one task after the other, or for
    all in order, needs none, and making it costs as much as submitting does. Nothing is missed: one lock decides
    whether the answer or the condition came first, and once there is a condition the state changes only under it.
    """

    def __init__(self, request: Request, session: Session) -> None:  # not the base's, which makes the condition
        self._state: str = _PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._made: threading.Condition | None = None
        self.request = request
        #: Set before the future is done, for a task that the swarm answered.
        self.info: TaskInfo | None = None
        self._session = session

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # what the base synchronises by
        if self._made is None:
            with _making:
                if self._made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    self._made = threading.Condition()
        return self._made

    @property
    def task(self) -> TaskId:
        """The task's id, the same on every node and in every log."""
        return self.request.task

    def cancel(self) -> bool:
        """Gives the task up: it is not begun any more, and if it runs its kernel is told. False: it is done."""
        if not self._session.give_up(self.request.task):
            return self.cancelled()
        super().cancel()
        self.set_running_or_notify_cancel()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """The kernel's value.

        Raises:
            KernelError: the kernel raised; the traceback is the agent's.
            TimeoutError: no answer within `timeout` seconds; the task goes on.
            CancelledError: it was cancelled by this future.
            SwarmError: another reason, see `swarm_agents.errors`.
        """
        if self._state == _PENDING:
            timeout = self._session.drive(self, timeout)
        if self._state == _FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise, or None."""
        if self._state == _PENDING:
            timeout = self._session.drive(self, timeout)
        return super().exception(timeout)

    def done(self) -> bool:
        """Whether there is an answer, or the task was cancelled."""
        return self._state != _PENDING

    def exception_or_cancelled(self) -> None:
        """Waits until it is done, however that comes about."""
        try:
            self.exception()
        except CancelledError:
            pass

    def settle(self, value: Any, error: BaseException | None, info: TaskInfo | None = None) -> None:
        """Called by whoever took the task out of the session's table, hence at most once, and never after `cancel`."""
        self.info = info
        with _making:
            made = self._made
            if made is None:
                self._finish(value, error)
                return
        with made:
            self._finish(value, error)
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            made.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # the base's, as its own `set_result` calls it

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self._state != _PENDING:
            raise InvalidStateError(f"task {self.task} is settled already")
        self._result = value
        self._exception = error
        self._state = _FINISHED
