"""What built-in kinds must hold, as far as this cluster accepts them.

Not all that a real server checks: those checks that catch what people get wrong in a manifest, and those without
which another part of this cluster would have to expect nonsense (a pod without containers, a port out of range). Each
uses the real one's words.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any

from swarm_deploy.local.api import network_policies
from swarm_deploy.local.api.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported_value,
)
from swarm_deploy.local.api.meta import dns_label, dns_subdomain, label_causes
from swarm_deploy.local.api.quantity import parse_quantity

__all__ = ["builtin_causes", "builtin_update_causes"]

Object = dict[str, Any]

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or"
    " 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_MOST_BYTES = 1024 * 1024
_PORT = "must be between 1 and 65535, inclusive"
_QUANTITY_FORM = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_IMMUTABLE = "field is immutable"


def builtin_causes(kind: str, obj: Object) -> list[Cause]:
    """What is wrong with a new, or changed, object."""
    check = _CREATE.get(kind)
    return check(obj) if check else []


def builtin_update_causes(kind: str, obj: Object, old: Object) -> list[Cause]:
    """What of the change is not allowed."""
    check = _UPDATE.get(kind)
    return check(obj, old) if check else []


# -- pods -----------------------------------------


def _port(value: Any, path: str) -> list[Cause]:
    if isinstance(value, int) and not 1 <= value <= 65535:
        return [invalid_value(path, value, _PORT)]
    return []


def _resources(resources: Object, path: str) -> list[Cause]:
    causes = []
    amounts: dict[tuple[str, str], Any] = {}
    for part in ("limits", "requests"):
        for name, amount in sorted((resources.get(part) or {}).items()):
            here = f"{path}.{part}[{name}]"
            try:
                amounts[part, name] = value = parse_quantity(amount)
            except ValueError:
                causes.append(invalid_value(here, amount, _QUANTITY_FORM))
                continue
            if value < 0:
                causes.append(invalid_value(here, amount, "must be greater than or equal to 0"))
    for (part, name), value in amounts.items():
        limit = amounts.get(("limits", name))
        if part == "requests" and limit is not None and value > limit:
            shown = resources["requests"][name]
            text = f"must be less than or equal to {name} limit of {resources['limits'][name]}"
            causes.append(invalid_value(f"{path}.requests", shown, text))
    return causes


def _probe(probe: Object, path: str) -> list[Cause]:
    handlers = [h for h in ("exec", "httpGet", "tcpSocket", "grpc") if h in probe]
    causes = []
    if not handlers:
        causes.append(required(path, "must specify a handler type"))
    elif len(handlers) > 1:
        causes.append(forbidden_field(f"{path}.{handlers[1]}", "may not specify more than 1 handler type"))
    for handler in ("httpGet", "tcpSocket", "grpc"):
        causes += _port(probe.get(handler, {}).get("port", 1), f"{path}.{handler}.port")
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(name, 0) < 0:
            causes.append(invalid_value(f"{path}.{name}", probe[name], "must be greater than or equal to 0"))
    return causes


def _container(container: Object, path: str, volumes: set[str], names: set[str]) -> list[Cause]:
    causes = []
    name = container.get("name", "")
    if not name:
        causes.append(required(f"{path}.name"))
    elif wrong := dns_label(name):
        causes.append(invalid_value(f"{path}.name", name, wrong))
    elif name in names:
        causes.append(duplicate(f"{path}.name", name))
    names.add(name)
    if not container.get("image"):
        causes.append(required(f"{path}.image"))
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        options = ["Always", "IfNotPresent", "Never"]
        causes.append(unsupported_value(f"{path}.imagePullPolicy", container["imagePullPolicy"], options))
    for index, port in enumerate(container.get("ports", ())):
        if "containerPort" not in port:
            causes.append(required(f"{path}.ports[{index}].containerPort"))
        causes += _port(port.get("containerPort"), f"{path}.ports[{index}].containerPort")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(
                unsupported_value(f"{path}.ports[{index}].protocol", port["protocol"], ["SCTP", "TCP", "UDP"])
            )
    for index, variable in enumerate(container.get("env", ())):
        here = f"{path}.env[{index}]"
        if not variable.get("name"):
            causes.append(required(f"{here}.name"))
        source = variable.get("valueFrom")
        if source is not None:
            if variable.get("value"):
                causes.append(invalid_value(f"{here}.valueFrom", "", "may not be specified when `value` is not empty"))
            if len(source) != 1:
                text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`"
                text += " or `fileKeyRef`"
                causes.append(invalid_value(f"{here}.valueFrom", "", text))
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts", ())):
        here = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            causes.append(required(f"{here}.name"))
        elif mount["name"] not in volumes:
            causes.append(Cause("FieldValueNotFound", f"Not found: {json.dumps(mount['name'])}", f"{here}.name"))
        if not mount.get("mountPath"):
            causes.append(required(f"{here}.mountPath"))
        elif mount["mountPath"] in seen:
            causes.append(invalid_value(f"{here}.mountPath", mount["mountPath"], "must be unique"))
        seen.add(mount.get("mountPath", ""))
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            causes += _probe(container[probe], f"{path}.{probe}")
            if probe != "readinessProbe" and container[probe].get("successThreshold", 1) != 1:
                threshold = container[probe]["successThreshold"]
                causes.append(invalid_value(f"{path}.{probe}.successThreshold", threshold, "must be 1"))
    return causes + _resources(container.get("resources", {}), f"{path}.resources")


def _pod_spec(spec: Object, path: str = "spec") -> list[Cause]:
    causes: list[Cause] = []
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes", ())):
        here = f"{path}.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            causes.append(required(f"{here}.name"))
        elif wrong := dns_label(name):
            causes.append(invalid_value(f"{here}.name", name, wrong))
        elif name in volumes:
            causes.append(duplicate(f"{here}.name", name))
        volumes.add(name)
        if len(sources := sorted(volume.keys() - {"name"})) > 1:
            causes.append(forbidden_field(f"{here}.{sources[1]}", "may not specify more than 1 volume type"))
        if "hostPath" in volume and not volume["hostPath"].get("path"):
            causes.append(required(f"{here}.hostPath.path"))
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            causes += _container(container, f"{path}.{group}[{index}]", volumes, names)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        options = ["Always", "Never", "OnFailure"]
        causes.append(unsupported_value(f"{path}.restartPolicy", spec["restartPolicy"], options))
    if spec.get("dnsPolicy") not in ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"):
        options = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]
        causes.append(unsupported_value(f"{path}.dnsPolicy", spec["dnsPolicy"], options))
    causes += label_causes(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        here = f"{path}.terminationGracePeriodSeconds"
        causes.append(invalid_value(here, spec["terminationGracePeriodSeconds"], "must be greater than or equal to 0"))
    return causes


def _pod(obj: Object) -> list[Cause]:
    return _pod_spec(obj.get("spec", {}))


_POD_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`,"
    " `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations),"
    " `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _pod_update(obj: Object, old: Object) -> list[Cause]:
    new_spec, old_spec = dict(obj.get("spec", {})), dict(old.get("spec", {}))
    causes = []
    kept = old_spec.get("tolerations") or []
    if any(t not in (new_spec.get("tolerations") or []) for t in kept):
        text = "existing toleration can not be modified except its tolerationSeconds"
        causes.append(forbidden_field("spec.tolerations", text))
    for group in ("containers", "initContainers"):
        if len(new_spec.get(group) or ()) != len(old_spec.get(group) or ()):
            causes.append(forbidden_field(f"spec.{group}", "pod updates may not add or remove containers"))
            return causes

    def fixed(spec: Object) -> Object:
        rest = {
            k: v
            for k, v in spec.items()
            if k not in ("activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates")
        }
        for group in ("containers", "initContainers"):
            if group in rest:
                rest[group] = [{k: v for k, v in c.items() if k != "image"} for c in rest[group]]
        return rest

    kept_gates = {gate["name"] for gate in old_spec.get("schedulingGates") or ()}
    for gate in new_spec.get("schedulingGates") or ():
        if gate["name"] not in kept_gates:
            text = f"only deletion is allowed, but found new scheduling gate '{gate['name']}'"
            causes.append(forbidden_field("spec.schedulingGates", text))
    before, after = fixed(old_spec), fixed(new_spec)
    # Gated pods may still be placed more narrowly; nobody here does that, so a changed placement is refused.
    if before != after:
        changed = sorted(k for k in {**before, **after} if before.get(k) != after.get(k))
        causes.append(forbidden_field("spec", f"{_POD_MAY_CHANGE}\n  changed: {', '.join(changed)}"))
    return causes


# -- the others -----------------------------------------


def _service(obj: Object) -> list[Cause]:
    spec = obj.get("spec", {})
    causes: list[Cause] = []
    if spec["type"] not in ("ClusterIP", "ExternalName", "NodePort", "LoadBalancer"):
        options = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
        causes.append(unsupported_value("spec.type", spec["type"], options))
    elif spec["type"] != "ClusterIP":
        text = f"the embedded cluster has no network of its own: type {spec['type']} needs a real cluster"
        causes.append(forbidden_field("spec.type", text))
    ports = spec.get("ports", [])
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless:
        causes.append(required("spec.ports"))
    names: set[str] = set()
    numbers: set[Any] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            causes.append(required(f"{here}.name"))
        elif name and (wrong := dns_label(name)):
            causes.append(invalid_value(f"{here}.name", name, wrong))
        elif name in names:
            causes.append(duplicate(f"{here}.name", name))
        names.add(name)
        causes += _port(port.get("port", 0), f"{here}.port")
        causes += _port(port.get("targetPort"), f"{here}.targetPort")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(unsupported_value(f"{here}.protocol", port["protocol"], ["SCTP", "TCP", "UDP"]))
        mark = (port.get("protocol"), port.get("port"))
        if mark in numbers:
            causes.append(duplicate(here, {"port": port.get("port"), "protocol": port.get("protocol")}))
        numbers.add(mark)
    causes += label_causes(spec.get("selector") or {}, "spec.selector")
    if spec["sessionAffinity"] not in ("None", "ClientIP"):
        causes.append(unsupported_value("spec.sessionAffinity", spec["sessionAffinity"], ["ClientIP", "None"]))
    return causes


def _service_update(obj: Object, old: Object) -> list[Cause]:
    if obj["spec"].get("clusterIP") != old["spec"].get("clusterIP") and old["spec"].get("clusterIP"):
        value = obj["spec"].get("clusterIPs") or [obj["spec"].get("clusterIP", "")]
        return [invalid_value("spec.clusterIPs[0]", value, "may not change once set")]
    return []


def _keys(data: Object, path: str) -> list[Cause]:
    causes = []
    for key in sorted(data):
        if len(key) > 253:
            causes.append(invalid_value(f"{path}[{key}]", key, "must be no more than 253 bytes"))
        elif not _KEY.fullmatch(key):
            causes.append(invalid_value(f"{path}[{key}]", key, _KEY_TEXT))
    return causes


def _config_map(obj: Object) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    causes = _keys(data, "data") + _keys(binary, "binaryData")
    causes += [
        invalid_value(f"data[{k}]", k, "duplicate of key present in binaryData") for k in sorted(data) if k in binary
    ]
    if sum(len(v) for v in data.values()) + sum(len(v) for v in binary.values()) > _MOST_BYTES:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_MOST_BYTES} bytes", "<nil>"))
    return causes


def _secret(obj: Object) -> list[Cause]:
    data = obj.get("data") or {}
    causes = _keys(data, "data")
    total = 0
    for key, value in sorted(data.items()):
        try:
            total += len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            causes.append(invalid_value(f"data[{key}]", "<secret contents redacted>", "illegal base64 data"))
    if total > _MOST_BYTES:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_MOST_BYTES} bytes", "data"))
    return causes


def _held(obj: Object, old: Object) -> list[Cause]:
    """A ConfigMap or Secret that was declared immutable."""
    if not old.get("immutable"):
        return []
    causes = []
    if not obj.get("immutable"):
        causes.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
    for part in ("data", "binaryData"):
        if obj.get(part) != old.get(part):
            causes.append(forbidden_field(part, "field is immutable when `immutable` is set"))
    return causes


def _secret_update(obj: Object, old: Object) -> list[Cause]:
    causes = [] if obj.get("type") == old.get("type") else [invalid_value("type", obj.get("type"), _IMMUTABLE)]
    return causes + _held(obj, old)


def _budget(obj: Object) -> list[Cause]:
    spec = obj.get("spec", {})
    causes = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        text = "minAvailable and maxUnavailable cannot be both set"
        causes.append(invalid_value("spec", spec, text))
    for part in ("minAvailable", "maxUnavailable"):
        value = spec.get(part)
        if isinstance(value, int) and value < 0:
            causes.append(invalid_value(f"spec.{part}", value, "must be greater than or equal to 0"))
        elif isinstance(value, str) and not re.fullmatch(r"(\d{1,2}|100)%", value):
            text = "must be an integer or percentage (e.g '5%%')"
            causes.append(invalid_value(f"spec.{part}", value, text))
    return causes


def _lease(obj: Object) -> list[Cause]:
    spec = obj.get("spec", {})
    causes = []
    if "leaseDurationSeconds" in spec and spec["leaseDurationSeconds"] <= 0:
        here = "spec.leaseDurationSeconds"
        causes.append(invalid_value(here, spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        here = "spec.leaseTransitions"
        causes.append(invalid_value(here, spec["leaseTransitions"], "must be greater than or equal to 0"))
    return causes


def _event(obj: Object) -> list[Cause]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    namespace = obj["metadata"].get("namespace", "")
    if about.get("namespace", "") != namespace and not (not about.get("namespace") and namespace == "default"):
        return [invalid_value("involvedObject.namespace", about.get("namespace", ""), "does not match event.namespace")]
    return []


def _revision_update(obj: Object, old: Object) -> list[Cause]:
    return [] if obj.get("data") == old.get("data") else [invalid_value("data", obj.get("data"), _IMMUTABLE)]


def _endpoint_slice(obj: Object) -> list[Cause]:
    if obj.get("addressType") not in ("IPv4", "IPv6", "FQDN"):
        return [unsupported_value("addressType", obj.get("addressType", ""), ["FQDN", "IPv4", "IPv6"])]
    return []


def _pod_template(obj: Object) -> list[Cause]:
    return _pod_spec(obj.get("template", {}).get("spec", {}), "template.spec")


def _service_account(obj: Object) -> list[Cause]:
    wrong = dns_subdomain(obj["metadata"].get("name", ""))
    return [invalid_value("metadata.name", obj["metadata"].get("name"), wrong)] if wrong else []


_CREATE: dict[str, Callable[[Object], list[Cause]]] = {
    "Pod": _pod,
    "PodTemplate": _pod_template,
    "Service": _service,
    "ConfigMap": _config_map,
    "Secret": _secret,
    "PodDisruptionBudget": _budget,
    "Lease": _lease,
    "Event": _event,
    "EndpointSlice": _endpoint_slice,
    "NetworkPolicy": network_policies.causes,
}

_UPDATE: dict[str, Callable[[Object, Object], list[Cause]]] = {
    "Pod": _pod_update,
    "Service": _service_update,
    "ConfigMap": _held,
    "Secret": _secret_update,
    "ControllerRevision": _revision_update,
}
