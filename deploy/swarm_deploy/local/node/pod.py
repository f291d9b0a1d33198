"""One pod on its node, from its binding to its removal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from swarm_deploy.local.api.client import ApiError
from swarm_deploy.local.node import support
from swarm_deploy.local.node.container import Container, Launch, now
from swarm_deploy.local.node.environment import ConfigError, Translation, environment, expand
from swarm_deploy.local.node.images import find_image
from swarm_deploy.local.node.logs import log_path, read_log
from swarm_deploy.local.node.status import pod_status
from swarm_deploy.local.node.volumes import MountError, Volumes

if TYPE_CHECKING:
    from swarm_deploy.local.node.kubelet import Kubelet

__all__ = ["PodWorker"]

Object = dict[str, Any]
_log = logging.getLogger(__name__)
#: Between two tries at something that may come right by itself: a missing ConfigMap, an image (seconds).
_AGAIN = 1.0


class PodWorker:
    """Runs one pod. `pod` is the newest form that the watch has shown."""

    def __init__(self, kubelet: Kubelet, pod: Object) -> None:
        self.kubelet = kubelet
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.name: str = pod["metadata"]["name"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.address = ""
        self._init: list[Container] = []
        self._main: list[Container] = []
        self._initialized = not pod["spec"].get("initContainers")
        self._started_at = pod.get("status", {}).get("startTime") or now()
        self._qos = support.qos_class(pod)
        self._dirty = asyncio.Event()
        self._volumes: Volumes | None = None
        self._ending: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run(), name=f"pod {self.namespace}/{self.name}")
        self._sync = asyncio.create_task(self._write_status(), name=f"status {self.namespace}/{self.name}")

    # -- what the kubelet calls

    def changed(self, pod: Object) -> None:
        """The API shows a new form of the pod."""
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            self.end(30.0 if grace is None else float(grace), remove=True)

    def end(self, grace: float, *, remove: bool) -> asyncio.Task[None]:
        """Stops all processes within `grace` seconds and, with `remove`, takes the pod out of the API."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace, remove))
        return self._ending

    def refresh(self) -> None:
        """Brings mounted ConfigMaps and Secrets up to date."""
        if self._volumes is not None and self._ending is None:
            self._volumes.refresh()

    def container(self, name: str) -> Container | None:
        """The container of this name."""
        return next((c for c in (*self._init, *self._main) if c.name == name), None)

    async def read_log(self, name: str, options: Object) -> AsyncGenerator[bytes, None]:
        """A container's log, as the query of `pods/log` asks for it.

        Raises:
            ApiError: there was no such run.
        """
        container = self.container(name)
        if container is None or self._volumes is None:
            raise ApiError(400, f'container "{name}" in pod "{self.name}" is waiting to start: ContainerCreating')
        previous = bool(options.get("previous"))
        path = log_path(self._volumes.directory, name, container.restarts - previous)
        if not path.exists():
            what = "previous terminated container" if previous else "container"
            raise ApiError(400, f'{what} "{name}" in pod "{self.name}" not found')
        since = None
        if options.get("sinceSeconds") is not None:
            since = datetime.now(UTC) - timedelta(seconds=options["sinceSeconds"])
        elif options.get("sinceTime"):
            since = datetime.fromisoformat(options["sinceTime"])
        lines = read_log(
            path, follow=bool(options.get("follow")) and not previous, tail=options.get("tailLines"),
            timestamps=bool(options.get("timestamps")), since=since, limit_bytes=options.get("limitBytes"),
            running=lambda: container.running,
        )  # fmt: skip
        async for line in lines:
            yield line

    # -- its life

    async def _run(self) -> None:
        try:
            await self._live()
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("pod %s/%s failed", self.namespace, self.name)
            self._event("Warning", "Failed", "internal error of the embedded kubelet; its log has the traceback")

    async def _live(self) -> None:
        spec = self.pod["spec"]
        before = {
            c["name"]: c
            for kind in ("initContainerStatuses", "containerStatuses")
            for c in self.pod.get("status", {}).get(kind, ())
        }
        if self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            self._sync.cancel()
            return
        if reasons := support.unsupported(self.pod):
            await self._refuse(reasons)
            return
        self.address = self.kubelet.addresses.take(self.kubelet.number)
        self._volumes = Volumes(
            self.pod,
            self.kubelet.paths,
            self.kubelet.lookup(self.namespace),
            self.address,
            self.kubelet.address,
            self.kubelet.issuer(self.namespace),
        )
        self._volumes.directory.mkdir(parents=True, exist_ok=True)
        self._init = [self._container(c, before) for c in spec.get("initContainers", ())]
        self._main = [self._container(c, before) for c in spec["containers"]]
        if any(c.restarts for c in self._main):  # it ran before the cluster was stopped
            self._initialized = True
        self._dirty.set()
        made = await self._again("FailedMount", self._volumes.make, MountError)
        policy = spec.get("restartPolicy", "Always")
        if not self._initialized:
            for container in self._init:
                launch = await self._prepare(container, made)
                code = await container.run(launch, "OnFailure" if policy != "Never" else "Never")
                if code:
                    return
            self._initialized = True
            self._dirty.set()
        runs = []
        for container in self._main:
            launch = await self._prepare(container, made)
            runs.append(asyncio.create_task(container.run(launch, policy)))
        try:
            await asyncio.gather(*runs)
        finally:
            for run in runs:
                run.cancel()

    def _container(self, spec: Object, before: dict[str, Object]) -> Container:
        assert self._volumes is not None
        container = Container(
            spec, self._volumes.directory, self.address, self.kubelet.back_off, self._dirty.set, self._event
        )
        old = before.get(spec["name"])
        if old and old.get("containerID"):
            container.restarts = int(old["restartCount"]) + 1
            container.last = old["state"] if "terminated" in old["state"] else {
                "terminated": {
                    "exitCode": 137, "reason": "ContainerStatusUnknown", "containerID": old["containerID"],
                    "message": "The container could not be located when the pod was started again",
                    "startedAt": old["state"].get("running", {}).get("startedAt"), "finishedAt": now(),
                }
            }  # fmt: skip
        return container

    async def _prepare(self, container: Container, made: dict[str, Any]) -> Launch:
        def launch() -> Launch:
            return self._launch(container, made)

        result: Launch = await self._again("Failed", launch, ConfigError, container)
        self._event("Normal", "Pulled", f'Container image "{container.spec["image"]}" is part of this machine')
        self._event("Normal", "Created", f"Container created: {container.name}")
        return result

    def _launch(self, container: Container, made: dict[str, Any]) -> Launch:
        spec, kubelet = container.spec, self.kubelet
        image = find_image(spec["image"])
        if image is None:
            raise ConfigError(
                f'Failed to pull image "{spec["image"]}": the embedded cluster pulls nothing; it runs '
                "agentswarm/agent, agentswarm/operator, and localhost/host for programs of this machine"
            )
        container.image_id = f"local://{image.name}"
        assert self._volumes is not None
        translate = Translation(self._volumes.mounts(spec, made))
        cores, exclusive = kubelet.cpus.assign(self.uid, support.whole_cpus(self.pod))
        own = {
            "HOSTNAME": self.name,
            "SWARM_CPUS": ",".join(map(str, cores)),
            "SWARM_CPUS_EXCLUSIVE": exclusive,
        }
        env = environment(
            spec, self.pod, base=image.env | own, translate=translate, pod_ip=self.address,
            host_ip=kubelet.address, allocatable=kubelet.allocatable, lookup=kubelet.decoded(self.namespace),
        )  # fmt: skip
        command = tuple(spec.get("command") or ()) or image.command
        words = tuple(translate(expand(word, env)) for word in (*command, *spec.get("args", ())))
        if not words:
            raise ConfigError(f"container {container.name} names no command, and {image.name} has none of its own")
        directory = spec.get("workingDir")
        from pathlib import Path

        where = Path(translate(directory)) if directory else self._volumes.directory
        if not where.is_dir():
            raise ConfigError(f"workingDir {directory} does not exist")
        return Launch(words, env, where, cores, translate)

    async def _again(
        self, reason: str, attempt: Callable[[], Any], failure: type[Exception], container: Container | None = None
    ) -> Any:
        """Tries until it works; says why not by an event and the container's state."""
        while True:
            try:
                return attempt()
            except failure as error:
                text = str(error)
                pull = text.startswith("Failed to pull")
                self._event(
                    "Warning", reason, text if failure is not MountError else f"MountVolume.SetUp failed: {text}"
                )
                if container is not None:
                    state = "ErrImagePull" if pull else "CreateContainerConfigError"
                    if pull and container.state.get("waiting", {}).get("reason") in (
                        "ErrImagePull",
                        "ImagePullBackOff",
                    ):
                        state = "ImagePullBackOff"
                    container.state = {"waiting": {"reason": state, "message": text}}
                    self._dirty.set()
            await asyncio.sleep(_AGAIN)

    async def _refuse(self, reasons: list[str]) -> None:
        text = "; ".join(reasons)
        self._event("Warning", "Unsupported", text)
        self._sync.cancel()
        status = {"phase": "Failed", "reason": "Unsupported", "message": text, "startTime": self._started_at}
        await self._patch(status)

    async def _end(self, grace: float, remove: bool) -> None:
        containers = [c for c in (*self._init, *self._main) if c.process is not None]
        for container in containers:
            if container.running:
                self._event("Normal", "Killing", f"Stopping container {container.name}")
        await asyncio.gather(*(container.stop(grace) for container in containers))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if remove:
            await self._write_once()
        self._sync.cancel()
        self.kubelet.cpus.release(self.uid)
        if self.address:
            self.kubelet.addresses.release(self.address)
        if self._volumes is not None:
            self._volumes.remove()
        if remove:
            try:
                await self.kubelet.client.delete("pods", self.name, self.namespace, grace_period=0, uid=self.uid)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
        self.kubelet.gone(self)

    # -- what it tells the API

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.kubelet.events.record(self.pod, kind, reason, message)

    async def _write_status(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._write_once()
            await asyncio.sleep(0.02)

    async def _write_once(self) -> None:
        if not self._main:
            return
        status = pod_status(
            self.pod, self._init, self._main, ip=self.address, host_ip=self.kubelet.address,
            initialized=self._initialized, started_at=self._started_at, qos=self._qos, now=now(),
        )  # fmt: skip
        await self._patch(status)

    async def _patch(self, status: Object) -> None:
        try:
            pod = await self.kubelet.client.patch_status("pods", self.name, status, self.namespace)
        except ApiError as error:
            if error.code != 404:
                _log.warning("status of pod %s/%s: %s", self.namespace, self.name, error)
            return
        if pod["metadata"]["uid"] == self.uid:
            self.pod = pod
