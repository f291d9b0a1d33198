"""What a Swarm asks of its pods that the operator's policy, or the operator itself, does not allow. Pure.

The API has no field for most of what leads out of a container (privileged, host namespaces, capabilities, other
accounts, init containers: a test walks through all of it). What is left are texts that something else reads: container
runtimes and network plug-ins obey annotations, the NVIDIA container runtime hands out every GPU of the node for an
environment variable, the loader and the interpreter run what their variables name. And where a policy says which
images may run, a volume mounted over their code would be another image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from swarm_operator.api.pod_template import PodTemplate, Volume
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.names import LABEL_CLIENT
from swarm_operator.policy import Policy, allowed
from swarm_operator.private_board import in_pod

__all__ = ["problems"]

_OURS: Final = "agentswarm.dev/"
#: Annotations by which a runtime, a device injector or a network plug-in gives a pod something of the node.
_HOST_ANNOTATIONS: Final = (
    "io.kubernetes.cri-o.*", "*.crio.io", "*.crio.io/*", "*.cri-o.io*", "cdi.k8s.io/*", "*.nri.io", "*.nri.io/*",
    "run.oci.*", "io.katacontainers.*", "io.containerd.*", "dev.gvisor.*", "io.kubernetes.cri.*",
    "k8s.v1.cni.cncf.io/*", "v1.multus-cni.io/*", "cni.projectcalico.org/*", "k8s.ovn.org/*",
)  # fmt: skip
#: Environment variables by which the NVIDIA, AMD and Habana runtimes choose devices, whoever was given them.
_HOST_ENV: Final = (
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_MIG_*", "NVIDIA_IMEX_CHANNELS", "NVIDIA_GDS", "NVIDIA_MOFED", "NVIDIA_GDRCOPY",
    "NVIDIA_NVSWITCH", "AMD_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES", "HL_VISIBLE_DEVICES",
)  # fmt: skip
#: Those by which a library loads code or data of compiled code from a file.
_CODE_ENV: Final = ("GCONV_PATH", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "NUMBA_CACHE_DIR",
                    "NUMBA_CUDA_DRIVER", "CUDA_HOME", "CUPY_CACHE_DIR")  # fmt: skip
#: Paths of the kernel, and of accounts. `/var/run` is a link to `/run` nearly everywhere.
_NEVER_MOUNTED: Final = ("/proc", "/sys", "/dev", "/boot", "/run/secrets", "/var/run")
#: Where images keep their code.
_CODE: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/opt", "/root", "/app")

_ASK: Final = "or ask who runs the operator to allow it in the operator's policy"


def problems(spec: SwarmSpec, policy: Policy, name: str) -> Iterator[tuple[str, str]]:
    """Fields of a Swarm called `name` that ask for what is not allowed, and what to do."""
    yield from _identity(spec, policy, name)
    yield from _env(spec, policy)
    yield from _template("spec.compute.podTemplate", spec.compute.pod_template, policy)
    if not in_pod(spec):  # else there are no pods of resource agents, and nothing may be said of them
        yield from _template("spec.resource.podTemplate", spec.resource.pod_template, policy)
    yield from _scheduling(spec, policy)
    yield from _node(spec, policy)


def _refused(value: str, patterns: Iterable[str] | None, what: str, advice: str = "choose one of them") -> str:
    """What to say of a value that no pattern is for; empty when one is."""
    if allowed(value, patterns):
        return ""
    shown = ", ".join([*(patterns or ())][:8])
    if not shown:
        return f"{value or 'every one'}: the operator's policy allows no {what}; leave it out, {_ASK}"
    return (
        f"{value or 'every one'} is not among the {what} that the operator's policy allows ({shown}); {advice}, {_ASK}"
    )


def _identity(spec: SwarmSpec, policy: Policy, name: str) -> Iterator[tuple[str, str]]:
    security = spec.security
    if said := _refused(spec.image, policy.images, "images"):
        yield "spec.image", said
    if said := _refused(spec.image_pull_policy, policy.image_pull_policies, "pull policies"):
        yield "spec.imagePullPolicy", said
    for index, ref in enumerate(spec.image_pull_secrets):
        if said := _refused(ref.name, policy.secrets, "Secrets"):
            yield f"spec.imagePullSecrets[{index}].name", said
    if said := _refused(name, policy.service_accounts, "ServiceAccounts", "name the Swarm like one of them"):
        yield "metadata.name", said
    for field, given, least in (
        ("runAsUser", security.run_as_user, policy.min_user_id),
        ("runAsGroup", security.run_as_group, policy.min_group_id),
    ):
        if given < least:
            yield f"spec.security.{field}", f"{given} is below {least}, the operator's policy's least; raise it, {_ASK}"
    if policy.network_policy == "Required" and not security.network_policy:
        yield (
            "spec.security.networkPolicy",
            "the operator's policy requires it; set it to true or leave it out, and name clients and egress",
        )
    if security.egress and not policy.egress:
        yield "spec.security.egress", f"the operator's policy allows none; leave it out, {_ASK}"


def _env(spec: SwarmSpec, policy: Policy) -> Iterator[tuple[str, str]]:
    for index, entry in enumerate(spec.compute.env):
        field = f"spec.compute.env[{index}]"
        harm = (
            "hands out devices of the node beside the resources of device plugins"
            if allowed(entry.name, _HOST_ENV)
            else "makes the agents run or load other code"
            if allowed(entry.name, _CODE_ENV)
            else ""
        )
        if harm and not (policy.env and allowed(entry.name, policy.env)):
            yield f"{field}.name", f"{entry.name} {harm}; leave it out, {_ASK}"
        elif said := _refused(entry.name, policy.env, "environment variables"):
            yield f"{field}.name", said
        for kind, ref, patterns, what in (
            ("secretKeyRef", entry.secret_key_ref, policy.secrets, "Secrets"),
            ("configMapKeyRef", entry.config_map_key_ref, policy.config_maps, "ConfigMaps"),
        ):
            if ref is not None and (said := _refused(ref.name, patterns, what)):
                yield f"{field}.{kind}.name", said


def _template(field: str, template: PodTemplate, policy: Policy) -> Iterator[tuple[str, str]]:
    for kind, given, patterns in (
        ("labels", template.labels, policy.labels),
        ("annotations", template.annotations, policy.annotations),
    ):
        for key in given:
            if key.startswith(_OURS) and not (kind == "labels" and key == LABEL_CLIENT):
                yield f"{field}.{kind}", f"{key}: keys of {_OURS} are the operator's to set; leave it out"
            elif (
                kind == "annotations" and allowed(key, _HOST_ANNOTATIONS) and not (patterns and allowed(key, patterns))
            ):
                yield f"{field}.{kind}", f"{key} gives the pods something of the node; leave it out, {_ASK}"
            elif said := _refused(key, patterns, kind):
                yield f"{field}.{kind}", said
    if template.runtime_class_name is not None:
        if said := _refused(template.runtime_class_name, policy.runtime_classes, "RuntimeClasses"):
            yield f"{field}.runtimeClassName", said
    elif policy.runtime_class_required:
        names = ", ".join(policy.runtime_classes or ["any"])
        yield f"{field}.runtimeClassName", f"the operator's policy requires one ({names}); name it"
    for index, volume in enumerate(template.volumes):
        yield from _volume(f"{field}.volumes[{index}]", volume, policy)
    for index, mount in enumerate(template.volume_mounts):
        if said := _mount(mount.mount_path, policy):
            yield f"{field}.volumeMounts[{index}].mountPath", said


def _volume(field: str, volume: Volume, policy: Policy) -> Iterator[tuple[str, str]]:
    for kind, ref, patterns, what in (
        ("configMap", volume.config_map, policy.config_maps, "ConfigMaps"),
        ("secret", volume.secret, policy.secrets, "Secrets"),
        ("persistentVolumeClaim", volume.persistent_volume_claim, policy.claims, "PersistentVolumeClaims"),
        ("emptyDir", volume.empty_dir, None, ""),
    ):
        if ref is None:
            continue
        if said := _refused(kind, policy.volumes, "kinds of volumes"):
            yield f"{field}.{kind}", said
        elif not isinstance(ref, str) and (said := _refused(ref.name, patterns, what)):
            yield f"{field}.{kind}.name", said


def _mount(path: str, policy: Policy) -> str:
    if _below(path, _NEVER_MOUNTED):
        return f"{path}: the kernel's and the accounts' directories are no place for a volume; choose another, as /data"
    if policy.mount_paths is None and policy.images is not None and _below(path, _CODE):
        return (
            f"{path} may hold code of the image, and the operator's policy says which images may run; mount it "
            f"elsewhere, as under /data, {_ASK}"
        )
    return _refused(path, policy.mount_paths, "mount paths")


def _below(path: str, roots: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{root}/") for root in roots)


def _scheduling(spec: SwarmSpec, policy: Policy) -> Iterator[tuple[str, str]]:
    wanted = spec.scheduling
    for field, name, patterns, what in (
        ("priorityClassName", wanted.priority_class_name, policy.priority_classes, "PriorityClasses"),
        ("schedulerName", wanted.scheduler_name, policy.schedulers, "schedulers"),
    ):
        if name is not None and (said := _refused(name, patterns, what)):
            yield f"spec.scheduling.{field}", said
    for index, toleration in enumerate(wanted.tolerations):
        if said := _refused(toleration.key, policy.tolerations, "taints to tolerate"):
            yield f"spec.scheduling.tolerations[{index}].key", said
    gpus = spec.compute.gpus
    if gpus is not None and (said := _refused(gpus.resource, policy.devices, "devices")):
        yield "spec.compute.gpus.resource", said


def _node(spec: SwarmSpec, policy: Policy) -> Iterator[tuple[str, str]]:
    memory, state = spec.transport.shared_memory, spec.state
    if said := _refused(memory.medium, policy.shared_memory, "media of shared memory"):
        yield "spec.transport.sharedMemory.medium", said
    elif not in_pod(spec) and (said := _refused(memory.path, policy.shared_memory_paths, "directories of the node")):
        yield "spec.transport.sharedMemory.path", said
    if state is None:
        return
    kind = "emptyDir" if state.medium == "EmptyDir" else "persistentVolumeClaim"
    if said := _refused(kind, policy.volumes, "kinds of volumes"):
        yield "spec.state.medium", said
    elif state.claim_name is not None and (said := _refused(state.claim_name, policy.claims, "PersistentVolumeClaims")):
        yield "spec.state.claimName", said
