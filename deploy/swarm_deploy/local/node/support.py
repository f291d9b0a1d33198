"""What a pod asks for and this cluster can't give: refused with the reason, never pretended. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swarm_deploy.local.node.volumes import unsupported_volume

__all__ = ["qos_class", "unsupported", "whole_cpus"]

Object = dict[str, Any]
_PROVIDED = ("cpu", "memory", "ephemeral-storage")


def unsupported(pod: Object) -> list[str]:
    """Every reason why this pod can't run here."""
    return list(_reasons(pod["spec"]))


def _reasons(spec: Object) -> Iterator[str]:
    for flag in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(flag):
            yield f"{flag}: pods of the embedded cluster are processes of this machine; leave it out"
    if spec.get("runtimeClassName"):
        yield f"runtimeClassName {spec['runtimeClassName']}: the embedded cluster has no runtime classes"
    for volume in spec.get("volumes", ()):
        if problem := unsupported_volume(volume):
            yield problem
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        name = container["name"]
        security = container.get("securityContext") or {}
        if security.get("privileged"):
            yield f"container {name}: privileged processes can't be given"
        if added := (security.get("capabilities") or {}).get("add"):
            yield f"container {name}: capabilities can't be added ({', '.join(added)})"
        if container.get("restartPolicy") == "Always":
            yield f"container {name}: sidecars among the init containers are not supported"
        if container.get("volumeDevices"):
            yield f"container {name}: block devices can't be given"
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "grpc" in (container.get(kind) or {}):
                yield f"container {name}: {kind} by gRPC is not supported"
        for amounts in (container.get("resources") or {}).values():
            for resource in amounts if isinstance(amounts, dict) else ():
                if resource not in _PROVIDED:
                    yield f"container {name}: the nodes have no {resource}"
        if "httpGet" in ((container.get("lifecycle") or {}).get("preStop") or {}):
            yield f"container {name}: preStop by HTTP is not supported"
        if "postStart" in (container.get("lifecycle") or {}):
            yield f"container {name}: postStart is not supported"


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by Kubernetes' definition."""
    requests: list[Object] = []
    limits: list[Object] = []
    for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
        resources = container.get("resources") or {}
        limits.append(resources.get("limits") or {})
        requests.append((resources.get("limits") or {}) | (resources.get("requests") or {}))
    if not any(requests) and not any(limits):
        return "BestEffort"
    pairs = zip(requests, limits, strict=True)
    if all(
        limit.get(k) and str(request.get(k)) == str(limit[k]) for request, limit in pairs for k in ("cpu", "memory")
    ):
        return "Guaranteed"
    return "Burstable"


def whole_cpus(pod: Object) -> int:
    """How many exclusive CPUs the static CPU Manager would give: whole ones, to Guaranteed pods."""
    from swarm_deploy.local.api.quantity import parse_quantity

    if qos_class(pod) != "Guaranteed":
        return 0
    amounts = [parse_quantity(str(c["resources"]["limits"]["cpu"])) for c in pod["spec"]["containers"]]
    return int(sum(amounts)) if all(a == int(a) and a > 0 for a in amounts) else 0
