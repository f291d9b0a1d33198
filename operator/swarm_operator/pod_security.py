"""Which Pod Security level the pods are of, in a condition, and what to do where a namespace refuses them. Pure.

All pods are of the `restricted` level (non-root, no privilege escalation, no capabilities, seccomp RuntimeDefault, and
beyond what the level asks a read-only root) but for one thing: a hostPath volume, when shared memory is asked for by
`medium: HostPath`. Both `baseline` and `restricted` forbid every hostPath, whichever directory it shows, so such a
Swarm needs a namespace whose enforced level is `privileged`; nothing else of that level is used. The operator does not
read namespaces (it would need the right to see all of them), so the condition says what the pods are and not what the
namespace asks for; a namespace that refuses them is known by the API server's answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.private_board import in_pod

__all__ = ["HOST_PATH", "POD_SECURITY", "REFUSED", "RESTRICTED", "advice", "level", "problems"]

#: The condition's type, and its reasons.
POD_SECURITY: Final = "PodSecurity"
RESTRICTED: Final = "RestrictedLevel"
HOST_PATH: Final = "HostPathSharedMemory"
#: Reason of Degraded when the namespace does not admit the pods.
REFUSED: Final = "PodSecurityRefused"

#: How PodSecurity admission's refusals read (k8s.io/pod-security-admission).
_VIOLATES: Final = 'violates PodSecurity "'
#: Annotations by which Kubernetes was told a container's confinement before there were fields; AppArmor's still counts.
_CONFINEMENT: Final = ("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/",
                       "container.seccomp.security.alpha.kubernetes.io/")  # fmt: skip


def _label(namespace: str) -> str:
    return f"kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged"


def level(spec: SwarmSpec, namespace: str) -> tuple[str, str, str, str]:
    """The condition: type, status, reason, message."""
    if in_pod(spec):
        return POD_SECURITY, "True", RESTRICTED, "Every pod is of the restricted Pod Security level."
    return (
        POD_SECURITY,
        "False",
        HOST_PATH,
        "The pods meet the restricted Pod Security level but for one volume: the hostPath that "
        "transport.sharedMemory.medium HostPath asks for, which only the privileged level admits. Where the namespace "
        f"enforces another, allow it ({_label(namespace)}), or make the Swarm anew with medium Memory.",
    )


def advice(spec: SwarmSpec | None, failures: Iterable[str], namespace: str) -> str:
    """What to do about pods that the namespace's Pod Security level does not admit; empty when none was refused."""
    if not any(_VIOLATES in failure for failure in failures):
        return ""
    if spec is not None and not in_pod(spec):
        return (
            f"The namespace's Pod Security level forbids the hostPath volume of shared memory: {_label(namespace)}, "
            "or delete the Swarm and make it anew with transport.sharedMemory.medium Memory. "
        )
    return f"The namespace's Pod Security level does not admit the pods: {_label(namespace)}. "


def problems(spec: SwarmSpec) -> Iterator[tuple[str, str]]:
    """Fields by which a Swarm's owner would take the pods out of their confinement."""
    for field, template in (("compute", spec.compute.pod_template), ("resource", spec.resource.pod_template)):
        for key in template.annotations:
            if key.startswith(_CONFINEMENT):
                yield (
                    f"spec.{field}.podTemplate.annotations",
                    f"{key} would change how the containers are confined, which is the operator's to say; leave it out",
                )
