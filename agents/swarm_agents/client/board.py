"""A channel to the board of this machine: tasks and answers through shared memory, no hub in between.

Who waits for a future polls the board itself (`drive`), so that neither a thread switch nor a system call lies between
an answer and its reader; a thread takes care of everybody else: callbacks, `as_completed`, asyncio. While callers poll,
the thread keeps away from the futex, or every answer would wake it for nothing; it looks in now and then, and goes back
to sleep on the futex when the callers have gone.

The client is a member of the board like the agents. Its heartbeat is the thread's; that its process lives, the kernel
vouches for (see `swarm_agents.shm.files`). A board is given up when this member was fenced, when its directory leads
to another board, or when no agent on it has shown life for `_NOBODY` seconds while there is somewhere else to go.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm_agents.client.channel import Channel, Sink
from swarm_agents.client.task import Request, TaskId, TaskInfo
from swarm_agents.errors import BoardMismatch, ConnectionLost, Fenced, Overloaded, SwarmFull, Unreachable
from swarm_agents.wire.report import describe_board

if TYPE_CHECKING:
    import numpy as np

    from swarm_agents.client.connection import Connection
    from swarm_agents.shm.board import RawAnswer, Ticket

__all__ = ["BoardChannel"]

#: The thread parks on the futex for this long at most, beats and looks whether it should end (seconds).
_PARK = 0.05
#: While callers poll by themselves, and for this long after, the thread only looks in this often (seconds).
_LOOK_IN, _CALLERS_GRACE = 0.002, 0.02
#: So many tasks since the last look are one thread submitting as fast as it can: it needs the GIL, not the answers.
_BURST = 16
#: No agent has shown life for this long, and the board is given up (seconds).
_NOBODY = 2.0
_CHECK = 0.25
_WAIT_STEP = 0.1
#: How long a shared array waits for room in the arena (seconds).
_ARRAY_PATIENCE = 10.0


class BoardChannel(Channel):
    """See the module's text."""

    def __init__(self, sink: Sink, connection: Connection, endpoint: str, number: int, timeout: float) -> None:
        """Joins the board.

        Raises:
            Unreachable: there is no board, or (with hubs to go to) nobody on it; the message says what to do.
            BoardMismatch: it belongs to another user, release or swarm.
            SwarmFull: it has no place left.
        """
        from swarm_agents.runtime import jitcache

        jitcache.settle()
        from swarm_agents.shm.answers import value_of
        from swarm_agents.shm.board import Board

        self._value_of = value_of
        self.endpoint = endpoint
        self._sink = sink
        self._copy: bool = getattr(sink, "copy", True)
        self._elsewhere = bool(connection.hubs)
        directory = Path(endpoint.removeprefix("shm://"))
        until = time.monotonic() + timeout
        while True:
            try:
                self._board = Board.attach(directory)
                break
            except Unreachable:
                # With hubs to go to, waiting for a board that may never come to this machine helps nobody.
                if self._elsewhere or time.monotonic() >= until:
                    raise
            time.sleep(0.02)
        if connection.uid and self._board.swarm_uid != connection.uid:
            raise BoardMismatch(
                f"{directory} is the board of swarm {self._board.swarm_uid}, not of {connection.uid}: connect anew"
            )
        if self._elsewhere and not self._anybody():
            raise Unreachable(f"no agent on the board in {directory} shows life")
        name = f"client-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"[:200]
        self._member = self._board.join(name, "client")
        try:
            self._port = self._board.port(self._member)
        except BaseException:
            self._board.leave(self._member)
            raise
        self.window = max(64, self._board.geometry.task_slots // 8)
        self._tickets: dict[TaskId, Ticket | None] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._dispatch = threading.Lock()
        self._callers = 0
        self._called = 0.0
        self._idle = False
        self._polling = False
        self._closing = False
        self._lost: BaseException | None = None
        self._alarm = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="swarm-board", daemon=True)
        self._thread.start()

    # -- what the session calls

    def submit(self, request: Request, timeout: float | None) -> None:
        task, tickets = request.task, self._tickets
        if task in tickets:
            return
        tickets[task] = None
        try:
            if self._lost is not None or self._closing:
                raise ConnectionLost(f"the board at {self.endpoint} is given up: {self._lost}")
            try:
                ticket = self._submit(request, 0.0)
            except SwarmFull:
                ticket = self._submit_patiently(request, timeout)
        except Fenced as error:
            tickets.pop(task, None)
            self._give_up(error)
            raise ConnectionLost(f"the board at {self.endpoint} is given up: {error}") from error
        except BaseException:
            tickets.pop(task, None)
            raise
        if task in tickets:  # unless it has been answered already
            tickets[task] = ticket
        if self._idle:
            self._idle = False
            self._alarm.set()

    def submit_again(self, request: Request) -> None:
        with self._port.accepted():  # overload sheds nothing that was accepted
            self.submit(request, None)

    def _submit(self, request: Request, timeout: float) -> Ticket:
        return self._port.submit(
            request.kernel,
            request.args,
            request.kwargs,
            priority=request.priority,
            task_id=request.task,
            deadline=request.deadline,
            timeout=timeout,
        )

    def _submit_patiently(self, request: Request, timeout: float | None) -> Ticket:
        """Waits for room; in steps, for the channel may be closed meanwhile."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_STEP if until is None else until - time.monotonic()
            try:
                return self._submit(request, max(min(left, _WAIT_STEP), 0.0))
            except SwarmFull as error:
                if self._lost is not None or self._closing:
                    raise ConnectionLost(f"the board at {self.endpoint} is given up: {self._lost}") from None
                late = request.deadline is not None and time.time() >= request.deadline
                if left <= 0 or (late and isinstance(error, Overloaded)):
                    raise

    def cancel(self, task: TaskId) -> None:
        ticket = self._tickets.pop(task, None)
        if ticket is not None and self._lost is None:
            self._port.cancel(ticket)

    def drive(self, future: Future[Any], timeout: float | None) -> float | None:
        """Polls for the caller, who waits on the board itself: it spins shortly, then sleeps on the futex."""
        until = None if timeout is None else time.monotonic() + timeout
        self._callers += 1
        try:
            step = _PARK
            while not future.done() and self._lost is None and not self._closing:
                if until is not None:
                    step = min(_PARK, until - time.monotonic())
                    if step <= 0:
                        break
                # Should another thread take this one's answer, nothing wakes this one.
                alone = self._callers == 1 and not self._polling
                if self._port.wait(step if alone else min(step, _LOOK_IN)):
                    self._poll()
        except Fenced as error:
            self._give_up(error)
        finally:
            self._called = time.monotonic()
            self._callers -= 1
        return None if until is None else max(until - time.monotonic(), 0.0)

    def put(self, array: Any) -> np.ndarray[Any, Any]:
        return self._port.put(array, timeout=_ARRAY_PATIENCE)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return self._port.array(shape, dtype, timeout=_ARRAY_PATIENCE)

    def info(self, timeout: float) -> dict[str, Any]:
        return {"hubs": []} | describe_board(self._board)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._alarm.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- answers

    def _poll(self) -> int:
        """Takes answers, and settles their futures; returns how many."""
        if not self._dispatch.acquire(False):
            return 0  # another thread is at it
        try:
            answers = self._port.take(copy=self._copy)
        finally:
            self._dispatch.release()
        for answer in answers:
            self._settle(answer)
        return len(answers)

    def _poll_aside(self) -> None:
        """Polls for those who do not wait, unless somebody waits: who does takes everybody's answers."""
        self._polling = True  # first this, then the look: a caller that comes now sees it
        if not self._callers:
            self._poll()
        self._polling = False

    def _settle(self, answer: RawAnswer) -> None:
        task = answer.ticket.task_id
        self._tickets.pop(task, None)
        name: str | None = answer.far[0]
        if not name:
            key = (answer.agent, answer.epoch)
            name = self._names.get(key)
            if name is None:
                name = self._names[key] = self._board.member_name(answer.agent)
        value, error = self._value_of(answer)
        info = TaskInfo(name, answer.attempts, answer.queued_s, answer.run_s, answer.hops)
        self._sink.answered(task, value, error, info)

    # -- the thread

    def _serve(self) -> None:
        check = 0.0
        submitted = 0
        try:
            while not self._closing and self._lost is None:
                now = time.monotonic()
                if now >= check:
                    check = now + _CHECK
                    self._check()
                if not self._tickets:
                    # Nothing to wait for: a submission sets the alarm.
                    self._alarm.clear()
                    self._idle = True
                    if not self._tickets:
                        self._alarm.wait(_CHECK)
                    self._idle = False
                elif self._callers or now - self._called < _CALLERS_GRACE or self._port.submitted - submitted > _BURST:
                    submitted = self._port.submitted
                    time.sleep(_LOOK_IN)
                    self._poll_aside()
                else:
                    submitted = self._port.submitted
                    self._port.wait(_PARK)
                    self._poll_aside()
        except Exception as error:
            self._give_up(error)
        lost = self._lost
        # Without the lock a caller could still be in the port when the place on the board is given up.
        with self._dispatch:
            self._board.leave(self._member)
        if lost is not None and not self._closing:
            self._sink.lost(self, lost)

    def _check(self) -> None:
        self._board.heartbeat(self._member)
        if not self._board.current:
            raise ConnectionLost(f"the board at {self.endpoint} was removed: the swarm has left this node")
        if self._elsewhere and not self._anybody():
            raise ConnectionLost(f"no agent on the board at {self.endpoint} has shown life for {_NOBODY:g} s")

    def _anybody(self) -> bool:
        return any(
            info.alive and info.role != "client" and info.heartbeat_age < _NOBODY for info in self._board.members()
        )

    def _give_up(self, error: BaseException) -> None:
        if self._lost is None:
            self._lost = error
            self._alarm.set()
