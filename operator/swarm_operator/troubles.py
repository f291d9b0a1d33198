"""Why a Swarm that is valid can't run, and what to do about it. Pure.

What the API server answers to a create, and what scheduler and kubelet write into a pod, says what is wrong in the
words of whoever refused; it never says which field of the Swarm to change or which object to make. Each entry here
adds that, before the words themselves.

Two troubles are silent: a pod whose scheduler does not exist has no condition at all, and one whose volume can't be
mounted is just `ContainerCreating`, with an Event that the operator does not read (it would have to watch all Events of
all namespaces). Both are known by the time that they last, hence `look_again`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.views import PodView

__all__ = ["SILENT_AFTER", "Trouble", "look_again", "of_pods", "of_refusals"]

#: Seconds after which a pod of which nothing is heard is a trouble.
SILENT_AFTER: Final = 5.0

_RESOURCE: Final = re.compile(r"Insufficient ([A-Za-z0-9./_-]+)")
_QUOTED: Final = re.compile(r'(persistentvolumeclaim|secret|configmap) "([^"]+)" not found', re.IGNORECASE)


@dataclass(frozen=True)
class Trouble:
    """What is wrong in one CamelCase word, and what to do; the advice ends with a full stop and a blank."""

    reason: str
    advice: str


def of_refusals(spec: SwarmSpec | None, failures: Iterable[str], namespace: str) -> Trouble | None:
    """What lies behind the API server's refusals, where it is known."""
    text = "\n".join(failures)
    if "NamespaceTerminating" in text or "because it is being terminated" in text:
        return Trouble(
            "NamespaceTerminating",
            f"The namespace {namespace} is being deleted, and the Swarm with it: make it in another namespace. ",
        )
    if "exceeded quota" in text or "failed quota" in text:
        return Trouble(
            "QuotaExceeded",
            f"A ResourceQuota of the namespace is used up: see kubectl describe resourcequota -n {namespace}; raise "
            "it, or ask for less (compute.replicas, compute.standby, compute.cpus, compute.memory). ",
        )
    if "no PriorityClass with name" in text:
        name = (spec.scheduling.priority_class_name if spec else "") or ""
        return Trouble(
            "PriorityClassMissing",
            f"There is no PriorityClass {name}: make it, or name one that kubectl get priorityclass lists in "
            "scheduling.priorityClassName. ",
        )
    if re.search(r"(maximum|minimum) \S+ usage per|limit to request ratio", text):
        return Trouble(
            "LimitRangeExceeded",
            f"A LimitRange does not admit the pods: see kubectl describe limitrange -n {namespace}; change it, or "
            "compute.cpus, compute.memory, resource.cpus and resource.memory. ",
        )
    if "RuntimeClass" in text and "not found" in text:
        return Trouble(
            "RuntimeClassMissing",
            "The RuntimeClass in podTemplate.runtimeClassName does not exist: make it, or name one that "
            "kubectl get runtimeclass lists. ",
        )
    return None


def of_pods(spec: SwarmSpec, pods: Iterable[PodView], namespace: str, now: float) -> Iterator[tuple[PodView, Trouble]]:
    """Each pod that can't start, and what to do. Pods that merely take their time are none."""
    for pod in pods:
        if pod.deleting or pod.ready:
            continue
        found = _said(spec, pod, namespace) if pod.reason else None
        if found is None and now - pod.created > SILENT_AFTER:
            found = _silent(spec, pod)
        if found:
            yield pod, found


def look_again(pods: Iterable[PodView], now: float) -> float | None:
    """Seconds until a pod of which nothing is heard becomes a trouble; None: none can."""
    delays = [
        pod.created + SILENT_AFTER - now + 0.1
        for pod in pods
        if not pod.deleting and not pod.ready and _unheard(pod) and now - pod.created <= SILENT_AFTER
    ]
    return max(0.1, min(delays)) if delays else None


def _unheard(pod: PodView) -> bool:
    return pod.phase in ("", "Pending") and not pod.gates and pod.reason in ("", "ContainerCreating")


def _silent(spec: SwarmSpec, pod: PodView) -> Trouble | None:
    if not _unheard(pod):
        return None
    if not pod.node:
        name = spec.scheduling.scheduler_name
        return Trouble(
            "NoScheduler",
            f"No scheduler has looked at it: is one called {name} running? Start it, or change or leave out "
            "scheduling.schedulerName. "
            if name
            else "No scheduler has looked at it: is the cluster's scheduler running? ",
        )
    objects = sorted(_volumes(spec))
    if not objects or pod.reason != "ContainerCreating":
        return None
    return Trouble(
        "VolumesNotMounted",
        f"Its volumes are not mounted yet: make what is missing of {', '.join(objects)} (kubectl describe pod "
        f"{pod.name} says which), or take it out of podTemplate.volumes. ",
    )


def _volumes(spec: SwarmSpec) -> Iterator[str]:
    for template in (spec.compute.pod_template, spec.resource.pod_template):
        for volume in template.volumes:
            for kind, ref in (
                ("ConfigMap", volume.config_map),
                ("Secret", volume.secret),
                ("PersistentVolumeClaim", volume.persistent_volume_claim),
            ):
                if ref is not None:
                    yield f"{kind} {ref.name}"
    if spec.state is not None and spec.state.claim_name:
        yield f"PersistentVolumeClaim {spec.state.claim_name}"


def _said(spec: SwarmSpec, pod: PodView, namespace: str) -> Trouble | None:
    if pod.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
        never = " or let nodes pull it (imagePullPolicy IfNotPresent)" if pod.reason == "ErrImageNeverPull" else ""
        return Trouble(
            "ImageMissing",
            f"The image {spec.image} can't be had: correct spec.image, push it,{never} or name a Secret that may pull "
            "it in imagePullSecrets. ",
        )
    missing = _QUOTED.search(pod.message)
    if missing:
        kind, name = missing.group(1).lower(), missing.group(2)
        return Trouble(
            "ObjectMissing",
            f"The {kind} {name} does not exist in the namespace {namespace}: make it, or change the field that names "
            f"it ({_naming(spec, name)}). ",
        )
    if pod.reason == "Unschedulable":
        return Trouble("Unschedulable", _unschedulable(spec, pod.message))
    if pod.reason == "CreateContainerConfigError":
        return Trouble(
            "ObjectMissing",
            f"Its container can't be configured: make the Secret, ConfigMap or key that compute.env names in the "
            f"namespace {namespace}. ",
        )
    return None


def _naming(spec: SwarmSpec, name: str) -> str:
    if spec.state is not None and spec.state.claim_name == name:
        return "state.claimName"
    if any(ref.name == name for env in spec.compute.env for ref in (env.secret_key_ref, env.config_map_key_ref) if ref):
        return "compute.env"
    return "podTemplate.volumes"


def _unschedulable(spec: SwarmSpec, message: str) -> str:
    short = {name.rstrip(".") for name in _RESOURCE.findall(message)}  # a sentence may end with the name
    if spec.compute.gpus is not None and spec.compute.gpus.resource in short:
        resource = spec.compute.gpus.resource
        return (
            f"No node has {spec.compute.gpus.count} {resource} to give: add a node that has, install its device plugin "
            f"(kubectl describe nodes shows {resource} under Allocatable), or change compute.gpus. "
        )
    if short:
        fields = [f"compute.{name}" for name, what in (("cpus", "cpu"), ("memory", "memory")) if what in short]
        return (
            f"No node has enough {', '.join(sorted(short))} left: add nodes, or lower "
            f"{', '.join(['compute.replicas', *fields])}. "
        )
    if "node affinity/selector" in message or "node selector" in message:
        return (
            "No node has the labels that are asked for: label one (kubectl label node), or change "
            "scheduling.nodeSelector. "
        )
    if "untolerated taint" in message or "taint" in message:
        return "Every node has a taint that is not tolerated: add it to scheduling.tolerations, or take it off a node. "
    if "topology spread" in message:
        return "The spread can't be kept: add nodes, raise scheduling.topology.maxSkew, or set required to false. "
    return "No node takes it: add one, or ask for less. "
