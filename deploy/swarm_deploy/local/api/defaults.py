"""What built-in kinds become before they are stored: defaults filled in, empty things left out, quantities written
plainly.

A real server does this by decoding into Go structs and encoding them again; here the kinds that this cluster accepts
are done by hand. It has to be exact for what people apply: `kubectl apply` twice must say `unchanged`, `kubectl diff`
nothing, and a field manager owns the defaults of what it created.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from swarm_deploy.local.api import network_policies
from swarm_deploy.local.api.meta import parse_time
from swarm_deploy.local.api.quantity import canonical_quantity
from swarm_deploy.local.api.types import Type, builtin_type, definitions

__all__ = ["default_builtin", "empty_object", "pod_spec_defaults", "tidy"]

Object = dict[str, Any]


def tidy(kind: Type, value: Any) -> Any:
    """The value without nulls, empty lists and empty free maps, which Go's encoder leaves out of optional fields."""
    if isinstance(value, dict):
        if kind.kind != "map":
            return value
        needed = kind.schema.get("required", ())
        out: Object = {}
        for key, inner in value.items():
            below = kind.child(key)
            if inner is None:
                if key in _KEEP_NULL:
                    out[key] = None
                continue
            if below is None:
                continue
            if not inner and key not in needed:
                if isinstance(inner, list) and below.kind == "list":
                    continue
                if (
                    isinstance(inner, dict)
                    and below.kind == "map"
                    and "properties" not in below.schema
                    and not kind.atomic
                ):
                    continue
            out[key] = tidy(below, inner)
        return out
    if isinstance(value, list) and kind.element is not None:
        return [tidy(kind.element, v) for v in value]
    if isinstance(value, str) and kind.schema.get("format") == "date-time":
        return _time(kind, value)
    return value


_PLAIN_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
_MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"


def _time(kind: Type, text: str) -> str:
    """A time as a server writes it: in UTC, with microseconds where its type has them and whole seconds elsewhere."""
    micro = kind.schema is definitions()[_MICRO_TIME]
    if (match := _PLAIN_TIME.fullmatch(text)) and bool(match[1]) == micro:
        return text
    try:
        moment = datetime.fromtimestamp(parse_time(text), UTC)
    except ValueError:
        return text  # validation, or whoever reads it, says so
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


# The kubelet writes these conditions' times as null, and so they are kept and owned.
_KEEP_NULL = frozenset({"lastProbeTime", "eventTime"})

# What a Go struct has even when nothing was set. It is what a new object is compared with for ownership, and what a
# bookmark shows.
_EMPTY: dict[str, Object] = {
    "Pod": {"spec": {"containers": None}, "status": {}},
    "Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "Namespace": {"spec": {}, "status": {}},
    "Node": {"spec": {}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": {}}},
    "PodDisruptionBudget": {
        "spec": {},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    },
    "Lease": {"spec": {}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "CustomResourceDefinition": {
        "spec": {"group": "", "names": {"plural": "", "kind": ""}, "scope": "", "versions": None},
        "status": {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": None},
    },
    "Event": {"involvedObject": {}, "source": {}},
    "EndpointSlice": {"addressType": "", "endpoints": None, "ports": None},
    "PodTemplate": {"template": {"spec": {"containers": None}}},
    "SelfSubjectAccessReview": {"spec": {}, "status": {"allowed": False}},
}


def empty_object(kind: str, api_version: str) -> Object:
    """A built-in kind with nothing set."""
    return {"kind": kind, "apiVersion": api_version, "metadata": {}, **_EMPTY.get(kind, {})}


def default_builtin(group: str, version: str, kind: str, obj: Object) -> Object:
    """The object as it would be stored; the argument may be changed."""
    obj = tidy(builtin_type(group, version, kind), obj)
    obj.setdefault("metadata", {})
    function = _DEFAULTS.get(kind)
    if function is not None:
        function(obj)
    return obj


# -- pods -----------------------------------------


def _quantities(where: Object | None, *keys: str) -> None:
    for key in keys:
        amounts = (where or {}).get(key)
        if isinstance(amounts, dict):
            for name, amount in amounts.items():
                try:
                    amounts[name] = canonical_quantity(amount)
                except ValueError:
                    pass  # validation names it


def _field_refs(items: list[Object]) -> None:
    for item in items:
        if "fieldRef" in item:
            item["fieldRef"].setdefault("apiVersion", "v1")
        if "resourceFieldRef" in item:
            divisor = item["resourceFieldRef"].setdefault("divisor", "0")
            item["resourceFieldRef"]["divisor"] = canonical_quantity(divisor)


def _volume(volume: Object) -> None:
    if not volume.keys() - {"name"}:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", 420)
    _field_refs(volume.get("downwardAPI", {}).get("items", []))
    for source in volume.get("projected", {}).get("sources", []):
        _field_refs(source.get("downwardAPI", {}).get("items", []))
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    size = volume.get("emptyDir", {}).get("sizeLimit")
    if size is not None:
        try:
            volume["emptyDir"]["sizeLimit"] = canonical_quantity(size)
        except ValueError:
            pass


def _handler(handler: Object) -> None:
    if "httpGet" in handler:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")
    if "grpc" in handler:
        handler["grpc"].setdefault("service", "")


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return "Always" if "@" not in image and tag in ("", "latest") else "IfNotPresent"


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))
    resources = container.setdefault("resources", {})
    _quantities(resources, "limits", "requests")
    for name, amount in resources.get("limits", {}).items():
        resources.setdefault("requests", {}).setdefault(name, amount)
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if "valueFrom" in variable:
            _field_refs([variable["valueFrom"]])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
            container[probe] = {
                **container[probe],
                **{k: v for k, v in defaults.items() if not container[probe].get(k)},
            }
            _handler(container[probe])
    for hook in container.get("lifecycle", {}).values():
        if isinstance(hook, dict):
            _handler(hook)


def pod_spec_defaults(spec: Object) -> None:
    """Fill in a pod's spec, in place."""
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    _quantities(spec, "overhead")
    _quantities(spec.get("resources"), "limits", "requests")
    if spec.get("hostNetwork"):
        for container in spec.get("containers") or ():
            for port in container.get("ports", []):
                port.setdefault("hostPort", port.get("containerPort"))


def _pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec_defaults(spec)
    spec.setdefault("enableServiceLinks", True)
    status = obj.setdefault("status", {})
    _quantities(status, "allocatedResources")


# -- the others -----------------------------------------


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, "", 0):
            port["targetPort"] = port.get("port")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def _secret(obj: Object) -> None:
    text = obj.pop("stringData", None)
    if text:
        data = obj.setdefault("data", {})
        for key, value in text.items():
            data[key] = base64.b64encode(str(value).encode()).decode()
    for key, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            # The real server can't even decode such a body; `validation` says so.
            obj["data"][key] = value
    obj.setdefault("type", "Opaque")


def _namespace(obj: Object) -> None:
    meta = obj["metadata"]
    if meta.get("name"):
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def _node(obj: Object) -> None:
    obj.setdefault("spec", {})
    _quantities(obj.setdefault("status", {}), "capacity", "allocatable")


def _definition(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})


def _endpoint_ports(obj: Object) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _priority_class(obj: Object) -> None:
    obj.setdefault("value", 0)
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _pod_template(obj: Object) -> None:
    spec = obj.setdefault("template", {}).setdefault("spec", {})
    pod_spec_defaults(spec)


def _budget(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(key, 0)


def _role_binding(obj: Object) -> None:
    obj.get("roleRef", {}).setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _spec(obj: Object) -> None:
    obj.setdefault("spec", {})


_DEFAULTS: dict[str, Callable[[Object], None]] = {
    "Pod": _pod,
    "Service": _service,
    "Secret": _secret,
    "Namespace": _namespace,
    "Node": _node,
    "CustomResourceDefinition": _definition,
    "EndpointSlice": _endpoint_ports,
    "Endpoints": _endpoint_ports,
    "PriorityClass": _priority_class,
    "PodTemplate": _pod_template,
    "PodDisruptionBudget": _budget,
    "Lease": _spec,
    "NetworkPolicy": network_policies.default,
    "RoleBinding": _role_binding,
    "ClusterRoleBinding": _role_binding,
}
