"""A channel to a hub's REST interface, for where only HTTP passes: the base functions, on the standard library alone.

A few threads each carry one task at a time: submit, then wait by long polls, then delete. The task's id is the
client's, so a request that is repeated submits nothing twice.
"""

from __future__ import annotations

import http.client
import json
import math
import queue
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from swarm_agents.client.channel import Channel, Sink
from swarm_agents.client.task import Request, TaskId, TaskInfo
from swarm_agents.errors import ConnectionLost, Overloaded, SwarmError, SwarmFull, Unreachable, WrongKey, from_wire

if TYPE_CHECKING:
    from swarm_agents.client.connection import Connection

__all__ = ["RestChannel"]

_THREADS = 16
#: Seconds that a poll waits at the hub.
_POLL = 20.0
#: Seconds until a request that should be answered at once is given up.
_PATIENCE = 10.0
_FULL_PAUSE = 0.1


class RestChannel(Channel):
    """See the module's text."""

    window = _THREADS

    def __init__(self, sink: Sink, connection: Connection, endpoint: str, number: int, timeout: float) -> None:
        """Asks who is there.

        Raises:
            Unreachable, WrongKey: nobody, or somebody who does not accept the token.
        """
        self.endpoint = endpoint
        self._sink = sink
        self._parts = urlsplit(endpoint)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {connection.token}"}
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._tasks: dict[TaskId, Request] = {}
        #: Until when (monotonic) a task's submitter waits for it to be taken, where that is bounded.
        self._patient_until: dict[TaskId, float] = {}
        self._lost = False
        self._closed = False
        until = time.monotonic() + timeout
        while True:
            try:
                uid = self.info(max(until - time.monotonic(), 0.1)).get("uid", "")
                break
            except Unreachable:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
        if connection.uid and uid != connection.uid:
            raise WrongKey(f"{endpoint} is the swarm with UID {uid}, not {connection.uid}: connect anew")
        for index in range(_THREADS):
            threading.Thread(target=self._carry, name=f"swarm-rest-{index}", daemon=True).start()

    def submit(self, request: Request, timeout: float | None) -> None:
        until = None if timeout is None else time.monotonic() + timeout
        with self._room:
            if request.task in self._tasks:
                return
            if not self._room.wait_for(lambda: len(self._tasks) < self.window or self._lost or self._closed, timeout):
                raise SwarmFull(f"{self.endpoint} carries {self.window} tasks at once: wait for results")
            if self._lost or self._closed:
                raise ConnectionLost(f"the connection to {self.endpoint} is broken")
            self._tasks[request.task] = request
            if until is not None:
                self._patient_until[request.task] = until
        self._queue.put(request)

    def cancel(self, task: TaskId) -> None:
        if self._forget(task):
            threading.Thread(target=self._delete, args=(task,), daemon=True).start()

    def info(self, timeout: float) -> dict[str, Any]:
        connection = self._connect(timeout)
        try:
            status, body = self._ask(connection, "GET", "/v1/swarm")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"nothing answers at {self.endpoint} ({error}): check the address, and that the swarm's resource "
                "agent there is running (`swarm status`)"
            ) from error
        finally:
            connection.close()
        if status != 200 or not isinstance(body, dict):
            raise _problem(status, body)
        return body

    def close(self) -> None:
        with self._room:
            self._closed = True
            self._room.notify_all()
        for _ in range(_THREADS):
            self._queue.put(None)

    # -- the threads

    def _carry(self) -> None:
        connection = self._connect(_POLL + _PATIENCE)
        try:
            while not self._closed and (request := self._queue.get()) is not None:
                try:
                    self._do(connection, request)
                except (OSError, http.client.HTTPException) as error:
                    self._break(ConnectionLost(f"the connection to {self.endpoint} broke: {error}"))
                    return
                except SwarmError as error:
                    self._settle(request.task, None, error, None)
        finally:
            connection.close()

    def _do(self, connection: http.client.HTTPConnection, request: Request) -> None:
        from swarm_agents.wire.values import from_json, to_json

        name = _path(request.task)
        task: dict[str, Any] = {
            "id": name,
            "kernel": request.kernel,
            "args": [to_json(arg) for arg in request.args],
            "kwargs": {key: to_json(arg) for key, arg in request.kwargs.items()},
            "priority": str(request.priority),
        }
        while True:
            if request.deadline is not None:
                task["deadline"] = request.deadline - time.time()
            status, body = self._ask(connection, "POST", "/v1/tasks", task)
            if status != 429:
                break
            if request.task not in self._tasks or self._closed:
                return
            refused = _problem(status, body)
            if not isinstance(refused, Overloaded):
                time.sleep(_FULL_PAUSE)
                continue
            late = request.deadline is not None and request.deadline < time.time() + refused.retry_after
            if late or time.monotonic() + refused.retry_after > self._patient_until.get(request.task, math.inf):
                raise refused
            time.sleep(refused.retry_after)
        if status != 202:
            raise _problem(status, body)
        while request.task in self._tasks and not self._closed:
            status, body = self._ask(connection, "GET", f"/v1/tasks/{name}?wait={_POLL:g}")
            if status == 404:  # the hub began anew, or dropped it
                raise OSError("the hub has forgotten the task")
            if status != 200:
                raise _problem(status, body)
            if body["state"] != "pending":
                error = from_wire(body["error"]) if body["state"] == "failed" else None
                value = from_json(body["value"]) if error is None else None
                known = body.get("info", {})
                info = TaskInfo(
                    known.get("agent", ""),
                    known.get("attempts", 1),
                    known.get("queuedSeconds", 0.0),
                    known.get("runSeconds", 0.0),
                    known.get("hops", 0),
                )
                self._settle(request.task, value, error, info)
                self._ask(connection, "DELETE", f"/v1/tasks/{name}")
                return

    def _delete(self, task: TaskId) -> None:
        connection = self._connect(_PATIENCE)
        try:
            self._ask(connection, "DELETE", f"/v1/tasks/{_path(task)}")
        except (OSError, http.client.HTTPException):
            pass  # it is forgotten after a while in any case
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, self._parts.path.rstrip("/") + path, data, self._headers)
        response = connection.getresponse()
        text = response.read()
        try:
            found = json.loads(text) if text else None
        except ValueError:
            found = text.decode(errors="replace")[:500]
        if response.status in (502, 503):  # the hub leaves, or a proxy has lost it
            raise http.client.HTTPException(f"HTTP {response.status}: {found}")
        return response.status, found

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "localhost", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout)

    # -- the end of a task, and of the channel

    def _forget(self, task: TaskId) -> bool:
        with self._room:
            known = self._tasks.pop(task, None) is not None
            self._patient_until.pop(task, None)
            self._room.notify()
        return known

    def _settle(self, task: TaskId, value: Any, error: BaseException | None, info: TaskInfo | None) -> None:
        if self._forget(task):
            self._sink.answered(task, value, error, info)

    def _break(self, error: BaseException) -> None:
        with self._room:
            first, self._lost = not (self._lost or self._closed), True
            self._room.notify_all()
        if first:
            for _ in range(_THREADS):
                self._queue.put(None)
            self._sink.lost(self, error)


def _path(task: TaskId) -> str:
    return f"{task[0]:016x}-{task[1]:x}"


def _problem(status: int, body: Any) -> SwarmError:
    """The error that a refusal describes."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return from_wire({key: str(item) for key, item in body["error"].items()})
    return SwarmError(f"HTTP {status}: {body!r}; is this a swarm's REST interface (port 7480)?")
