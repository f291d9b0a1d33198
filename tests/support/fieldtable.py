"""Every live and every rolling field of the API with a change of it: what tests go through one by one, or all at once.

`declared` reads the fields from the models, so that a field without an entry is found.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from swarm_operator.api.fields import Change
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.revision import change_of

__all__ = ["LIVE", "ROLLING", "Entry", "declared", "merged"]


def declared(change: Change, model: type[BaseModel] = SwarmSpec, path: str = "") -> Iterator[str]:
    """The paths of all fields whose change does that, `[]` for an item of a list."""
    for name, info in model.model_fields.items():
        here = f"{path}.{info.alias or name}" if path else info.alias or name
        if change_of(info) is change:
            yield here
        item = "[]" if getattr(info.annotation, "__origin__", None) is list else ""
        for inner in _models(info.annotation):
            yield from declared(change, inner, here + item)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


def merged(spec: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A spec with a merge patch upon it."""
    out = copy.deepcopy(spec)
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


@dataclass(frozen=True)
class Entry:
    """A change of one field."""

    patch: dict[str, Any]
    #: What the spec has to say besides, so that the field means something.
    base: dict[str, Any] = field(default_factory=dict)
    #: Whether the agents run by it: then it changes their settings.
    agents: bool = False
    #: Whether agents come or go by it; those that are there both before and after are the same all the same.
    count: bool = False


def _bounds(**more: Any) -> dict[str, Any]:
    return {"compute": {"min": 1, "max": 5}, "autoscaling": {"maxStep": 10, **more}}


_SCHEDULE = {"cron": "0 8 * * *", "timeZone": "Etc/UTC", "duration": "1h", "min": 2}
_STATE: dict[str, Any] = {"state": {"sizeLimit": "1Gi"}}
_CLAIM: dict[str, Any] = {"state": {"medium": "PersistentVolumeClaim", "claimName": "state"}}
_VOLUME = {"name": "more", "emptyDir": "1Mi"}
_KUEUE: dict[str, Any] = {"scheduling": {"gang": "Kueue", "queueName": "one"}}

LIVE: dict[str, Entry] = {
    "autoscaling.forecast": Entry({"autoscaling": {"forecast": False}}, _bounds()),
    "autoscaling.maxStep": Entry({"autoscaling": {"maxStep": 11}}, _bounds()),
    "autoscaling.scaleInWindow": Entry({"autoscaling": {"scaleInWindow": "3m"}}, _bounds()),
    "autoscaling.schedule": Entry({"autoscaling": {"schedule": [_SCHEDULE]}}, _bounds()),
    "autoscaling.schedule[].duration": Entry(
        {"autoscaling": {"schedule": [{**_SCHEDULE, "duration": "2h"}]}}, _bounds(schedule=[_SCHEDULE])
    ),
    "autoscaling.targetQueueTime": Entry({"autoscaling": {"targetQueueTime": "60ms"}}, _bounds()),
    "compute.kernels": Entry({"compute": {"kernels": ["risk.*"]}}, agents=True),
    "compute.max": Entry({"compute": {"max": 6}}, _bounds()),
    "compute.min": Entry({"compute": {"min": 2}}, _bounds()),
    "compute.replicas": Entry({"compute": {"replicas": 3}}, count=True),
    "compute.standby": Entry({"compute": {"standby": 0}}, count=True),
    "failover.deadAfter": Entry({"failover": {"deadAfter": "900ms"}}, agents=True),
    "failover.heartbeatInterval": Entry({"failover": {"heartbeatInterval": "30ms"}}, agents=True),
    "failover.maxAttempts": Entry({"failover": {"maxAttempts": 5}}, agents=True),
    "failover.prediction.threshold": Entry(
        {"failover": {"prediction": {"threshold": 80}}}, {"failover": {"prediction": {"threshold": 90}}}
    ),
    "failover.stragglers.factor": Entry({"failover": {"stragglers": {"factor": 3}}}, agents=True),
    "failover.stragglers.minRuntime": Entry({"failover": {"stragglers": {"minRuntime": "30ms"}}}, agents=True),
    "failover.stragglers.percent": Entry({"failover": {"stragglers": {"percent": 20}}}, agents=True),
    "failover.suspectAfter": Entry({"failover": {"suspectAfter": "300ms"}}, agents=True),
    "resource.balance": Entry({"resource": {"balance": False}}, agents=True),
    "resource.caps.powerWatts": Entry({"resource": {"caps": {"powerWatts": 300}}}, agents=True),
    "resource.caps.temperatureCelsius": Entry({"resource": {"caps": {"temperatureCelsius": 80}}}, agents=True),
    "resource.interval": Entry({"resource": {"interval": "200ms"}}, agents=True),
    # its agents go from the other node, and so does that node's hub from everybody's settings
    "resource.nodeSelector": Entry(
        {"resource": {"nodeSelector": {"kubernetes.io/hostname": "node-a"}}}, agents=True, count=True
    ),
    "resource.sensors.disabled": Entry({"resource": {"sensors": {"disabled": ["gpu"]}}}, agents=True),
    "rollout.autoRollback": Entry({"rollout": {"autoRollback": True}}),
    "rollout.maxSurge": Entry({"rollout": {"maxSurge": 2}}),
    "rollout.maxUnavailable": Entry({"rollout": {"maxUnavailable": 2}}),
    "rollout.paused": Entry({"rollout": {"paused": True}}),
    "rollout.progressDeadline": Entry({"rollout": {"progressDeadline": "5m"}}),
    "runtime.drainTimeout": Entry({"runtime": {"drainTimeout": "20s"}}, agents=True),
    "runtime.logLevel": Entry({"runtime": {"logLevel": "warning"}}, agents=True),
    "runtime.spin": Entry({"runtime": {"spin": "10us"}}, agents=True),
    "security.clients": Entry({"security": {"clients": [{"pods": {"app": "ui"}}]}}),
    "security.egress": Entry({"security": {"egress": [{"to": {"cidr": "10.0.0.0/8"}}]}}),
    "security.keyOverlap": Entry({"security": {"keyOverlap": "20m"}}),
    "security.keyRotation": Entry({"security": {"keyRotation": "24h"}}),
    "security.networkPolicy": Entry({"security": {"networkPolicy": False}}),
    "state.checkpointInterval": Entry({"state": {"checkpointInterval": "500ms"}}, _STATE, agents=True),
    "suspend": Entry({"suspend": True}, agents=True, count=True),
}


def _template(role: str, **more: Any) -> dict[str, Any]:
    return {role: {"podTemplate": more}}


def _templates() -> Iterator[tuple[str, Entry]]:
    for role in ("compute", "resource"):
        at = f"{role}.podTemplate"
        yield f"{at}.annotations", Entry(_template(role, annotations={"team": "x"}))
        yield f"{at}.labels", Entry(_template(role, labels={"team": "x"}))
        yield f"{at}.runtimeClassName", Entry(_template(role, runtimeClassName="other"))
        yield f"{at}.terminationGracePeriodSeconds", Entry(_template(role, terminationGracePeriodSeconds=40))
        yield f"{at}.volumes", Entry(_template(role, volumes=[_VOLUME]))
        mounts = [{"name": "more", "mountPath": "/more"}]
        yield f"{at}.volumeMounts", Entry(_template(role, volumeMounts=mounts), _template(role, volumes=[_VOLUME]))


ROLLING: dict[str, Entry] = {
    "image": Entry({"image": "agentswarm/agent:other"}),
    "imagePullPolicy": Entry({"imagePullPolicy": "Always"}),
    "imagePullSecrets": Entry({"imagePullSecrets": [{"name": "pull"}]}),
    "compute.cpus": Entry({"compute": {"cpus": "200m"}}),
    "compute.env": Entry({"compute": {"env": [{"name": "A", "value": "b"}]}}),
    "compute.gpus.count": Entry({"compute": {"gpus": {"count": 2}}}, {"compute": {"gpus": {"count": 1}}}),
    "compute.gpus.memoryPercent": Entry(
        {"compute": {"gpus": {"memoryPercent": 40}}}, {"compute": {"gpus": {"count": 1}}}
    ),
    "compute.gpus.resource": Entry(
        {"compute": {"gpus": {"resource": "amd.com/gpu"}}}, {"compute": {"gpus": {"count": 1}}}
    ),
    "compute.memory": Entry({"compute": {"memory": "640Mi"}}),
    **dict(_templates()),
    "resource.cpus": Entry({"resource": {"cpus": "200m"}}),
    "resource.memory": Entry({"resource": {"memory": "640Mi"}}),
    "runtime.kernelModules": Entry({"runtime": {"kernelModules": ["mine"]}}),
    "runtime.threads": Entry({"runtime": {"threads": 2}}),
    "scheduling.cpuPinning": Entry({"scheduling": {"cpuPinning": "None"}}),
    "scheduling.gang": Entry({"scheduling": {"gang": "Operator"}}),
    "scheduling.nodeSelector": Entry({"scheduling": {"nodeSelector": {"pool": "fast"}}}),
    "scheduling.priorityClassName": Entry({"scheduling": {"priorityClassName": "high"}}),
    "scheduling.queueName": Entry({"scheduling": {"queueName": "two"}}, _KUEUE),
    "scheduling.schedulerName": Entry({"scheduling": {"schedulerName": "other"}}),
    "scheduling.tolerations": Entry({"scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}),
    "scheduling.topology.key": Entry({"scheduling": {"topology": {"key": "topology.kubernetes.io/zone"}}}),
    "scheduling.topology.maxSkew": Entry({"scheduling": {"topology": {"maxSkew": 2}}}),
    "scheduling.topology.numa": Entry({"scheduling": {"topology": {"numa": "Preferred"}}}, {"compute": {"cpus": 1}}),
    "scheduling.topology.placement": Entry({"scheduling": {"topology": {"placement": "Pack"}}}),
    "scheduling.topology.required": Entry({"scheduling": {"topology": {"required": True}}}),
    "security.allowPickle": Entry({"security": {"allowPickle": True}}),
    "security.runAsGroup": Entry({"security": {"runAsGroup": 1000}}),
    "security.runAsUser": Entry({"security": {"runAsUser": 1000}}),
    "state.claimName": Entry({"state": {"claimName": "other"}}, _CLAIM),
    "state.medium": Entry(_CLAIM, _STATE),
    "state.sizeLimit": Entry({"state": {"sizeLimit": "2Gi"}}, _STATE),
    "transport.zeromq.encryption": Entry({"transport": {"zeromq": {"encryption": "None"}}}),
    "transport.zeromq.maxMessageSize": Entry({"transport": {"zeromq": {"maxMessageSize": "128Mi"}}}),
    "transport.zeromq.port": Entry({"transport": {"zeromq": {"port": 7401}}}),
    "transport.zeromq.restPort": Entry({"transport": {"zeromq": {"restPort": 7481}}}),
}
