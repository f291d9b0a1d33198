"""One container of a pod, from its first start to its last end: configure, start, probe, stop, start again.

A container is one coroutine, `run`, which returns when nothing will start the container any more. It changes its
`state`, a plain value, and tells the pod, which turns all states into a status. It is never cancelled: what it waits
for it waits for together with the pod's wish to end, so that no process is ever left without somebody who waits for
it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

from swarm_deploy.local.kubelet.container_program import NoImageError, make_program, real_paths
from swarm_deploy.local.kubelet.cpus import Assignment
from swarm_deploy.local.kubelet.environment import ConfigError
from swarm_deploy.local.kubelet.images import Image
from swarm_deploy.local.kubelet.logs import ContainerLog
from swarm_deploy.local.kubelet.paths import Translation
from swarm_deploy.local.kubelet.probes import Answer, Prober, ask_http, ask_tcp, port_number
from swarm_deploy.local.kubelet.runtime import CONTAINER_MARK, Exit, Program, StartError, Task
from swarm_deploy.local.kubelet.services import Backoff, NodeServices
from swarm_deploy.local.kubelet.state import ContainerState, Running, Terminated, Waiting

__all__ = ["Container", "Home", "Kind"]

Object = dict[str, Any]
Kind = Literal["init", "sidecar", "main"]

_log = logging.getLogger(__name__)
_MESSAGE = 4096
_HOOK_LEAST = 2.0
_FIELDS = {"init": "spec.initContainers", "sidecar": "spec.initContainers", "main": "spec.containers"}


class Home(Protocol):
    """What a container knows of its pod."""

    node: NodeServices
    object: Object
    ip: str
    mounts: Mapping[str, Path]
    directory: Path
    logs: Path
    #: Set when the containers have to end…
    ending: asyncio.Event
    #: …and when they have to end at once.
    hurry: asyncio.Event

    @property
    def grace(self) -> float:
        """Seconds that are left for ending."""
        ...

    def changed(self) -> None:
        """A container's state has changed."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the wish to end, nor beyond a change of the pod or of what it refers to."""
        ...

    async def say(self, reason: str, message: str, *, warning: bool = False, field: str = "") -> None:
        """Record an event about the pod."""
        ...

    def assign(self, container: str) -> Assignment:
        """The CPUs of one of its containers."""
        ...


class Container:
    """One container."""

    def __init__(self, home: Home, spec: Object, kind: Kind, state: ContainerState) -> None:
        self.home = home
        self.spec = spec
        self.kind: Kind = kind
        self.state = replace(state, sidecar=kind == "sidecar")
        self.name: str = spec["name"]
        self.task: Task | None = None
        self.log: ContainerLog | None = None
        #: What has to end this run, and how many seconds it has for that; None: nothing yet.
        self._condemned: asyncio.Future[float] | None = None
        self._image: Image | None = None
        self._program: Program | None = None
        self._backoff = Backoff(home.node.timing)
        self._field = f"{_FIELDS[kind]}{{{self.name}}}"
        self.started = asyncio.Event()

    def _set(self, **changes: Any) -> None:
        new = replace(self.state, **changes)
        if new != self.state:
            self.state = new
            self.home.changed()

    async def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        await self.home.say(reason, message, warning=warning, field=self._field)

    # -- the whole life -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """To its last end."""
        try:
            while not self.home.ending.is_set():
                if isinstance(self.state.state, Terminated) and not self._again(self.state.state.code):
                    break
                program = await self._configure()
                if program is None:
                    break
                try:
                    ran = await self._once(program)
                except Exception:
                    # A defect of ours, and no reason to leave a process without anybody who waits for it.
                    _log.exception("container %s of pod %s", self.name, self.home.object["metadata"]["name"])
                    ran = await self._abandon()
                if self.home.ending.is_set():
                    break
                ended = self.state.state
                if isinstance(ended, Terminated) and not self._again(ended.code):
                    break
                await self._wait_for_restart(self._backoff.take(ran))
        finally:
            if isinstance(self.state.state, Terminated):
                self._set(final=True, started=False)
            self.home.changed()

    def _again(self, code: int) -> bool:
        """Whether it is started again after it ended with this code."""
        policy = self.home.object["spec"].get("restartPolicy", "Always")
        if self.kind == "sidecar":
            return True
        if self.kind == "init":
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    async def _wait_for_restart(self, seconds: float) -> None:
        if seconds <= 0:
            return
        meta = self.home.object["metadata"]
        pod = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
        text = f"back-off {_duration(seconds)} restarting failed container={self.name} pod={pod}"
        ended = self.state.state
        last = ended if isinstance(ended, Terminated) else self.state.last
        self._set(state=Waiting("CrashLoopBackOff", text), last=last)
        await self._say("BackOff", f"Back-off restarting failed container {self.name} in pod {pod}", warning=True)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.home.ending.is_set() and (left := until - loop.time()) > 0:
            await self.home.pause(left)

    # -- before a start -------------------------------------------------------------------------------------------

    async def _configure(self) -> Program | None:
        """What to run; None when the pod ends before that is known."""
        said = ""
        while not self.home.ending.is_set():
            try:
                self.spec = self._current()
                program, self._image = make_program(self.home, self.spec, self.name)
                return program
            except ConfigError as error:
                reason, message = "CreateContainerConfigError", str(error)
            except NoImageError as error:
                reason, message = "ErrImagePull" if not said else "ImagePullBackOff", str(error)
            waiting = Waiting(reason, message)
            last = self.state.state if isinstance(self.state.state, Terminated) else self.state.last
            self._set(state=waiting, last=last)
            if message != said:
                said = message
                if reason == "CreateContainerConfigError":
                    await self._say("Failed", f"Error: {message}", warning=True)
                else:
                    image = self._current()["image"]
                    await self._say("Failed", f'Failed to pull image "{image}": {message}', warning=True)
                    await self._say("Failed", "Error: ErrImagePull", warning=True)
            elif reason == "ImagePullBackOff":
                image = self._current()["image"]
                await self._say("BackOff", f'Back-off pulling image "{image}"')
            seconds = self.home.node.timing.retry
            await self.home.pause(seconds if reason != "ImagePullBackOff" else max(seconds, 60.0))
        return None

    def _current(self) -> Object:
        """Its part of the pod's spec, which may have changed (the image)."""
        group = "containers" if self.kind == "main" else "initContainers"
        found: Object = next(
            (c for c in self.home.object["spec"].get(group) or () if c["name"] == self.name), self.spec
        )
        return found

    # -- one run --------------------------------------------------------------------------------------------------

    async def _once(self, program: Program) -> float:
        """Start it and stay until it has ended; returns how many seconds it ran."""
        home, clock = self.home, self.home.node.clock
        spec = self.spec
        assert self._image is not None
        before = self.state.state if isinstance(self.state.state, Terminated) else self.state.last
        restarts = self.state.restarts + (1 if before is not None else 0)
        container_id = f"embedded://{uuid.uuid4().hex}"
        message_file = home.directory / "containers" / self.name / "termination-log"
        message_file.unlink(missing_ok=True)
        await self._say("Pulled", f'Container image "{spec["image"]}" already present on machine')
        await self._say("Created", f"Created container: {self.name}")
        log = ContainerLog(home.logs / self.name, restarts)
        stdout, stderr = log.pipes()
        begun = clock()
        identity = {
            "image": spec["image"],
            "image_id": self._image.id,
            "container_id": container_id,
            "restarts": restarts,
            "last": before,
            "final": False,
        }
        try:
            task = await home.node.runtime.start(program, stdout, stderr)
        except StartError as error:
            os.close(stdout)
            os.close(stderr)
            log.discard()
            await self._say("Failed", f"Error: {error}", warning=True)
            ended = Terminated(128, "StartError", begun, clock(), container_id, str(error))
            self._set(state=ended, ready=False, started=False, **identity)
            return 0.0
        os.close(stdout)
        os.close(stderr)
        self.task, self.log, self._program = task, log, program
        self._condemned = asyncio.get_running_loop().create_future()
        startup = "startupProbe" in spec
        begun = clock()
        self._set(state=Running(begun), started=not startup, ready=self._unprobed() and not startup, **identity)
        if not startup:
            self.started.set()
        home.node.repin()
        await self._say("Started", f"Started container {self.name}")
        probers = [asyncio.create_task(self._probe_all(), name=f"probes of {self.name}")]
        if "postStart" in (spec.get("lifecycle") or {}):
            probers.append(asyncio.create_task(self._post_start(), name=f"postStart of {self.name}"))
        try:
            exit_ = await self._until_end(task)
        finally:
            for prober in probers:
                prober.cancel()
            await asyncio.gather(*probers, return_exceptions=True)
        await log.close()
        self.task = self.log = self._program = self._condemned = None
        self.started.clear()
        reason = "Completed" if exit_.code == 0 else "Error"
        text = self._message(message_file, log, exit_.code)
        ended = Terminated(exit_.code, reason, begun, exit_.at, container_id, text)
        self._set(state=ended, ready=self.kind == "init" and exit_.code == 0, started=False)
        return exit_.at - begun

    async def _abandon(self) -> float:
        if self.task is not None:
            await self.task.stop(0)
        if self.log is not None:
            self.log.discard()
        self.task = self.log = self._program = self._condemned = None
        now = self.home.node.clock()
        self._set(state=Terminated(128, "KubeletError", now, now), ready=False, started=False)
        return 0.0

    def _unprobed(self) -> bool:
        return "readinessProbe" not in self.spec

    def _message(self, file: Path, log: ContainerLog, code: int) -> str:
        try:
            with file.open("rb") as opened:
                text = opened.read(_MESSAGE).decode(errors="replace")
        except OSError:
            text = ""
        if not text and code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = log.tail()
        return text

    async def _until_end(self, task: Task) -> Exit:
        """Wait for its end, or bring it about when the pod, or a probe, wants it."""
        assert self._condemned is not None
        ending = asyncio.create_task(self.home.ending.wait())
        try:
            await asyncio.wait(_any(task.ended, self._condemned, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
        if task.ended.done():
            return task.ended.result()
        if self.home.ending.is_set():
            grace = self.home.grace
            if grace > 0 or not self.home.hurry.is_set():
                await self._say("Killing", f"Stopping container {self.name}")
        else:
            grace = self._condemned.result()
        self._set(ready=self.state.ready and self.home.ending.is_set())
        return await self._stop(task, grace)

    async def _stop(self, task: Task, grace: float) -> Exit:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        hurry = asyncio.create_task(self.home.hurry.wait())
        try:
            if hook and grace > 0:
                work = asyncio.create_task(self._hook(hook, grace))
                await asyncio.wait(_any(work, task.ended, hurry), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
                if work.done() and (problem := work.result()):
                    await self._say("FailedPreStopHook", f"PreStopHook failed: {problem}", warning=True)
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                deadline = max(deadline, loop.time() + _HOOK_LEAST)
            if grace > 0 and not hurry.done():
                task.signal(self._stop_signal())
                left = max(deadline - loop.time(), 0)
                await asyncio.wait(_any(task.ended, hurry), timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
        if not task.ended.done():
            task.signal(signal.SIGKILL, whole=True)
        return await task.wait()

    def _stop_signal(self) -> int:
        name = (self.spec.get("lifecycle") or {}).get("stopSignal", "SIGTERM")
        return int(getattr(signal, name, signal.SIGTERM))

    def condemn(self, grace: float) -> None:
        """Have this run ended; what happens then is the restart policy's."""
        if self._condemned is not None and not self._condemned.done():
            self._condemned.set_result(grace)

    def reconsider(self) -> None:
        """The pod's spec has changed: a container whose image is another one is started again."""
        if self.task is not None and self._current()["image"] != self.spec["image"]:
            asyncio.get_running_loop().create_task(
                self._say("Killing", f"Container {self.name} definition changed, will be restarted")
            )
            self.condemn(self.home.grace)

    # -- probes and hooks -----------------------------------------------------------------------------------------

    async def _probe_all(self) -> None:
        spec = self.spec
        if "startupProbe" in spec:
            await self._prober("startupProbe", self._startup_turned, until_good=True).run()
        others = []
        if "readinessProbe" in spec:
            others.append(self._prober("readinessProbe", self._readiness_turned, result=False).run())
        if "livenessProbe" in spec:
            others.append(self._prober("livenessProbe", self._liveness_turned, result=True).run())
        await asyncio.gather(*others)

    def _prober(self, which: str, turned: Any, *, until_good: bool = False, result: bool | None = None) -> Prober:
        probe = self.spec[which]
        label = which.removesuffix("Probe").capitalize()

        def failed(text: str) -> None:
            message = f"{label} probe failed: {text}"
            asyncio.get_running_loop().create_task(self._say("Unhealthy", message, warning=True))

        async def ask(seconds: float) -> Answer:
            return await self._ask(probe, seconds)

        eager = which != "livenessProbe" and "exec" not in probe
        return Prober(probe, ask, turned=turned, failed=failed, until_good=until_good, result=result, eager=eager)

    def _startup_turned(self, good: bool, text: str) -> None:
        if good:
            self._set(started=True, ready=self._unprobed())
            self.started.set()
        else:
            self._kill_for("startup", self.spec["startupProbe"])

    def _readiness_turned(self, good: bool, text: str) -> None:
        self._set(ready=good)

    def _liveness_turned(self, good: bool, text: str) -> None:
        if not good:
            self._kill_for("liveness", self.spec["livenessProbe"])

    def _kill_for(self, which: str, probe: Object) -> None:
        text = f"Container {self.name} failed {which} probe, will be restarted"
        asyncio.get_running_loop().create_task(self._say("Killing", text))
        self.condemn(float(probe.get("terminationGracePeriodSeconds") or self.home.grace))

    async def _ask(self, handler: Object, seconds: float) -> Answer:
        try:
            if "exec" in handler:
                code, output = await self._execute(handler["exec"].get("command") or (), seconds)
                text = output.decode(errors="replace").rstrip()
                return Answer(code == 0, text if code is not None else f"command timed out after {seconds:.0f}s")
            where = handler.get("httpGet") or handler.get("tcpSocket") or {}
            port = port_number(self.spec, where["port"])
        except ValueError as error:
            return Answer(False, str(error))
        except StartError as error:
            return Answer(False, str(error))
        if "httpGet" in handler:
            return await ask_http(self.home.node.http, where, self.home.ip, port, seconds)
        return await ask_tcp(where.get("host") or self.home.ip, port, seconds)

    async def _execute(self, command: Any, seconds: float) -> tuple[int | None, bytes]:
        assert self._program is not None
        translate = Translation(real_paths(self.home, self.spec, self.home.directory / "containers" / self.name))
        argv = [translate(word) for word in command]
        # A mark of its own: what it leaves behind ends with it, and what the container has left does not.
        env = {**self._program.env, CONTAINER_MARK: f"{self._program.env[CONTAINER_MARK]}/exec-{uuid.uuid4().hex[:8]}"}
        return await self.home.node.runtime.run(replace(self._program, argv=argv, env=env), seconds)

    async def _hook(self, hook: Object, seconds: float) -> str:
        """Run a lifecycle hook; returns what went wrong."""
        if "sleep" in hook:
            await asyncio.sleep(float(hook["sleep"].get("seconds") or 0))
            return ""
        answer = await self._ask(hook, seconds)
        return "" if answer.good else answer.text or "the command failed"

    async def _post_start(self) -> None:
        problem = await self._hook(self.spec["lifecycle"]["postStart"], 3600.0)
        if problem:
            await self._say("FailedPostStartHook", f"PostStartHook failed: {problem}", warning=True)
            self.condemn(self.home.grace)


def _any(*futures: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    """Futures of different types, to be waited for together."""
    return set(futures)


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 1m20s, 0.2s."""
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s"
