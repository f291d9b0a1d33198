"""How a pod is, told from how its containers are: phase, conditions and container statuses. Pure.

The containers' states are plain values that the code which runs them replaces; this module turns them into `status`
as a real kubelet words it, so that clients which know Kubernetes read the right thing from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm_deploy.local.api.meta import timestamp

__all__ = ["ContainerState", "Running", "Terminated", "Waiting", "container_status", "pod_phase", "pod_status"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not started, or to be started again."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Since when, in seconds since the epoch."""

    since: float


@dataclass(frozen=True, slots=True)
class Terminated:
    """How a run ended."""

    code: int
    reason: str
    started: float
    finished: float
    container_id: str = ""
    message: str = ""


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerState:
    """Everything about one container that its status shows."""

    name: str
    image: str
    state: State = Waiting()
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    #: Whether its startup probe has succeeded, or it has none.
    started: bool = False
    image_id: str = ""
    container_id: str = ""
    #: Nothing will start it again.
    final: bool = False
    #: An init container that stays: how it ends does not matter for the pod.
    sidecar: bool = False

    @property
    def succeeded(self) -> bool:
        """Ended well, for good."""
        return self.final and isinstance(self.state, Terminated) and self.state.code == 0

    @property
    def failed(self) -> bool:
        """Ended badly, for good."""
        return self.final and isinstance(self.state, Terminated) and self.state.code != 0


def _state(state: State) -> Object:
    if isinstance(state, Running):
        return {"running": {"startedAt": timestamp(state.since)}}
    if isinstance(state, Waiting):
        waiting = {"reason": state.reason, "message": state.message}
        return {"waiting": {k: v for k, v in waiting.items() if v}}
    ended: Object = {"exitCode": state.code, "reason": state.reason}
    if state.message:
        ended["message"] = state.message
    ended["startedAt"] = timestamp(state.started)
    ended["finishedAt"] = timestamp(state.finished)
    if state.container_id:
        ended["containerID"] = state.container_id
    return {"terminated": ended}


def container_status(container: ContainerState) -> Object:
    """One entry of `containerStatuses`."""
    out: Object = {"name": container.name, "state": _state(container.state)}
    out["lastState"] = _state(container.last) if container.last else {}
    out["ready"] = container.ready
    out["restartCount"] = container.restarts
    out["image"] = container.image
    out["imageID"] = container.image_id
    if container.container_id:
        out["containerID"] = container.container_id
    out["started"] = container.started
    return out


def pod_phase(init: Sequence[ContainerState], main: Sequence[ContainerState]) -> str:
    """Pending, Running, Succeeded or Failed. Sidecars (`init` that may be restarted) do not keep a pod from ending."""
    if any(c.failed and not c.sidecar for c in init):
        return "Failed"
    if any(isinstance(c.state, Running) for c in init) and all(c.final for c in main):
        return "Running"  # a sidecar is still to be stopped
    if all(c.final for c in main):
        return "Failed" if any(c.failed for c in main) else "Succeeded"
    if any(not isinstance(c.state, Waiting) or c.last is not None for c in main):
        return "Running"
    return "Pending"


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": "True" if status else "False", "reason": reason, "message": message}


def _listed(kind: str, containers: Sequence[ContainerState]) -> str:
    return f"containers with {kind} status: [{' '.join(c.name for c in containers)}]"


def _conditions(
    pod: Object, phase: str, init: Sequence[ContainerState], main: Sequence[ContainerState], sandbox: bool
) -> list[Object]:
    done = phase in ("Succeeded", "Failed")
    out = [_condition("PodReadyToStartContainers", sandbox and not done)]
    incomplete = [c for c in init if not (c.succeeded or (c.started and isinstance(c.state, Running)))]
    if done and phase == "Succeeded":
        out.append(_condition("Initialized", True, "PodCompleted"))
    elif incomplete:
        text = _listed("incomplete", incomplete)
        out.append(_condition("Initialized", False, "ContainersNotInitialized", text))
    else:
        out.append(_condition("Initialized", True))
    unready = [c for c in main if not c.ready]
    if done:
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        ready, containers = _condition("Ready", False, reason), _condition("ContainersReady", False, reason)
    elif unready:
        text = _listed("unready", unready)
        ready = _condition("Ready", False, "ContainersNotReady", text)
        containers = _condition("ContainersReady", False, "ContainersNotReady", text)
    else:
        ready, containers = _condition("Ready", True), _condition("ContainersReady", True)
        held = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions") or ()}
        gates = [g["conditionType"] for g in pod["spec"].get("readinessGates") or ()]
        if closed := [g for g in gates if held.get(g) != "True"]:
            text = f'the status of pod readiness gate "{closed[0]}" is not "True", but {held.get(closed[0], "Unknown")}'
            ready = _condition("Ready", False, "ReadinessGatesNotReady", text)
    return [*out, ready, containers]


def pod_status(
    pod: Object,
    init: Sequence[ContainerState],
    main: Sequence[ContainerState],
    now: float,
    *,
    ip: str = "",
    host_ip: str = "",
    started: float | None = None,
    failure: tuple[str, str] | None = None,
) -> Object:
    """The whole status, made from what the containers are and what of the old one is not the kubelet's to change.

    Args:
        failure: reason and message, when the pod was ended for what it is (evicted, too old, refused).
    """
    old: Object = pod.get("status", {})
    phase = "Failed" if failure else pod_phase(init, main)
    if old.get("phase") in ("Succeeded", "Failed"):
        phase = old["phase"]  # never taken back
    conditions = _conditions(pod, phase, init, main, bool(ip))
    before: Mapping[str, Object] = {c["type"]: c for c in old.get("conditions") or ()}
    generation = pod["metadata"].get("generation")
    merged = []
    for condition in conditions:
        held = before.get(condition["type"])
        moved = held is None or held["status"] != condition["status"]
        entry: Object = {"type": condition["type"]}
        if generation is not None:
            entry["observedGeneration"] = generation
        entry |= {
            "status": condition["status"],
            "lastProbeTime": None,
            "lastTransitionTime": timestamp(now) if moved else held["lastTransitionTime"],  # type: ignore[index]
        }
        merged.append(entry | {k: condition[k] for k in ("reason", "message") if condition[k]})
    own = {c["type"] for c in merged}
    merged += [c for c in old.get("conditions") or () if c["type"] not in own]
    out: Object = {**old, "phase": phase, "conditions": merged}
    if generation is not None:
        out["observedGeneration"] = generation
    if host_ip:
        out["hostIP"], out["hostIPs"] = host_ip, [{"ip": host_ip}]
    if ip:
        out["podIP"], out["podIPs"] = ip, [{"ip": ip}]
    if started is not None:
        out["startTime"] = timestamp(started)
    if failure:
        out["reason"], out["message"] = failure
    if init:
        out["initContainerStatuses"] = [container_status(c) for c in init]
    out["containerStatuses"] = [container_status(c) for c in main]
    return out
