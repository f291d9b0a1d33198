"""`Swarm`: what a user's program imports. An executor of `concurrent.futures` for kernels, and a little more."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from swarm_agents.client.connection import Connection, resolve
from swarm_agents.client.mapping import Mapping
from swarm_agents.client.session import Session
from swarm_agents.client.task import SwarmFuture
from swarm_agents.config import Priority
from swarm_agents.retry import KEYWORD, Retry

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Swarm"]

#: More than this many seconds can only be an instant that was taken for a span.
_LONGEST = 10 * 365 * 86400.0

_open: weakref.WeakSet[Session] = weakref.WeakSet()


class Swarm(Executor):
    """A connection to a swarm.

        with Swarm.connect() as swarm:
            future = swarm.submit("risk.monte_carlo", returns, weights, paths=1_000_000, seed=7, priority="critical")
            print(future.result(timeout=10))

    Threads may share it; a forked child may not. An array that was submitted must not be changed before its future is
    done: should the connection break, it is sent again. Leaving the `with` block waits for what is pending, or gives it
    up when the block ends by an exception.
    """

    def __init__(self, session: Session) -> None:
        """Use `Swarm.connect`."""
        self._session = session
        _open.add(session)

    @classmethod
    def connect(
        cls,
        target: str | os.PathLike[str] | Connection | Callable[[], Connection] | None = None,
        *,
        timeout: float = 10.0,
        retry_window: float = 30.0,
        server_key: str | None = None,
        public_key: str | None = None,
        secret_key: str | None = None,
        token: str | None = None,
        copy: bool = True,
    ) -> Self:
        """Connects.

        Args:
            target: a URL (`shm:///directory`, `tcp://host:7400`, `http://host:7480`), the path of a connection file, a
                kubeconfig's context and a swarm's name, a `Connection`, or a function that returns one. None: the
                environment variable `SWARM_ENDPOINT`, else the pod's own swarm, else the one that the kubeconfig leads
                to. All but a URL and a `Connection` are looked up again when no hub answers any more, as after all of
                them were replaced.
            timeout: seconds until the swarm must have answered.
            retry_window: seconds for which a connection that broke is tried to be made anew. What is pending waits.
            server_key: the hubs' CURVE public key (Z85), for a `tcp://` URL of a swarm that encrypts.
            public_key: the clients' CURVE public key.
            secret_key: the clients' CURVE secret key.
            token: bearer token of the REST interface, for an `http://` URL.
            copy: False: through shared memory, arrays of results are shown where they lie, read-only. Their room is
                free again when the program has let them go; until then it is missing to everybody on the node.

        Raises:
            Unreachable: nothing answers, or nothing says where the swarm is.
            WrongKey: the swarm does not accept the key or the token.
            VersionMismatch: the swarm speaks another version of the protocol.
        """

        def find() -> Connection:
            return resolve(
                target() if callable(target) else target,
                server_key=server_key,
                public_key=public_key,
                secret_key=secret_key,
                token=token,
            )

        again = None if isinstance(target, Connection) else find
        return cls(Session(find(), timeout=timeout, retry_window=retry_window, copy=copy, find_again=again))

    def __repr__(self) -> str:
        """Names the endpoint, and no secrets."""
        state = "closed" if self._session.closed else self._session.endpoint or "reconnecting"
        return f"<Swarm {state}, {self._session.pending} pending>"

    # -- arrays

    def put(self, array: Any) -> np.ndarray[Any, Any]:
        """Copies an array to where tasks find it most cheaply, once, for any number of them; the copy is read-only.

        Through shared memory this is the node's arena: tasks that get the returned array, or a view of it (a slice, a
        transpose), are given that very memory. It is freed when neither the program nor a task refers to it any more.
        Through a hub it is a copy in the client's own memory, which is sent with each task.

        Raises:
            SwarmFull: the arena had no room for it for 10 seconds.
            PayloadTooLarge: it is larger than the arena.
            PayloadError: its dtype holds Python objects.
        """
        return self._session.put(array)

    def empty(self, shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray[Any, Any]:
        """As `put`, for an array that the program is going to write: its contents are arbitrary. Once it has been
        submitted it is read-only, for others look at that very memory; so must be views that were made of it before.

        Raises:
            SwarmFull, PayloadTooLarge, PayloadError: as `put`.
        """
        return self._session.empty(shape, dtype)

    # -- tasks

    def submit(  # type: ignore[override]  # names of kernels as well as functions
        self,
        kernel: Any,
        /,
        *args: Any,
        priority: Priority | str = Priority.NORMAL,
        deadline: float | timedelta | datetime | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        **kwargs: Any,
    ) -> SwarmFuture:
        """Submits a task.

        Args:
            kernel: the kernel's name, or a registered kernel itself.
            *args: its arguments: numbers, strings, bytes, lists, maps and NumPy arrays.
            priority: critical, high, normal or bulk.
            deadline: when the answer is of no use any more: seconds from now, a `timedelta`, or an aware `datetime`.
            timeout: seconds to wait while the swarm is full; None: as long as it takes, 0: not at all.
            retry: how often it is begun, and when again, where it shall be otherwise than its kernel says.
            **kwargs: its keyword arguments.

        Returns:
            A future; its `info` says, when it is done, which agent computed it and how long that took.

        Raises:
            SwarmFull: there was no room within `timeout`.
            PayloadError: an argument's type can't travel.
            PayloadTooLarge: the arguments are larger than the swarm takes.
            ConnectionLost: the connection is broken and has not come back within `timeout`, or the client is closed.
        """
        if retry is not None:
            kwargs[KEYWORD] = msgspec.to_builtins(retry)
        return self._session.submit(
            kernel if type(kernel) is str else _name(kernel),
            args,
            kwargs,
            priority if type(priority) is Priority else _priority(priority),
            None if deadline is None else _deadline(deadline),
            timeout,
        )

    def run(
        self,
        kernel: Any,
        /,
        *args: Any,
        priority: Priority | str = Priority.NORMAL,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Submits a task and returns its value; after `timeout` seconds without an answer it is cancelled.

        Raises:
            TimeoutError: no answer in time.
            SwarmError: as `submit` and `Future.result`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        future = self.submit(kernel, *args, priority=priority, deadline=timeout, timeout=timeout, **kwargs)
        try:
            return future.result(None if until is None else max(until - time.monotonic(), 0.0))
        except BaseException:
            future.cancel()
            raise

    def submit_many(
        self,
        kernel: Any,
        arguments: Iterable[Any],
        *,
        priority: Priority | str = Priority.NORMAL,
        deadline: float | timedelta | datetime | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> list[SwarmFuture]:
        """Submits a task for each item: a tuple holds its arguments, anything else is the only one.

        Raises:
            SwarmFull, PayloadError, ...: as `submit`; what was submitted before is cancelled.
        """
        name, lane, until = _name(kernel), _priority(priority), _deadline(deadline)
        futures: list[SwarmFuture] = []
        try:
            for item in arguments:
                args = item if isinstance(item, tuple) else (item,)
                futures.append(self._session.submit(name, args, kwargs, lane, until, timeout))
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return futures

    def map(
        self,
        kernel: Any,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        window: int | None = None,
        priority: Priority | str = Priority.NORMAL,
    ) -> Iterator[Any]:
        """The kernel's values for the items of the iterables, in their order.

        The iterables are read as the values are: never more than `window` calls are underway, so they may be endless.

        Args:
            kernel: as in `submit`.
            *iterables: an argument each; the shortest one ends it.
            timeout: seconds from now until the last value must have come.
            chunksize: calls that travel together as one task; None: those that turn out to take less than 1.5
                milliseconds, as many as take about that long. What an agent died over, and what a chunk can't be made
                of, travels alone: like any task, a call may be begun again.
            window: calls underway; None: what keeps the swarm busy.
            priority: as in `submit`.

        Raises:
            TimeoutError: the time is over.
            SwarmError: as `Future.result`, at the item that it belongs to. What is underway then is cancelled.
        """
        if window is not None and window < 1:
            raise ValueError(f"window={window}: at least one task must be underway")
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"chunksize={chunksize}: at least one call must travel in a task")
        name, lane, session = _name(kernel), _priority(priority), self._session

        def submit(args: tuple[Any, ...], kwargs: dict[str, Any], patience: float | None) -> SwarmFuture:
            return session.submit(name, args, kwargs, lane, None, patience)

        # What may be underway is submitted at once, as every executor does, not when the first value is asked for.
        return iter(
            Mapping(
                submit,
                zip(*iterables, strict=False),
                width=session.window,
                window=window,
                chunksize=chunksize,
                timeout=timeout,
            )
        )

    # -- the swarm

    def info(self, *, timeout: float = 10.0) -> dict[str, Any]:
        """What the swarm says of itself: its `members` and `queues` on this node, its `hubs`, and the `endpoint`."""
        return {"endpoint": self._session.endpoint} | self._session.info(timeout)

    @property
    def endpoint(self) -> str:
        """URL of what this is connected to at present; empty while a broken connection is made anew."""
        return self._session.endpoint

    @property
    def pending(self) -> int:
        """Tasks without an answer."""
        return self._session.pending

    # -- the end

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Closes the connection.

        Args:
            wait: first wait for all that is pending. If not, it fails with `ConnectionLost`.
            cancel_futures: cancel what is pending.
        """
        if cancel_futures:
            for future in self._session.futures():
                future.cancel()
        elif wait:
            for future in self._session.futures():
                future.exception_or_cancelled()
        self._session.close()

    def close(self) -> None:
        """`shutdown(wait=False)`."""
        self.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is None, cancel_futures=kind is not None)


@atexit.register
def _close_all() -> None:
    """A program that ends leaves the board and says good-bye, also without a `with` block."""
    for session in list(_open):
        session.close()


def _name(kernel: Any) -> str:
    if isinstance(kernel, str):
        return kernel
    name = getattr(kernel, "name", None)
    if isinstance(name, str) and hasattr(kernel, "implementations"):
        return name
    raise TypeError(
        f"{kernel!r} is no kernel: pass a registered kernel or its name; functions do not travel to a swarm, "
        "register them with @kernel in a module of spec.kernels"
    )


_PRIORITIES: dict[str, Priority] = {str(priority): priority for priority in Priority}


def _priority(priority: Priority | str) -> Priority:
    try:
        return _PRIORITIES[priority]
    except (KeyError, TypeError):
        raise ValueError(f"priority={priority!r}: expected one of {', '.join(Priority)}") from None


def _deadline(deadline: float | timedelta | datetime | None) -> float | None:
    """As Unix time."""
    if deadline is None:
        return None
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise ValueError("a deadline that is a datetime needs a time zone: datetime.now(UTC) + ...")
        return deadline.timestamp()
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
    if seconds > _LONGEST:
        raise ValueError(f"deadline={deadline}: a number is seconds from now; pass a datetime for an instant")
    return time.time() + seconds
