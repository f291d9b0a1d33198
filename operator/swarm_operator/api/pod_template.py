"""What a user may say of the agents' pods: environment, volumes, labels. All else of a pod is the operator's.

Kept from the users is what the data plane depends on: names and paths that the operator sets itself are refused, both
by the API server (a rule in the CRD) and by the operator, whichever sees them first.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from swarm_operator.api.fields import RULES, EnvName, LabelKey, LabelMap, Model, Name, Short, Size, plain, rolling

__all__ = [
    "RESERVED_ENV",
    "RESERVED_PATHS",
    "RESERVED_VOLUMES",
    "EnvVar",
    "KeyRef",
    "ObjectRef",
    "PodTemplate",
    "Volume",
    "VolumeMount",
]

#: Environment variables that are not the users': the data plane finds its way by those that the operator sets, and by
#: the loader's, the shell's and the interpreter's a volume's files would be run instead of the image's.
RESERVED_ENV: Final = ("SWARM_*", "POD_*", "LD_*", "PYTHON*", "NODE_NAME", "TMPDIR", "PATH")
_RESERVED_ENV_MESSAGE: Final = f"{', '.join(RESERVED_ENV)} are set by the operator; choose another name"
#: Directories that the operator mounts.
RESERVED_PATHS: Final = ("/etc/swarm", "/run/swarm", "/var/cache/swarm", "/var/lib/swarm", "/tmp")
#: Prefix of the volumes that the operator adds.
RESERVED_VOLUMES: Final = "swarm-"


class ObjectRef(Model):
    """An object in the Swarm's namespace."""

    name: Name = plain(..., "Its name.")


class KeyRef(Model):
    """A key of an object in the Swarm's namespace."""

    name: Name = plain(..., "The object's name.")
    key: Short = plain(..., "The key in its data.")
    optional: bool = plain(False, "Start without it when the object or the key is missing.")


class EnvVar(Model):
    """An environment variable: a value, or where it comes from."""

    name: EnvName = plain(
        ...,
        "The variable's name.",
        json_schema_extra={
            RULES: [
                {
                    "rule": " && ".join(
                        f"!self.startsWith('{n[:-1]}')" if n.endswith("*") else f"self != '{n}'" for n in RESERVED_ENV
                    ),
                    "message": _RESERVED_ENV_MESSAGE,
                }
            ]
        },
    )
    value: Annotated[str, Field(max_length=4096)] | None = plain(None, "The value; empty when nothing is given.")
    secret_key_ref: KeyRef | None = plain(None, "Take the value from a key of a Secret.")
    config_map_key_ref: KeyRef | None = plain(None, "Take the value from a key of a ConfigMap.")

    @field_validator("name")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if any(value.startswith(name[:-1]) if name.endswith("*") else value == name for name in RESERVED_ENV):
            raise ValueError(_RESERVED_ENV_MESSAGE)
        return value

    @model_validator(mode="after")
    def _one_source(self) -> EnvVar:
        if sum(source is not None for source in (self.value, self.secret_key_ref, self.config_map_key_ref)) > 1:
            raise ValueError("give one of value, secretKeyRef, configMapKeyRef")
        return self


class Volume(Model):
    """A volume for the agents. Kinds that reach outside the namespace (hostPath, CSI inline) are not offered."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)] = plain(
        ...,
        "Its name; volumeMounts refer to it.",
        json_schema_extra={
            RULES: [
                {
                    "rule": f"!self.startsWith('{RESERVED_VOLUMES}')",
                    "message": f"names beginning with {RESERVED_VOLUMES} belong to the operator; choose another",
                }
            ]
        },
    )
    config_map: ObjectRef | None = plain(None, "The keys of a ConfigMap as files.")
    secret: ObjectRef | None = plain(None, "The keys of a Secret as files.")
    persistent_volume_claim: ObjectRef | None = plain(None, "A claim; every agent mounts the same one.")
    empty_dir: Size | None = plain(None, "A directory that lives as long as the pod; the value is its size limit.")

    @model_validator(mode="after")
    def _one_source(self) -> Volume:
        if self.name.startswith(RESERVED_VOLUMES):
            raise ValueError(f"names beginning with {RESERVED_VOLUMES} belong to the operator; choose another")
        sources = (self.config_map, self.secret, self.persistent_volume_claim, self.empty_dir)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("give exactly one of configMap, secret, persistentVolumeClaim, emptyDir")
        return self


class VolumeMount(Model):
    """Where a volume appears in the agent's container."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = plain(..., "The volume's name.")
    # No `//`, `.` or `..`: what a path is must be seen by comparing it.
    mount_path: Annotated[str, Field(pattern=r"^(/\.?[A-Za-z0-9_@+-][^/:]*)+$", max_length=512)] = plain(
        ...,
        "Absolute path, without '.', '..' and empty parts.",
        json_schema_extra={
            RULES: [
                {
                    "rule": " && ".join(
                        f"self != '{p}' && !self.startsWith('{p}/') && !'{p}'.startsWith(self + '/')"
                        for p in RESERVED_PATHS
                    ),
                    "message": f"{', '.join(RESERVED_PATHS)} belong to the agent, and may not be hidden; "
                    "choose another path",
                }
            ]
        },
    )
    read_only: bool = plain(True, "Mount it read-only.")

    @field_validator("mount_path")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if any(f"{value}/".startswith(f"{path}/") or path.startswith(f"{value}/") for path in RESERVED_PATHS):
            raise ValueError(
                f"{', '.join(RESERVED_PATHS)} belong to the agent, and may not be hidden; choose another path"
            )
        return value


class PodTemplate(Model):
    """Overrides of the agents' pods. What the data plane depends on can't be overridden."""

    labels: LabelMap = rolling({}, "Labels added to the pods. Those of the operator win.", max_length=32)
    annotations: dict[LabelKey, Annotated[str, Field(max_length=4096)]] = rolling(
        {}, "Annotations added to the pods.", max_length=32
    )
    runtime_class_name: Short | None = rolling(None, "RuntimeClass of the pods.")
    termination_grace_period_seconds: int = rolling(
        30, "How long a stopping pod may take. Should exceed runtime.drainTimeout.", ge=5, le=3600
    )
    volumes: list[Volume] = rolling(
        [],
        "Volumes added to the pods.",
        max_length=16,
        schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    volume_mounts: list[VolumeMount] = rolling(
        [],
        "Where the agent's container mounts them.",
        max_length=32,
        schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["mountPath"]},
    )

    @model_validator(mode="after")
    def _mounts_have_volumes(self) -> PodTemplate:
        missing = {mount.name for mount in self.volume_mounts} - {volume.name for volume in self.volumes}
        if missing:
            raise ValueError(f"volumeMounts: no volume is called {', '.join(sorted(missing))}")
        return self
