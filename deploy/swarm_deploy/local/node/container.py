"""One container: starts its process, restarts it as the pod's policy says, probes it, keeps its status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swarm_deploy.local.node import probes
from swarm_deploy.local.node.logs import LogWriter

__all__ = ["Container", "Launch", "now"]

Object = dict[str, Any]
_LAUNCHER = Path(__file__).with_name("launch.py")
_LONGEST_BACK_OFF = 300.0
#: After this long without a crash the back-off begins anew.
_FORGIVEN_AFTER = 600.0


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Launch:
    """What a container's process is started with."""

    command: tuple[str, ...]
    env: dict[str, str]
    directory: Path
    cores: tuple[int, ...] = ()
    #: What is said to be at a mountPath, in the commands of probes and hooks too, is where the volume really is.
    translate: Callable[[str], str] = str


@dataclass
class Container:
    """A container's life. `state` and `last` are the API's own form of a container's state."""

    spec: Object
    pod_directory: Path
    address: str
    #: Seconds before the second start after a crash; doubles up to five minutes.
    back_off: float
    changed: Callable[[], None]
    event: Callable[[str, str, str], None]
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    ready: bool = False
    image_id: str = ""
    container_id: str = ""
    process: asyncio.subprocess.Process | None = None
    _launch: Launch | None = None
    _stopping: bool = False
    _probe_reason: str = ""
    _ending: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def stopping(self) -> bool:
        return self._stopping

    async def run(self, launch: Launch, policy: str) -> int:
        """Runs the container until its policy lets it end; returns the last exit code."""
        self._launch = launch
        pause, crashed = 0.0, 0.0
        while True:
            code = await self._once(launch)
            if self.stopping or policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            if crashed and time.monotonic() - crashed > _FORGIVEN_AFTER:
                pause = 0.0
            crashed = time.monotonic()
            if pause:
                self.event("Warning", "BackOff", f"Back-off restarting failed container {self.name} in the pod")
                self.last, self.state = (
                    self.state,
                    {
                        "waiting": {
                            "reason": "CrashLoopBackOff",
                            "message": f"back-off {pause:g}s restarting failed container={self.name}",
                        }
                    },
                )
                self.changed()
                await asyncio.sleep(pause)
            else:
                self.last = self.state
            pause = min(pause * 2 or self.back_off, _LONGEST_BACK_OFF)
            self.restarts += 1

    async def _once(self, launch: Launch) -> int:
        log = LogWriter(self.pod_directory, self.name, self.restarts)
        cores = ",".join(map(str, launch.cores))
        self.process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), cores, "--", *launch.command,
            env=launch.env, cwd=launch.directory, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        began = now()
        self.container_id = f"process://{process.pid}-{_start_time(process.pid)}"
        self.state = {"running": {"startedAt": began}}
        self.started, self.ready, self._probe_reason = "startupProbe" not in self.spec, False, ""
        self.event("Normal", "Started", f"Container started: {self.name}")
        copying = asyncio.create_task(log.copy(process.stdout))
        probing = asyncio.create_task(self._probe())
        self.changed()
        try:
            code = await process.wait()
        finally:
            probing.cancel()
            _kill_group(process.pid)  # what the program started and left
            self.started = self.ready = False
        await asyncio.wait([copying], timeout=1.0)
        copying.cancel()
        shown = 128 - code if code < 0 else code
        reason = self._probe_reason or ("Completed" if shown == 0 else "Error")
        self.state = {
            "terminated": {
                "exitCode": shown, "reason": reason, "startedAt": began, "finishedAt": now(),
                "containerID": self.container_id, **({"signal": -code} if code < 0 else {}),
            }
        }  # fmt: skip
        self.changed()
        return shown

    async def _probe(self) -> None:
        async def once(kind: str) -> str | None:
            return await probes.check(self.spec[kind], self.spec, self.address, self.execute)

        if "startupProbe" in self.spec:
            up = asyncio.Event()

            def began(ok: bool, problem: str) -> None:
                if ok:
                    up.set()
                else:
                    self._fail("Startup", problem)

            first = asyncio.create_task(
                probes.watch_probe(
                    self.spec["startupProbe"], lambda: once("startupProbe"), changed=began, healthy=False
                )
            )
            try:
                await up.wait()
            finally:
                first.cancel()
            self.started = True
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in self.spec:
                probe = self.spec["readinessProbe"]
                group.create_task(
                    probes.watch_probe(probe, lambda: once("readinessProbe"), changed=self._readiness, healthy=False)
                )
            else:
                self._readiness(True, "")
            if "livenessProbe" in self.spec:
                probe = self.spec["livenessProbe"]

                def lives(ok: bool, problem: str) -> None:
                    if not ok:
                        self._fail("Liveness", problem)

                group.create_task(probes.watch_probe(probe, lambda: once("livenessProbe"), changed=lives, healthy=True))

    def _readiness(self, ok: bool, problem: str) -> None:
        if not ok and self.ready:
            self.event("Warning", "Unhealthy", f"Readiness probe failed: {problem}")
        if ok != self.ready:
            self.ready = ok
            self.changed()

    def _fail(self, kind: str, problem: str) -> None:
        self.event("Warning", "Unhealthy", f"{kind} probe failed: {problem}")
        self.event("Normal", "Killing", f"Container {self.name} failed {kind.lower()} probe, will be restarted")
        self._probe_reason = "Error"
        if self.process is not None:
            self._ending = asyncio.create_task(self._end(self.process, 5.0))

    async def execute(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Runs a command in the container's environment."""
        assert self._launch is not None
        words = [self._launch.translate(word) for word in command]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), "", "--", *words,
            env=self._launch.env, cwd=self._launch.directory, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds)
        except BaseException:
            _kill_group(process.pid)
            raise
        return process.returncode or 0, output.decode(errors="replace")

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM, and after `grace` seconds SIGKILL."""
        self._stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        until = time.monotonic() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if "exec" in hook and grace > 0:
            try:
                await self.execute(hook["exec"].get("command", []), grace)
            except (TimeoutError, OSError) as error:
                self.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {error}")
        await self._end(process, max(until - time.monotonic(), 0.0))

    @staticmethod
    async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
        if process.returncode is None and grace > 0:
            try:
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), grace)
            except (ProcessLookupError, TimeoutError):
                pass
        if process.returncode is None:
            _kill_group(process.pid)
            await process.wait()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _start_time(pid: int) -> int:
    """In clock ticks since boot: with the pid it names a process for good."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
