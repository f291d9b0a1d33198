"""One pod on its node: made ready, run, and taken down again.

Three ways lead to the end, and all are a matter of two events that every wait in the pod observes (`ending`,
`hurry`): the pod is deleted and has its grace period; it is deleted by force, or its node fails, and has none; or the
cluster is shut down, which ends the processes and leaves the object as it is, so that the pod is started again with
the next `swarm up`.

What belongs to the pod (an address, CPUs, directories) is taken in `run` and given back there, whatever happens
between.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarm_deploy.local.addresses import NoAddressError, taken
from swarm_deploy.local.api.client import ApiError
from swarm_deploy.local.api.meta import parse_time
from swarm_deploy.local.api.quantity import parse_quantity
from swarm_deploy.local.kubelet.admission import not_enforced, pod_refusal
from swarm_deploy.local.kubelet.container import Container, Kind
from swarm_deploy.local.kubelet.cpus import Assignment, whole_cpus
from swarm_deploy.local.kubelet.services import NodeServices
from swarm_deploy.local.kubelet.state import ContainerState, Terminated, Waiting, pod_status
from swarm_deploy.local.kubelet.volumes import MountError, Volumes

__all__ = ["Pod"]

Object = dict[str, Any]

#: What ran when the node went down: nobody knows how it ended.
_UNKNOWN = 255


class Pod:
    """One pod that is bound to this node."""

    def __init__(self, node: NodeServices, pod: Object) -> None:
        self.node = node
        self.object = pod
        self.uid: str = pod["metadata"]["uid"]
        self.ip = ""
        self.mounts: Mapping[str, Path] = {}
        self.ending = asyncio.Event()
        self.hurry = asyncio.Event()
        self.logs = node.paths.logs / f"{pod['metadata']['namespace']}_{pod['metadata']['name']}_{self.uid}"
        namespace, account = pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName") or "default"
        self.volumes = Volumes(
            node.paths,
            pod,
            node.sources,
            node.allocatable,
            token=lambda seconds: node.token(namespace, account, seconds),
        )
        self.directory = self.volumes.directory
        self._nudged = asyncio.Event()
        self._dirty = asyncio.Event()
        self._removal = asyncio.Event()  # somebody deletes it, or the node goes down
        self._gone = False  # there is no object any more to write to
        self._kept = False  # the object stays although its processes end
        self._deadline: float | None = None  # the loop's time by which its containers must have ended
        self._failure: tuple[str, str] | None = None
        self._refused = False  # its node would not have it: no container of it ever was
        self._assigned: dict[str, Assignment] = {}
        resumed = bool(pod.get("status", {}).get("startTime"))
        self._started = parse_time(pod["status"]["startTime"]) if resumed else node.clock()
        self.init = [self._container(c, self._init_kind(c), resumed) for c in pod["spec"].get("initContainers") or ()]
        self.main = [self._container(c, "main", resumed) for c in pod["spec"]["containers"]]
        self._resumed = resumed

    @staticmethod
    def _init_kind(spec: Object) -> Kind:
        return "sidecar" if spec.get("restartPolicy") == "Always" else "init"

    @property
    def containers(self) -> list[Container]:
        """All of them."""
        return [*self.init, *self.main]

    def _container(self, spec: Object, kind: Kind, resumed: bool) -> Container:
        state = ContainerState(spec["name"], spec["image"])
        if (kind != "main" and not resumed) or (self.object["spec"].get("initContainers") and not resumed):
            state = ContainerState(spec["name"], spec["image"], Waiting("PodInitializing"))
        if resumed:
            group = "containerStatuses" if kind == "main" else "initContainerStatuses"
            for held in self.object["status"].get(group) or ():
                if held["name"] == spec["name"]:
                    state = _recalled(held, spec["image"], self.node.clock(), init=kind != "main")
        return Container(self, spec, kind, state)

    # -- what the kubelet tells it --------------------------------------------------------------------------------

    def update(self, pod: Object) -> None:
        """The object has changed."""
        old = self.object
        self.object = self.volumes.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            before = old["metadata"].get("deletionGracePeriodSeconds")
            self._removal.set()
            if not self.ending.is_set():
                self.end(grace)
            elif before is not None and grace < before:
                self.end(min(grace, self.grace))
        if old["metadata"].get("labels") != pod["metadata"].get("labels") or old["metadata"].get("annotations") != pod[
            "metadata"
        ].get("annotations"):
            self.volumes.refresh()
        if old["spec"] != pod["spec"]:
            for container in self.containers:
                container.reconsider()
            self.nudge()
        if old.get("status", {}).get("conditions") != pod.get("status", {}).get("conditions"):
            self.changed()  # a readiness gate, perhaps

    def removed(self) -> None:
        """The object is gone: it was deleted by force."""
        self._gone = True
        self._removal.set()
        self.end(0)

    def shut_down(self, grace: float) -> None:
        """End the processes and leave the object as it is."""
        self._kept = True
        self._removal.set()
        self.end(min(grace, self.grace))

    def end(self, grace: float) -> None:
        """Have its containers end within so many seconds."""
        deadline = asyncio.get_running_loop().time() + grace
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        if grace <= 0:
            self.hurry.set()
        self.ending.set()
        self._nudged.set()

    def nudge(self) -> None:
        """Something that it may be waiting for has changed."""
        self._nudged.set()

    @property
    def grace(self) -> float:
        """Seconds that its containers have for ending."""
        if self._deadline is not None:
            return max(0.0, self._deadline - asyncio.get_running_loop().time())
        return float(self.object["spec"].get("terminationGracePeriodSeconds", 30))

    # -- what its containers use ----------------------------------------------------------------------------------

    def changed(self) -> None:
        """Have the status written."""
        self._dirty.set()

    async def pause(self, seconds: float) -> None:
        """Wait for a nudge, the end, or so many seconds."""
        self._nudged.clear()
        if self.ending.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            pass

    async def say(self, reason: str, message: str, *, warning: bool = False, field: str = "") -> None:
        """An event about it."""
        if not self._gone:
            await self.node.events.record(self.object, reason, message, warning=warning, field=field)

    def assign(self, container: str) -> Assignment:
        """The CPUs of a container: its own for as long as the pod is there, or those that all others share."""
        held = self._assigned.get(container)
        if held is None or not held.simulated:
            count = _wanted_cpus(self.object, container)
            held = self._assigned[container] = self.node.cpus.take(f"{self.uid}/{container}", count)
        return held

    def repin(self) -> None:
        """Move its sharing containers to the CPUs that are shared now."""
        for container in self.containers:
            held = self._assigned.get(container.name)
            if (
                container.task is not None
                and held is not None
                and not held.simulated
                and held.real != self.node.cpus.shared
            ):
                self._assigned[container.name] = held = Assignment((), self.node.cpus.shared, "false")
                container.task.pin(held.real)

    # -- its life -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From here to its removal (or to the node's end)."""
        if self.object["metadata"].get("deletionTimestamp"):
            self.update(self.object)
        writer = asyncio.create_task(self._write_status(), name=f"status of {self.object['metadata']['name']}")
        try:
            if self.object.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                await self._live()
            await self._settle()
            self._release()
            await self._removal.wait()  # one that has completed stays until it is deleted
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self._release()
        if not self._kept:
            await self._forget()

    async def _live(self) -> None:
        timer: asyncio.Task[None] | None = None
        limit = self.object["spec"].get("activeDeadlineSeconds")
        if limit:
            timer = asyncio.create_task(self._expire(self._started + float(limit) - self.node.clock()))
        try:
            self.changed()
            if await self._prepare():
                await self._run_containers()
        finally:
            if timer is not None:
                timer.cancel()
                await asyncio.gather(timer, return_exceptions=True)

    async def _expire(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0))
        text = "Pod was active on the node longer than the specified deadline"
        self._failure = ("DeadlineExceeded", text)
        await self.say("DeadlineExceeded", text)
        self._fail()

    def _fail(self) -> None:
        """End the containers although nobody deletes the pod."""
        self.end(self.grace)

    async def _prepare(self) -> bool:
        """An address and the volumes; False when the pod ends first."""
        if not self._resumed and (refused := self._topology()):
            self._failure, self._refused = refused, True
            await self.say(refused[0], refused[1], warning=True)
            self._fail()
            return False
        said = ""
        while refusal := pod_refusal(self.object, self.node.devices):
            for container in self.containers:
                container.state = replace(container.state, state=Waiting("CreateContainerConfigError", refusal))
            self.changed()
            if refusal != said:
                said = refusal
                await self.say(
                    "FailedCreatePodSandBox", f"The embedded cluster can't run this pod: {refusal}", warning=True
                )
            await self.pause(3600)
            if self.ending.is_set():
                return False
        if not self._resumed and (note := not_enforced(self.object)):
            await self.say("NotEnforced", note)
        if self._resumed:
            await self.say("SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        while not self.ending.is_set():
            try:
                if not self.ip:
                    self.ip = self._address()
                    self.object = self.volumes.pod = _with_addresses(self.object, self.ip, self.node.addresses.node)
                    self.changed()
                self.mounts = self.volumes.mount()
                return True
            except NoAddressError as error:
                await self.say("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}", warning=True)
            except MountError as error:
                await self.say("FailedMount", str(error), warning=True)
            await self.pause(self.node.timing.retry)
        return False

    def _topology(self) -> tuple[str, str] | None:
        """Why the Topology Manager does not admit the pod; what its containers need is taken where it does."""
        for container in self.containers:
            count = _wanted_cpus(self.object, container.name)
            if refused := self.node.cpus.refusal(count):
                return refused
            if count and self.node.cpus.numa:
                self.assign(container.name)
        return None

    def _address(self) -> str:
        ports = [
            int(port["containerPort"])
            for container in self.object["spec"]["containers"]
            for port in container.get("ports") or ()
            if port.get("protocol", "TCP") == "TCP"
        ]
        if self.object["spec"].get("hostNetwork"):
            # The node's address is the pod's; nodes share a machine, so a port may be taken where it would be free.
            if held := taken(self.node.addresses.node, ports):
                raise NoAddressError(f"hostNetwork: port {held[0]} is taken on this machine")
            return self.node.addresses.node
        return self.node.addresses.take(self.uid, ports, self.object.get("status", {}).get("podIP", ""))

    async def _run_containers(self) -> None:
        sidecars: list[asyncio.Task[None]] = []
        try:
            for container in self.init:
                running = asyncio.create_task(container.run(), name=f"container {container.name}")
                if container.kind == "sidecar":
                    sidecars.append(running)
                    await self._first(container.started.wait(), running)
                    continue
                await running
                if not container.state.succeeded:
                    if not self.ending.is_set():
                        self._fail()
                    return
            if self.ending.is_set():
                return
            for container in self.main:
                if isinstance(container.state.state, Waiting) and container.state.state.reason == "PodInitializing":
                    container.state = replace(container.state, state=Waiting())
            await asyncio.gather(*(container.run() for container in self.main))
            if sidecars and not self.ending.is_set():
                self._fail()
        finally:
            await asyncio.gather(*sidecars)

    @staticmethod
    async def _first(wait: Any, other: asyncio.Task[None]) -> None:
        waiting = asyncio.create_task(wait)
        await asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    # -- status ---------------------------------------------------------------------------------------------------

    async def _write_status(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._put_status()
            except ApiError as error:
                if error.code == 404:
                    return
                await asyncio.sleep(0.2)
                self._dirty.set()

    async def _put_status(self) -> None:
        if self._gone or self._kept:
            return
        meta = self.object["metadata"]
        # In one turn of the event loop, so that nobody's change is overwritten.
        latest = await self.node.client.get("pods", meta["name"], meta["namespace"])
        if latest["metadata"]["uid"] != self.uid:
            return
        status = pod_status(
            latest,
            [] if self._refused else [c.state for c in self.init],
            [] if self._refused else [c.state for c in self.main],
            self.node.clock(),
            ip=self.ip,
            host_ip=self.node.addresses.node,
            started=self._started,
            failure=self._failure,
        )
        if status != latest.get("status"):
            latest["status"] = status
            await self.node.client.update_status("pods", latest)

    async def _settle(self) -> None:
        """Write the last status, now."""
        self._dirty.clear()
        try:
            await self._put_status()
        except ApiError:
            pass

    # -- the end --------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        """Give back what the node has lent; to be called again is harmless."""
        if self.ip:
            self.node.addresses.release(self.ip, self.uid)
        if self._assigned:
            for container in self._assigned:
                self.node.cpus.release(f"{self.uid}/{container}")
            self._assigned.clear()
            self.node.repin()

    async def _forget(self) -> None:
        """Its processes have ended and somebody deleted it: remove the object and the directories."""
        meta = self.object["metadata"]
        # Not in the loop that the API server lives in, too: a JIT cache and a state directory are thousands of files.
        await asyncio.to_thread(self.volumes.remove)
        if not self._gone:
            for _ in range(3):
                try:
                    await self.node.client.delete("pods", meta["name"], meta["namespace"], grace_period=0, uid=self.uid)
                    break
                except ApiError as error:
                    if error.code in (404, 409):
                        break
                    await asyncio.sleep(0.2)
        await asyncio.to_thread(_remove_tree, self.logs)


def _remove_tree(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _with_addresses(pod: Object, ip: str, host: str) -> Object:
    """The pod as its containers see it, before the status that says so was written."""
    return {**pod, "status": {**pod.get("status", {}), "podIP": ip, "hostIP": host}}


def _wanted_cpus(pod: Object, name: str) -> int:
    """How many CPUs of its own a container gets."""
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]:
        if container["name"] == name:
            resources = container.get("resources") or {}
            limit = math.ceil(parse_quantity((resources.get("limits") or {}).get("cpu", "0")) * 1000)
            request = math.ceil(parse_quantity((resources.get("requests") or {}).get("cpu", "0")) * 1000)
            return whole_cpus(limit, request, pod.get("status", {}).get("qosClass", ""))
    return 0


def _recalled(held: Object, image: str, now: float, *, init: bool) -> ContainerState:
    """A container as it was before its node went down."""
    state: Any = Waiting()
    current, restarts = held.get("state") or {}, int(held.get("restartCount") or 0)
    last = _ended(held["lastState"]["terminated"]) if "terminated" in (held.get("lastState") or {}) else None
    if "running" in current:
        started = parse_time(current["running"]["startedAt"])
        text = "The container could not be located: its node was stopped while it ran"
        state = Terminated(_UNKNOWN, "Unknown", started, now, held.get("containerID", ""), text)
    elif "terminated" in current:
        state = _ended(current["terminated"])
    if init and isinstance(state, Terminated):
        last, state = state, Waiting("PodInitializing")  # they run again, in a new sandbox
    return ContainerState(held["name"], image, state, last, restarts)


def _ended(terminated: Object) -> Terminated:
    return Terminated(
        int(terminated["exitCode"]),
        terminated.get("reason", ""),
        parse_time(terminated["startedAt"]),
        parse_time(terminated["finishedAt"]),
        terminated.get("containerID", ""),
        terminated.get("message", ""),
    )
