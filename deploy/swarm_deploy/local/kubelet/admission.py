"""What a pod asks for and this machine cannot give.

Two answers are possible. What would change how the program behaves, or what it may rely on, is refused: the pod stays
pending and an event says which field it is and what to do. What only restricts the program further (a read-only root,
dropped capabilities, a user id for an image of this project) is not enforced, since its processes run as the user who
started the cluster and on this machine's files; an event says so once for each pod, so that nobody takes the embedded
cluster for a sandbox.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Container, Iterator
from typing import Any

from swarm_deploy.local.kubelet.images import Image
from swarm_deploy.local.kubelet.volumes import unsupported_volume

__all__ = ["container_refusal", "not_enforced", "pod_refusal"]

Object = dict[str, Any]


def _containers(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("initContainers") or ()
    yield from pod["spec"]["containers"]


def pod_refusal(pod: Object, devices: Container[str] = frozenset()) -> str:
    """The first thing that the pod as a whole can't have; empty when it can have everything.

    Args:
        devices: resources that the node offers, which as in any cluster are numbers alone unless a device plugin
            stands behind them; the pod gets nothing but its place.
    """
    spec = pod["spec"]
    security = spec.get("securityContext") or {}
    checks = [
        (spec.get("hostAliases"), "spec.hostAliases: pods share this machine's /etc/hosts"),
        (
            spec.get("dnsPolicy") == "None" or spec.get("dnsConfig"),
            "spec.dnsConfig: pods share this machine's resolver",
        ),
        (
            spec.get("runtimeClassName"),
            f"spec.runtimeClassName: there is no RuntimeClass {spec.get('runtimeClassName')}",
        ),
        (spec.get("resourceClaims"), "spec.resourceClaims: the embedded cluster allocates no devices"),
        (spec.get("ephemeralContainers"), "spec.ephemeralContainers: not provided"),
        (spec.get("hostUsers") is False, "spec.hostUsers=false: pods run as the current user"),
        (security.get("sysctls"), "spec.securityContext.sysctls: pods share this machine's kernel settings"),
        (
            (spec.get("os") or {}).get("name", "linux") != "linux",
            "spec.os: the embedded cluster runs on Linux only",
        ),
    ]
    for wrong, text in checks:
        if wrong:
            return text
    for volume in spec.get("volumes") or ():
        if text := unsupported_volume(volume):
            return text
    for container in _containers(pod):
        name = container["name"]
        for port in container.get("ports") or ():
            if port.get("hostPort") and not spec.get("hostNetwork"):
                return f"container {name}: hostPort {port['hostPort']} needs hostNetwork: nothing forwards ports here"
        if container.get("volumeDevices"):
            return f"container {name}: volumeDevices: the embedded cluster provides no block devices"
        for resource in sorted((container.get("resources") or {}).get("limits") or {}):
            if "/" in resource and resource not in devices:
                return f"container {name}: this machine offers no {resource} to pods of the embedded cluster"
        for mount in container.get("volumeMounts") or ():
            if mount.get("mountPropagation") not in (None, "None"):
                return f"container {name}: mountPropagation {mount['mountPropagation']}: nothing is mounted here"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "grpc" in (container.get(probe) or {}):
                return f"container {name}: {probe}.grpc: use httpGet, tcpSocket or exec"
    return ""


def container_refusal(pod: Object, container: Object, image: Image) -> str:
    """What of its security context a container can't have; empty when it can have all."""
    own = container.get("securityContext") or {}
    whole = pod["spec"].get("securityContext") or {}
    if own.get("privileged"):
        return "securityContext.privileged: pods of the embedded cluster run as the current user"
    if added := (own.get("capabilities") or {}).get("add"):
        return f"securityContext.capabilities.add: {', '.join(added)} can't be given to a process of the current user"
    for where in (own, whole):
        if (where.get("seccompProfile") or {}).get("type") == "Localhost":
            return "securityContext.seccompProfile: no profiles are installed on this node"
        if (where.get("appArmorProfile") or {}).get("type") == "Localhost" or where.get("seLinuxOptions"):
            return "securityContext: the embedded cluster sets no AppArmor profile or SELinux label"
    if image.ours:
        return ""
    user = own.get("runAsUser", whole.get("runAsUser"))
    if user is not None and user != os.getuid():
        return f"securityContext.runAsUser: {user} is not the current user ({os.getuid()}), as which pods run here"
    if own.get("runAsNonRoot", whole.get("runAsNonRoot")) and os.getuid() == 0:
        return "container has runAsNonRoot and image will run as root"
    return ""


def not_enforced(pod: Object) -> str:
    """What the pod asks for that is let pass without effect, in words; empty when there is nothing."""
    found: list[str] = []
    whole = pod["spec"].get("securityContext") or {}
    for container in _containers(pod):
        own = container.get("securityContext") or {}
        both = {**whole, **own}
        user = both.get("runAsUser")
        if user is not None and user != os.getuid():
            found.append(f"runAsUser {user}")
        if both.get("runAsNonRoot") and os.getuid() == 0:
            found.append("runAsNonRoot")
        if "memory" in ((container.get("resources") or {}).get("limits") or {}):
            found.append("limits on memory")
        if own.get("readOnlyRootFilesystem"):
            found.append("readOnlyRootFilesystem")
        if (own.get("capabilities") or {}).get("drop"):
            found.append("capabilities.drop")
        if (both.get("seccompProfile") or {}).get("type") == "RuntimeDefault":
            found.append("seccompProfile")
    if not found:
        return ""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return (
        f"runs as a process of user {user} on this machine's files; the embedded cluster does not enforce"
        f" {', '.join(dict.fromkeys(found))}"
    )
