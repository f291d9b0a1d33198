"""What a container's process gets as environment and arguments, and where its mounts really are.

There is no mount namespace here (that takes root), so a volume can't appear at its `mountPath`. Instead each
mountPath is replaced, in the values of the environment and in the arguments, by the directory that holds the volume:
whole path components only, the longest mountPath first. A program that finds its directories through its environment
does not notice; one that has a path compiled in would, and that is the limit of the embedded cluster.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

from swarm_deploy.local.api.quantity import parse_quantity

__all__ = ["ConfigError", "Translation", "environment", "expand", "field_value"]

Object = dict[str, Any]
_VARIABLE = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigError(Exception):
    """The container can't be configured: what is missing, in the words that the event and the status show."""


class Translation:
    """Replaces mountPaths by the directories that hold the volumes."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        """`mounts` maps a mountPath to its directory."""
        self._mounts = {path.rstrip("/"): str(real) for path, real in mounts.items()}
        paths = sorted(self._mounts, key=len, reverse=True)
        parts = "|".join(map(re.escape, paths))
        self._pattern = re.compile(rf"(?<![\w./-])({parts})(?![\w.-])") if paths else None

    def __call__(self, text: str) -> str:
        """The text with every mountPath in it replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._mounts[match[1]], text)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value, `$$` a dollar; a name that is not defined stays as it is."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _VARIABLE.sub(one, text)


def field_value(pod: Object, path: str, *, pod_ip: str, host_ip: str) -> str:
    """A `fieldRef` of the downward API."""
    meta, spec = pod["metadata"], pod["spec"]
    if subscript := _SUBSCRIPT.fullmatch(path):
        return str(meta.get(subscript[1], {}).get(subscript[2], ""))
    values = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in values:
        return str(values[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = meta.get(path.partition(".")[2], {})
        return "\n".join(f'{k}="{v}"' for k, v in sorted(entries.items()))
    raise ConfigError(f"unsupported fieldPath: {path}")


def environment(
    container: Object,
    pod: Object,
    *,
    base: Mapping[str, str],
    translate: Translation,
    pod_ip: str,
    host_ip: str,
    allocatable: Mapping[str, str],
    lookup: Callable[[str, str], Mapping[str, str] | None],
) -> dict[str, str]:
    """The whole environment: the image's, `envFrom`, `env` in order, with references resolved and mounts translated.

    `lookup(kind, name)` gives the decoded data of a ConfigMap ("configmaps") or Secret ("secrets") of the pod's
    namespace.

    Raises:
        ConfigError: an object or key that is not optional is missing.
    """
    result = dict(base)
    for source in container.get("envFrom", ()):
        for field, kind in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if field in source:
                data = _data(lookup, kind, source[field])
                result |= {source.get("prefix", "") + k: v for k, v in (data or {}).items()}
    for entry in container.get("env", ()):
        name, value = entry["name"], entry.get("value", "")
        if "valueFrom" in entry:
            found = _value_from(entry["valueFrom"], container, pod, pod_ip, host_ip, allocatable, lookup)
            if found is None:
                continue
            value = found
        else:
            value = expand(value, result)
        result[name] = translate(value)
    return result


def _value_from(
    source: Object, container: Object, pod: Object, pod_ip: str, host_ip: str, allocatable: Mapping[str, str],
    lookup: Callable[[str, str], Mapping[str, str] | None],
) -> str | None:  # fmt: skip
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], pod_ip=pod_ip, host_ip=host_ip)
    if "resourceFieldRef" in source:
        return _resource(source["resourceFieldRef"], container, pod, allocatable)
    for field, kind in (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")):
        if field in source:
            reference = source[field]
            data = _data(lookup, kind, reference)
            if data is None or reference["key"] not in data:
                if reference.get("optional"):
                    return None
                where = f"{pod['metadata']['namespace']}/{reference['name']}"
                kind_name = "ConfigMap" if kind == "configmaps" else "Secret"
                raise ConfigError(f"couldn't find key {reference['key']} in {kind_name} {where}")
            return data[reference["key"]]
    raise ConfigError(f"unsupported source of an environment variable: {', '.join(source)}")


def _data(
    lookup: Callable[[str, str], Mapping[str, str] | None], kind: str, reference: Object
) -> Mapping[str, str] | None:
    data = lookup(kind, reference["name"])
    if data is None and not reference.get("optional"):
        raise ConfigError(f'{kind.removesuffix("s")} "{reference["name"]}" not found')
    return data


def _resource(reference: Object, container: Object, pod: Object, allocatable: Mapping[str, str]) -> str:
    containers: Sequence[Object] = pod["spec"]["containers"]
    name = reference.get("containerName")
    owner = next((c for c in containers if c["name"] == name), container)
    side, _, resource = reference["resource"].partition(".")
    amounts = owner.get("resources", {}).get(side, {})
    value = amounts.get(resource) or allocatable.get(resource, "0")
    divisor = parse_quantity(str(reference.get("divisor") or "1")) or 1
    exact = parse_quantity(str(value)) / divisor
    return str(exact.to_integral_value(rounding=ROUND_CEILING))
