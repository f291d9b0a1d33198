"""The hub's REST interface: tasks by HTTP and JSON, for programs that speak nothing better.

It is one more session of the hub: its tasks lie on the board under ids like everybody's, and their answers are kept
until somebody has fetched and deleted them or `KEEP` seconds have passed. A client may choose a task's id, so that a
request repeated after a broken connection submits nothing twice. Every path but the description of the interface needs
the swarm's bearer token, which is compared in constant time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import math
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from swarm_agents.codec import decode, encode
from swarm_agents.config import Priority
from swarm_agents.errors import (
    ConnectionLost,
    DeadlineExceeded,
    PayloadError,
    PayloadTooLarge,
    PortInUse,
    SwarmError,
    SwarmFull,
    TaskCancelled,
    WrongKey,
    to_wire,
)
from swarm_agents.resource.openapi import document
from swarm_agents.wire import schema
from swarm_agents.wire.frames import payload_bytes
from swarm_agents.wire.schema import TaskId
from swarm_agents.wire.values import from_json, to_json

if TYPE_CHECKING:
    from swarm_agents.resource.hub import Hub
    from swarm_agents.resource.sessions import Entry, Session

__all__ = ["KEEP", "Rest", "parse_id", "write_id"]

#: An answer that nobody has deleted is kept this long (seconds).
KEEP = 300.0
#: `wait` and `timeout` of a request are at most this (seconds): proxies cut off longer ones.
_LONGEST_WAIT = 60.0
#: Tasks of all REST clients together, with the answers that are kept.
_MOST_TASKS = 8192
#: Above this many bytes JSON is read and written on a thread, and the loop goes on.
_THREAD_BYTES = 256 << 10

_STATUS = {
    "UnknownKernel": 404,
    "BadArguments": 422,
    "PayloadError": 400,
    "PayloadTooLarge": 413,
    "NotEnoughMemory": 413,
    "SwarmFull": 429,
    "Overloaded": 429,
    "WrongKey": 401,
    "ConnectionLost": 503,
    "DeadlineExceeded": 504,
    "TaskCancelled": 409,
}

_T = TypeVar("_T")
Handler = Callable[[Request], Awaitable[Response]]


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a submission."""

    kernel: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    priority: Priority = Priority.NORMAL
    #: Seconds from now.
    deadline: float | None = None
    id: str | None = None
    #: Of `/v1/run` alone: seconds that the request waits.
    timeout: float = 30.0


_decode_task = msgspec.json.Decoder(_Task).decode


class Rest:
    """The HTTP server of a hub, in an event loop of the agent's own; the hub is called under its reactor's lock."""

    def __init__(
        self, hub: Hub, token: str, *, report: Callable[[], dict[str, Any]], kernels: Callable[[], list[dict[str, str]]]
    ) -> None:
        self._hub = hub
        self._token = token.encode()
        self._report = report
        self._kernels = kernels
        self._waiting: dict[TaskId, list[asyncio.Future[None]]] = {}
        self._answered: dict[TaskId, float] = {}
        self._numbers = itertools.count(1)
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session = hub.sessions.open(
            secrets.randbits(63), "rest", "rest", "", self._deliver, time.monotonic()
        )
        self._session.limit = _MOST_TASKS
        self.app = Starlette(
            routes=[
                Route("/openapi.json", self._openapi),
                Route("/v1/tasks", self._guard(self._submit), methods=["POST"]),
                Route("/v1/tasks/{task}", self._guard(self._get), methods=["GET"]),
                Route("/v1/tasks/{task}", self._guard(self._delete), methods=["DELETE"]),
                Route("/v1/run", self._guard(self._run), methods=["POST"]),
                Route("/v1/kernels", self._guard(self._list_kernels)),
                Route("/v1/swarm", self._guard(self._swarm)),
            ]
        )

    # -- life

    async def start(self, host: str, port: int) -> None:
        """Listens on `host`:`port`.

        Raises:
            PortInUse: another process does.
        """
        self._loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            raise PortInUse(
                f"http://{host}:{port} can't be served ({error.strerror}): stop what listens there, "
                "or set another port in spec.transport.rest"
            ) from error
        config = uvicorn.Config(
            self.app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            loop="none",
            http="h11",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve([sock]))
        while not self._server.started and not self._serving.done():  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Stops listening; requests that wait are answered by what is known, later ones refused."""
        self._closing = True
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
        with self._hub.reactor:
            self._hub.sessions.close(self._session)

    def expire(self, now: float) -> None:
        """Forgets the answers that nobody has fetched; called now and then."""
        for task, at in list(self._answered.items()):
            if now - at < KEEP:
                break
            self._forget(task)

    # -- tasks

    def _deliver(self, session: Session, entry: Entry) -> None:
        """Called by the hub, in a thread of its own."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._delivered, entry.task)

    def _delivered(self, task: TaskId) -> None:
        self._answered[task] = time.monotonic()
        for future in self._waiting.pop(task, ()):
            if not future.done():
                future.set_result(None)

    def _forget(self, task: TaskId) -> None:
        self._answered.pop(task, None)
        with self._hub.reactor:
            self._hub.sessions.forget(self._session, task)

    async def _enter(self, request: Request) -> tuple[TaskId, _Task]:
        if self._hub.draining:
            raise ConnectionLost("this hub is leaving: ask another one, or this one again in a moment")
        body = await self._body(request)
        task, payload = await _off_loop(len(body), _read_task, body)
        size = payload_bytes(payload)
        limit = self._hub.settings.transport.max_message_bytes
        if size > limit:
            raise PayloadTooLarge(f"the arguments have {size} bytes, the limit is {limit}")
        number = parse_id(task.id) if task.id is not None else (self._session.number, next(self._numbers))
        if len(self._session.entries) >= _MOST_TASKS and self._answered:
            self._forget(next(iter(self._answered)))
        with self._hub.reactor:
            entry = self._hub.submit(
                self._session, schema.Submit(number, task.kernel, task.priority.lane, task.deadline), payload
            )
            if entry is not None and entry.aside is not None:  # another session's task, answered long ago
                self._hub._outbox.fetch(self._session, entry)
        return number, task

    async def _answer(self, task: TaskId, wait: float) -> Entry | None:
        """The task's entry when it is answered or `wait` seconds have passed; None when it is not known."""
        entry = self._session.entries.get(task)
        if entry is not None and not entry.is_here and wait > 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(task, []).append(future)
            try:
                async with asyncio.timeout(min(wait, _LONGEST_WAIT)):
                    await future
            except TimeoutError:
                pass
            finally:
                waiting = self._waiting.get(task, [])
                if future in waiting:
                    waiting.remove(future)
                if not waiting:
                    self._waiting.pop(task, None)
            entry = self._session.entries.get(task)
        return entry

    # -- paths

    async def _submit(self, request: Request) -> Response:
        task, _ = await self._enter(request)
        name = write_id(task)
        return _json(202, {"id": name}, {"Location": f"/v1/tasks/{name}"})

    async def _run(self, request: Request) -> Response:
        task, body = await self._enter(request)
        try:
            entry = await self._answer(task, body.timeout)
            if entry is None:
                raise TaskCancelled("the task was deleted by another request")
            if entry.answer is None or not entry.is_here:
                raise DeadlineExceeded(
                    f"no answer within {min(body.timeout, _LONGEST_WAIT):g} s, the task is cancelled: "
                    "POST /v1/tasks and GET it later for work that takes long"
                )
            if entry.answer.error is not None:
                return _failure(entry.answer.error)
            return await _off_loop(entry.size, _done, entry)
        finally:
            self._forget(task)

    async def _get(self, request: Request) -> Response:
        task = parse_id(request.path_params["task"])
        try:
            wait = float(request.query_params.get("wait", "0"))
        except ValueError:
            wait = math.nan
        if not wait >= 0:
            raise PayloadError("wait: expected seconds")
        entry = await self._answer(task, wait)
        if entry is None:
            return _json(404, _error("UnknownTask", "no such task: it was never submitted here, or is forgotten"))
        if entry.answer is None or not entry.is_here:
            return _json(200, {"id": write_id(task), "state": "pending"})
        if entry.answer.error is not None:
            return _json(
                200,
                {"id": write_id(task), "state": "failed", "error": entry.answer.error, "info": _info(entry.answer)},
            )
        return await _off_loop(entry.size, _done, entry)

    async def _delete(self, request: Request) -> Response:
        self._forget(parse_id(request.path_params["task"]))
        return Response(status_code=204)

    async def _list_kernels(self, request: Request) -> Response:
        return _json(200, {"kernels": self._kernels()})

    async def _swarm(self, request: Request) -> Response:
        return _json(200, self._report())

    async def _openapi(self, request: Request) -> Response:
        return _json(200, document())

    # -- around all of them

    def _guard(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1", "replace")
            # Compared also when there is no token to compare with: an empty one opens nothing.
            if not hmac.compare_digest(given, b"Bearer " + self._token) or not self._token:
                return _failure(
                    to_wire(WrongKey("pass the swarm's token: Authorization: Bearer TOKEN (`swarm connection`)")),
                    {"WWW-Authenticate": "Bearer"},
                )
            try:
                if self._closing:
                    raise ConnectionLost("this hub is leaving: ask another one, or this one again in a moment")
                return await handler(request)
            except ClientDisconnect:
                return Response(status_code=400)
            except SwarmFull as error:
                return _failure(to_wire(error), {"Retry-After": str(max(math.ceil(error.retry_after), 1))})
            except ConnectionLost as error:  # a connection of its own leads to another hub, by way of the Service
                return _failure(to_wire(error), {"Retry-After": "1", "Connection": "close"})
            except SwarmError as error:
                return _failure(to_wire(error))

        return guarded

    async def _body(self, request: Request) -> bytes:
        # Base64 makes three bytes four.
        limit = self._hub.settings.transport.max_message_bytes * 4 // 3 + (1 << 20)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > limit:
                raise PayloadTooLarge(f"the request has more than {limit} bytes (spec.transport.zeromq)")
        return bytes(body)


class _Server(uvicorn.Server):
    """Signals belong to the agent."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def write_id(task: TaskId) -> str:
    """A task's id as text."""
    return f"{task[0]:016x}-{task[1]:x}"


def parse_id(text: str) -> TaskId:
    """The id that `write_id` wrote.

    Raises:
        PayloadError: it is none.
    """
    high, _, low = text.partition("-")
    try:
        task = int(high, 16), int(low, 16)
    except ValueError:
        task = -1, -1
    if not (0 <= task[0] < 1 << 64 and 0 <= task[1] < 1 << 64) or len(text) > 40:
        raise PayloadError(f"id={text!r}: expected two hexadecimal numbers of 64 bits, separated by a hyphen")
    return task


def _read_task(body: bytes) -> tuple[_Task, list[Any]]:
    try:
        task = _decode_task(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PayloadError(f"the request's body: {error}") from error
    if not 0 <= task.timeout < math.inf:
        raise PayloadError("timeout: expected seconds")
    args = tuple(from_json(item) for item in task.args)
    kwargs = {name: from_json(item) for name, item in task.kwargs.items()}
    header, arrays = encode((args, kwargs))
    return task, [header, *arrays]


def _done(entry: Entry) -> Response:
    answer = entry.answer
    assert answer is not None
    value = to_json(decode(bytes(entry.payload[0]), [memoryview(part) for part in entry.payload[1:]]))
    return _json(200, {"id": write_id(entry.task), "state": "done", "value": value, "info": _info(answer)})


def _info(answer: schema.Answer) -> dict[str, Any]:
    return {
        "agent": answer.agent,
        "attempts": answer.attempts,
        "queuedSeconds": answer.queued,
        "runSeconds": answer.run,
        "hops": answer.hops,
    }


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _failure(error: dict[str, str], headers: dict[str, str] | None = None) -> Response:
    return _json(_STATUS.get(error.get("code", ""), 500), {"error": error}, headers)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def _off_loop(size: int, function: Callable[..., _T], *args: Any) -> _T:
    return await asyncio.to_thread(function, *args) if size > _THREAD_BYTES else function(*args)
