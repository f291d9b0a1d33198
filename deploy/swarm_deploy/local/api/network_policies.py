"""NetworkPolicies: kept, checked and shown as on a real cluster, and enforced by nothing here (see `resources`).

An operator that makes them for its pods can be run and tested here all the same; who creates one by hand is told by a
warning that it has no effect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from swarm_deploy.local.api.errors import Cause, forbidden_field, invalid_value, required, unsupported_value
from swarm_deploy.local.api.meta import label_causes

__all__ = ["causes", "default", "pod_selector"]

Object = dict[str, Any]

_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def default(obj: Object) -> None:
    """What the API server fills in."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def causes(obj: Object) -> list[Cause]:
    """What is wrong with a policy."""
    spec = obj["spec"]
    found = _selector(spec["podSelector"], "spec.podSelector")
    for field, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            here = f"spec.{field}[{index}]"
            for number, port in enumerate(rule.get("ports") or ()):
                found += _port(port, f"{here}.ports[{number}]")
            for number, peer in enumerate(rule.get(peers) or ()):
                found += _peer(peer, f"{here}.{peers}[{number}]")
    for index, kind in enumerate(spec["policyTypes"]):
        if kind not in ("Ingress", "Egress"):
            found.append(unsupported_value(f"spec.policyTypes[{index}]", kind, ["Egress", "Ingress"]))
    return found


def _selector(selector: Object, path: str) -> list[Cause]:
    return label_causes(selector.get("matchLabels") or {}, f"{path}.matchLabels")


def _port(port: Object, path: str) -> list[Cause]:
    found, number = [], port.get("port")
    if isinstance(number, int) and not 1 <= number <= 65535:
        found.append(invalid_value(f"{path}.port", number, "must be between 1 and 65535, inclusive"))
    if isinstance(number, str) and not _PORT_NAME.fullmatch(number):
        text = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), and be at most 15 long"
        found.append(invalid_value(f"{path}.port", number, text))
    if port["protocol"] not in ("TCP", "UDP", "SCTP"):
        found.append(unsupported_value(f"{path}.protocol", port["protocol"], ["SCTP", "TCP", "UDP"]))
    return found


def _peer(peer: Object, path: str) -> list[Cause]:
    selectors = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    block = peer.get("ipBlock")
    if block is None and not selectors:
        return [required(path, "must specify a peer")]
    found = [cause for name in selectors for cause in _selector(peer[name], f"{path}.{name}")]
    if block is not None and selectors:
        found.append(forbidden_field(path, "may not specify both ipBlock and another peer"))
    for where, cidr in _cidrs(block or {}):
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            found.append(invalid_value(f"{path}.ipBlock.{where}", cidr, _CIDR))
    return found


def _cidrs(block: Object) -> Iterator[tuple[str, str]]:
    if block:
        yield "cidr", block.get("cidr", "")
    for index, cidr in enumerate(block.get("except") or ()):
        yield f"except[{index}]", cidr


def pod_selector(obj: Object) -> str:
    """The column of `kubectl get`."""
    labels = obj["spec"]["podSelector"].get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"
