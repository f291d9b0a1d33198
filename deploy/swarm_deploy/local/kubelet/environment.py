"""A container's environment and arguments, composed as a real kubelet composes them.

The order is: the image's, `envFrom`, `env`; later ones win. `$(NAME)` in a value refers to what stands before it, in
an argument to all of them; `$$(NAME)` means the text itself; a reference to nothing stays as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from decimal import ROUND_UP, Decimal
from typing import Any, Protocol

from swarm_deploy.local.api.quantity import parse_quantity

__all__ = ["ConfigError", "Sources", "expand", "field_value", "make_environment", "resource_value"]

Object = dict[str, Any]

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


class ConfigError(Exception):
    """The container can't be configured (yet): something that it refers to is missing. Worded as a real kubelet's."""


class Sources(Protocol):
    """Where ConfigMaps and Secrets come from; None when there is none of that name."""

    def config_map(self, namespace: str, name: str) -> Object | None: ...

    def secret(self, namespace: str, name: str) -> Object | None: ...


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by its value."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def field_value(pod: Object, path: str) -> str:
    """What a `fieldRef` names.

    Raises:
        ConfigError: there is no such field for pods.
    """
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    match = _SUBSCRIPT.fullmatch(path)
    if match:
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        held = meta.get(path.rpartition(".")[2]) or {}
        return "\n".join(f'{k}="{_quoted(v)}"' for k, v in sorted(held.items()))
    found = {
        "metadata.name": meta.get("name"),
        "metadata.namespace": meta.get("namespace"),
        "metadata.uid": meta.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": status.get("hostIP"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": status.get("podIP"),
    }
    if path not in found:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(found[path] or "")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, container: Object, ref: Object, allocatable: Mapping[str, str]) -> str:
    """What a `resourceFieldRef` names, in units of its divisor; what is not limited is limited by the node."""
    name = ref.get("containerName")
    if name and name != container.get("name"):
        found = [c for c in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])] if c["name"] == name]
        if not found:
            raise ConfigError(f'no container "{name}" in the pod')
        container = found[0]
    part, _, resource = ref["resource"].partition(".")
    amounts = (container.get("resources") or {}).get(part) or {}
    amount = amounts.get(resource)
    if amount is None and part == "limits":
        amount = allocatable.get(resource)
    value = parse_quantity(amount or "0")
    divisor = parse_quantity(ref.get("divisor") or "0") or Decimal(1)
    return str(int((value / divisor).to_integral_value(ROUND_UP)))


def _decoded(secret: Object, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode(errors="surrogateescape")


def _key(pod: Object, ref: Object, kind: str, sources: Sources) -> str | None:
    """The value of one key of a ConfigMap or Secret; None where it is optional and not there."""
    namespace, name, key = pod["metadata"]["namespace"], ref.get("name", ""), ref["key"]
    found = sources.config_map(namespace, name) if kind == "configmap" else sources.secret(namespace, name)
    data = (found or {}).get("data") or {}
    if found is not None and key in data:
        return str(data[key]) if kind == "configmap" else _decoded(found, key)
    if ref.get("optional"):
        return None
    if found is None:
        raise ConfigError(f'{kind} "{name}" not found')
    what = "ConfigMap" if kind == "configmap" else "Secret"
    raise ConfigError(f"couldn't find key {key} in {what} {namespace}/{name}")


def _all_keys(pod: Object, source: Object, sources: Sources) -> dict[str, str]:
    namespace, prefix = pod["metadata"]["namespace"], source.get("prefix", "")
    if "configMapRef" in source:
        ref = source["configMapRef"]
        found, kind = sources.config_map(namespace, ref.get("name", "")), "configmap"
    else:
        ref = source["secretRef"]
        found, kind = sources.secret(namespace, ref.get("name", "")), "secret"
    if found is None:
        if ref.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{ref.get("name", "")}" not found')
    data = found.get("data") or {}
    values = {k: str(v) if kind == "configmap" else _decoded(found, k) for k, v in data.items()}
    return {prefix + k: v for k, v in sorted(values.items()) if _NAME.fullmatch(prefix + k)}


def make_environment(
    pod: Object, container: Object, image: Mapping[str, str], sources: Sources, allocatable: Mapping[str, str]
) -> dict[str, str]:
    """The variables that a container's manifest gives it, on top of its image's.

    Raises:
        ConfigError: a ConfigMap, Secret or key that is not optional is missing, or a field can't be referred to.
    """
    env = dict(image)
    for source in container.get("envFrom") or ():
        env.update(_all_keys(pod, source, sources))
    for variable in container.get("env") or ():
        name, source = variable["name"], variable.get("valueFrom")
        if source is None:
            env[name] = expand(variable.get("value") or "", env)
            continue
        value: str | None
        if "fieldRef" in source:
            value = field_value(pod, source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            value = resource_value(pod, container, source["resourceFieldRef"], allocatable)
        elif "configMapKeyRef" in source:
            value = _key(pod, source["configMapKeyRef"], "configmap", sources)
        elif "secretKeyRef" in source:
            value = _key(pod, source["secretKeyRef"], "secret", sources)
        else:
            raise ConfigError(f"the embedded cluster can't take variable {name} from {', '.join(source)}")
        if value is not None:
            env[name] = value
    return env
