"""What every object has: name, labels, times, identity; how they are written, checked and made."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from swarm_deploy.local.api.errors import Cause, invalid_value, required

__all__ = [
    "Clock",
    "dns_label",
    "dns_subdomain",
    "generate_name",
    "meta_causes",
    "name_causes",
    "new_uid",
    "parse_time",
    "timestamp",
]

Object = dict[str, Any]
Clock = Callable[[], float]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
# No vowels and nothing that reads like them, as real servers do, so that no name is made that anybody would mind.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_ANNOTATIONS = 256 * 1024

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SERVICE_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def timestamp(now: float) -> str:
    """Seconds since the epoch as an object's times are written: whole seconds, UTC."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """The other way round; fractions and zones allowed.

    Raises:
        ValueError: it is no time.
    """
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")).timestamp()


def new_uid() -> str:
    """A new object's identity."""
    return str(uuid.uuid4())


def generate_name(base: str, length: int = 5) -> str:
    """A name that begins with `base` (cut so that the whole fits in 63 characters) and is new, most likely."""
    return base[: 63 - length] + "".join(random.choices(_LETTERS, k=length))


def dns_label(value: str) -> str:
    """What is wrong with it as a DNS label; empty when nothing is."""
    if len(value) > 63:
        return "must be no more than 63 bytes"
    return "" if _LABEL.fullmatch(value) else _LABEL_TEXT


def dns_subdomain(value: str) -> str:
    """What is wrong with it as a DNS subdomain; empty when nothing is."""
    if len(value) > 253:
        return "must be no more than 253 bytes"
    return "" if _SUBDOMAIN.fullmatch(value) else _SUBDOMAIN_TEXT


def _service(value: str) -> str:
    if len(value) > 63:
        return "must be no more than 63 bytes"
    return "" if _SERVICE.fullmatch(value) else _SERVICE_TEXT


def _path_segment(value: str) -> str:
    if value in (".", ".."):
        return f"may not be '{value}'"
    bad = next((c for c in "/%" if c in value), "")
    return f"may not contain '{bad}'" if bad else ""


_CHECKS = {
    "namespaces": dns_label,
    "services": _service,
    "roles.rbac.authorization.k8s.io": _path_segment,
    "rolebindings.rbac.authorization.k8s.io": _path_segment,
    "clusterroles.rbac.authorization.k8s.io": _path_segment,
    "clusterrolebindings.rbac.authorization.k8s.io": _path_segment,
}


def name_causes(resource: str, value: str, path: str = "metadata.name") -> list[Cause]:
    """What is wrong with an object's name; which alphabet it may use depends on its kind."""
    wrong = _CHECKS.get(resource, dns_subdomain)(value)
    return [invalid_value(path, value, wrong)] if wrong else []


def _key_causes(key: str, path: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    causes = []
    if slash and not prefix:
        causes.append(invalid_value(path, key, "prefix part must be non-empty"))
    elif slash and (wrong := dns_subdomain(prefix)):
        causes.append(invalid_value(path, key, f"prefix part {wrong}"))
    if not name:
        causes.append(invalid_value(path, key, "name part must be non-empty"))
    elif len(name) > 63:
        causes.append(invalid_value(path, key, "name part must be no more than 63 bytes"))
    elif not _NAME_PART.fullmatch(name):
        causes.append(invalid_value(path, key, _KEY_TEXT))
    return causes


def label_causes(labels: dict[str, str], path: str) -> list[Cause]:
    """What is wrong with labels."""
    causes = []
    for key, value in sorted(labels.items()):
        causes += _key_causes(key, path)
        if len(value) > 63:
            causes.append(invalid_value(path, value, "must be no more than 63 bytes"))
        elif not _VALUE.fullmatch(value):
            causes.append(invalid_value(path, value, _VALUE_TEXT))
    return causes


def meta_causes(resource: str, meta: Object) -> list[Cause]:
    """What is wrong with an object's metadata."""
    causes = []
    if "generateName" in meta and not meta.get("name"):
        causes += name_causes(resource, meta["generateName"].rstrip("-") or "x", "metadata.generateName")
    if not meta.get("name"):
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += name_causes(resource, meta["name"])
    causes += label_causes(meta.get("labels") or {}, "metadata.labels")
    annotations = meta.get("annotations") or {}
    for key in sorted(annotations):
        causes += _key_causes(key.lower(), "metadata.annotations")
    if sum(len(k) + len(v) for k, v in annotations.items()) > _ANNOTATIONS:
        text = f"Too long: may not be more than {_ANNOTATIONS} bytes"
        causes.append(Cause("FieldValueTooLong", text, "metadata.annotations"))
    controllers = 0
    for index, owner in enumerate(meta.get("ownerReferences") or ()):
        path = f"metadata.ownerReferences[{index}]"
        causes += [required(f"{path}.{k}", "must not be empty") for k in ("kind", "name", "uid") if not owner.get(k)]
        if not owner.get("apiVersion"):
            causes.append(invalid_value(f"{path}.apiVersion", "", "version must not be empty"))
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        text = "Only one reference can have Controller set to true"
        causes.append(invalid_value("metadata.ownerReferences", meta["ownerReferences"], text))
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        causes += _key_causes(finalizer, f"metadata.finalizers[{index}]")
    return causes
