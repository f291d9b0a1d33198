"""The daemon's side of the shim: start a program, learn that it has ended, send it a signal.

One shim serves all nodes of a cluster. When it dies (somebody killed it), so did every container, by the kernel's
hand; the runtime says of each that it ended by SIGKILL, and starts another shim with the next container.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm_deploy.local.processes import Process, end, marked
from swarm_deploy.local.record import CLUSTER_MARK

__all__ = ["CONTAINER_MARK", "Exit", "Program", "Runtime", "StartError", "Task"]

#: In the environment of every process of a container.
CONTAINER_MARK = "SWARM_CONTAINER_ID"

_SHIM = Path(__file__).with_name("shim.py")


class StartError(Exception):
    """The program could not be executed; the message is worded as a container runtime's."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `argv[0]` is looked for in the environment's own PATH."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    #: Real CPUs to keep it on; empty: wherever this machine likes.
    cpus: Sequence[int] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    no_new_privileges: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended. `code` is a shell's: 128 + N for signal N. `at` is seconds since the epoch."""

    code: int
    at: float


class Task:
    """A running program, or one that has run."""

    def __init__(self, runtime: Runtime, number: int, process: Process) -> None:
        self._runtime = runtime
        self._number = number
        self.process = process
        self.ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def signal(self, number: int, *, whole: bool = False) -> None:
        """Send a signal to its first process, or to all of them."""
        if not self.ended.done():
            self._runtime.tell({"op": "signal", "id": self._number, "signal": int(number), "whole": whole})

    def pin(self, cpus: Sequence[int]) -> None:
        """Move all its threads to these CPUs."""
        if not self.ended.done():
            self._runtime.tell({"op": "affinity", "id": self._number, "cpus": list(cpus)})

    async def wait(self) -> Exit:
        """How it ended, once it has."""
        return await asyncio.shield(self.ended)

    async def stop(self, grace: float) -> Exit:
        """SIGTERM, and SIGKILL to all that is left after `grace` seconds."""
        if grace > 0:
            self.signal(signal.SIGTERM)
            done, _ = await asyncio.wait({self.ended}, timeout=grace)
            if done:
                return self.ended.result()
        self.signal(signal.SIGKILL, whole=True)
        return await self.wait()


class Runtime:
    """Runs programs for one cluster."""

    def __init__(
        self,
        cluster: str,
        *,
        remove: Sequence[Path] = (),
        started: Callable[[Process], None] | None = None,
    ) -> None:
        """`remove`: directories that are removed when this process dies. `started` is told of each shim."""
        self._cluster = cluster
        self._remove = [str(path) for path in remove]
        self._started = started
        self._numbers = itertools.count(1)
        self._sock: socket.socket | None = None
        self._shim: asyncio.subprocess.Process | None = None
        self._starting: dict[int, asyncio.Future[Task]] = {}
        self._tasks: dict[int, Task] = {}
        self._opening = asyncio.Lock()
        self._out: list[tuple[bytes, list[int]]] = []

    async def _open(self) -> None:
        async with self._opening:
            if self._sock is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            with theirs:
                self._shim = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-S",
                    str(_SHIM),
                    str(theirs.fileno()),
                    *self._remove,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**os.environ, CLUSTER_MARK: self._cluster},
                )
            self._sock = ours
            asyncio.get_running_loop().add_reader(ours, self._hear)
            process = Process.of(self._shim.pid)
            if self._started is not None and process is not None:
                self._started(process)

    def _hear(self) -> None:
        while self._sock is not None:
            try:
                data = self._sock.recv(1 << 16)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._handle(json.loads(data))

    def _handle(self, message: dict[str, object]) -> None:
        number = int(str(message["id"]))
        if "status" in message:
            task = self._tasks.pop(number, None)
            if task is not None and not task.ended.done():
                code = os.waitstatus_to_exitcode(int(str(message["status"])))
                task.ended.set_result(Exit(code if code >= 0 else 128 - code, float(str(message["at"]))))
            return
        waiting = self._starting.pop(number, None)
        if waiting is None or waiting.done():
            return
        if "failed" in message:
            waiting.set_exception(StartError(str(message["failed"])))
            return
        process = Process(int(str(message["pid"])), int(str(message["start"])), Process.mine().boot)
        task = self._tasks[number] = Task(self, number, process)
        waiting.set_result(task)

    def _lost(self) -> None:
        """The shim is gone, and with it every container."""
        if self._sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        self._out.clear()
        # The kernel killed the containers' first processes; what they had started is found by its mark.
        end([p for p in marked(CLUSTER_MARK, self._cluster) if self._below(p)], 0)
        for waiting in self._starting.values():
            if not waiting.done():
                waiting.set_exception(StartError("the process that starts containers was killed; it is started again"))
        self._starting.clear()
        for task in self._tasks.values():
            if not task.ended.done():
                task.ended.set_result(Exit(128 + signal.SIGKILL, time.time()))
        self._tasks.clear()

    @staticmethod
    def _below(process: Process) -> bool:
        """Whether it belongs to a container, and is not the daemon or a command that works for it."""
        try:
            return f"{CONTAINER_MARK}=".encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            return False

    def tell(self, message: dict[str, object], fds: Sequence[int] = ()) -> None:
        """Send a message to the shim, in order; it is dropped when there is none (any more)."""
        if self._sock is None:
            return
        kept = [os.dup(fd) for fd in fds]
        self._out.append((json.dumps(message).encode(), kept))
        self._flush()

    def _flush(self) -> None:
        while self._out and self._sock is not None:
            data, fds = self._out[0]
            try:
                socket.send_fds(self._sock, [data], fds)
            except (BlockingIOError, InterruptedError):
                asyncio.get_running_loop().add_writer(self._sock, self._flush)
                return
            except OSError:
                return  # its end is read from the socket, in order
            for fd in fds:
                os.close(fd)
            self._out.pop(0)
        if self._sock is not None:
            asyncio.get_running_loop().remove_writer(self._sock)

    async def start(self, program: Program, stdout: int, stderr: int, stdin: int | None = None) -> Task:
        """Run a program on these descriptors, which stay the caller's.

        Raises:
            StartError: it could not be executed.
        """
        await self._open()
        number = next(self._numbers)
        spec = {
            "argv": list(program.argv),
            "env": {**program.env, CLUSTER_MARK: self._cluster},
            "cwd": str(program.cwd),
            "cpus": list(program.cpus),
            "limits": dict(program.limits),
            "no_new_privileges": program.no_new_privileges,
        }
        waiting: asyncio.Future[Task] = asyncio.get_running_loop().create_future()
        self._starting[number] = waiting
        # A file rather than the message itself: an environment may be larger than a socket's buffer.
        memory = os.memfd_create("program")
        null = os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin
        try:
            os.write(memory, json.dumps(spec).encode())
            self.tell({"op": "spawn", "id": number}, [memory, null, stdout, stderr])
        finally:
            os.close(memory)
            if stdin is None:
                os.close(null)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.add_done_callback(_unwanted)
            raise

    async def run(self, program: Program, seconds: float, *, most: int = 10 * 1024) -> tuple[int | None, bytes]:
        """Run a program to its end: its exit code (None: it took longer than allowed) and the beginning of its output.

        Raises:
            StartError: it could not be executed.
        """
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        output = bytearray()

        def drain() -> None:
            try:
                data = os.read(reading, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                loop.remove_reader(reading)
            output.extend(data[: most - len(output)])  # the rest is read too, so that nobody waits for a full pipe

        loop.add_reader(reading, drain)
        try:
            try:
                task = await self.start(program, writing, writing)
            finally:
                os.close(writing)
            try:
                async with asyncio.timeout(seconds):
                    code: int | None = (await task.wait()).code
            except TimeoutError:
                await task.stop(0)
                code = None
            except asyncio.CancelledError:
                task.signal(signal.SIGKILL, whole=True)
                raise
            drain()
            return code, bytes(output)
        finally:
            loop.remove_reader(reading)
            os.close(reading)

    async def close(self) -> None:
        """Kill whatever runs, and wait until it is gone."""
        sock, shim = self._sock, self._shim
        if sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.remove_writer(sock)
            sock.close()
            self._sock = None
        if shim is not None:
            try:
                async with asyncio.timeout(15):
                    await shim.wait()
            except TimeoutError:
                shim.kill()
                await shim.wait()
        for task in self._tasks.values():
            if not task.ended.done():
                task.ended.set_result(Exit(128 + signal.SIGKILL, time.time()))
        self._tasks.clear()


def _unwanted(waiting: asyncio.Future[Task]) -> None:
    """Whoever asked for a program has gone before it had started."""
    if not waiting.cancelled() and waiting.exception() is None:
        waiting.result().signal(signal.SIGKILL, whole=True)
