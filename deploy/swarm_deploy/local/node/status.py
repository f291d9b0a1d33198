"""A pod's status, computed from its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarm_deploy.local.node.container import Container

__all__ = ["pod_status"]

Object = dict[str, Any]


def pod_status(
    pod: Object, init: Sequence[Container], main: Sequence[Container], *, ip: str, host_ip: str, initialized: bool,
    started_at: str, qos: str, now: str,
) -> Object:  # fmt: skip
    """The whole `.status` that the kubelet writes; times of conditions that have not turned are kept."""
    ready = initialized and all(c.ready for c in main)
    phase = _phase(pod["spec"].get("restartPolicy", "Always"), init, main, initialized)
    unready = [c.name for c in main if not c.ready]
    over = phase in ("Succeeded", "Failed")
    because: Object = {}
    if unready:
        because = {
            "reason": "PodCompleted" if phase == "Succeeded" else "ContainersNotReady",
            **({} if over else {"message": f"containers with unready status: [{' '.join(unready)}]"}),
        }
    incomplete: Object = {}
    if not initialized:
        names = " ".join(c.name for c in init)
        incomplete = {"reason": "ContainersNotInitialized", "message": f"containers with incomplete status: [{names}]"}
    generation = pod["metadata"].get("generation")
    wanted = [
        ("PodReadyToStartContainers", bool(ip) and not over, {}),
        ("Initialized", initialized, incomplete),
        ("Ready", ready, because),
        ("ContainersReady", ready, because),
        ("PodScheduled", True, {}),
    ]
    before = {c["type"]: c for c in pod.get("status", {}).get("conditions", ())}
    conditions = []
    for kind, holds, why in wanted:
        value = "True" if holds else "False"
        old = before.get(kind)
        since = old["lastTransitionTime"] if old and old["status"] == value else now
        condition = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": since, **why}
        if generation is not None:
            condition["observedGeneration"] = generation
        conditions.append(condition)
    foreign = [c for kind, c in before.items() if kind not in {w[0] for w in wanted}]
    status: Object = {
        "phase": phase,
        "conditions": conditions + foreign,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": started_at,
        "qosClass": qos,
        "containerStatuses": [_container(c, pod) for c in main],
    }
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    if init:
        status["initContainerStatuses"] = [_container(c, pod) for c in init]
    if generation is not None:
        status["observedGeneration"] = generation
    return status


def _phase(policy: str, init: Sequence[Container], main: Sequence[Container], initialized: bool) -> str:
    def ended(c: Container) -> int | None:
        return c.state["terminated"]["exitCode"] if "terminated" in c.state else None

    if not initialized:
        return "Failed" if policy == "Never" and any(ended(c) for c in init) else "Pending"
    codes = [ended(c) for c in main]
    if all(code is not None for code in codes):
        if policy == "Never" or (policy == "OnFailure" and not any(codes)):
            return "Failed" if any(codes) else "Succeeded"
        return "Running"
    begun = any("running" in c.state or "terminated" in c.state or c.last for c in main)
    return "Running" if begun else "Pending"


def _container(c: Container, pod: Object) -> Object:
    return {
        "name": c.name,
        "image": c.spec.get("image", ""),
        "imageID": c.image_id,
        "containerID": c.container_id,
        "ready": c.ready or (c.state.get("terminated", {}).get("exitCode") == 0 and _is_init(c, pod)),
        "started": c.started,
        "restartCount": c.restarts,
        "state": c.state,
        "lastState": c.last,
    }


def _is_init(c: Container, pod: Object) -> bool:
    return any(spec["name"] == c.name for spec in pod["spec"].get("initContainers", ()))
