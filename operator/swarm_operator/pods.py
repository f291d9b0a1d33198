"""The pods, as manifests. Pure: a spec, a name and a revision in, plain data out.

Every path reaches the agent through its environment, because the embedded kubelet has no mount namespaces and puts the
real directories into the environment instead.

Shared memory is a `hostPath` of the node's own tmpfs (mode 1777 on every Linux), not of a directory made for the
swarm: a directory that the kubelet makes is root's, mode 0755, and fsGroup does not apply to it, so that a non-root
agent could not write there without a privileged container to prepare it. In the tmpfs each agent makes the swarm's
directory itself, 0700, and can remove it again.

Guaranteed QoS (requests equal limits, on every container) is what the static CPU Manager asks for; a container gets
CPUs of its own if it asks for whole ones.

With medium Memory a compute agent's pod has a board of its own, and a second container `hub` (see `private_board`).
"""

from __future__ import annotations

from typing import Any, Final

from swarm_agents.config import AGENT_PORT, HUB_AGENT_PORT, Role
from swarm_operator.api.pod_template import RESERVED_VOLUMES, KeyRef, PodTemplate, Volume
from swarm_operator.api.v1alpha1 import SwarmSpec, Toleration
from swarm_operator.names import ANNOTATION_NODE, PodName, config_map, pod_labels, secret, service_account
from swarm_operator.objects import metadata
from swarm_operator.placement import NO_EXTRAS, Extras, environment, pinned_to, scheduling
from swarm_operator.private_board import in_pod, size_limit
from swarm_operator.views import CONTAINER, HUB_CONTAINER, SwarmView

__all__ = ["BOUND_TO_NODE", "CONTAINER", "LOST_NODE_SECONDS", "pod_manifest", "tolerated_seconds"]

_CONFIG: Final = "/etc/swarm/config"
_KEYS: Final = "/etc/swarm/keys"
_SHM: Final = "/run/swarm/shm"
_CACHE: Final = "/var/cache/swarm"
_STATE: Final = "/var/lib/swarm"
_TMP: Final = "/tmp"

#: How long a compute agent stays bound to a node that is not ready or not heard of, before it is replaced elsewhere.
#: Kubernetes' own default is five minutes. The node controller takes 40 to 50 s to notice, and the agents have taken
#: the work over long before; the few seconds here let a kubelet restart in peace.
LOST_NODE_SECONDS: Final = 5

#: What a DaemonSet's pods tolerate: a resource agent belongs to its node, whatever befalls the node.
BOUND_TO_NODE: Final = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


def pod_manifest(
    swarm: SwarmView, spec: SwarmSpec, name: PodName, revision: str, *, node: str = "", extras: Extras = NO_EXTRAS
) -> dict[str, Any]:
    """The manifest of one pod. `node` pins a resource agent to its node; `extras` are for all others."""
    resource = name.role is Role.RESOURCE
    template = spec.resource.pod_template if resource else spec.compute.pod_template
    labels = {**template.labels, **extras.labels, **pod_labels(name, revision)}
    annotations = {**template.annotations, **extras.annotations, **({ANNOTATION_NODE: node} if node else {})}
    meta = metadata(swarm, str(name), labels)
    if annotations:
        meta["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": _spec(swarm, spec, name, revision, node, template, extras),
    }


def _spec(
    swarm: SwarmView,
    spec: SwarmSpec,
    name: PodName,
    revision: str,
    node: str,
    template: PodTemplate,
    extras: Extras,
) -> dict[str, Any]:
    security, wanted = spec.security, spec.scheduling
    pod: dict[str, Any] = {
        "restartPolicy": "Always",
        "serviceAccountName": service_account(swarm.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": security.run_as_user,
            "runAsGroup": security.run_as_group,
            "fsGroup": security.run_as_group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": _containers(swarm, spec, name, revision, template),
        "volumes": _volumes(swarm, spec, template),
        "tolerations": _tolerations(wanted.tolerations, name.role),
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": ref.name} for ref in spec.image_pull_secrets]
    if wanted.node_selector:
        pod["nodeSelector"] = dict(wanted.node_selector)
    if wanted.priority_class_name:
        pod["priorityClassName"] = wanted.priority_class_name
    if template.runtime_class_name:
        pod["runtimeClassName"] = template.runtime_class_name
    if name.role is Role.RESOURCE:
        pod["affinity"] = pinned_to(node)
    else:
        pod |= scheduling(swarm, spec, extras)
    return pod


def _containers(
    swarm: SwarmView, spec: SwarmSpec, name: PodName, revision: str, template: PodTemplate
) -> list[dict[str, Any]]:
    agent = _container(swarm, spec, name, revision, template)
    if not in_pod(spec):
        return [agent]
    # The pod is a node of its own to the swarm. The hub needs a name of its own on the board, and a port of its own.
    own = [{"name": "SWARM_NODE", "value": str(name)}]
    agent["env"] += own
    hub = _container(swarm, spec, name._replace(role=Role.RESOURCE), revision, PodTemplate())
    hub["name"] = HUB_CONTAINER
    hub["env"] += [
        *own,
        {"name": "SWARM_AGENT", "value": f"{name.swarm}-hub-{name.ordinal}-{name.incarnation}"},
        {"name": "SWARM_HTTP_PORT", "value": str(HUB_AGENT_PORT)},
    ]
    hub["ports"][0] = _port("hub-http", HUB_AGENT_PORT)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        hub[probe]["httpGet"]["port"] = "hub-http"
    return [agent, hub]


def _container(
    swarm: SwarmView, spec: SwarmSpec, name: PodName, revision: str, template: PodTemplate
) -> dict[str, Any]:
    resource = name.role is Role.RESOURCE
    amounts = {
        "cpu": spec.resource.cpus if resource else spec.compute.cpus,
        "memory": spec.resource.memory if resource else spec.compute.memory,
    }
    if spec.compute.gpus and not resource:
        amounts[spec.compute.gpus.resource] = str(spec.compute.gpus.count)
    ports = [_port("http", AGENT_PORT)]
    if resource:
        ports += [_port("hub", spec.transport.zeromq.port), _port("rest", spec.transport.zeromq.rest_port)]
    mounts = [
        _mount("config", _CONFIG, read_only=True),
        _mount("keys", _KEYS, read_only=True),
        _mount("shm", _SHM),
        _mount("cache", _CACHE),
        _mount("tmp", _TMP),
        *([_mount("state", _STATE)] if spec.state else []),
        *(
            {"name": mount.name, "mountPath": mount.mount_path, "readOnly": mount.read_only}
            for mount in template.volume_mounts
        ),
    ]
    return {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": spec.image_pull_policy,
        "command": ["swarm-agent"],
        "env": _env(swarm, spec, name, revision),
        "ports": ports,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # the first start may compile kernels: two minutes, looked at every second
        "startupProbe": _probe("/healthz", period=1, failures=120),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "volumeMounts": mounts,
    }


def _env(swarm: SwarmView, spec: SwarmSpec, name: PodName, revision: str) -> list[dict[str, Any]]:
    given = {
        "SWARM_NAME": swarm.name,
        "SWARM_NAMESPACE": swarm.namespace,
        "SWARM_UID": swarm.uid,
        "SWARM_ROLE": name.role.value,
        "SWARM_ORDINAL": str(name.ordinal),
        "SWARM_REVISION": revision,
        "SWARM_CONFIG_DIR": _CONFIG,
        "SWARM_KEYS_DIR": _KEYS,
        "SWARM_SHM_DIR": _SHM,
        "SWARM_CACHE_DIR": _CACHE,
        "TMPDIR": _TMP,
    }
    if spec.state:
        given["SWARM_STATE_DIR"] = _STATE
    if name.role is not Role.RESOURCE:
        given |= environment(spec)
    downward = {
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_IP": "status.podIP",
        "NODE_NAME": "spec.nodeName",
    }
    env: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in given.items()]
    env += [
        {"name": key, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for key, path in downward.items()
    ]
    if name.role is not Role.RESOURCE:
        for entry in spec.compute.env:
            if entry.secret_key_ref:
                env.append({"name": entry.name, "valueFrom": {"secretKeyRef": _key(entry.secret_key_ref)}})
            elif entry.config_map_key_ref:
                env.append({"name": entry.name, "valueFrom": {"configMapKeyRef": _key(entry.config_map_key_ref)}})
            else:
                env.append({"name": entry.name, "value": entry.value or ""})
    return env


def _key(ref: KeyRef) -> dict[str, Any]:
    return {"name": ref.name, "key": ref.key, "optional": ref.optional}


def _volumes(swarm: SwarmView, spec: SwarmSpec, template: PodTemplate) -> list[dict[str, Any]]:
    shm: dict[str, Any] = {"hostPath": {"path": spec.transport.shared_memory.path, "type": "Directory"}}
    if in_pod(spec):
        shm = {"emptyDir": {"medium": "Memory", "sizeLimit": size_limit(spec)}}
    volumes: list[dict[str, Any]] = [
        {"name": _volume("config"), "configMap": {"name": config_map(swarm.name), "defaultMode": 0o444}},
        {"name": _volume("keys"), "secret": {"secretName": secret(swarm.name), "defaultMode": 0o440}},
        {"name": _volume("shm"), **shm},
        {"name": _volume("cache"), "emptyDir": {}},
        {"name": _volume("tmp"), "emptyDir": {}},
    ]
    if spec.state and spec.state.medium == "PersistentVolumeClaim":
        volumes.append({"name": _volume("state"), "persistentVolumeClaim": {"claimName": spec.state.claim_name}})
    elif spec.state:
        volumes.append({"name": _volume("state"), "emptyDir": {"sizeLimit": spec.state.size_limit}})
    return volumes + [_user_volume(volume) for volume in template.volumes]


def _user_volume(volume: Volume) -> dict[str, Any]:
    if volume.config_map:
        return {"name": volume.name, "configMap": {"name": volume.config_map.name}}
    if volume.secret:
        return {"name": volume.name, "secret": {"secretName": volume.secret.name}}
    if volume.persistent_volume_claim:
        return {"name": volume.name, "persistentVolumeClaim": {"claimName": volume.persistent_volume_claim.name}}
    return {"name": volume.name, "emptyDir": {"sizeLimit": volume.empty_dir}}


def _volume(name: str) -> str:
    return f"{RESERVED_VOLUMES}{name}"


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": _volume(name), "mountPath": path} | ({"readOnly": True} if read_only else {})


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _tolerations(wanted: list[Toleration], role: Role) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for given in wanted:
        toleration = {"key": given.key, "operator": given.operator, "value": given.value, "effect": given.effect}
        out.append({key: value for key, value in toleration.items() if value})
        if given.toleration_seconds is not None:
            out[-1]["tolerationSeconds"] = given.toleration_seconds
    for key, effect in BOUND_TO_NODE:
        if role is Role.RESOURCE:
            out.append({"key": key, "operator": "Exists", "effect": effect})
        elif effect == "NoExecute" and not any(_covers(given, key) for given in wanted):
            out.append({"key": key, "operator": "Exists", "effect": effect, "tolerationSeconds": LOST_NODE_SECONDS})
    return out


def _covers(given: Toleration, key: str) -> bool:
    """Whether the owner has said how long this taint is borne."""
    return given.effect in ("", "NoExecute") and given.operator == "Exists" and given.key in ("", key)


def tolerated_seconds(wanted: list[Toleration], key: str) -> float:
    """How long a compute agent stays on a node with this taint of effect NoExecute; infinite: for ever."""
    said = [given.toleration_seconds for given in wanted if _covers(given, key)]
    limited = [float(seconds) for seconds in said if seconds is not None]
    return min(limited) if limited else float("inf") if said else float(LOST_NODE_SECONDS)
