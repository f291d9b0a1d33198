"""Keeps a client's tasks alive across connections: every task that was taken on is answered exactly once.

A session has one open channel at a time and a table of what has not been answered. When the channel breaks, one thread
goes round the endpoints (the board first, then the hubs) until one opens or the retry window is over; then everything
in the table is submitted again under the same ids. The far side recognises an id that it has seen; where it has not,
the task runs once more, and the first answer counts: whoever takes the task out of the table settles its future.
Hubs' addresses change when their pods are replaced: when a round was in vain, whoever knows the swarm's present ones is
asked again, aside, since that may take its time.

Invariants: an id leaves the table once, by an answer, a cancellation, a close, or the end of the retry window, and each
of these settles the future. Nothing here blocks while it holds the lock.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from swarm_agents.client.task import Request, SwarmFuture, TaskId, TaskInfo
from swarm_agents.config import Priority
from swarm_agents.errors import (
    BoardMismatch,
    ConnectionLost,
    PayloadError,
    PayloadTooLarge,
    SwarmError,
    Unreachable,
    VersionMismatch,
    WrongKey,
)

if TYPE_CHECKING:
    import numpy as np

    from swarm_agents.client.channel import Channel, Sink
    from swarm_agents.client.connection import Connection

__all__ = ["Session"]

#: Opens a channel to an endpoint, for a session number, within some seconds.
Opener = Callable[["Sink", "Connection", str, int, float], "Channel"]

#: Between two rounds over all endpoints (seconds).
_PAUSE = 0.1
#: Between two questions where the swarm is now (seconds).
_ASK_AGAIN = 1.0


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A client's side of the swarm; used by any number of threads."""

    def __init__(
        self,
        connection: Connection,
        *,
        timeout: float,
        retry_window: float,
        opener: Opener | None = None,
        copy: bool = True,
        find_again: Callable[[], Connection] | None = None,
    ) -> None:
        """Opens the first endpoint that answers within `timeout` seconds.

        `find_again` says where the swarm is now; it is asked, on a thread of its own, when no endpoint answers.

        Raises:
            Unreachable, WrongKey, VersionMismatch, BoardMismatch: why the last endpoint that was tried did not open.
        """
        self.connection = connection
        #: Whether arrays of results are copied out of shared memory.
        self.copy = copy
        self.number = secrets.randbits(63)
        self._numbers = itertools.count(1)
        self._retry_window = retry_window
        self._opener = opener or _open
        self._find_again = find_again
        self._asked = float("-inf")
        self._endpoints = list(_endpoints(connection))
        if not self._endpoints:
            raise Unreachable("the connection names neither a board nor a hub: is the swarm running? (`swarm status`)")
        self._pending: dict[TaskId, SwarmFuture] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._channel: Channel | None = None
        #: A channel that is open, but on which the table has not been submitted again yet.
        self._candidate: Channel | None = None
        #: Channels that broke: one may do so before it is the session's.
        self._gone: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._last = -1
        self._recovering = False
        self._closed = False
        self._failure: BaseException | None = None
        self._forked = False
        _sessions.add(self)
        if not self._adopt(self._dial(time.monotonic() + timeout, forever=False)):
            self._begin_recovery(ConnectionLost("the connection broke as soon as it was made"))

    # -- what a Swarm uses

    @property
    def pending(self) -> int:
        """Tasks not answered yet."""
        return len(self._pending)

    @property
    def endpoint(self) -> str:
        """Where the session is connected to at present; empty while it is not."""
        channel = self._channel
        return channel.endpoint if channel else ""

    @property
    def window(self) -> int:
        """How many tasks are worth having in flight."""
        channel = self._channel
        return channel.window if channel else 1

    @property
    def closed(self) -> bool:
        return self._closed

    def submit(
        self,
        kernel: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: Priority,
        deadline: float | None,
        timeout: float | None,
    ) -> SwarmFuture:
        """Submits a task; see `Swarm.submit`."""
        task = (self.number, next(self._numbers))
        request = Request(task, kernel, args, kwargs, priority, deadline)
        future = SwarmFuture(request, self)
        # In the table before the channel is looked up: if that one breaks, the recovery finds the task there.
        self._pending[task] = future
        try:
            channel = self._channel
            try:
                if channel is not None:
                    channel.submit(request, timeout)
                else:
                    until = None if timeout is None else time.monotonic() + timeout
                    channel = self._current(until)
                    channel.submit(request, None if until is None else max(until - time.monotonic(), 0.0))
            except ConnectionLost:
                if self._closed or channel is None:
                    raise
        except BaseException:
            self.give_up(task)
            raise
        return future

    def forget(self) -> None:
        """Called in a forked child of the process that made the session: its threads and channels are the parent's."""
        self._forked = True
        self._channel = None

    def futures(self) -> list[SwarmFuture]:
        """Those without an answer."""
        return list(self._pending.values())

    def give_up(self, task: TaskId) -> bool:
        """Takes a task out of the table and tells the swarm; False if it has been settled."""
        if self._pending.pop(task, None) is None:
            return False
        channel = self._channel
        if channel is not None:
            channel.cancel(task)
        return True

    def drive(self, future: SwarmFuture, timeout: float | None) -> float | None:
        """Lets a thread that waits for a future work for it; returns what is left of the timeout."""
        channel = self._channel
        return channel.drive(future, timeout) if channel is not None else timeout

    def put(self, array: Any) -> np.ndarray[Any, Any]:
        """A read-only copy of an array, where tasks of this connection find it most cheaply."""
        return self._current(None).put(array)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """An array to write to, where tasks of this connection find it most cheaply."""
        return self._current(None).empty(shape, dtype)

    def info(self, timeout: float) -> dict[str, Any]:
        """What the swarm says of itself."""
        return self._current(time.monotonic() + timeout).info(timeout)

    def close(self) -> None:
        """Leaves. What is pending fails with `ConnectionLost`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            channels = [c for c in (self._channel, self._candidate) if c is not None]
            self._channel = None
            self._changed.notify_all()
        if not self._forked:
            for channel in channels:
                for task in list(self._pending):
                    channel.cancel(task)
                channel.close()
        self._fail_all(ConnectionLost("the client was closed before the answer came; keep it open until all is done"))

    # -- what a channel calls

    def answered(self, task: TaskId, value: Any, error: BaseException | None, info: TaskInfo | None) -> None:
        future = self._pending.pop(task, None)
        if future is not None:
            future.settle(value, error, info)

    def lost(self, channel: Channel, error: BaseException) -> None:
        with self._changed:
            self._gone.add(channel)
            if self._closed or channel is not self._channel:
                return
            self._channel = None
            self._begin_recovery(error)

    # -- recovery

    def _begin_recovery(self, error: BaseException) -> None:
        self._failure = error
        if not self._recovering:
            self._recovering = True
            threading.Thread(target=self._recover, name="swarm-recover", daemon=True).start()

    def _recover(self) -> None:
        until = time.monotonic() + self._retry_window
        while True:
            try:
                channel = self._dial(until, forever=True)
                with self._changed:
                    self._candidate = channel
                self._resubmit(channel)
                if self._adopt(channel):
                    return
                raise ConnectionLost(f"{channel.endpoint} broke again at once")
            except SwarmError as error:
                if self._candidate is not None:
                    self._candidate.close()
                if self._closed or time.monotonic() > until:
                    self._end_recovery(error)
                    return

    def _resubmit(self, channel: Channel) -> None:
        """Submits everything in the table; a channel takes an id that it has already as done."""
        # The urgent first: should there be no room for the others, these do not wait behind them.
        for task, future in sorted(self._pending.items(), key=lambda item: item[1].request.priority.lane):
            if task not in self._pending:
                continue
            try:
                channel.submit_again(future.request)
            except (PayloadError, PayloadTooLarge) as error:  # this endpoint takes less than the one before it
                self.answered(task, None, error, None)

    def _adopt(self, channel: Channel) -> bool:
        """Makes it the session's channel, unless it has broken meanwhile or nobody wants it any more."""
        with self._changed:
            if channel in self._gone or self._closed:
                return False
            self._candidate = None
            self._recovering = False
            self._failure = None
            self._channel = channel
            self._changed.notify_all()
            return True

    def _end_recovery(self, error: SwarmError) -> None:
        with self._changed:
            self._candidate = None
            self._recovering = False
            self._failure = error
            self._changed.notify_all()
        self._fail_all(
            ConnectionLost(
                f"the connection broke and did not come back within {self._retry_window:g} s ({error}): "
                "see `swarm status`, then submit again"
            )
        )

    def _dial(self, until: float, *, forever: bool) -> Channel:
        """Opens the endpoint after the last one, or the next that answers; `forever`: goes round until the time is up.

        A wrong key or version is final at the first connection, where the user is at hand to mend it.
        """
        error: SwarmError = Unreachable("no endpoint could be tried in time")
        problems: dict[str, str] = {}
        while True:
            endpoints = self._endpoints
            count = len(endpoints)
            for step in range(1, count + 1):
                index = (self._last + step) % count
                left = until - time.monotonic()
                if left <= 0 or self._closed:
                    raise _all_of(error, problems)
                try:
                    # With others to try, none gets all the time.
                    patience = (
                        left if count == 1 and not forever else min(left, max(left / (count - step + 1), 0.2), 2.0)
                    )
                    channel = self._opener(self, self.connection, endpoints[index], self.number, patience)
                except (Unreachable, ConnectionLost, WrongKey, VersionMismatch, BoardMismatch) as problem:
                    error = problem
                    problems[endpoints[index]] = str(problem)
                    continue
                self._last = index
                return channel
            if not forever and not isinstance(error, Unreachable):
                raise _all_of(error, problems)
            if forever:
                self._look_for_it()
            time.sleep(min(_PAUSE, max(until - time.monotonic(), 0.0)))

    def _look_for_it(self) -> None:
        """Has somebody asked where the swarm is now, unless that was done a moment ago or is still being done."""
        find_again, now = self._find_again, time.monotonic()
        if find_again is None or now - self._asked < _ASK_AGAIN:
            return
        self._asked = float("inf")

        def ask() -> None:
            try:
                found = find_again()
                endpoints = list(_endpoints(found))
                # Another swarm of the same name would not know the tasks, and its hubs refuse who asks for this one.
                if endpoints and found.uid == self.connection.uid:
                    self.connection, self._endpoints = found, endpoints
            except Exception:  # whatever the way to the swarm makes of its troubles: the known endpoints are tried on
                pass
            finally:
                self._asked = time.monotonic()

        threading.Thread(target=ask, name="swarm-find-again", daemon=True).start()

    def _current(self, until: float | None) -> Channel:
        """The open channel; waits while there is none."""
        if self._forked:
            raise SwarmError("this Swarm was connected in the parent process: connect again after a fork")
        channel = self._channel
        if channel is not None:
            return channel
        with self._changed:
            if not self._closed and self._channel is None and not self._recovering:
                self._begin_recovery(ConnectionLost("the connection had been given up"))
            while True:
                if self._closed:
                    raise ConnectionLost("the client is closed: connect again")
                if self._channel is not None:
                    return self._channel
                if not self._recovering:
                    raise ConnectionLost(f"the swarm can't be reached: {self._failure}")
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise ConnectionLost(f"the connection is broken and has not come back yet: {self._failure}")
                self._changed.wait(left)

    def _fail_all(self, error: BaseException) -> None:
        for task in list(self._pending):
            self.answered(task, None, error, None)


def _forget_all() -> None:
    for session in list(_sessions):
        session.forget()


os.register_at_fork(after_in_child=_forget_all)


def _all_of(error: SwarmError, problems: dict[str, str]) -> SwarmError:
    """The last error; with several endpoints it says what was wrong with each."""
    if len(problems) < 2:
        return error
    return type(error)(
        "none of the swarm's endpoints answers:\n" + "\n".join(f"- {text}" for text in problems.values())
    )


def _endpoints(connection: Connection) -> Iterator[str]:
    if connection.board:
        yield f"shm://{connection.board}"
    for hub in connection.hubs:
        if hub.address:
            yield hub.address
    for hub in connection.hubs:
        if hub.rest and not hub.address:
            yield hub.rest


def _open(sink: Sink, connection: Connection, endpoint: str, number: int, timeout: float) -> Channel:
    """Opens a channel of the kind that the endpoint's URL says; imports only what that kind needs."""
    if endpoint.startswith("shm://"):
        from swarm_agents.client.board import BoardChannel

        return BoardChannel(sink, connection, endpoint, number, timeout)
    if endpoint.startswith("tcp://"):
        from swarm_agents.client.tcp import TcpChannel

        return TcpChannel(sink, connection, endpoint, number, timeout)
    from swarm_agents.client.rest import RestChannel

    return RestChannel(sink, connection, endpoint, number, timeout)
